"""FVSBN: the fully visible sigmoid belief network, one logistic regression per variable on those before it.

    p(x_i = 1 | x_<i) = σ(b_i + Σ_{j<i} A_ij x_j)

A is strictly lower triangular, so D(D−1)/2 weights and D biases: D(D+1)/2 parameters, and no others are stored.
Neal: Connectionist learning of belief networks, 1992; Frey, Hinton, Dayan: Does the wake-sleep algorithm produce good
density estimators?, 1996.

Differs from the papers: biases start at the data's log-odds, weights at 0; the optimizer is any.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jgen._types import Key
from jgen.autoregressive.fixed_order import Levels, Network, permutation
from jgen.math import discrete

LAW = Levels(2)


class Weights(NamedTuple):
    """An FVSBN's parameters, by position in the order.

    Attributes:
        triangle: the D(D−1)/2 entries of A, as `lower` reads them.
        bias: b, (D,).
    """

    triangle: Any
    bias: Any


def lower(triangle: Float[Array, " entries"], num_dims: int) -> Float[Array, "dims dims"]:
    """The strictly lower triangular matrix A of its D(D−1)/2 entries, each used once.

    With n = D − 1, the entries from n on, followed by all of them backwards, are n² numbers; row by row they are a
    matrix whose lower triangle has each entry once. Copies alone make it: no gather, and for the gradient no scatter.
    """
    rows = num_dims - 1
    square = jnp.concatenate([triangle[rows:], triangle[::-1]]).reshape(rows, rows)
    return jnp.pad(jnp.tril(square), ((1, 0), (0, 1)))


def logits(weights: Weights, x: Num[Array, "batch dims"]) -> Float[Array, "batch dims 1"]:
    """b + A x of all positions, one product."""
    A = lower(weights.triangle, x.shape[1])
    return (x.astype(jnp.float32) @ A.T + weights.bias[None])[..., None]


def draw(
    weights: Weights, noise: Float[Array, "num dims 1"], known: Num[Array, "num dims"], mask: np.ndarray
) -> Num[Array, "num dims"]:
    """One position per step; the cache are the running logits, to which a drawn x_i adds its column of A."""
    size = known.shape[1]

    def step(running: Any, now: Any) -> Any:
        i, noise, known, given, column = now
        x = jnp.where(given, known, LAW.draw(running[:, i, None], noise))
        return running + x[:, None] * column[None], x

    start = jnp.broadcast_to(weights.bias, known.shape)
    columns = lower(weights.triangle, size).T
    each = (jnp.arange(size), jnp.moveaxis(noise, 1, 0), known.T, jnp.asarray(mask), columns)
    return jax.lax.scan(step, start, each)[1].T


def network(num_dims: int, *, order: int | Sequence[int] | None = None) -> Network:
    """FVSBN over binary vectors, for `fixed_order.model`.

    Args:
        num_dims: D.
        order: the seed of a random order, a permutation, or None for the variables as they come.

    Raises:
        ValueError: `num_dims` is below 1, or `order` is no permutation.
    """

    def init(key: Key, x: Any) -> Weights:
        del key
        return Weights(jnp.zeros(num_dims * (num_dims - 1) // 2), discrete.log_odds(x, 2)[..., 0])

    return Network(permutation(order, num_dims), LAW, init, logits, draw)
