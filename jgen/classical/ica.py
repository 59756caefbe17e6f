"""Independent component analysis by maximum likelihood, with the natural gradient and switching source densities.

    x = A s,  s = W (x − µ) + b,  p(x) = |det W| Π_k p_k(s_k),        ΔW ∝ ∂L/∂W WᵀW = (I − E[φ(s) sᵀ]) W

with scores φ = −d log p/ds of two densities, heavy- and light-tailed:

    super-Gaussian  p(s) = sech(s)/π                   φ(s) = tanh s
    sub-Gaussian    p(s) = ½ N(s; 1, 1) + ½ N(s; −1, 1)  φ(s) = s − tanh s

Source k is taken for super-Gaussian where E[sech² s] E[s²] > E[s tanh s], which says that separation is then a stable
optimum; else for sub-Gaussian. The running mean of the difference is kept in `stats`. The natural gradient does not
depend on A: ill-conditioned mixtures are as easy as orthogonal ones (Amari, Cichocki, Yang: A New Learning Algorithm
for Blind Signal Separation, 1996). Lee, Girolami, Sejnowski: Independent Component Analysis Using an Extended Infomax
Algorithm for Mixed Subgaussian and Supergaussian Sources, 1999.

Like every local search it has other optima: about one of seventy random mixtures of four sources ends in one.

Differs from the paper: the super-Gaussian density is sech(s)/π (theirs, ∝ N(s; 0, 1) sech² s, has φ = s + tanh s); a
bias b; W starts from the whitening of the first batch.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jgen import _checks, random
from jgen._types import Batch, Key, Params, Scalar
from jgen.learners import GradientState, gradient
from jgen.learners.gradient import mean_over
from jgen.math import moments as row_moments
from jgen.math.densities import normal_log_prob
from jgen.math.linear_algebra import principal_axes
from jgen.model import Model

LOG_PI = 1.1447298858494002


class Unmixing(NamedTuple):
    """Attributes: `matrix` (sources, dim), W; `bias` (sources,), b."""

    matrix: Any
    bias: Any


class Stats(NamedTuple):
    """What no gradient moves.

    Attributes:
        center: (dim,), µ, the mean of the first batch.
        tails: (sources,), the running mean of E[sech² s] E[s²] − E[s tanh s]: above 0, a source is super-Gaussian.
    """

    center: Any
    tails: Any


class Slopes(NamedTuple):
    """Means over the data: `cross` E[φ(s) sᵀ], `first` E[φ(s)], `curve` E[φ′(s)], `power` E[s²], `own` E[φ′(s) s²]."""

    cross: Any
    first: Any
    curve: Any
    power: Any
    own: Any


def whitening(x: Float[Array, "batch dim"]) -> tuple[Float[Array, "dim dim"], Float[Array, " dim"]]:
    """(V, µ) for which V (x − µ) has mean 0 and covariance I: V = Λ^−½ Uᵀ of the data's covariance U Λ Uᵀ.

    Directions in which the data do not vary get the largest scale that 32 bits can tell from noise.
    """
    of = row_moments.moments(x)
    axes, variances = principal_axes(row_moments.covariance(of))
    least = jnp.finfo(x.dtype).eps * jnp.maximum(variances[0], jnp.finfo(x.dtype).tiny / jnp.finfo(x.dtype).eps)
    return (axes / jnp.sqrt(jnp.maximum(variances, least))[None]).T, of.mean


def sources(params: Unmixing, center: Float[Array, " dim"], x: Float[Array, "batch dim"]) -> Float[Array, "batch dim"]:
    """s = W (x − µ) + b."""
    return (x - center[None]) @ params.matrix.T + params.bias[None]


def mixed(params: Unmixing, center: Float[Array, " dim"], s: Float[Array, "batch dim"]) -> Float[Array, "batch dim"]:
    """x = µ + W⁻¹ (s − b)."""
    return center[None] + jnp.linalg.solve(params.matrix, (s - params.bias[None]).T).T


def source_log_prob(s: Float[Array, "batch dim"], heavy: Bool[Array, " dim"]) -> Float[Array, "batch dim"]:
    """log p_k(s_k) in nats; `heavy` says which sources are super-Gaussian."""
    log_cosh = jnp.logaddexp(s, -s) - jnp.log(2.0)
    return jnp.where(heavy[None], -log_cosh - LOG_PI, normal_log_prob(s) - 0.5 + log_cosh)


def score(s: Float[Array, "batch dim"], heavy: Bool[Array, " dim"]) -> Float[Array, "batch dim"]:
    """φ(s) = −d log p/ds."""
    return jnp.where(heavy[None], jnp.tanh(s), s - jnp.tanh(s))


def tails(s: Float[Array, "batch dim"]) -> Float[Array, " dim"]:
    """E[sech² s] E[s²] − E[s tanh s] of each source: positive for heavy tails, negative for light ones."""
    return jnp.mean(1 - jnp.tanh(s) ** 2, axis=0) * jnp.mean(s**2, axis=0) - jnp.mean(s * jnp.tanh(s), axis=0)


def log_prob(params: Unmixing, stats: Stats, x: Float[Array, "batch dim"]) -> Float[Array, " batch"]:
    """log p(x) = log |det W| + Σ_k log p_k(s_k), in nats."""
    each = source_log_prob(sources(params, stats.center, x), stats.tails > 0)
    return jnp.linalg.slogdet(params.matrix)[1] + jnp.sum(each, axis=1)


def slopes(params: Unmixing, stats: Stats, x: Float[Array, "batch dim"]) -> Slopes:
    """The means over a batch from which both directions follow."""
    s, heavy = sources(params, stats.center, x), stats.tails > 0
    phi, square = score(s, heavy), 1 - jnp.tanh(s) ** 2
    curve = jnp.where(heavy[None], square, 1 - square)
    own = jnp.mean(curve * s**2, axis=0)
    return Slopes(phi.T @ s / s.shape[0], jnp.mean(phi, axis=0), jnp.mean(curve, axis=0), jnp.mean(s**2, axis=0), own)


def natural_gradient(of: Slopes) -> Float[Array, "sources sources"]:
    """G = I − E[φ(s) sᵀ]: W + η G W climbs the likelihood."""
    return jnp.eye(of.cross.shape[0]) - of.cross


def newton_direction(of: Slopes, *, least: float = 0.1, most: float = 0.5) -> Float[Array, "sources sources"]:
    """E for which W + E W is Newton's step, by a Hessian that is exact where the sources are independent.

    It couples E_ij with E_ji alone: [[h_ij, 1], [1, h_ji]] (E_ij, E_ji) = (G_ij, G_ji), h_ij = E[φ′(s_i)] E[s_j²], and
    (1 + E[φ′(s_i) s_i²]) E_ii = G_ii (Zibulevsky: Blind Source Separation with Relative Newton Method, 2003).

    Args:
        least: blocks get at least this eigenvalue (Ablin, Cardoso, Gramfort: Faster ICA by Preconditioning, 2018).
        most: E is shortened until no entry is larger.
    """
    gradient, curvature = natural_gradient(of), of.curve[:, None] * of.power[None]
    gap = curvature - curvature.T
    lowest = 0.5 * (curvature + curvature.T - jnp.sqrt(gap**2 + 4))
    curvature = curvature + jnp.maximum(least - lowest, 0.0)
    pairs = (curvature.T * gradient - gradient.T) / (curvature * curvature.T - 1)
    step = jnp.where(jnp.eye(len(gap), dtype=bool), jnp.diag(jnp.diag(gradient) / (1 + of.own)), pairs)
    return step * jnp.minimum(1.0, most / jnp.max(jnp.abs(step)))


def sample(key: Key, params: Unmixing, stats: Stats, num: int) -> Float[Array, "num dim"]:
    """Sources from their densities (sech by its inverse CDF, log tan πu/2), mixed; example i draws from (key, i)."""
    heavy = stats.tails > 0

    def one(key: Key) -> Any:
        first, second, third = jax.random.split(key, 3)
        u = jax.random.uniform(first, heavy.shape, minval=jnp.finfo(jnp.float32).eps)
        sign = jax.random.rademacher(second, heavy.shape, jnp.float32)
        light = sign + jax.random.normal(third, heavy.shape)
        # log tan(πu/2) is odd around u = ½: half of it, with a sign, is precise in both tails.
        return jnp.where(heavy, sign * jnp.log(jnp.tan(0.25 * jnp.pi * u)), light)

    return mixed(params, stats.center, jax.vmap(one)(random.example_keys(key, num)))


def amari_distance(matrix: Float[Array, "sources dim"], mixing: Float[Array, "dim sources"]) -> Scalar:
    """How far P = W A is from a scaled permutation, in [0, 1]; 0 means that the sources are recovered.

    (Σ_i (Σ_j |p_ij|/max_k |p_ik| − 1) + Σ_j (Σ_i |p_ij|/max_k |p_kj| − 1)) / 2n(n − 1).
    """
    gain = jnp.abs(matrix @ mixing)
    rows = jnp.sum(gain / jnp.max(gain, axis=1, keepdims=True)) - len(gain)
    columns = jnp.sum(gain / jnp.max(gain, axis=0, keepdims=True)) - len(gain)
    return (rows + columns) / (2 * len(gain) * (len(gain) - 1))


def excess_kurtosis(s: Float[Array, "batch dim"]) -> Float[Array, " dim"]:
    """E[(s − E s)⁴]/Var(s)² − 3: above 0 for heavy tails, 0 for a Gaussian."""
    gap = s - jnp.mean(s, axis=0, keepdims=True)
    return jnp.mean(gap**4, axis=0) / jnp.mean(gap**2, axis=0) ** 2 - 3


def model(
    optimizer: optax.GradientTransformation, *, newton: bool = False, memory: float = 0.9, axis_name: str | None = None
) -> Model[GradientState]:
    """ICA over batches {"x": (batch, dim)}, as many sources as columns.

    Args:
        optimizer: is given −G W (or −E W) as the gradient of W; plain `optax.sgd` keeps the invariance under mixing.
        newton: takes `newton_direction` for the natural gradient. At rate 1 with all data as batch some 20 steps do
            what takes natural gradients hundreds, and sources with very heavy tails need no smaller rate.
        memory: the share of the old value that the running mean of `tails` keeps in an update.
        axis_name: the mapped axis over which gradients are averaged.

    Raises:
        ValueError: `memory` is not in [0, 1].
    """
    _checks.within("memory", memory, 0.0, 1.0)

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        del key
        x = _rows(batch)
        matrix, center = whitening(x)
        params = Unmixing(matrix, jnp.zeros(len(matrix)))
        return params, Stats(center, tails(sources(params, center, x)))

    return gradient(
        init,
        functools.partial(_loss, newton, memory, axis_name),
        optimizer,
        sample=lambda key, state, num: {"x": sample(key, state.params, state.stats, num)},
        log_prob=lambda state, batch: log_prob(state.params, state.stats, _rows(batch)),
        axis_name=axis_name,
    )


def _loss(
    newton: bool,
    memory: float,
    axis_name: str | None,
    key: Key,
    params: Unmixing,
    stats: Stats,
    batch: Batch,
    *,
    train: bool,
) -> Any:
    """The mean −log p(x), with the chosen direction in the place of its gradient."""
    del key
    x = _rows(batch)
    if not train:
        return jnp.zeros(()), (stats, {"nll": -log_prob(params, stats, x)})
    now = jax.lax.stop_gradient(params)
    new = tails(sources(now, stats.center, x))
    stats = stats._replace(tails=memory * stats.tails + (1 - memory) * new)
    nll = -jnp.mean(log_prob(now, stats, x))
    of = mean_over(slopes(now, stats, x), axis_name)
    step, shift = natural_gradient(of), -of.first
    if newton:
        step, shift = newton_direction(of), -of.first / jnp.maximum(of.curve, 0.1)
    # Linear in the parameters and 0 at them: its gradient is the direction.
    uphill = jnp.sum((params.matrix - now.matrix) * (step @ now.matrix)) + jnp.sum((params.bias - now.bias) * shift)
    return nll - uphill, (stats, {"nll": nll})


def _rows(batch: Batch) -> Any:
    random.batch_size(batch)
    _checks.rank("x", batch["x"], 2, "(batch, dim)")
    return jnp.asarray(batch["x"]).astype(jnp.float32)
