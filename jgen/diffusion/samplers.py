"""The way back from noise to data, as samplers that `run` drives in one compiled program.

    ancestral: x_{t−1} ~ N(c_t x̂_0 + d_t x_t, Σ_t)
    DDIM:      x_{t−1} = α_{t−1} x̂_0 + sqrt(σ²_{t−1} − k²) ε̂ + k n,   k = η sqrt(β̃_t)

Ho, Jain and Abbeel (2020), Algorithm 2; Song, Meng and Ermon, "Denoising Diffusion Implicit Models" (2021), eq. 12.
Coefficients come from float64 tables and are gathered by step. After the T-th step a state stays where it is.

Differs from the papers: nothing; fewer steps are a schedule of fewer steps (`schedules.respace`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen import random
from jgen._types import Key
from jgen.diffusion.process import Data, Steps, normals
from jgen.diffusion.schedules import Schedule
from jgen.sampler import Sampler, run


class Estimate(NamedTuple):
    """What a network says of x_t.

    Attributes:
        start: x̂_0, its estimate of the clean data.
        noise: ε̂, which agrees with it: x_t = α_t x̂_0 + σ_t ε̂.
        log_variance: log Σ_t of p(x_{t−1} | x_t); broadcasts against `start`.
    """

    start: Float[Array, "batch *shape"]
    noise: Float[Array, "batch *shape"]
    log_variance: Float[Array, "batch *_"]


Denoise = Callable[[Data, Steps], Estimate]


class DiffusionState(NamedTuple):
    """Attributes: `position`, x_t of every example; `step`, t: the number of steps that are left."""

    position: Float[Array, "batch *shape"]
    step: Int[Array, ""]


class DiffusionInfo(NamedTuple):
    """Attributes: `start`, the estimate x̂_0 that the step used."""

    start: Float[Array, "batch *shape"]


def ancestral(denoise: Denoise, schedule: Schedule) -> Sampler[DiffusionState]:
    """Draws from p(x_{t−1} | x_t) step by step; the last step gives its mean (Algorithm 2).

    Args:
        denoise: (x_t, t) -> Estimate.
        schedule: the noise levels of `denoise`.
    """
    table = schedule.posterior
    tables = _tables(table.start, table.noisy, np.arange(schedule.num_steps + 1) > 1)

    def move(key: Key, x: Data, t: Int[Array, ""], estimate: Estimate) -> Data:
        start, noisy, noisily = (column[t] for column in tables)
        mean = start * estimate.start + noisy * x
        return mean + noisily * jnp.exp(0.5 * estimate.log_variance) * noise_like(key, x)

    return _reverse(denoise, schedule, move)


def ddim(denoise: Denoise, schedule: Schedule, *, eta: float = 0.0) -> Sampler[DiffusionState]:
    """Steps of the non-Markovian process with the same marginals: deterministic for η = 0, ancestral for η = 1.

    Args:
        denoise: (x_t, t) -> Estimate; its `log_variance` is not used.
        schedule: the noise levels of `denoise`.
        eta: the share of noise, in [0, 1].

    Raises:
        ValueError: `eta` is not in [0, 1].
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"`eta` must be in [0, 1], got {eta}.")
    alpha, variance = (np.concatenate([[first], x[:-1]]) for first, x in ((1, schedule.alpha), (0, schedule.sigma**2)))
    std = eta * np.sqrt(schedule.posterior.variance)
    tables = _tables(alpha, np.sqrt(np.maximum(variance - std**2, 0.0)), std)

    def move(key: Key, x: Data, t: Int[Array, ""], estimate: Estimate) -> Data:
        start, along, fresh = (column[t] for column in tables)
        moved = start * estimate.start + along * estimate.noise
        return moved + fresh * noise_like(key, x) if eta > 0 else moved

    return _reverse(denoise, schedule, move)


def noise_like(key: Key, x: Data) -> Data:
    """Standard normal noise in the shape of `x`; that of example i depends on (key, i) alone."""
    return normals(random.example_keys(key, x.shape[0]), x.shape[1:])


def sample(
    key: Key,
    sampler: Sampler[DiffusionState],
    num: int,
    *,
    shape: tuple[int, ...],
    num_steps: int,
    keep: Callable[[DiffusionState, DiffusionInfo], Any] = lambda state, info: None,
) -> tuple[Float[Array, "num *shape"], Any]:
    """(x_0, kept): `num` draws from x_T ~ N(0, 1) down to x_0, as one scan.

    Args:
        shape: of one example.
        num_steps: T of the sampler's schedule.
        keep: what to store of each step.
    """
    start_key, run_key = jax.random.split(key)
    noise = normals(random.example_keys(start_key, num), shape)
    state, kept = run(run_key, sampler, sampler.init(start_key, noise), num_steps, keep=keep)
    return state.position, kept


def _tables(*columns: Any) -> tuple[Array, ...]:
    return tuple(jnp.asarray(column, jnp.result_type(float)) for column in columns)


def _reverse(denoise: Denoise, schedule: Schedule, move: Callable[..., Data]) -> Sampler[DiffusionState]:
    """The sampler that counts t down from T and moves by `move(key, x_t, t, estimate)`."""

    def init(key: Key, position: Data) -> DiffusionState:
        del key
        return DiffusionState(position, jnp.asarray(schedule.num_steps, jnp.int32))

    def step(key: Key, state: DiffusionState) -> tuple[DiffusionState, DiffusionInfo]:
        x, t = state.position, jnp.maximum(state.step, 1)
        estimate = denoise(x, jnp.full((x.shape[0],), t))
        x = jnp.where(state.step > 0, move(key, x, t, estimate), x)
        return DiffusionState(x, jnp.maximum(state.step - 1, 0)), DiffusionInfo(estimate.start)

    return Sampler(init, step)
