"""Randomness as a function of (seed, name, step, example): named streams and per-example keys.

No key is ever stored. A stream belongs to a name, a step folds its number into the stream, and an example folds its
index into the step's key; so adding a consumer never shifts the numbers another one draws, a resumed run draws what
the unbroken one drew, and example i is the same in a batch of 3, in a batch of 8, and on 8 devices.
"""

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    """Standard normal noise of the shapes and dtypes of `tree`'s leaves, from one draw."""
    return _cut(jax.random.normal(key, (_total(tree),), _dtype(tree)), tree)


def normal_and_uniform(key: Key, tree: Any) -> tuple[Any, Any]:
    """(noise as of `normal_like`, one number uniform on [0, 1)) from one draw of bits.

    Hashing is most of the time of a cheap Markov kernel's step; a key for the noise and one for the number would double
    it.
    """
    dtype = _dtype(tree)
    draws = jax.random.uniform(key, (_total(tree) + 1,), dtype)
    # As `jax.random.normal` does it: √2·erf⁻¹ of a number in (−1, 1).
    low = jnp.nextafter(jnp.asarray(-1, dtype), jnp.asarray(0, dtype))
    return _cut(math.sqrt(2) * jax.lax.erf_inv(jnp.maximum(2 * draws[:-1] - 1, low)), tree), draws[-1]


def _total(tree: Any) -> int:
    return sum(jnp.size(x) for x in jax.tree.leaves(tree))


def _dtype(tree: Any) -> Any:
    return jnp.result_type(jnp.float32, *jax.tree.leaves(tree))


def _cut(vector: Array, tree: Any) -> Any:
    """`vector` cut into the leaves of `tree`, of their shapes and dtypes."""
    leaves, structure = jax.tree.flatten(tree)
    parts = jnp.split(vector, np.cumsum([jnp.size(x) for x in leaves])[:-1])
    cut = [jnp.reshape(part, jnp.shape(x)).astype(jnp.result_type(x)) for part, x in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, cut)
