"""Texts longer than the context of a model that reads T inputs at most: windows of T tokens that overlap.

    p(x) = Π_{t < T} p(x_t | x_{<t}) · Π_k Π_{t in window k, not in k−1} p(x_t | x_{first(k)−1} … x_{t−1})

Window k begins at first(k) = k (T − overlap) and reads the token before its first as well. Each token counts once, so
this is a probability over texts, and `sample` draws from it. With overlap 0 it is what the mean over windows reports,
with T // 2 what a sliding window does.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen import _checks


def log_prob(
    token_log_prob: Callable[[Any, Any], Any],
    tokens: Int[Array, " length"],
    *,
    context: int,
    start: int,
    overlap: int,
    batch_size: int,
) -> Float[Array, ""]:
    """log p of one long text in nats.

    Args:
        token_log_prob: (tokens (batch, T), previous (batch,)) -> (batch, T), log p of each given those before it.
        context: T.
        start: what "previous" is before the first token.
        overlap: tokens of a window that were counted in the one before it.
        batch_size: windows in one pass.

    Raises:
        ValueError: `tokens` is empty, or `overlap` is not in 0..T-1.
    """
    _checks.at_least("len(tokens)", tokens.shape[0], 1)
    _checks.within("overlap", overlap, 0, context - 1)
    _checks.at_least("batch_size", batch_size, 1)
    num = tokens.shape[0]
    first = np.arange(0, max(num - overlap, 1), context - overlap)
    batch_size = min(batch_size, len(first))
    first = np.pad(first, (0, -len(first) % batch_size), constant_values=num)
    where = first[:, None] + np.arange(context)[None]
    counts = (where < num) & ((np.arange(context) >= overlap)[None] | (first == 0)[:, None])
    padded = jnp.concatenate([jnp.full((1,), start, tokens.dtype), tokens])
    rows = (padded[np.minimum(where + 1, num)], padded[np.minimum(first, num)], jnp.asarray(counts))

    def several(rows: Any) -> Any:
        tokens, previous, counts = rows
        return jnp.sum(jnp.where(counts, token_log_prob(tokens, previous), 0.0))

    return jnp.sum(jax.lax.map(several, jax.tree.map(lambda x: x.reshape(-1, batch_size, *x.shape[1:]), rows)))


def sample(
    window: Callable[[Any, Any, Any, int], Any],
    said: Int[Array, " given"],
    num: int,
    length: int,
    *,
    context: int,
    overlap: int,
) -> Int[Array, "num length"]:
    """`length` tokens after `said`.

    Args:
        window: (given (num, m), ended (num,), t, n) -> (tokens (num, n), ended): draws n tokens after those given, the
            first of which is the t-th token drawn; m + n ≤ T + 1.
        said: START, then the prompt.
    """
    stride = context - overlap
    begin = max(0, -(-(said.shape[0] - context) // stride)) * stride
    given = jnp.broadcast_to(said[None, begin:], (num, said.shape[0] - begin))
    first = min(length, context - given.shape[1] + 1)
    drawn, ended = window(given, jnp.zeros((num,), bool), 0, first)
    if first == length:
        return drawn

    def further(carry: Any, t: Any) -> Any:
        recent, ended = carry
        drawn, ended = window(recent, ended, t, stride)
        return (jnp.concatenate([recent, drawn], axis=1)[:, -overlap - 1 :], ended), drawn

    recent = jnp.concatenate([given, drawn], axis=1)[:, -overlap - 1 :]
    later = jax.lax.scan(further, (recent, ended), jnp.arange(first, length, stride))[1]
    return jnp.concatenate([drawn, jnp.moveaxis(later, 0, 1).reshape(num, -1)], axis=1)[:, :length]
