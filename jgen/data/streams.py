"""Windows of one long text: consecutive ones for a model that carries its state, random ones for one that does not."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jgen._checks import at_least
from jgen._types import Batch
from jgen.data.pipeline import Data


def streams(splits: Mapping[str, np.ndarray], vocabulary_size: int, batch_size: int, length: int, seed: int) -> Data:
    """Batches {"tokens": (batch, length), "previous": (batch,)} whose row i goes on where it ended a step before.

    The text is cut into `batch_size` streams of equal length, read side by side. "previous" is the token before a
    window, or `vocabulary_size` (START) where a stream begins. Each epoch begins at another of the first `length`
    tokens, a function of (seed, epoch). `batches` gives a split as one batch of `batch_size` long rows, START before
    each; the remainder of the division is dropped.

    Args:
        splits: {split: tokens (n,)} with a split "train".
        vocabulary_size: the number of tokens, and START.
        batch_size: rows of a batch.
        length: tokens in a training window.
        seed: of the epochs' first tokens.

    Raises:
        ValueError: a size is not positive, or the text is shorter than two windows per row.
    """
    at_least("batch_size", batch_size, 1)
    at_least("length", length, 1)
    tokens = np.asarray(splits["train"], np.int32)
    per_row = len(tokens) // batch_size
    steps_per_epoch = per_row // length - 1
    if steps_per_epoch < 1:
        raise ValueError(
            f"`length` must leave two windows in each of {batch_size} rows of {per_row} tokens, got {length}."
        )

    def train(step: int) -> Batch:
        epoch, i = divmod(step, steps_per_epoch)
        shift = int(np.random.default_rng((seed, epoch)).integers(length))
        first = np.arange(batch_size) * per_row + shift + i * length
        previous = tokens[first - 1] if i else np.full(batch_size, vocabulary_size)
        return {"tokens": tokens[first[:, None] + np.arange(length)], "previous": previous.astype(np.int32)}

    def batches(split: str) -> Iterator[tuple[Batch, int]]:
        rows = min(batch_size, len(splits[split]))
        whole = np.asarray(splits[split], np.int32)[: len(splits[split]) // rows * rows].reshape(rows, -1)
        yield {"tokens": whole, "previous": np.full(rows, vocabulary_size, np.int32)}, rows

    return Data(train, batches)


START_SHARE = 0.1


def windows(
    splits: Mapping[str, np.ndarray],
    vocabulary_size: int,
    batch_size: int,
    length: int,
    seed: int,
    *,
    eval_batch_size: int = 64,
) -> Data:
    """Batches {"tokens": (batch, length), "previous": (batch,)} of windows that begin anywhere.

    "previous" is the token before a window, or `vocabulary_size` (START) where the text begins there. A tenth of the
    training windows, at random, have START there too: drawing begins with it, so it has to be learned. Which windows a
    step gets is a function of (seed, step). `batches` gives the windows of a split one after another; what is left
    after the last whole one is dropped.

    Args:
        splits: {split: tokens (n,)} with a split "train".
        vocabulary_size: the number of tokens, and START.
        batch_size: windows of a training batch.
        length: tokens in a window.
        seed: of the places.
        eval_batch_size: windows in a batch of `batches`.

    Raises:
        ValueError: a size is not positive, or a split is shorter than one window.
    """
    for name, value in (("batch_size", batch_size), ("length", length), ("eval_batch_size", eval_batch_size)):
        at_least(name, value, 1)
    shortest = min(splits, key=lambda split: len(splits[split]))
    if len(splits[shortest]) < length:
        raise ValueError(f"`length` must be at most the {len(splits[shortest])} tokens in {shortest}, got {length}.")
    padded = {s: np.concatenate([[vocabulary_size], tokens]).astype(np.int32) for s, tokens in splits.items()}

    def batch(split: str, first: Any) -> Batch:
        rows = padded[split][first[:, None] + np.arange(length + 1)]
        return {"tokens": rows[:, 1:], "previous": rows[:, 0]}

    def train(step: int) -> Batch:
        rng = np.random.default_rng((seed, step))
        drawn = batch("train", rng.integers(0, len(splits["train"]) - length, batch_size, endpoint=True))
        fresh = rng.random(batch_size) < START_SHARE
        return {**drawn, "previous": np.where(fresh, vocabulary_size, drawn["previous"]).astype(np.int32)}

    def batches(split: str) -> Iterator[tuple[Batch, int]]:
        first = np.arange(len(splits[split]) // length) * length
        for i in range(0, len(first), eval_batch_size):
            some = first[i : i + eval_batch_size]
            yield batch(split, np.pad(some, (0, eval_batch_size - len(some)))), len(some)

    return Data(train, batches)
