"""Consecutive windows of one long text: what a recurrent model with a carried state learns from."""

from collections.abc import Iterator, Mapping

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
