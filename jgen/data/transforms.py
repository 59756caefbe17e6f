"""What happens to a batch between the data set and the model: each transform is a pure function (key, batch) -> batch.

A function here either is a transform (`flatten`) or builds one (`scale(levels)`). Those that draw noise give example i
a key that depends on (key, i) alone. All of them work on `batch["x"]` and leave the other entries as they are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jgen import random
from jgen._checks import at_least
from jgen._types import Batch, Key
from jgen.data.pipeline import Dataset, Transform


def chain(*transforms: Transform) -> Transform:
    """One after the other, each with its own key: fold_in(key, position)."""

    def apply(key: Key, batch: Batch) -> Batch:
        for i, transform in enumerate(transforms):
            batch = transform(jax.random.fold_in(key, i), batch)
        return batch

    return apply


def only(*names: str) -> Transform:
    """Keeps the entries called `names`, in this order; raises ValueError when a batch lacks one of them."""

    def apply(key: Key, batch: Batch) -> Batch:
        missing = [name for name in names if name not in batch]
        if missing:
            raise ValueError(f"`batch` must hold {missing}, got only {sorted(batch)}.")
        return {name: batch[name] for name in names}

    return apply


def flatten(key: Key, batch: Batch) -> Batch:
    """x (batch, ...) -> (batch, dim)."""
    return {**batch, "x": jnp.reshape(batch["x"], (batch["x"].shape[0], -1))}


def scale(levels: int, low: float = 0.0, high: float = 1.0) -> Transform:
    """x in 0..levels-1 -> low + (high - low) x / (levels - 1), in float32.

    Raises:
        ValueError: `levels` < 2, or `low` is not below `high`.
    """
    at_least("levels", levels, 2)
    if not low < high:
        raise ValueError(f"`low` must be below `high`, got {low} and {high}.")

    def apply(key: Key, batch: Batch) -> Batch:
        unit = jnp.asarray(batch["x"], jnp.float32) / (levels - 1)
        return {**batch, "x": low + (high - low) * unit}

    return apply


def binarize(levels: int) -> Transform:
    """x in 0..levels-1 -> 1 where x / (levels - 1) > 1/2, else 0, in float32: the same in every epoch.

    Raises:
        ValueError: `levels` < 2.
    """
    at_least("levels", levels, 2)

    def apply(key: Key, batch: Batch) -> Batch:
        return {**batch, "x": (2 * jnp.asarray(batch["x"], jnp.float32) > levels - 1).astype(jnp.float32)}

    return apply


def dynamic_binarize(levels: int) -> Transform:
    """x in 0..levels-1 -> a draw of Bernoulli(x / (levels - 1)), in float32: drawn anew for each key.

    Raises:
        ValueError: `levels` < 2.
    """
    at_least("levels", levels, 2)

    def apply(key: Key, batch: Batch) -> Batch:
        p = jnp.asarray(batch["x"], jnp.float32) / (levels - 1)
        draws = jax.vmap(jax.random.bernoulli)(random.batch_keys(key, batch), p)
        return {**batch, "x": draws.astype(jnp.float32)}

    return apply


def moments(dataset: Dataset, axis: int | tuple[int, ...] = 0) -> tuple[np.ndarray, np.ndarray]:
    """(mean, std) of the training split's x over `axis`, in float32; std is 1 where a feature is constant."""
    x = np.asarray(dataset.splits["train"]["x"], np.float64)
    mean, std = x.mean(axis), x.std(axis)
    return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)


def standardize(mean: ArrayLike, std: ArrayLike) -> Transform:
    """x -> (x - mean) / std, in float32, with the training split's `moments`, whichever split x comes from.

    Raises:
        ValueError: a value of `std` is not positive.
    """
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if not np.all(std > 0):
        raise ValueError(f"`std` must be positive, got {std.min()}.")

    def apply(key: Key, batch: Batch) -> Batch:
        x = jnp.asarray(batch["x"], jnp.float32)
        return {**batch, "x": (x - jnp.broadcast_to(mean, x.shape)) / jnp.broadcast_to(std, x.shape)}

    return apply


def uniform_noise(low: float = 0.0, high: float = 1.0) -> Transform:
    """x -> x + u with u uniform on [low, high): dequantization outside a model.

    Raises:
        ValueError: `low` is not below `high`.
    """
    if not low < high:
        raise ValueError(f"`low` must be below `high`, got {low} and {high}.")
    return _noise(lambda key, shape: jax.random.uniform(key, shape, minval=low, maxval=high))


def gaussian_noise(std: float) -> Transform:
    """x -> x + std n with n standard normal.

    Raises:
        ValueError: `std` < 0.
    """
    at_least("std", std, 0)
    return _noise(lambda key, shape: std * jax.random.normal(key, shape))


def _noise(draw: Callable[[Key, tuple[int, ...]], jax.Array]) -> Transform:
    def apply(key: Key, batch: Batch) -> Batch:
        x = jnp.asarray(batch["x"], jnp.float32)
        noise = jax.vmap(lambda k: draw(k, x.shape[1:]))(random.batch_keys(key, batch))
        return {**batch, "x": x + noise}

    return apply
