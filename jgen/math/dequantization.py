"""Densities for whole numbers: uniform dequantization, with all its constants, and bits per dimension.

For a density p on [0, 1)^D and data x in {0, …, L-1}^D, P(x) = ∫ p((x + u)/L) L^-D du over u in [0, 1)^D is a mass
function, and log P(x) ≥ E_u log p((x + u)/L) - D log L (Theis et al. 2016, eq. 4); with K noises the bound
E log (1/K) Σ_k … is tighter (Burda et al. 2016).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jgen._checks import at_least, integers
from jgen._types import Keys


def dequantize(keys: Keys, x: Num[Array, "batch *event"], levels: int) -> Float[Array, "batch *event"]:
    """(x + u)/levels in [0, 1) with u uniform on [0, 1); example i draws from keys[i]."""
    noise = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(keys)
    # For 256 levels, x + u may round up to x + 1 in float32.
    return jnp.minimum((x.astype(noise.dtype) + noise) / levels, 1 - jnp.finfo(noise.dtype).epsneg)


def quantize(x: Float[Array, "batch *event"], levels: int) -> Num[Array, "batch *event"]:
    """⌊levels·x⌋, kept in 0..levels-1: uint8 up to 256 levels, int32 above."""
    whole = jnp.clip(jnp.floor(x * levels), 0, levels - 1)
    return whole.astype(jnp.uint8 if levels <= 256 else jnp.int32)


def log_bound(
    log_density: Callable[[Array], Array],
    keys: Keys,
    x: Num[Array, "batch *event"],
    levels: int,
    *,
    num_samples: int = 1,
) -> Float[Array, " batch"]:
    """log (1/K) Σ_k p((x + u_k)/L) - D log L, in nats: in the mean at most log P(x), and rising with K.

    Args:
        log_density: (batch, *event) in [0, 1) -> (batch,), log p in nats.
        keys: one per example.
        x: whole numbers in 0..levels-1.
        levels: L.
        num_samples: K.

    Raises:
        ValueError: `x` holds anything else, or `num_samples` is less than 1.
    """
    at_least("num_samples", num_samples, 1)
    integers("x", x, levels)

    def one(k: Array) -> Array:
        return log_density(dequantize(jax.vmap(jax.random.fold_in, (0, None))(keys, k), x, levels))

    if num_samples == 1:
        density = one(jnp.zeros((), jnp.int32))
    else:
        density = jax.nn.logsumexp(jax.lax.map(one, jnp.arange(num_samples)), axis=0) - math.log(num_samples)
    return density - math.prod(x.shape[1:]) * math.log(levels)


def bits_per_dim(log_prob: Float[Array, " batch"], num_dims: int) -> Float[Array, " batch"]:
    """-log_prob / (D log 2): nats of a mass function over D whole numbers, as bits per dimension."""
    return -log_prob / (num_dims * math.log(2))
