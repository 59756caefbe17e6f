"""Log-integrals and log-sums over nodes: partition functions where the space is small.

log ∫ exp f(x) dx ≈ logsumexp_i (f(x_i) + log w_i)
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen._checks import at_least


class Nodes(NamedTuple):
    """Where a function is evaluated, and how much each value counts.

    Attributes:
        points: x_i.
        log_weights: log w_i, the logarithm of a node's share of the volume; 0 for the points of a discrete space.
    """

    points: Float[Array, "nodes dims"]
    log_weights: Float[Array, " nodes"]


def box(low: float, high: float, num: int, num_dims: int) -> Nodes:
    """The trapezoid rule on [low, high]^num_dims with `num` nodes per dimension, last dimension fastest.

    Its error falls faster than any power of the spacing where the integrand and all its derivatives vanish at the
    boundary, as densities do in a box that holds them.

    Raises:
        ValueError: `low` is not below `high`, `num` is less than 2, or `num_dims` less than 1.
    """
    if not low < high:
        raise ValueError(f"`low` must be below `high`, got {low} and {high}.")
    at_least("num", num, 2)
    at_least("num_dims", num_dims, 1)
    side = np.linspace(low, high, num)
    log_side = np.full(num, np.log((high - low) / (num - 1)))
    log_side[[0, -1]] -= np.log(2.0)
    points = np.stack(np.meshgrid(*[side] * num_dims, indexing="ij"), axis=-1).reshape(-1, num_dims)
    log_weights = sum(np.meshgrid(*[log_side] * num_dims, indexing="ij"))
    return Nodes(jnp.asarray(points, jnp.float32), jnp.asarray(np.ravel(log_weights), jnp.float32))


def every(values: Sequence[float], num_dims: int) -> Nodes:
    """All points of values^num_dims, each of weight 1: sums over a discrete space.

    Raises:
        ValueError: there are no values, or `num_dims` is less than 1.
    """
    at_least("len(values)", len(values), 1)
    at_least("num_dims", num_dims, 1)
    points = np.array(list(itertools.product(values, repeat=num_dims)), np.float32)
    return Nodes(jnp.asarray(points), jnp.zeros(len(points)))


def log_integral(log_density: Callable[[Any], Any], nodes: Nodes) -> Float[Array, ""]:
    """log ∫ exp log_density, or its log-sum; differentiable in what `log_density` closes over.

    Args:
        log_density: (points (nodes, dims)) -> (nodes,), nats.
        nodes: from `box` or `every`.
    """
    return jax.nn.logsumexp(log_density(nodes.points) + nodes.log_weights)
