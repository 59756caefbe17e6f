"""Diagonal Gaussians: posteriors q(z|x) and priors p(z) of latent variables, elementwise and in nats.

    KL(N(µ, σ²) ‖ N(m, s²)) = log(s/σ) + (σ² + (µ − m)²)/(2s²) − ½
    N(µ̂, σ̂²)·N(m, s²) ∝ N(µ, σ²),  σ² = 1/(σ̂⁻² + s⁻²),  µ = σ²(µ̂σ̂⁻² + ms⁻²)

Values are of each element; sums over latent dimensions are the caller's, since rates are reported by dimension too.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen._types import Keys
from jgen.math.bijectors import bounded
from jgen.math.densities import normal_log_prob

LOG_STD_BOUND = 6.0


class Gaussian(NamedTuple):
    """N(mean, diag exp(2·log_std)); both (*batch, latent)."""

    mean: Array
    log_std: Array


def from_raw(raw: Float[Array, "*batch twice"]) -> Gaussian:
    """The Gaussian of a network's outputs: the first half is the mean, the second log σ, bounded smoothly to ±6.

    An unbounded log σ overflows on an outlier, and a hard clamp has no gradient outside of it.
    """
    mean, log_std = jnp.split(raw.astype(jnp.float32), 2, axis=-1)
    return Gaussian(mean, bounded(log_std, LOG_STD_BOUND))


def standard(like: Any) -> Gaussian:
    """N(0, I) of the shape of `like`."""
    return Gaussian(jnp.zeros_like(like), jnp.zeros_like(like))


def sample(keys: Keys, gaussian: Gaussian) -> Float[Array, "batch ..."]:
    """z = µ + σ·ε with one key per example; gradients flow through µ and σ."""
    noise = jax.vmap(lambda key, like: jax.random.normal(key, like.shape))(keys, gaussian.mean)
    return gaussian.mean + jnp.exp(gaussian.log_std) * noise


def log_prob(z: Float[Array, "*shape"], gaussian: Gaussian) -> Float[Array, "*shape"]:
    """log N(z; µ, σ²) of each element, nats."""
    return normal_log_prob(z, gaussian.mean, gaussian.log_std)


def kl(q: Gaussian, p: Gaussian) -> Float[Array, "*shape"]:
    """KL(q ‖ p) of each element, nats; ½(expm1(2d) − 2d + ((µ − m)/s)²) with d = log σ − log s, never below zero."""
    double = 2 * (q.log_std - p.log_std)
    return 0.5 * (jnp.square((q.mean - p.mean) * jnp.exp(-p.log_std)) + jnp.expm1(double) - double)


def kl_to_standard_normal(q: Gaussian) -> Float[Array, "*shape"]:
    """KL(N(µ, σ²) ‖ N(0, 1)) = ½(µ² + expm1(2 log σ) − 2 log σ) of each element, nats."""
    double = 2 * q.log_std
    return 0.5 * (jnp.square(q.mean) + jnp.expm1(double) - double)


def product(one: Gaussian, other: Gaussian) -> Gaussian:
    """The normalized product of two densities: precisions add, and weigh the means.

    The posterior of a ladder VAE (Sønderby et al., "Ladder Variational Autoencoders", 2016, eqs. 11 and 12).
    """
    log_precision = jnp.logaddexp(-2 * one.log_std, -2 * other.log_std)
    weight = jnp.exp(-2 * one.log_std - log_precision)
    return Gaussian(weight * one.mean + (1 - weight) * other.mean, -0.5 * log_precision)
