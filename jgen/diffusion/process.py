"""The Gaussian diffusion process: what noise does to data, and what is known of the way back.

    q(x_t | x_0) = N(α_t x_0, σ_t²),    q(x_{t−1} | x_t, x_0) = N(c_t x_0 + d_t x_t, β̃_t)

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models" (2020), eq. 4, 6 and 7; Salimans and Ho, "Progressive
Distillation" (2022), for v. Steps t are 1..T, one per example; their coefficients are gathered from float64 tables.

Differs from the paper: nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen import random
from jgen._checks import integers, one_of
from jgen._types import Batch, Key, Keys
from jgen.diffusion.schedules import Schedule

Steps = Int[Array, " batch"]
Data = Float[Array, "batch *shape"]
Coefficient = Float[Array, "batch *ones"]  # one value per example, with axes of length 1 for the rest

PREDICTIONS = ("noise", "start", "velocity", "score")
_GOLDEN = np.uint32(2654435769)  # 2³² divided by the golden ratio


class Gaussian(NamedTuple):
    """A diagonal Gaussian; `log_variance` broadcasts against `mean`."""

    mean: Float[Array, "batch *shape"]
    log_variance: Float[Array, "batch *_"]


def at(table: Float[np.ndarray, " steps"], t: Steps, ndim: int) -> Coefficient:
    """The rows t of a float64 table, with `ndim` axes so that they multiply a batch of data."""
    return jnp.expand_dims(jnp.asarray(table, jnp.result_type(float))[t], tuple(range(1, ndim)))


def forward(x_start: Data, t: Steps, schedule: Schedule) -> Gaussian:
    """q(x_t | x_0) = N(α_t x_0, σ_t²) (eq. 4)."""
    ndim = x_start.ndim
    return Gaussian(at(schedule.alpha, t, ndim) * x_start, 2 * jnp.log(at(schedule.sigma, t, ndim)))


def diffuse(x_start: Data, noise: Data, t: Steps, schedule: Schedule) -> Data:
    """A draw from q(x_t | x_0): x_t = α_t x_0 + σ_t ε."""
    ndim = x_start.ndim
    return at(schedule.alpha, t, ndim) * x_start + at(schedule.sigma, t, ndim) * noise


def posterior(x_start: Data, x_noisy: Data, t: Steps, schedule: Schedule) -> Gaussian:
    """q(x_{t−1} | x_t, x_0) (eq. 6 and 7); at t = 1 its variance is 0."""
    table, ndim = schedule.posterior, x_start.ndim
    mean = at(table.start, t, ndim) * x_start + at(table.noisy, t, ndim) * x_noisy
    return Gaussian(mean, jnp.log(at(table.variance, t, ndim)))


def prior_kl(x_start: Data, schedule: Schedule) -> Float[Array, " batch"]:
    """L_T = KL(q(x_T | x_0) ‖ N(0, 1)), summed over dimensions, in nats."""
    alpha_bar = float(schedule.alpha[-1] ** 2)
    constant = -alpha_bar - float(np.log(schedule.sigma[-1] ** 2))
    return 0.5 * jnp.sum(alpha_bar * x_start**2 + constant, axis=range(1, x_start.ndim))


def prediction_target(kind: str, x_start: Data, noise: Data, alpha: Coefficient, sigma: Coefficient) -> Data:
    """What a network that predicts `kind` should put out: ε, x_0, v = αε − σx_0, or the score −ε/σ.

    Raises:
        ValueError: `kind` is not one of `PREDICTIONS`.
    """
    one_of("kind", kind, PREDICTIONS)
    if kind == "noise":
        return noise
    if kind == "start":
        return x_start
    return alpha * noise - sigma * x_start if kind == "velocity" else -noise / sigma


def start_and_noise(
    kind: str, output: Data, x_noisy: Data, alpha: Coefficient, sigma: Coefficient
) -> tuple[Data, Data]:
    """(x_0, ε) from a network's output and x_t = αx_0 + σε, where α² + σ² = 1: the one conversion table.

    Raises:
        ValueError: `kind` is not one of `PREDICTIONS`.
    """
    one_of("kind", kind, PREDICTIONS)
    if kind == "velocity":
        return alpha * x_noisy - sigma * output, sigma * x_noisy + alpha * output
    if kind == "start":
        return output, noise_of(output, x_noisy, alpha, sigma)
    noise = output if kind == "noise" else -sigma * output
    return (x_noisy - sigma * noise) / alpha, noise


def noise_of(x_start: Data, x_noisy: Data, alpha: Coefficient, sigma: Coefficient) -> Data:
    """ε = (x_t − αx_0)/σ."""
    return (x_noisy - alpha * x_start) / sigma


def scale(x: Array, levels: int | None) -> Float[Array, "batch *shape"]:
    """Whole numbers 0..levels−1 mapped to [−1, 1]; real data (`levels` None) as they are.

    Raises:
        ValueError: a value is not a whole number in 0..levels−1.
    """
    if levels is None:
        return jnp.asarray(x, jnp.result_type(float))
    integers("x", x, levels)
    return jnp.asarray(x, jnp.result_type(float)) * (2.0 / (levels - 1)) - 1.0


def unscale(x: Data, levels: int | None) -> Array:
    """The nearest whole number of each value of [−1, 1], in the smallest unsigned type; the inverse of `scale`."""
    if levels is None:
        return x
    whole = jnp.round((jnp.clip(x, -1.0, 1.0) + 1.0) * (0.5 * (levels - 1)))
    return whole.astype(jnp.uint8 if levels <= 256 else jnp.uint16)


def discretized_log_prob(x: Data, gaussian: Gaussian, levels: int) -> Data:
    """log ∫ N(y; mean, variance) dy over the bin of x, per dimension, in nats (eq. 13).

    The bins of the `levels` values of [−1, 1] are 2/(levels−1) wide; the outer two reach to ±infinity, so that the
    masses sum to 1. Both ends are taken in the smaller tail: log(Φ(a) − Φ(b)) = log Φ(a) + log(1 − Φ(b)/Φ(a)).
    """
    half = 1.0 / (levels - 1)
    precision = jnp.exp(-0.5 * gaussian.log_variance)
    centred = x - gaussian.mean
    upper, lower = (centred + half) * precision, (centred - half) * precision
    flip = centred > 0
    a, b = jnp.where(flip, -lower, upper), jnp.where(flip, -upper, lower)
    log_a = jax.scipy.special.log_ndtr(a)
    log_ratio = jnp.minimum(jax.scipy.special.log_ndtr(b) - log_a, -jnp.finfo(x.dtype).tiny)
    inside = log_a + _log1mexp(log_ratio)
    edge = jnp.abs(x) > 1.0 - half
    outward = jnp.where(x < 0, upper, -lower)
    return jnp.where(edge, jax.scipy.special.log_ndtr(outward), inside)


def _log1mexp(x: Array) -> Array:
    """log(1 − eˣ) for x < 0."""
    near = x > -np.log(2.0)
    return jnp.where(near, jnp.log(-jnp.expm1(jnp.where(near, x, -1.0))), jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x))))


def uniforms(key: Key, batch: Batch, num: int = 1, *, stratified: bool = True) -> Float[Array, "batch num"]:
    """`num` uniform draws of [0, 1) per example, which depend on (key, example) alone.

    Stratified draws are u + i/φ mod 1 with one random u: each is uniform, and any run of them covers [0, 1) evenly,
    so that a mean over them has far less variance. They need no batch size, so shards agree.
    """
    if not stratified:
        return jax.vmap(lambda k: jax.random.uniform(k, (num,)))(random.batch_keys(key, batch))
    size = random.batch_size(batch)
    index = jnp.asarray(batch.get(random.INDEX, jnp.arange(size)), jnp.uint32)
    place = jnp.expand_dims(index, 1) * np.uint32(num) + jnp.expand_dims(jnp.arange(num, dtype=jnp.uint32), 0)
    bits = place * _GOLDEN + jax.random.bits(key, (), jnp.uint32)
    return (bits >> 8).astype(jnp.float32) * np.float32(2.0**-24)


def normals(keys: Keys, shape: tuple[int, ...]) -> Float[Array, "batch *shape"]:
    """Standard normal noise, one key per example."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
