"""From a network's output to estimates: x̂_0, ε̂ and the variance of the way back.

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models" (2020), section 3.2; Nichol and Dhariwal, "Improved
Denoising Diffusion Probabilistic Models" (2021), section 3.1; Salimans and Ho (2022) for v.

Differs from the papers: nothing.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jgen import linen
from jgen._checks import at_least, one_of
from jgen._types import Key, Params
from jgen.diffusion import process, schedules
from jgen.diffusion.process import Data, Steps
from jgen.diffusion.samplers import Estimate
from jgen.diffusion.schedules import Schedule

VARIANCES = ("posterior", "forward", "learned")


@dataclasses.dataclass(frozen=True, eq=False)
class Denoiser:
    """A network and how it is read; fixed before learning.

    Attributes:
        module: (x_t, time, train=) -> what it predicts; its last axis is twice as long where the variance is learned.
        schedule: the noise levels.
        levels: data are whole numbers 0..levels-1, which are mapped to [-1, 1]; None for real data as they are.
        prediction: "noise", "start", "velocity" or "score".
        variance: Σ_t is β̃_t ("posterior"), β_t ("forward"), or learned between the two.
        clip: x̂_0 is clipped to [-1, 1]; by default where `levels` is given.

    Raises:
        ValueError: an unknown `prediction` or `variance`, or fewer than two levels.
    """

    module: nn.Module
    schedule: Schedule
    levels: int | None = None
    prediction: str = "noise"
    variance: str = "posterior"
    clip: bool | None = None

    def __post_init__(self) -> None:
        one_of("prediction", self.prediction, process.PREDICTIONS)
        one_of("variance", self.variance, VARIANCES)
        if self.levels is not None:
            at_least("levels", self.levels, 2)

    @property
    def clips(self) -> bool:
        """Whether x̂_0 is clipped."""
        return self.levels is not None if self.clip is None else self.clip


def respace(denoiser: Denoiser, num_steps: int | None) -> Denoiser:
    """The same model with a sub-sequence of its steps; unchanged for None."""
    if num_steps is None:
        return denoiser
    return dataclasses.replace(denoiser, schedule=schedules.respace(denoiser.schedule, num_steps))


def interpolate_log_variance(fraction: Data, t: Steps, schedule: Schedule) -> Data:
    """log Σ = v log β_t + (1 − v) log β̃_t (Nichol and Dhariwal, 2021, eq. 15)."""
    low = process.at(schedule.log_posterior_variance, t, fraction.ndim)
    return low + fraction * (process.at(schedule.log_beta, t, fraction.ndim) - low)


def denoise(
    params: Params,
    stats: Params,
    x_noisy: Data,
    t: Steps,
    *,
    denoiser: Denoiser,
    condition: Any = None,
    key: Key | None = None,
    train: bool = False,
) -> tuple[Estimate, tuple[Array, Params]]:
    """(estimate, (raw prediction, stats)): the network at x_t, and x̂_0, ε̂ and Σ_t from it.

    Args:
        condition: a third input of the module, where it takes one.
        key: of dropout.
    """
    ndim, schedule = x_noisy.ndim, denoiser.schedule
    inputs = (x_noisy, process.at(schedule.time, t, 1)) + (() if condition is None else (condition,))
    out, stats = linen.apply_and_update(denoiser.module, params, stats, *inputs, key=key, train=train)
    if denoiser.variance == "learned":
        out, free = jnp.split(out, 2, axis=-1)
        log_variance = interpolate_log_variance(0.5 * (free + 1.0), t, schedule)
    else:
        table = schedule.log_beta if denoiser.variance == "forward" else schedule.log_posterior_variance
        log_variance = process.at(table, t, ndim)
    alpha, sigma = process.at(schedule.alpha, t, ndim), process.at(schedule.sigma, t, ndim)
    start, noise = process.start_and_noise(denoiser.prediction, out, x_noisy, alpha, sigma)
    if denoiser.clips:
        start = jnp.clip(start, -1.0, 1.0)
        noise = process.noise_of(start, x_noisy, alpha, sigma)
    return Estimate(start, noise, log_variance), (out, stats)
