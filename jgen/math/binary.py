"""Binary units, 0 or 1: draws from logits, their states, and sums over all of them in constant memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen import _checks
from jgen._types import Key


def rows(x: Any, num_columns: int) -> Float[Array, "batch columns"]:
    """Rows of 0 and 1, in whatever dtype, as float32.

    Raises:
        ValueError: x has not two axes, not this many columns, or (unless traced) other values.
    """
    _checks.rank("x", x, 2, "(batch, visible)")
    _checks.integers("x", x, 2)
    if x.shape[1] != num_columns:
        raise ValueError(f"`x` must have {num_columns} columns, got shape {x.shape}.")
    return jnp.asarray(x, jnp.float32)


def bernoulli(key: Key, logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """1 with probability σ(logit), else 0, in the dtype of the logits."""
    return (jax.random.uniform(key, logits.shape) < jax.nn.sigmoid(logits)).astype(logits.dtype)


def log_prob(logits: Float[Array, "*shape"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log p(x) = −softplus((1 − 2x)·logit) of each unit, x in {0, 1}, nats."""
    return -jax.nn.softplus((1 - 2 * x) * logits)


def entropy(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """H(σ(a)) = softplus(a) − a·σ(a) of each unit, nats; exact (and 0) where a unit is certain."""
    # The same from −|a|: softplus(−|a|) + |a|·σ(−|a|), with no difference of large numbers.
    size = jnp.abs(logits)
    return jax.nn.softplus(-size) + size * jax.nn.sigmoid(-size)


def states(first: Any, num_states: int, num_units: int) -> Float[Array, "num_states num_units"]:
    """The binary digits of first, first + 1, …, the lowest digit first; `first` may be traced."""
    rows = first + jnp.arange(num_states)
    return ((rows[:, None] >> jnp.arange(num_units)[None]) & 1).astype(jnp.result_type(float))


def log_sum(log_f: Callable[[Any], Any], num_units: int, *, block_units: int = 12) -> Float[Array, "*batch"]:
    """log Σ_s exp(log_f(s)) over all 2^n states of n units, 2^block_units of them at a time.

    Its gradient is E[∇log_f] under p(s) ∝ exp(log_f(s)), and needs no more memory than the sum.

    Args:
        log_f: (states (k, n)) -> (*batch, k).
        num_units: n, at most 30.
        block_units: what memory allows; the result does not depend on it.
    """
    num = 2 ** min(num_units, block_units)

    def block(first: Any) -> Any:
        return jax.nn.logsumexp(log_f(states(first, num, num_units)), axis=-1)

    def add(total: Any, first: Any) -> tuple[Any, None]:
        return jnp.logaddexp(total, block(first)), None

    start = jax.eval_shape(block, 0)
    total = jnp.full(start.shape, -jnp.inf, start.dtype)
    return jax.lax.scan(jax.checkpoint(add), total, jnp.arange(0, 2**num_units, num))[0]
