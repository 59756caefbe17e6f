"""Principal components: PCA, probabilistic PCA in closed form and by EM, and the linear autoencoder.

    PCA:   the K axes U of largest variance λ_1 ≥ … ≥ λ_K of the data
    PPCA:  z ~ N(0, I_K),  x = W z + µ + σ ε,   so  p(x) = N(x; µ, C),  C = W Wᵀ + σ² I

Maximum likelihood: W = U (Λ − σ² I)^½, σ² = mean of the D − K variances left out (Tipping and Bishop, eq. 7 and 8), so
C has the eigenvalues λ_1 … λ_K and D − K times σ². In these axes, with c = Uᵀ(x − µ),

    log p(x) = −½ [Σ_k (c_k²/λ_k + log λ_k) + |x − µ − U c|²/σ² + (D − K) log σ² + D log 2π],
    p(z|x) = N(diag(√(λ − σ²)/λ) c, diag(σ²/λ)),

in which no large numbers cancel and nothing is inverted. A linear autoencoder x̂ = µ + B A (x − µ) that minimizes the
squared error has B A = U Uᵀ: it spans the same subspace, with other axes (Baldi and Hornik, Neural Networks and
Principal Component Analysis, 1989). Tipping and Bishop: Probabilistic Principal Component Analysis, 1999.

Differs from the paper: W without the arbitrary rotation.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.learners import CountingState, EMState, GradientState, counting, em, gradient
from jgen.math import moments as row_moments
from jgen.math.linear_algebra import principal_axes, with_sign
from jgen.math.moments import Moments
from jgen.model import Model

LOG_2PI = 1.8378770664093453


class Gaussian(NamedTuple):
    """N(µ, U diag(λ) Uᵀ + σ² (I − U Uᵀ)).

    Attributes:
        mean: (dim,), µ.
        axes: (dim, components), U, orthonormal columns.
        variances: (components,), λ, along the axes, the largest first.
        noise: σ², the variance in every other direction.
    """

    mean: Any
    axes: Any
    variances: Any
    noise: Any


class Statistics(NamedTuple):
    """Means over the data of g, z, g zᵀ, z zᵀ and |g|², with g = x − µ and z given x."""

    first: Any
    latent: Any
    cross: Any
    second: Any
    square: Any


class Autoencoder(NamedTuple):
    """Attributes: `mean` (dim,), µ; `encoder` (dim, components), Aᵀ; `decoder` (components, dim), Bᵀ."""

    mean: Any
    encoder: Any
    decoder: Any


def solve(moments: Moments, num_components: int, *, floor: float = 1e-6) -> Gaussian:
    """The most likely PPCA; its axes are PCA's.

    Args:
        moments: of the data, with a full scatter.
        num_components: K.
        floor: the least that λ and σ² are.
    """
    axes, variances = principal_axes(row_moments.covariance(moments))
    noise = jnp.maximum(jnp.mean(variances[num_components:]), floor)
    return Gaussian(moments.mean, axes[:, :num_components], jnp.maximum(variances[:num_components], noise), noise)


def encode(params: Gaussian, x: Float[Array, "batch dim"]) -> Float[Array, "batch components"]:
    """c = Uᵀ(x − µ), the coordinates along the axes."""
    return (x - params.mean[None]) @ params.axes


def decode(params: Gaussian, coordinates: Float[Array, "batch components"]) -> Float[Array, "batch dim"]:
    """µ + U c."""
    return params.mean[None] + coordinates @ params.axes.T


def squared_error(params: Gaussian, x: Float[Array, "batch dim"]) -> Float[Array, " batch"]:
    """|x − µ − U c|², what K components leave out."""
    return jnp.sum((x - decode(params, encode(params, x))) ** 2, axis=1)


def log_prob(params: Gaussian, x: Float[Array, "batch dim"]) -> Float[Array, " batch"]:
    """log N(x; µ, C) in nats."""
    dim, num = params.axes.shape
    inside = jnp.sum(encode(params, x) ** 2 / params.variances[None], axis=1)
    log_det = jnp.sum(jnp.log(params.variances)) + (dim - num) * jnp.log(params.noise)
    return -0.5 * (inside + squared_error(params, x) / params.noise + log_det + dim * LOG_2PI)


def best_log_likelihood(variances: Float[Array, " dim"], num_components: int) -> Scalar:
    """The mean log-likelihood at the optimum: −½ [Σ_{k≤K} log λ_k + (D − K) log σ² + D + D log 2π].

    Args:
        variances: all eigenvalues of the data's covariance, the largest first.
        num_components: K.
    """
    dim = variances.shape[0]
    noise = jnp.mean(variances[num_components:])
    log_det = jnp.sum(jnp.log(variances[:num_components])) + (dim - num_components) * jnp.log(noise)
    return -0.5 * (log_det + dim * (1 + LOG_2PI))


def weights(params: Gaussian) -> Float[Array, "dim components"]:
    """W = U (Λ − σ² I)^½."""
    return params.axes * _spread(params)[None]


def posterior(
    params: Gaussian, x: Float[Array, "batch dim"]
) -> tuple[Float[Array, "batch components"], Float[Array, " components"]]:
    """The mean of z given x, and its variances, which no x changes; different entries of z are independent."""
    return encode(params, x) * (_spread(params) / params.variances)[None], params.noise / params.variances


def sample(key: Key, params: Gaussian, num: int) -> Float[Array, "num dim"]:
    """µ + W z + σ ε; example i draws from (key, i)."""
    mixing, std = weights(params), jnp.sqrt(params.noise)

    def one(key: Key) -> Any:
        latent, noise = jax.random.split(key)
        z = jax.random.normal(latent, params.variances.shape)
        return params.mean + mixing @ z + std * jax.random.normal(noise, params.mean.shape)

    return jax.vmap(one)(random.example_keys(key, num))


def start(key: Key, x: Float[Array, "batch dim"], num_components: int, *, floor: float = 1e-6) -> Gaussian:
    """Where EM begins: the data's mean, random weights, and the data's mean variance as noise."""
    mean = jnp.mean(x, axis=0)
    noise = jnp.maximum(jnp.mean((x - mean[None]) ** 2), floor)
    return _from_weights(mean, jnp.sqrt(noise) * jax.random.normal(key, (x.shape[1], num_components)), noise)


def expect(params: Gaussian, x: Float[Array, "batch dim"]) -> Statistics:
    """The E-step: means over the data under p(z|x)."""
    (z, variances), gap = posterior(params, x), x - params.mean[None]
    num = x.shape[0]
    second = z.T @ z / num + jnp.diag(variances)
    return Statistics(jnp.mean(gap, axis=0), jnp.mean(z, axis=0), gap.T @ z / num, second, jnp.mean(gap**2))


def maximize(params: Gaussian, statistics: Statistics, *, floor: float = 1e-6) -> Gaussian:
    """The M-step: µ becomes the data's mean, W the regression of x − µ on z, σ² the mean square of what is left."""
    first, latent, cross, second, square = statistics
    cross, second = cross - first[:, None] * latent[None], second - latent[:, None] * latent[None]
    mixing = jnp.linalg.solve(second, cross.T).T
    noise = square - jnp.mean(first**2) - jnp.mean(jnp.sum(mixing * cross, axis=1))
    return _from_weights(params.mean + first, mixing, jnp.maximum(noise, floor))


def autoencode(params: Autoencoder, x: Float[Array, "batch dim"]) -> Float[Array, "batch dim"]:
    """x̂ = µ + B A (x − µ)."""
    return params.mean[None] + (x - params.mean[None]) @ params.encoder @ params.decoder


def model(num_components: int, *, floor: float = 1e-6, axis_name: str | None = None) -> Model[CountingState]:
    """PPCA in closed form over batches {"x": (batch, dim)}: an update adds a batch's moments and solves again.

    Args:
        num_components: K, less than the data have columns.
        floor: the least variance.
        axis_name: the mapped axis over which moments are put together.

    Raises:
        ValueError: `num_components` is below 1 or, once data come, too large; `floor` is not positive.
    """
    rows = _rows(num_components, floor)
    return counting(
        lambda batch: row_moments.empty(rows(batch).shape[1]),
        lambda batch: row_moments.moments(rows(batch)),
        functools.partial(solve, num_components=num_components, floor=floor),
        evaluate=lambda key, state, batch: _evaluate(state.params, rows(batch)),
        sample=lambda key, state, num: {"x": sample(key, state.params, num)},
        log_prob=lambda state, batch: log_prob(state.params, rows(batch)),
        merge=row_moments.merge,
        axis_name=axis_name,
    )


def em_model(num_components: int, *, floor: float = 1e-6, axis_name: str | None = None) -> Model[EMState]:
    """The same by EM, which never forms a covariance: a round costs dim × components for every example.

    Args and errors as in `model`; with the whole data set as batch an update is a round of EM.
    """
    rows = _rows(num_components, floor)

    def expected(params: Gaussian, batch: Batch) -> tuple[Statistics, Metrics]:
        x = rows(batch)
        return expect(params, x), {"nll": -jnp.mean(log_prob(params, x))}

    return em(
        lambda key, batch: start(key, rows(batch), num_components, floor=floor),
        expected,
        functools.partial(maximize, floor=floor),
        evaluate=lambda key, state, batch: _evaluate(state.params, rows(batch)),
        sample=lambda key, state, num: {"x": sample(key, state.params, num)},
        log_prob=lambda state, batch: log_prob(state.params, rows(batch)),
        axis_name=axis_name,
    )


def autoencoder(
    num_components: int, optimizer: optax.GradientTransformation, *, axis_name: str | None = None
) -> Model[GradientState]:
    """The linear autoencoder, by gradient of the mean squared error over batches {"x": (batch, dim)}; no density.

    Raises:
        ValueError: `num_components` is below 1 or, once data come, too large.
    """
    rows = _rows(num_components, 1.0)

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        x = rows(batch)
        into, out = jax.random.split(key)
        scale = 1 / jnp.sqrt(x.shape[1])
        encoder = scale * jax.random.normal(into, (x.shape[1], num_components))
        decoder = scale * jax.random.normal(out, (num_components, x.shape[1]))
        return Autoencoder(jnp.mean(x, axis=0), encoder, decoder), {}

    def loss(key: Key, params: Params, stats: Params, batch: Batch, *, train: bool) -> Any:
        del key
        x = rows(batch)
        error = jnp.sum((x - autoencode(params, x)) ** 2, axis=1)
        return jnp.mean(error), (stats, {"squared_error": jnp.mean(error) if train else error})

    return gradient(init, loss, optimizer, axis_name=axis_name)


def _evaluate(params: Gaussian, x: Any) -> Metrics:
    return {"nll": -log_prob(params, x), "squared_error": squared_error(params, x)}


def _spread(params: Gaussian) -> Any:
    return jnp.sqrt(jnp.maximum(params.variances - params.noise, 0.0))


def _from_weights(mean: Any, mixing: Any, noise: Any) -> Gaussian:
    """The same law in its axes: W = U S Vᵀ has W Wᵀ = U S² Uᵀ."""
    axes, scale, _ = jnp.linalg.svd(mixing, full_matrices=False)
    return Gaussian(mean, with_sign(axes), scale**2 + noise, noise)


def _rows(num_components: int, floor: float) -> Any:
    """(batch) -> its rows, checked; the settings are checked at once."""
    _checks.at_least("num_components", num_components, 1)
    _checks.positive("floor", floor)

    def rows(batch: Batch) -> Any:
        random.batch_size(batch)
        _checks.rank("x", batch["x"], 2, "(batch, dim)")
        x = jnp.asarray(batch["x"]).astype(jnp.float32)
        if num_components >= x.shape[1]:
            raise ValueError(f"`num_components` must be below the {x.shape[1]} columns of `x`, got {num_components}.")
        return x

    return rows
