"""Sequences of frames, {"x": (n, T, D), "mask": uint8 (n, T)}: binary piano rolls, and images row by row.

A row of `mask` is 1 on the frames of its sequence and 0 on the padding after them. `bucketed` puts sequences of about
one length into a batch, so that short ones do not pay for the longest.
"""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen._checks import at_least
from jgen._types import Batch
from jgen.data.arrays import Path, contents, wrong
from jgen.data.pipeline import SPLITS, Data, Dataset

LOWEST, NUM_KEYS = 21, 88
"""The piano's lowest key as a MIDI note, and how many keys it has."""


def piano_rolls(path: Path) -> Dataset:
    """A JSON file {"train": pieces, "valid": ..., "test": ...}; a piece is a list of frames, a frame one of MIDI notes.

    The chorales, Nottingham, MuseData and Piano-midi.de sets of Boulanger-Lewandowski et al. (2012) are written so.

    Raises:
        ValueError: no JSON, a split that is missing or empty, an empty piece, or what is no note of the piano.
    """
    try:
        found = json.loads(contents(path))
    except ValueError as error:
        raise wrong(path, "a JSON file of pieces", f"{error}") from error
    if not isinstance(found, dict) or not set(SPLITS) <= set(found):
        raise wrong(path, f"the splits {SPLITS}", f"{sorted(found) if isinstance(found, dict) else type(found)}")
    return Dataset(
        pathlib.Path(path).stem, {split: padded([_roll(path, split, p) for p in found[split]]) for split in SPLITS}, 2
    )


def _roll(path: Path, split: str, piece: Any) -> np.ndarray:
    """(T, 88) of a piece."""
    if not isinstance(piece, list) or not piece:
        raise wrong(path, f"pieces of at least one frame in {split}", f"{str(piece)[:40]}")
    roll = np.zeros((len(piece), NUM_KEYS), np.uint8)
    for t, notes in enumerate(piece):
        for note in notes:
            if not isinstance(note, int) or not LOWEST <= note < LOWEST + NUM_KEYS:
                raise wrong(path, f"MIDI notes in {LOWEST}..{LOWEST + NUM_KEYS - 1}", f"{note!r} in {split}")
            roll[t, note - LOWEST] = 1
    return roll


def padded(sequences: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Sequences (T_i, D) as x (n, T, D), zeros after each, and its mask (n, T); x has the first sequence's type."""
    lengths = np.array([len(sequence) for sequence in sequences])
    shape = (len(sequences), lengths.max(initial=0), *sequences[0].shape[1:]) if len(sequences) else 0
    x = np.zeros(shape, sequences[0].dtype if len(sequences) else np.uint8)
    for row, sequence in zip(x, sequences, strict=True):
        row[: len(sequence)] = sequence
    return {"x": x, "mask": (np.arange(x.shape[1])[None] < lengths[:, None]).astype(np.uint8)} if len(x) else {"x": x}


def scanned(images: Dataset) -> Dataset:
    """Images row by row: a frame is a row of pixels, 1 where they are brighter than half.

    Raises:
        ValueError: the images have more than one channel, or no levels.
    """
    if images.levels is None or len(images.shape) != 3 or images.shape[2] != 1:
        raise ValueError(f"`images` must be grey images with levels, got {images.name!r} of shape {images.shape}.")
    half = (images.levels - 1) / 2
    splits = {s: padded(list((np.asarray(a["x"])[..., 0] > half).astype(np.uint8))) for s, a in images.splits.items()}
    return Dataset(f"{images.name} row by row, binarized at half", splits, 2)


def bucketed(dataset: Dataset, batch_size: int, seed: int, *, step: int = 64) -> Data:
    """Batches of sequences of about one length, their frames padded to a multiple of `step` (or the longest of all).

    Each epoch permutes the sequences, sorts them by the number of steps that they take, cuts this order into batches,
    permutes these, and drops the incomplete one: a function of (seed, epoch). Each value of the padded length is
    compiled once.

    Args:
        dataset: of this module, of `strokes` or of `speech`.
        batch_size: sequences in a training batch; a split is evaluated as batches of the same size.
        seed: of the permutations.
        step: frames.

    Raises:
        ValueError: a size is not positive, or `batch_size` exceeds the training split.
    """
    at_least("batch_size", batch_size, 1)
    at_least("step", step, 1)
    lengths = {split: np.asarray(dataset.splits[split]["mask"]).sum(axis=1, dtype=np.int64) for split in SPLITS}
    num, longest = dataset.size("train"), {s: int(dataset.splits[s]["mask"].shape[1]) for s in SPLITS}
    if num < batch_size:
        raise ValueError(f"`batch_size` must be at most the {num} training sequences, got {batch_size}.")

    def take(split: str, rows: np.ndarray) -> Batch:
        end = min(-(-int(lengths[split][rows].max()) // step) * step, longest[split])
        timed, arrays = ("x", "mask"), dataset.splits[split]  # labels belong to whole sequences
        return {name: jnp.asarray(x[rows, :end] if name in timed else x[rows]) for name, x in arrays.items()}

    def train(at: int) -> Batch:
        epoch, i = divmod(at, num // batch_size)
        generator = np.random.default_rng((seed, epoch))
        order = generator.permutation(num)
        order = order[np.argsort(-(-lengths["train"][order] // step), kind="stable")]
        spare = num % batch_size
        first = int(generator.integers(spare + 1))
        batches = order[first : first + num - spare].reshape(-1, batch_size)
        return take("train", batches[generator.permutation(len(batches))[i]])

    def batches(split: str) -> Iterator[tuple[Batch, int]]:
        order = np.argsort(lengths[split], kind="stable")
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            filled = np.concatenate([rows, np.repeat(rows[-1:], batch_size - len(rows))])
            yield take(split, filled), len(rows)

    return Data(train, batches)
