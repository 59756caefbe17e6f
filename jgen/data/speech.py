"""Sound as sequences of frames of µ-law values, {"x": uint8 (n, T, frame_size), "mask": uint8 (n, T)}."""

import numpy as np

from jgen._checks import at_least
from jgen.data.media import Recordings
from jgen.data.pipeline import SPLITS, Dataset
from jgen.data.rolls import padded
from jgen.math import companding

MAX_LEVELS = 256


def framed(recordings: Recordings, frame_size: int = 80, levels: int = 256) -> Dataset:
    """Whole recordings cut into frames of `frame_size` values; what is left after the last whole frame is dropped.

    Frames after a recording's end are zeros, and its mask is 0 there. Labels stay.

    Args:
        recordings: of `media.recordings` or `media.spoken_digits`.
        frame_size: values in a frame.
        levels: of µ-law; at most 256.

    Raises:
        ValueError: `frame_size` is below 1, `levels` outside 2..256, or a recording is shorter than a frame.
    """
    at_least("frame_size", frame_size, 1)
    if not 2 <= levels <= MAX_LEVELS:
        raise ValueError(f"`levels` must be in 2..{MAX_LEVELS}, got {levels}.")
    splits = {}
    for split in SPLITS:
        values = recordings.splits[split]
        if short := [len(each) for each in values if len(each) < frame_size]:
            raise ValueError(f"`frame_size` must be at most the shortest recording, {min(short)}, got {frame_size}.")
        # In one call: each length of a recording would be compiled anew.
        tokens = np.asarray(companding.encode(np.concatenate(values), levels)).astype(np.uint8)
        each = np.split(tokens, np.cumsum([len(v) for v in values])[:-1])
        splits[split] = padded([t[: len(t) // frame_size * frame_size].reshape(-1, frame_size) for t in each])
        if recordings.label is not None:
            splits[split]["label"] = recordings.label[split]
    return Dataset(
        recordings.name, splits, levels, label_names=recordings.label_names, sample_rate=recordings.sample_rate
    )
