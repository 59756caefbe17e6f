"""Gaussian mixture, learned by expectation-maximization; k-means is its limit.

    p(x) = Σ_c α_c N(x; μ_c, Σ_c),      r_c(x) = α_c N(x; μ_c, Σ_c) / p(x)

E: responsibilities r. M: α_c = mean r_c, μ_c = mean of x under r_c, Σ_c = its covariance (full or diagonal) + ε I.
Dempster, Laird, Rubin: Maximum Likelihood from Incomplete Data via the EM Algorithm, 1977. k-means++: Arthur and
Vassilvitskii, 2007. Differs from the paper: ε on the diagonal; a component that no data supports keeps its place.
With Σ_c = σ² I, equal α and σ → 0 the responsibilities become one-hot and EM becomes k-means (`lloyd`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics
from jgen.learners import EMState, em
from jgen.model import Model

COVARIANCES = ("full", "diagonal")
LOG_2PI = 1.8378770664093453
HIGHEST = jax.lax.Precision.HIGHEST


class Mixture(NamedTuple):
    """The parameters.

    Attributes:
        log_weights: (components,) log α.
        means: (components, dim).
        covariances: (components, dim, dim), or the variances (components, dim) of a diagonal mixture.
    """

    log_weights: Any
    means: Any
    covariances: Any


class Statistics(NamedTuple):
    """Means over the data of r_c, r_c x and r_c x xᵀ (or r_c x²), x measured from a common `center`."""

    mass: Any
    first: Any
    second: Any


def component_log_prob(params: Mixture, x: Float[Array, "batch dim"]) -> Float[Array, "batch components"]:
    """log N(x; μ_c, Σ_c) in nats; full covariances through their Cholesky factor."""
    if params.covariances.ndim == 2:
        gap, variances = x[:, None] - params.means[None], params.covariances[None]
        return -0.5 * jnp.sum(gap**2 / variances + jnp.log(variances) + LOG_2PI, axis=-1)
    factor = jnp.linalg.cholesky(params.covariances)
    eye = jnp.broadcast_to(jnp.eye(x.shape[1]), factor.shape)
    inverse = jax.scipy.linalg.solve_triangular(factor, eye, lower=True)

    def one(component: Any) -> Any:
        mean, inverse = component
        white = jnp.matmul(x - mean[None], inverse.T, precision=HIGHEST)
        return -0.5 * jnp.sum(white**2 + LOG_2PI, axis=-1)

    log_det = jnp.sum(jnp.log(jnp.diagonal(factor, axis1=1, axis2=2)), axis=1)
    return jax.lax.map(one, (params.means, inverse)).T - log_det[None]


def joint_log_prob(params: Mixture, x: Float[Array, "batch dim"]) -> Float[Array, "batch components"]:
    """log α_c + log N(x; μ_c, Σ_c)."""
    return params.log_weights[None] + component_log_prob(params, x)


def log_prob(params: Mixture, x: Float[Array, "batch dim"]) -> Float[Array, " batch"]:
    """log p(x) in nats."""
    return jax.nn.logsumexp(joint_log_prob(params, x), axis=1)


def responsibilities(params: Mixture, x: Float[Array, "batch dim"]) -> Float[Array, "batch components"]:
    """r_c(x), the posterior of the component; rows sum to 1."""
    return jax.nn.softmax(joint_log_prob(params, x), axis=1)


def expect(params: Mixture, x: Float[Array, "batch dim"]) -> Statistics:
    """The E-step: mean expected statistics, measured from the old means so that nothing large cancels."""
    r, num = responsibilities(params, x), x.shape[0]

    def one(component: Any) -> Any:
        mean, own = component
        gap = x - mean[None]
        weighted = own[:, None] * gap
        if params.covariances.ndim == 2:
            return jnp.sum(weighted, axis=0) / num, jnp.sum(weighted * gap, axis=0) / num
        return jnp.sum(weighted, axis=0) / num, jnp.matmul(weighted.T, gap, precision=HIGHEST) / num

    # One component after another: as fast as its products of matrices, and no (batch, components, dim) array.
    return Statistics(jnp.mean(r, axis=0), *jax.lax.map(one, (params.means, r.T)))


def maximize(params: Mixture, statistics: Statistics, *, floor: float = 1e-6) -> Mixture:
    """The M-step. A component with (next to) no mass keeps its mean and covariance; its weight still falls.

    Args:
        floor: ε, added to every variance.
    """
    mass, first, second = statistics
    alive = mass > jnp.finfo(mass.dtype).eps
    share = jnp.where(alive, mass, 1.0)
    shift = first / share[:, None]
    if params.covariances.ndim == 2:
        spread = second / share[:, None] - shift**2 + floor
        covariances = jnp.where(alive[:, None], jnp.maximum(spread, floor), params.covariances)
    else:
        spread = second / share[:, None, None] - shift[:, :, None] * shift[:, None, :]
        spread = spread + floor * jnp.eye(shift.shape[1])[None]
        covariances = jnp.where(alive[:, None, None], spread, params.covariances)
    means = jnp.where(alive[:, None], params.means + shift, params.means)
    tiny = jnp.maximum(mass, jnp.finfo(mass.dtype).tiny)
    return Mixture(jnp.log(tiny / jnp.sum(tiny)), means, covariances)


def plus_plus(key: Key, x: Float[Array, "batch dim"], num_components: int) -> Float[Array, "components dim"]:
    """k-means++: each next center is an example drawn in proportion to its squared distance to the centers so far."""
    first_key, key = jax.random.split(key)
    centers = jnp.zeros((num_components, x.shape[1]), x.dtype)
    centers = centers.at[0].set(x[jax.random.randint(first_key, (), 0, x.shape[0])])

    def step(i: Any, carry: Any) -> Any:
        centers, nearest = carry
        nearest = jnp.minimum(nearest, jnp.sum((x - centers[i - 1][None]) ** 2, axis=1))
        # Data with fewer different points than components: any point will do once all distances are zero.
        logits = jnp.where(jnp.any(nearest > 0), jnp.log(nearest), 0.0)
        chosen = jax.random.categorical(jax.random.fold_in(key, i), logits)
        return centers.at[i].set(x[chosen]), nearest

    return jax.lax.fori_loop(1, num_components, step, (centers, jnp.full(x.shape[0], jnp.inf)))[0]


def nearest(centers: Float[Array, "components dim"], x: Float[Array, "batch dim"]) -> Int[Array, " batch"]:
    """The index of each example's nearest center."""
    return jnp.argmin(jnp.sum((x[:, None] - centers[None]) ** 2, axis=-1), axis=1)


def lloyd(centers: Float[Array, "components dim"], x: Float[Array, "batch dim"]) -> Float[Array, "components dim"]:
    """One round of k-means: each center moves to the mean of its examples; one without examples stays."""
    own = jax.nn.one_hot(nearest(centers, x), centers.shape[0])
    num = jnp.sum(own, axis=0)[:, None]
    return jnp.where(num > 0, own.T @ x / jnp.maximum(num, 1.0), centers)


def start(
    key: Key, x: Float[Array, "batch dim"], num_components: int, *, covariance: str = "full", num_rounds: int = 10
) -> Mixture:
    """Equal weights, the centers of `num_rounds` of k-means from k-means++, and the whole data's covariance."""
    centers = plus_plus(key, x, num_components)
    centers = jax.lax.fori_loop(0, num_rounds, lambda _, centers: lloyd(centers, x), centers)
    gap = x - jnp.mean(x, axis=0, keepdims=True)
    spread = jnp.mean(gap**2, axis=0) if covariance == "diagonal" else gap.T @ gap / x.shape[0]
    floor = 1e-6 * (jnp.ones(x.shape[1]) if covariance == "diagonal" else jnp.eye(x.shape[1]))
    spread = jnp.broadcast_to((spread + floor)[None], (num_components, *spread.shape))
    return Mixture(jnp.full(num_components, -jnp.log(float(num_components))), centers, spread)


def sample(key: Key, params: Mixture, num: int) -> tuple[Float[Array, "num dim"], Int[Array, " num"]]:
    """Draws, and the component each came from: c ~ α, x = μ_c + L_c n."""
    diagonal = params.covariances.ndim == 2
    factors = jnp.sqrt(params.covariances) if diagonal else jnp.linalg.cholesky(params.covariances)

    def one(key: Key) -> tuple[Any, Any]:
        which, noise = jax.random.split(key)
        c = jax.random.categorical(which, params.log_weights)
        n = jax.random.normal(noise, params.means.shape[1:])
        return params.means[c] + (factors[c] * n if diagonal else factors[c] @ n), c

    return jax.vmap(one)(random.example_keys(key, num))


def model(
    num_components: int, *, covariance: str = "full", floor: float = 1e-6, axis_name: str | None = None
) -> Model[EMState]:
    """A Gaussian mixture over batches {"x": (batch, dim)}; with the whole data set as batch an update is a round of EM.

    Args:
        num_components: C.
        covariance: "full" or "diagonal".
        floor: ε, added to every variance in the M-step.
        axis_name: the mapped axis over which statistics are averaged.

    Raises:
        ValueError: `num_components` is below 1, `covariance` unknown, or `floor` negative.
    """
    _checks.at_least("num_components", num_components, 1)
    _checks.one_of("covariance", covariance, COVARIANCES)
    _checks.at_least("floor", floor, 0.0)

    def init(key: Key, batch: Batch) -> Mixture:
        return start(key, _examples(batch), num_components, covariance=covariance)

    def expected(params: Mixture, batch: Batch) -> tuple[Statistics, Metrics]:
        x = _examples(batch)
        return expect(params, x), {"nll": -jnp.mean(log_prob(params, x))}

    def maximized(params: Mixture, statistics: Statistics) -> Mixture:
        return maximize(params, statistics, floor=floor)

    return em(
        init,
        expected,
        maximized,
        evaluate=lambda key, state, batch: {"nll": -log_prob(state.params, _examples(batch))},
        sample=lambda key, state, num: {"x": sample(key, state.params, num)[0]},
        log_prob=lambda state, batch: log_prob(state.params, _examples(batch)),
        axis_name=axis_name,
    )


def _examples(batch: Batch) -> Any:
    random.batch_size(batch)
    _checks.rank("x", batch["x"], 2, "(batch, dim)")
    return jnp.asarray(batch["x"]).astype(jnp.float32)
