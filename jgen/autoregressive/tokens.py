"""Batches of tokens: what language models read, what they predict, and which tokens count."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jgen import _checks, random
from jgen._types import Batch


def tokens_of(batch: Batch, vocabulary_size: int) -> Int[Array, "batch time"]:
    """`batch["tokens"]`, checked: (batch, time), whole numbers in 0..vocabulary_size-1.

    Raises:
        ValueError: they are not.
    """
    random.batch_size(batch)
    _checks.rank("tokens", batch["tokens"], 2, "(batch, time)")
    _checks.integers("tokens", batch["tokens"], vocabulary_size)
    return jnp.asarray(batch["tokens"]).astype(jnp.int32)


def shifted(tokens: Int[Array, "batch time"], previous: Any, start: int) -> Int[Array, "batch time"]:
    """What the network reads to predict `tokens`: the token before each, `start` (or `previous`) before the first."""
    if previous is None:
        previous = jnp.full((tokens.shape[0],), start, tokens.dtype)
    return jnp.concatenate([previous[:, None].astype(tokens.dtype), tokens[:, :-1]], axis=1)


def counted(tokens: Int[Array, "batch time"], eos: int | None) -> Float[Array, "batch time"]:
    """1 up to and including the first EOS of each row, 0 after it; all ones where `eos` is None."""
    if eos is None:
        return jnp.ones(tokens.shape)
    ended = jnp.cumsum(tokens == eos, axis=1) - (tokens == eos)
    return (ended == 0).astype(jnp.float32)
