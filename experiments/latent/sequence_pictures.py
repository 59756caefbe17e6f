"""Pictures, and sound, of sequences: pen strokes as drawings, notes as rolls, images by rows, speech by spectra."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures, sound
from experiments.latent.sequences import LEVELS, Sequences
from jgen._types import Key
from jgen.data import rolls, strokes
from jgen.math import companding

SHOWN_FRAMES = 64
LONGEST = {"frames": 64, "strokes": 100, "speech": 60}
"""Frames of a sample, at most."""
PROMPT = {"frames": 20, "speech": 10}
"""Frames given to a continuation, at most half of a sample."""
NUM_SHOWN = {"frames": 8, "strokes": 64, "speech": 5}
NUM_IMAGES = 32
"""Shown where frames are the rows of images."""


def shown(source: Sequences, split: str, rows: Any) -> list[np.ndarray]:
    """The frames (T_i, ...) of some sequences of a split, without their padding."""
    arrays = source.dataset.splits[split]
    lengths = np.asarray(arrays["mask"])[rows].sum(axis=1, dtype=np.int64)
    return cut(np.asarray(arrays["x"])[rows], lengths)


def cut(x: Any, lengths: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """The first frames of each sequence."""
    return [np.asarray(row)[:length] for row, length in zip(x, lengths, strict=True)]


def chosen(source: Sequences) -> np.ndarray:
    """Which test sequences are shown."""
    size = source.dataset.size("test")
    images = source.kind == "frames" and source.frame_shape != (rolls.NUM_KEYS,)
    return np.linspace(0, size - 1, min(NUM_IMAGES if images else NUM_SHOWN[source.kind], size)).astype(int)


def draw_samples(
    directory: pathlib.Path, source: Sequences, key: Key, sample: Callable[..., Any], go_on: Callable[..., Any]
) -> None:
    """Writes samples.png: test data, draws, and what goes on from the beginning of the data (not of drawings).

    Args:
        sample: (key, num=, length=) -> (num, length, *shape), traceable.
        go_on: (key, prefix, num=) -> (batch, num, *shape), `num` frames more, traceable.
    """
    data = shown(source, "test", chosen(source))
    longest = min(LONGEST[source.kind], source.dataset.shape[0])
    lengths = [longest if source.kind == "strokes" else min(longest, len(x)) for x in data]
    drawn = jax.jit(functools.partial(sample, num=len(data), length=longest))(key)
    named = {"test data": [x[:longest] for x in data], "drawn": cut(drawn, lengths)}
    if (given := PROMPT.get(source.kind)) is not None:
        given = min(given, longest // 2, *lengths)
        prefix = jnp.stack([jnp.asarray(x[:given]) for x in data])
        rest = jax.jit(functools.partial(go_on, num=max(lengths) - given + 1))(jax.random.fold_in(key, 1), prefix)
        named[f"continued after {given} frames"] = cut(np.concatenate([prefix, rest], axis=1), lengths)
    draw(directory, "samples", source, named)


def draw(
    directory: pathlib.Path, name: str, source: Sequences, named: Mapping[str, Sequence[Any]], columns: int = 8
) -> None:
    """Writes {title: sequences (T_i, ...)} into NAME.png; of speech, one NAME_TITLE.wav per title beside it."""
    path = directory / f"{name}.png"
    if source.kind == "strokes":
        drawings(path, named, columns)
    elif source.kind == "speech":
        _speech(directory, name, source, named)
    else:
        pictures.panels(path, {title: _sheet(x, source) for title, x in named.items()}, columns=_columns(source))


def drawings(path: pathlib.Path, named: Mapping[str, Sequence[Any]], columns: int = 8) -> None:
    """Writes one block of drawings (T_i, 3) per name, side by side; a drawing stops where its pen's state is 2."""
    from matplotlib.figure import Figure  # as in `pictures`: imported when the first picture is drawn

    rows = max(-(-len(each) // columns) for each in named.values())
    figure = Figure(figsize=(4.2 * len(named), 4.2 * rows / columns + 0.4))
    axes = figure.subplots(1, len(named), squeeze=False)[0]
    for axis, (title, each) in zip(axes, named.items(), strict=True):
        for i, moves in enumerate(each):
            for line in _lines(np.asarray(moves, np.float64)):
                axis.plot(line[:, 0] + i % columns, line[:, 1] - i // columns, color="black", linewidth=0.7)
        axis.set(xlim=(-0.5, columns - 0.5), ylim=(0.5 - rows, 0.5), aspect="equal")
        axis.axis("off")
        axis.set_title(title, fontsize=10)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _lines(moves: np.ndarray) -> list[np.ndarray]:
    """The lines (n, 2) of a drawing in a square of side 1 around 0; what stands in a file downwards grows downwards."""
    ends = np.flatnonzero(moves[:, 2] == strokes.ENDS)
    moves = moves[: ends[0] + 1] if len(ends) else moves
    places = np.cumsum(moves[:, :2], axis=0) * [1.0, -1.0]
    low, high = places.min(axis=0), places.max(axis=0)
    places = (places - (low + high) / 2) * (0.85 / max(float((high - low).max()), 1e-6))
    lifted = np.flatnonzero(moves[:, 2] != strokes.DRAWS) + 1
    return [line for line in np.split(places, lifted) if len(line)]


def _sheet(x: Sequence[Any], source: Sequences) -> np.ndarray:
    """Frames as rows of an image, or, for notes, as columns with the low notes below, without keys that none plays."""
    longest = min(SHOWN_FRAMES, source.dataset.shape[0])
    sheet = np.zeros((len(x), longest, *source.frame_shape, 1))
    for row, frames in zip(sheet, x, strict=True):
        row[: len(frames[:longest]), :, 0] = frames[:longest]
    if source.frame_shape != (rolls.NUM_KEYS,):
        return sheet
    played = np.flatnonzero(np.asarray(source.dataset.splits["train"]["x"]).any(axis=(0, 1)))
    return sheet[:, :, played.min() : played.max() + 1].swapaxes(1, 2)[:, ::-1]


def _columns(source: Sequences) -> int:
    return 2 if source.frame_shape == (rolls.NUM_KEYS,) else 8


def _speech(directory: pathlib.Path, name: str, source: Sequences, named: Mapping[str, Sequence[Any]]) -> None:
    """One column per sequence, one row per title."""
    rate = source.dataset.sample_rate or 1
    columns = max(len(each) for each in named.values())
    panels, pause = {}, np.zeros(rate // 5)
    for title, each in named.items():
        waves = [np.asarray(companding.decode(np.ravel(x).astype(np.int32), LEVELS)) for x in each]
        panels |= {f"{title} {i + 1}": wave for i, wave in enumerate(waves)}
        parts = [part for wave in waves for part in (wave, pause)]
        sound.write(directory / f"{name}_{title.replace(' ', '_')}.wav", np.concatenate(parts), rate)
    sound.spectrograms(directory / f"{name}.png", panels, rate, columns=columns)
