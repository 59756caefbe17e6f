"""Randomness as a function of (seed, name, step, example): named streams and per-example keys.

No key is ever stored. A stream belongs to a name, a step folds its number into the stream, and an example folds its
index into the step's key; so adding a consumer never shifts the numbers another one draws, a resumed run draws what
the unbroken one drew, and example i is the same in a batch of 3, in a batch of 8, and on 8 devices.
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgen._types import Batch, Key, Keys

INDEX = "index"  # the reserved batch entry that tells a shard which examples it holds


def stream(seed: int, name: str) -> Key:
    """The root key of the stream called `name`: fold_in(key(seed), crc32(name)).

    Args:
        seed: any integer that `jax.random.key` takes.
        name: which consumer draws from the stream, such as "init", "train", "eval", "data" or "sample".
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def example_keys(key: Key, num: int) -> Keys:
    """One key per example, (num,): fold_in(key, i) for i < num, so the first keys do not depend on `num`."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num))


def batch_keys(key: Key, batch: Batch) -> Keys:
    """One key per example of `batch`, (batch,): by `batch["index"]` where it is given, else by position.

    A learner that runs on one shard of a batch (under `jax.pmap` or `shard_map`) adds the index, so that an example
    draws the same noise there as it would in the whole batch.
    """
    if INDEX in batch:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, batch[INDEX])
    return example_keys(key, batch_size(batch))


def batch_size(batch: Batch) -> int:
    """The length of the leading axis that all arrays of `batch` share.

    Raises:
        ValueError: `batch` is not a dict, is empty, holds a scalar, or its leading axes differ.
    """
    if not isinstance(batch, dict):
        raise ValueError(f"`batch` must be a dict of arrays, got {type(batch).__name__}.")
    if not batch:
        raise ValueError("`batch` must hold at least one array, got an empty dict.")
    sizes = {name: jnp.shape(x)[0] if jnp.ndim(x) else None for name, x in batch.items()}
    if None in sizes.values() or len(set(sizes.values())) != 1:
        raise ValueError(f"`batch` must hold arrays that share their leading axis, got lengths {sizes}.")
    return next(iter(sizes.values()))  # pyright: ignore[reportReturnType]


def with_index(batch: Batch, axis_name: str | None) -> Batch:
    """`batch` with each example's index in the whole batch, when it is one shard along `axis_name`."""
    if axis_name is None:
        return batch
    num = batch_size(batch)
    index: Array = jax.lax.axis_index(axis_name) * num + jnp.arange(num)
    return {**batch, INDEX: index}


def normal_like(key: Key, tree: Any) -> Any:
    """Standard normal noise of the shapes and dtypes of `tree`'s leaves, with one key for each leaf."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(k, jnp.shape(x), jnp.result_type(x)) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noise)
