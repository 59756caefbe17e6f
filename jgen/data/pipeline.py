"""From a data set to batches: pure functions of (seed, step), so that no iterator is ever saved."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen import random
from jgen._checks import at_least
from jgen._types import Batch, Key

SPLITS: tuple[str, ...] = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Named arrays in three splits.

    Attributes:
        name: how protocols call it.
        splits: {"train" | "valid" | "test": {"x": (n, ...), "label": (n,), ...}}; arrays of a split share their length.
        levels: x are whole numbers in 0..levels-1 (2 for binary data); None where x is real.
        vocabulary: what each token stands for, for text.
        synthetic: drawn from a formula, not measured in the world.
        label_names: what each label stands for, where they have names.
        sample_rate: values per second, for sound.
    """

    name: str
    splits: Mapping[str, Mapping[str, Any]]
    levels: int | None = None
    vocabulary: tuple[str, ...] | None = None
    synthetic: bool = False
    label_names: tuple[str, ...] | None = None
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        for split in SPLITS:
            if split not in self.splits:
                raise ValueError(f"`splits` of {self.name!r} must hold {SPLITS}, got {tuple(self.splits)}.")
            sizes = {key: len(value) for key, value in self.splits[split].items()}
            if not sizes or 0 in sizes.values():
                raise ValueError(f"Data set {self.name!r} is empty in its {split} split, got lengths {sizes}.")
            if len(set(sizes.values())) != 1:
                raise ValueError(f"Arrays of {self.name!r} must share their length in {split}, got {sizes}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example's x, tokens, or source."""
        first = self.splits["train"]
        return tuple(np.shape(next(first[name] for name in ("x", "tokens", "source") if name in first))[1:])

    def size(self, split: str) -> int:
        """The number of examples in `split`."""
        return len(next(iter(self.splits[split].values())))


def with_validation(dataset: Dataset) -> Dataset:
    """`dataset` with its validation examples in train too: to learn from once they have chosen when to stop."""
    train, valid = dataset.splits["train"], dataset.splits["valid"]
    both = {name: np.concatenate([np.asarray(x), np.asarray(valid[name])]) for name, x in train.items()}
    return dataclasses.replace(dataset, splits={**dataset.splits, "train": both})


@dataclasses.dataclass(frozen=True)
class Data:
    """What the trainer draws from.

    Attributes:
        train: (step) -> batch, a pure function of the step.
        batches: (split) -> (batch, num) pairs in order; all batches have one size, and only the first `num` examples
            of each count (the last batch is filled up by repeating its own).
    """

    train: Callable[[int], Batch]
    batches: Callable[[str], Iterator[tuple[Batch, int]]]


Transform = Callable[[Key, Batch], Batch]


def in_memory(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    *,
    transform: Transform | None = None,
    eval_transform: Transform | None = None,
    eval_batch_size: int | None = None,
) -> Data:
    """Batches of a data set that stays on the device.

    The permutation of epoch e is a function of (seed, e) and is computed once an epoch; a last, incomplete batch of an
    epoch is dropped. `transform` (binarization, dequantization, augmentation) is compiled together with the gathering.

    Args:
        dataset: where the examples come from.
        batch_size: examples in a training batch.
        seed: of the order, and of the keys given to `transform`.
        transform: (key, batch) -> batch, drawn anew in each step.
        eval_transform: the same for `batches`, with a key that depends on (split, batch number) alone; by default
            `transform`.
        eval_batch_size: examples in a batch of `batches`; by default `batch_size`.

    Raises:
        ValueError: a batch size is not positive, or exceeds the training split.
    """
    num_train = dataset.size("train")
    at_least("batch_size", batch_size, 1)
    at_least("eval_batch_size", batch_size if eval_batch_size is None else eval_batch_size, 1)
    if num_train < batch_size:
        raise ValueError(f"`batch_size` must be at most the {num_train} training examples, got {batch_size}.")
    key, steps_per_epoch = random.stream(seed, "data"), num_train // batch_size
    on_device = functools.cache(lambda split: {k: jnp.asarray(v) for k, v in dataset.splits[split].items()})

    @functools.lru_cache(maxsize=2)
    def permutation(epoch: int) -> Any:
        return np.random.default_rng((seed, epoch)).permutation(num_train).astype(np.int32)

    take = jax.jit(functools.partial(_gather, transform, key))
    take_eval = jax.jit(functools.partial(_gather, eval_transform or transform, key))

    def train(step: int) -> Batch:
        epoch, i = divmod(step, steps_per_epoch)
        rows = permutation(epoch)[i * batch_size : (i + 1) * batch_size]
        return take(on_device("train"), rows, np.int32(0), np.int32(step))

    def batches(split: str) -> Iterator[tuple[Batch, int]]:
        size, num = eval_batch_size or batch_size, dataset.size(split)
        for i, first in enumerate(range(0, num, size)):
            rows = np.arange(first, first + size, dtype=np.int32)
            count = min(size, num - first)
            rows[count:] = first
            yield take_eval(on_device(split), rows, np.int32(1 + SPLITS.index(split)), np.int32(i)), count

    return Data(train, batches)


def _gather(transform: Transform | None, key: Key, arrays: Batch, rows: Any, first: Any, second: Any) -> Batch:
    # The rows are in range by construction; to check them costs more than to gather.
    batch = {name: x.at[rows].get(mode="promise_in_bounds") for name, x in arrays.items()}
    return batch if transform is None else transform(jax.random.fold_in(jax.random.fold_in(key, first), second), batch)
