"""Linear autoregression of time series, AR(p), learned by counting.

    x_t = b_0 + Σ_{i=1..p} b_i x_{t−i} + ε_t,   ε_t ~ N(0, σ²)             for t > p
    x_1 … x_p ~ N(m, S),                        m, S of all p neighbours in the training rows

All of it follows from the sums of (1, x_{t−1}, …, x_{t−p}, x_t) and of their products over every window of p + 1
neighbours: b is the least-squares solution, σ² the mean square of its residuals. `log_prob` is the density of the whole
row, first values included, whether or not the fit is stationary; `conditional_log_prob` is that of the rest given
the first p values, which least squares maximizes. For a stationary fit, `stationary_covariance` is what S tends to.
Yule: On a Method of Investigating Periodicities in Disturbed Series, 1927. Box and Jenkins: Time Series Analysis, 1970.

Differs from Yule: least squares instead of the Yule-Walker equations, so a fit may be unstable (`is_stationary`).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics
from jgen.learners import CountingState, counting
from jgen.model import Model


class Params(NamedTuple):
    """What an AR(p) knows.

    Attributes:
        bias: b_0.
        coefficients: (p,), b_1 … b_p, the newest value's first.
        variance: σ².
        mean: (p,), m, of p neighbours, the oldest first.
        covariance: (p, p), S, in the same order.
    """

    bias: Any
    coefficients: Any
    variance: Any
    mean: Any
    covariance: Any


class Forecast(NamedTuple):
    """Mean and variance of the values to come, given the past."""

    mean: Any
    variance: Any


def series(batch: Batch) -> Float[Array, "batch time"]:
    """`batch["x"]`, checked: rows of finite values, in the widest float that JAX is set to.

    Raises:
        ValueError: they are not.
    """
    random.batch_size(batch)
    x = batch["x"]
    _checks.rank("x", x, 2, "(batch, time)")
    largest = float(np.finfo(np.float32).max)
    _checks.within("x", x, -largest, largest)
    return jnp.asarray(x, jnp.result_type(float))


def products(x: Float[Array, "batch time"], order: int) -> Float[Array, "entries entries"]:
    """Σ z zᵀ over all windows of p + 1 neighbours, z = (1, x_{t−1}, …, x_{t−p}, x_t); zeros where no row is as long."""
    num = max(x.shape[1] - order, 0)
    lags = [x[:, order - i : order - i + num].reshape(-1) for i in (*range(1, order + 1), 0)]
    z = jnp.stack([jnp.ones_like(lags[0]), *lags])
    return jnp.einsum("in,jn->ij", z, z, precision=jax.lax.Precision.HIGHEST)


def solve(moments: Float[Array, "entries entries"], floor: float = 0.0) -> Params:
    """Least squares, and the law of p neighbours; zeros and `floor` before any window was seen.

    Of several solutions (a constant series has many) it is the one with the smallest coefficients.

    Args:
        moments: sums of `products`.
        floor: the least that σ² is, and what is added to the variances in S.
    """
    num = jnp.maximum(moments[0, 0], 1.0)
    mean = moments[0, 1:] / num
    covariance = moments[1:, 1:] / num - mean[:, None] * mean[None]
    past, across = covariance[:-1, :-1], covariance[:-1, -1]
    scale, directions = jnp.linalg.eigh(past)
    smallest = past.shape[0] * jnp.finfo(past.dtype).eps * jnp.max(jnp.abs(scale))
    inverse = jnp.where(scale > smallest, 1.0 / jnp.where(scale > smallest, scale, 1.0), 0.0)
    coefficients = directions @ (inverse * (directions.T @ across))
    residual = covariance[-1, -1] - 2 * coefficients @ across + coefficients @ past @ coefficients
    bias = mean[-1] - coefficients @ mean[:-1]
    start = past[::-1, ::-1] + floor * jnp.eye(past.shape[0], dtype=past.dtype)
    return Params(bias, coefficients, jnp.maximum(residual, floor), mean[:-1][::-1], start)


def predict(params: Params, past: Float[Array, "*batch order"]) -> Float[Array, "*batch"]:
    """E[x_t | the p values before it, the oldest first]."""
    return params.bias + jnp.sum(past * jnp.broadcast_to(params.coefficients[::-1], past.shape), axis=-1)


def conditional_log_prob(params: Params, x: Float[Array, "batch time"]) -> Float[Array, "batch rest"]:
    """log p(x_t | the p values before it) of each value after the first p, in nats."""
    order = params.coefficients.shape[0]
    index = np.arange(max(x.shape[1] - order, 0))[:, None] + np.arange(order)[None]
    return _normal(x[:, order:] - predict(params, x[:, index]), params.variance)


def log_prob(params: Params, x: Float[Array, "batch time"]) -> Float[Array, " batch"]:
    """log p of whole rows in nats: the first p values by N(m, S), the others given those before them."""
    num = min(params.coefficients.shape[0], x.shape[1])
    factor = jnp.linalg.cholesky(params.covariance[:num, :num])
    first = jax.scipy.linalg.solve_triangular(factor, (x[:, :num] - params.mean[None, :num]).T, lower=True)
    begin = jnp.sum(_normal(first, jnp.ones((), x.dtype)), axis=0) - jnp.sum(jnp.log(jnp.diagonal(factor)))
    return begin + jnp.sum(conditional_log_prob(params, x), axis=1)


def _normal(deviation: Any, variance: Any) -> Any:
    return -0.5 * (deviation**2 / variance + jnp.log(2 * np.pi * variance))


def sample(
    key: Key, params: Params, num: int, length: int, *, past: Float[Array, "*rows time"] | None = None
) -> Float[Array, "num length"]:
    """Draws `num` rows, value after value from the p before it, which are the cache. Example i draws from (key, i).

    Args:
        past: (time,) or (num, time), at least p values that the rows go on from; they are not returned.

    Raises:
        ValueError: `length` is below 1, or `past` has another shape or too few values.
    """
    _checks.at_least("length", length, 1)
    order, dtype = params.coefficients.shape[0], params.coefficients.dtype
    noise = jax.vmap(lambda key: jax.random.normal(key, (length,), dtype))(random.example_keys(key, num))
    first = jnp.zeros((num, 0), dtype)
    if past is None:
        begun = min(order, length)
        factor = jnp.linalg.cholesky(params.covariance)[:begun, :begun]
        first = params.mean[None, :begun] + noise[:, :begun] @ factor.T
        window = jnp.pad(first, ((0, 0), (order - begun, 0)))
    else:
        window = jnp.broadcast_to(_newest(past, order), (num, order))
    return jnp.concatenate([first, _go_on(params, window, noise[:, first.shape[1] :].T)], axis=1)


def forecast(params: Params, past: Float[Array, "batch time"], num_steps: int) -> Forecast:
    """The law of the next values given the past: means (batch, num_steps), variances (num_steps,) = σ² Σ_{j<h} ψ_j².

    ψ_0 = 1, ψ_j = Σ_i b_i ψ_{j−i}: what a unit of noise has become j steps later.

    Raises:
        ValueError: `num_steps` is below 1, or the past has fewer than p values.
    """
    _checks.at_least("num_steps", num_steps, 1)
    order, dtype = params.coefficients.shape[0], params.coefficients.dtype
    silence = jnp.zeros((num_steps, 1), dtype)
    mean = _go_on(params, _newest(past, order), silence)
    one = jnp.zeros((1, order), dtype).at[0, -1].set(1.0)
    later = _go_on(params._replace(bias=jnp.zeros_like(params.bias)), one, silence)[0]
    psi = jnp.concatenate([jnp.ones(1, dtype), later[:-1]])
    return Forecast(mean, params.variance * jnp.cumsum(psi**2))


def _newest(past: Any, order: int) -> Any:
    past = jnp.atleast_2d(past)
    if past.ndim != 2 or past.shape[1] < order:
        raise ValueError(f"`past` must be rows of at least the {order} values of the order, got shape {past.shape}.")
    return past[:, past.shape[1] - order :]


def _go_on(params: Params, window: Any, noise: Any) -> Any:
    """(batch, steps) values after `window`, with noise (steps, batch or 1); the window is all that is kept."""

    def step(window: Any, noise: Any) -> Any:
        x = predict(params, window) + jnp.sqrt(params.variance) * noise
        return jnp.concatenate([window[:, 1:], x[:, None]], axis=1), x

    return jax.lax.scan(step, window, noise)[1].T


def companion(coefficients: Float[Array, " order"]) -> Float[Array, "order order"]:
    """The matrix A with (x_t, …, x_{t−p+1}) = A (x_{t−1}, …, x_{t−p}) + (b_0 + ε_t, 0, …, 0)."""
    order = coefficients.shape[0]
    return jnp.eye(order, k=-1, dtype=coefficients.dtype).at[0].set(coefficients)


def is_stationary(params: Params) -> Any:
    """Whether all eigenvalues of the companion matrix lie inside the unit circle: what happened is forgotten."""
    return jnp.max(jnp.abs(jnp.linalg.eigvals(companion(params.coefficients)))) < 1


def stationary_mean(params: Params) -> Float[Array, ""]:
    """b_0/(1 − Σ b_i), what a stationary series returns to."""
    return params.bias / (1 - jnp.sum(params.coefficients))


def stationary_covariance(params: Params) -> Float[Array, "order order"]:
    """Γ = A Γ Aᵀ + σ² e_1 e_1ᵀ, of p neighbours of a stationary series; without meaning for any other."""
    a = companion(params.coefficients)
    noise = jnp.zeros_like(a).at[0, 0].set(params.variance)
    return jnp.linalg.solve(jnp.eye(a.size, dtype=a.dtype) - jnp.kron(a, a), noise.reshape(-1)).reshape(a.shape)


def spectrum(params: Params, frequencies: Float[Array, " num"]) -> Float[Array, " num"]:
    """σ²/|1 − Σ_k b_k exp(−2πi f k)|², power at f cycles per step; its integral over [−½, ½] is the variance."""
    lags = jnp.arange(1, params.coefficients.shape[0] + 1)
    phase = 2 * np.pi * frequencies[:, None] * lags[None]
    real = 1 - jnp.cos(phase) @ params.coefficients
    return params.variance / (real**2 + (jnp.sin(phase) @ params.coefficients) ** 2)


def model(order: int, *, length: int = 100, floor: float = 1e-6, axis_name: str | None = None) -> Model[CountingState]:
    """AR(p) over batches {"x": (batch, time)}, rows of more than p real values; an update adds the batch's products.

    In 32 bits the normal equations lose accuracy where values have a mean far from zero or almost repeat their past:
    standardize them, or set JAX to 64 bits, in which the whole of it then runs.

    Args:
        order: p.
        length: how many values `sample` draws.
        floor: the least that σ² is, and what is added to the variances of the first p values.
        axis_name: the mapped axis over which the products are added.

    Raises:
        ValueError: an argument is out of its range.
    """
    _checks.at_least("order", order, 1)
    _checks.at_least("length", length, 1)
    _checks.positive("floor", floor)

    def rows(batch: Batch) -> Any:
        x = series(batch)
        if x.shape[1] <= order:
            raise ValueError(f"`x` must have more than the {order} values of `order` in a row, got {x.shape[1]}.")
        return x

    def evaluate(key: Key, state: CountingState, batch: Batch) -> Metrics:
        del key
        each = conditional_log_prob(state.params, rows(batch))
        return {"nll": -log_prob(state.params, rows(batch)), "conditional_nats_per_value": -jnp.mean(each, axis=1)}

    return counting(
        lambda batch: jnp.zeros_like(products(rows(batch), order)),
        lambda batch: products(rows(batch), order),
        functools.partial(solve, floor=floor),
        evaluate=evaluate,
        sample=lambda key, state, num: {"x": sample(key, state.params, num, length)},
        log_prob=lambda state, batch: log_prob(state.params, series(batch)),
        axis_name=axis_name,
    )
