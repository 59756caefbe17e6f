"""Log-densities in nats."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def normal_log_prob(
    x: Float[Array, "*shape"],
    mean: Float[Array, "*shape"] | float = 0.0,
    log_std: Float[Array, "*shape"] | float = 0.0,
) -> Float[Array, "*shape"]:
    """log N(x; mean, exp(log_std)²) = -½((x - mean)/σ)² - log σ - ½ log 2π, of each element."""
    return -0.5 * jnp.square((x - mean) * jnp.exp(-log_std)) - log_std - 0.5 * math.log(2 * math.pi)


def standard_normal_log_prob(x: Float[Array, "batch *event"]) -> Float[Array, " batch"]:
    """log N(x; 0, I) of each example."""
    return jnp.sum(normal_log_prob(x), axis=tuple(range(1, x.ndim)))
