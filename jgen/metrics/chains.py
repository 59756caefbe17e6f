"""Diagnostics of Markov chains: split R-hat, effective sample size, Monte-Carlo standard error.

For C chains of n draws, W the mean variance within chains and V⁺ = (n − 1)/n·W + variance of the chain means:
    R̂ = √(V⁺/W);   τ = −1 + 2 Σ_k P_k,  P_k = ρ_{2k} + ρ_{2k+1} (Geyer's initial monotone sequence);   ESS = C n/τ.

Papers: Gelman and Rubin, 1992; Geyer, 1992; Gelman et al., "Bayesian Data Analysis", 2013 (halved chains).
Differs from the papers: nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen._types import Scalar


def split_r_hat(draws: Float[Array, "chains draws"]) -> Scalar:
    """R̂ of the chains cut in halves; 1 when they agree, NaN when no chain moves.

    Raises:
        ValueError: there are fewer than 4 draws.
    """
    halves = _halves(draws)
    return jnp.sqrt(_pooled_variance(halves) / jnp.mean(jnp.var(halves, axis=1, ddof=1)))


def r_hat(
    means: Float[Array, "chains *rest"], variances: Float[Array, "chains *rest"], num: Any
) -> Float[Array, "*rest"]:
    """R̂ from each chain's mean and variance (ddof 1) over `num` draws: what a streaming run has."""
    within = jnp.mean(variances, axis=0)
    between = jnp.var(means, axis=0, ddof=1)
    return jnp.sqrt((num - 1) / num + between / within)


def effective_sample_size(draws: Float[Array, "chains draws"]) -> Scalar:
    """ESS of the mean over all chains: how many independent draws would know it as well.

    Raises:
        ValueError: there are fewer than 4 draws.
    """
    halves = _halves(draws)
    num_chains, num = halves.shape
    within = jnp.mean(jnp.var(halves, axis=1, ddof=1))
    # ddof 0 at every lag (divided by num), as Geyer's sequence needs; the pooled variance is that of the mean's draws.
    correlation = 1 - (within - jnp.mean(_autocovariance(halves), axis=0) * num / (num - 1)) / _pooled_variance(halves)
    correlation = correlation.at[0].set(1.0)
    pairs = jnp.sum(jnp.reshape(correlation[: num // 2 * 2], (-1, 2)), axis=1)
    positive = jnp.cumprod(pairs > 0)
    monotone = jax.lax.cummin(jnp.where(positive, pairs, 0.0))
    tau = jnp.maximum(-1 + 2 * jnp.sum(monotone), 1 / jnp.log10(num_chains * num))
    return num_chains * num / tau


def monte_carlo_error(draws: Float[Array, "chains draws"]) -> Scalar:
    """sd/√ESS, the standard error of the mean over all draws.

    Raises:
        ValueError: there are fewer than 4 draws.
    """
    return jnp.std(draws, ddof=1) / jnp.sqrt(effective_sample_size(draws))


def _halves(draws: Float[Array, "chains draws"]) -> Float[Array, "halves half"]:
    num = draws.shape[1]
    if num < 4:
        raise ValueError(f"`draws` must hold at least 4 draws per chain, got {num}.")
    half = num // 2  # an odd chain's middle draw belongs to neither half
    return jnp.concatenate([draws[:, :half], draws[:, num - half :]])


def _pooled_variance(draws: Float[Array, "chains draws"]) -> Scalar:
    num = draws.shape[1]
    within = jnp.mean(jnp.var(draws, axis=1, ddof=1))
    return within * (num - 1) / num + jnp.var(jnp.mean(draws, axis=1), ddof=1)


def _autocovariance(draws: Float[Array, "chains draws"]) -> Float[Array, "chains draws"]:
    num = draws.shape[1]
    centred = draws - jnp.mean(draws, axis=1, keepdims=True)
    spectrum = jnp.fft.rfft(centred, n=2 * num, axis=1)
    return jnp.fft.irfft(jnp.square(jnp.abs(spectrum)), n=2 * num, axis=1)[:, :num] / num
