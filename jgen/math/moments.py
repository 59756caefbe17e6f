"""First and second moments of rows, gathered batch by batch without the cancellation of E[xxᵀ] − E[x]E[x]ᵀ.

    n, µ = mean of x, S = Σ (x − µ)(x − µ)ᵀ;        of two parts with δ = µ₂ − µ₁:

    n = n₁ + n₂,   µ = µ₁ + δ·n₂/n,   S = S₁ + S₂ + δδᵀ·n₁n₂/n

Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979, eq. 2.1.
Every function takes leading axes, such as one set of moments per class. A diagonal S keeps Σ (x − µ)² alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

HIGHEST = jax.lax.Precision.HIGHEST


class Moments(NamedTuple):
    """How many rows there were, their mean, and their scatter around it.

    Attributes:
        num: (...,), n, as a float.
        mean: (..., dim), µ; 0 before any row.
        scatter: (..., dim, dim), S, or its diagonal (..., dim).
    """

    num: Any
    mean: Any
    scatter: Any


def empty(dim: int, *, num_classes: int | None = None, diagonal: bool = False) -> Moments:
    """The moments of no rows, of each class where `num_classes` is given."""
    lead = () if num_classes is None else (num_classes,)
    tail = (dim,) if diagonal else (dim, dim)
    return Moments(jnp.zeros(lead), jnp.zeros((*lead, dim)), jnp.zeros((*lead, *tail)))


def moments(x: Float[Array, "num dim"], *, diagonal: bool = False) -> Moments:
    """The moments of the rows of `x`."""
    num, mean = jnp.asarray(x.shape[0], x.dtype), jnp.mean(x, axis=0)
    gap = x - mean[None]
    scatter = jnp.sum(gap**2, axis=0) if diagonal else jnp.matmul(gap.T, gap, precision=HIGHEST)
    return Moments(num, mean, scatter)


def class_moments(
    x: Float[Array, "num dim"], label: Int[Array, " num"], num_classes: int, *, diagonal: bool = False
) -> Moments:
    """The moments of the rows of each class, leading axis `num_classes`; zeros for a class without rows."""
    own = jax.nn.one_hot(label, num_classes, dtype=x.dtype)
    num = jnp.sum(own, axis=0)
    mean = jnp.matmul(own.T, x, precision=HIGHEST) / jnp.maximum(num, 1.0)[:, None]
    gap = x - mean[label]
    if diagonal:
        return Moments(num, mean, jnp.matmul(own.T, gap**2, precision=HIGHEST))
    scatter = jax.lax.map(lambda weight: jnp.matmul((weight[:, None] * gap).T, gap, precision=HIGHEST), own.T)
    return Moments(num, mean, scatter)


def merge(one: Moments, other: Moments) -> Moments:
    """The moments of the rows of both."""
    num = one.num + other.num
    shift = other.mean - one.mean
    share = other.num / jnp.maximum(num, 1.0)
    diagonal = one.scatter.ndim == one.mean.ndim
    square = shift**2 if diagonal else shift[..., :, None] * shift[..., None, :]
    weight = jnp.expand_dims(one.num * share, tuple(range(num.ndim, square.ndim)))
    return Moments(num, one.mean + shift * share[..., None], one.scatter + other.scatter + square * weight)


def covariance(of: Moments) -> Float[Array, "..."]:
    """S/n, the maximum-likelihood covariance (or variances); zeros before any row."""
    num = jnp.maximum(of.num, 1.0)
    return of.scatter / jnp.expand_dims(num, tuple(range(num.ndim, of.scatter.ndim)))
