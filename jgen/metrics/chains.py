"""Diagnostics of Markov chains: R-hat, effective sample size in bulk and tails, Monte-Carlo standard errors.

For C chains of n draws, W the mean variance within chains and V⁺ = (n − 1)/n·W + variance of the chain means:
    R̂ = √(V⁺/W);   τ = −1 + 2 Σ_k P_k,  P_k = ρ_{2k} + ρ_{2k+1} (Geyer's initial monotone sequence);   ESS = C n/τ.
All chains are cut in halves first. Bulk and R-hat look at the draws' ranks as normal scores, so they exist where
variances do not; tail looks at the 5 % and 95 % quantiles.

Papers: Gelman and Rubin, 1992; Geyer, 1992; Vehtari et al., "Rank-normalization, folding, and localization: an improved
R-hat for assessing convergence of MCMC", 2021.
Differs from the papers: Geyer's sequence ends as in Stan and ArviZ, with the first term of the pair that ends it;
their numbers are met to rounding.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen._types import Scalar

TAILS = (0.05, 0.95)


def split_r_hat(draws: Float[Array, "chains draws"]) -> Scalar:
    """R̂ of the chains cut in halves; 1 when they agree, NaN when no chain moves.

    Raises:
        ValueError: there are fewer than 4 draws.
    """
    halves = _halves(draws)
    return r_hat(jnp.mean(halves, axis=1), jnp.var(halves, axis=1, ddof=1), halves.shape[1])


def r_hat(
    means: Float[Array, "chains *rest"], variances: Float[Array, "chains *rest"], num: Any
) -> Float[Array, "*rest"]:
    """R̂ from each chain's mean and variance (ddof 1) over `num` draws: what a streaming run has."""
    within = jnp.mean(variances, axis=0)
    between = jnp.var(means, axis=0, ddof=1)
    return jnp.sqrt((num - 1) / num + between / within)


def rank_r_hat(draws: Float[Array, "chains draws"]) -> Scalar:
    """The larger of split R̂ of the normal scores and of those of |x − median|: sees other scales, and heavy tails.

    Raises:
        ValueError: there are fewer than 4 draws.
    """
    folded = jnp.abs(draws - jnp.median(_halves(draws)))
    return jnp.maximum(*(split_r_hat(_without_middle(normal_scores, x)) for x in (draws, folded)))


def normal_scores(draws: Float[Array, "chains draws"]) -> Float[Array, "chains draws"]:
    """Φ⁻¹((r − 3/8)/(N + 1/4)) of the ranks r among all N draws, ties shared (Blom)."""
    ranks = jax.scipy.stats.rankdata(draws, axis=None, method="average")
    return jnp.reshape(jax.scipy.special.ndtri((ranks - 0.375) / (draws.size + 0.25)), draws.shape).astype(draws.dtype)


def effective_sample_size(draws: Float[Array, "chains draws"]) -> Scalar:
    """ESS of the mean over all chains: how many independent draws would know it as well.

    Raises:
        ValueError: there are fewer than 4 draws.
    """
    halves = _halves(draws)
    num_chains, num = halves.shape
    covariance = jnp.mean(_autocovariance(halves), axis=0)
    correlation = 1 - (covariance[0] * num / (num - 1) - covariance) / _pooled_variance(halves)
    tau = _autocorrelation_time(correlation.at[0].set(1.0), num)
    size = num_chains * num / jnp.maximum(tau, 1 / jnp.log10(num_chains * num))
    still = jnp.max(draws) == jnp.min(draws)
    return jnp.where(jnp.all(jnp.isfinite(draws)), jnp.where(still, 1.0 * halves.size, size), jnp.nan)


def bulk_ess(draws: Float[Array, "chains draws"]) -> Scalar:
    """ESS of the normal scores: of statements about where most of the draws lie.

    Raises:
        ValueError: there are fewer than 4 draws.
    """
    return effective_sample_size(_without_middle(normal_scores, draws))


def tail_ess(draws: Float[Array, "chains draws"]) -> Scalar:
    """The smaller ESS of the events x ≤ q at the quantiles `TAILS`.

    Raises:
        ValueError: there are fewer than 4 draws.
    """
    low, high = (effective_sample_size((draws <= jnp.quantile(draws, tail)).astype(draws.dtype)) for tail in TAILS)
    return jnp.minimum(low, high)


def monte_carlo_error(draws: Float[Array, "chains draws"]) -> Scalar:
    """sd/√ESS, the standard error of the mean over all draws.

    Raises:
        ValueError: there are fewer than 4 draws.
    """
    return jnp.std(draws, ddof=1) / jnp.sqrt(effective_sample_size(draws))


def monte_carlo_error_of_std(draws: Float[Array, "chains draws"]) -> Scalar:
    """The standard error of the standard deviation over all draws: √(Var[(x − µ)²]/ESS/(4σ²)).

    Raises:
        ValueError: there are fewer than 4 draws.
    """
    squares = jnp.square(draws - jnp.mean(draws))
    variance = jnp.mean(squares)
    return jnp.sqrt(jnp.var(squares) / effective_sample_size(squares) / variance / 4)


def acceptance(positions: Any) -> Float[Array, " chains"]:
    """The share of steps in which each chain moved; leaves are (chains, draws, ...)."""
    moved = [
        jnp.any(jnp.reshape(x[:, 1:] != x[:, :-1], (x.shape[0], x.shape[1] - 1, -1)), axis=-1)
        for x in jax.tree.leaves(positions)
    ]
    return jnp.mean(jnp.any(jnp.stack(moved), axis=0), axis=1)


def autocorrelation(draws: Float[Array, "chains draws"], num_lags: int) -> Float[Array, " lags"]:
    """ρ_t for t < num_lags, with the variance and the covariances averaged over chains, each around its own mean."""
    covariance = jnp.mean(_autocovariance(draws), axis=0)[:num_lags]
    return covariance / covariance[0]


def _autocorrelation_time(correlation: Float[Array, " draws"], num: int) -> Scalar:
    """τ = −1 + 2 Σ min_{j≤k} P_j over the pairs before the first that is not positive, and ρ_{2k} of that one."""
    num_pairs = max(1, (num - 1) // 2)
    pairs = jnp.sum(jnp.reshape(correlation[: 2 * num_pairs], (-1, 2)), axis=1)
    last = jnp.where(jnp.all(pairs > 0), num_pairs - 1, jnp.argmin(pairs > 0))
    monotone = jnp.where(jnp.arange(num_pairs) < last, jax.lax.cummin(pairs), 0.0)
    even = jnp.where(pairs[last] >= 0, correlation[2 * last], jnp.maximum(correlation[2 * last], 0.0))
    return -1 + 2 * jnp.sum(monotone) + even


def _without_middle(function: Any, draws: Any) -> Any:
    """`function` of the draws that the halves hold, put together again."""
    halves = function(_halves(draws))
    return jnp.concatenate(jnp.split(halves, 2), axis=1)


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
