"""Noise schedules: log-SNR tables in float64, from which every coefficient follows.

x_t = α_t x_0 + σ_t ε with α_t² = sigmoid(λ_t), σ_t² = sigmoid(−λ_t), where λ_t = log(α_t²/σ_t²) falls with t.
Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models" (2020); Nichol and Dhariwal, "Improved Denoising
Diffusion Probabilistic Models" (2021), for the cosine schedule.

Differs from the papers: the linear schedule is given as rates per unit of time, so that it ends in the same noise for
every number of steps; with 1,000 steps it is the paper's.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from jgen._checks import at_least

Table = Float[np.ndarray, " _"]  # one value per step


class PosteriorTable(NamedTuple):
    """q(x_{t−1} | x_t, x_0) = N(start·x_0 + noisy·x_t, variance), one row per step t; row 0 is the identity."""

    start: Table
    noisy: Table
    variance: Table


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """The noise levels of steps 0..T; step 0 is clean data.

    Attributes:
        log_snr: λ_t for t = 0..T, strictly decreasing, with λ_0 = +inf.
        time: what a network is told of step t, increasing from 0 to 1; a schedule of fewer steps keeps the times of
            the one that the network learned with.

    Raises:
        ValueError: the tables differ in length, hold no step, or are not monotone.
    """

    log_snr: Table
    time: Table

    def __post_init__(self) -> None:
        if len(self.log_snr) < 2 or len(self.log_snr) != len(self.time):
            raise ValueError(
                "`log_snr` and `time` must have one length of at least 2, "
                f"got lengths {len(self.log_snr)} and {len(self.time)}."
            )
        if self.log_snr[0] != np.inf or not np.all(np.isfinite(self.log_snr[1:])):
            raise ValueError(f"`log_snr` must be +inf at step 0 and finite after it, got {self.log_snr}.")
        if not np.all(np.diff(self.log_snr[1:]) < 0):
            raise ValueError(f"`log_snr` must be strictly decreasing, got {self.log_snr}.")
        if not np.all(np.diff(self.time) > 0):
            raise ValueError(f"`time` must be strictly increasing, got {self.time}.")

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.log_snr) - 1

    @functools.cached_property
    def alpha(self) -> Table:
        """α_t = sqrt(ᾱ_t), the signal's coefficient."""
        return np.sqrt(expit(self.log_snr))

    @functools.cached_property
    def sigma(self) -> Table:
        """σ_t = sqrt(1 − ᾱ_t), the noise's coefficient."""
        return np.sqrt(expit(-self.log_snr))

    @functools.cached_property
    def beta(self) -> Table:
        """β_t = 1 − ᾱ_t/ᾱ_{t−1}, the variance that step t adds; 0 at step 0."""
        log_alpha_bar = -np.logaddexp(0.0, -self.log_snr)
        return np.concatenate([[0.0], -np.expm1(np.diff(log_alpha_bar))])

    @functools.cached_property
    def posterior(self) -> PosteriorTable:
        """The posterior of each step: α_{t−1}β_t/σ_t², α_tσ²_{t−1}/(α_{t−1}σ_t²), β_tσ²_{t−1}/σ_t² (eq. 7)."""
        alpha, before, beta = self.alpha[1:], self.alpha[:-1], self.beta[1:]
        ratio = (self.sigma[:-1] / self.sigma[1:]) ** 2
        start, noisy = before * beta / self.sigma[1:] ** 2, alpha / before * ratio
        return PosteriorTable(*(np.concatenate([[x], y]) for x, y in ((0, start), (1, noisy), (0, beta * ratio))))

    @functools.cached_property
    def log_beta(self) -> Table:
        """log β_t; row 0 repeats row 1."""
        return np.log(np.concatenate([self.beta[1:2], self.beta[1:]]))

    @functools.cached_property
    def log_posterior_variance(self) -> Table:
        """log β̃_t; β̃_1 = 0 is replaced by β̃_2 (by β_1 where there is one step only), as the paper's code does."""
        variance = self.posterior.variance
        first = variance[2:3] if self.num_steps > 1 else self.beta[1:2]
        return np.log(np.concatenate([first, first, variance[2:]]))


def from_betas(betas: Table) -> Schedule:
    """The schedule whose step t adds variance β_t, for t = 1..T: log ᾱ_t = Σ_{s≤t} log(1 − β_s).

    Raises:
        ValueError: a β is not in (0, 1).
    """
    betas = np.asarray(betas, np.float64)
    if betas.size == 0 or not np.all((betas > 0) & (betas < 1)):
        raise ValueError(f"`betas` must lie in (0, 1), got {betas}.")
    log_alpha_bar = np.cumsum(np.log1p(-betas))
    log_snr = log_alpha_bar - np.log(-np.expm1(log_alpha_bar))
    return Schedule(np.concatenate([[np.inf], log_snr]), np.linspace(0.0, 1.0, len(betas) + 1))


def linear(num_steps: int, *, first_rate: float = 0.1, last_rate: float = 20.0, max_beta: float = 0.999) -> Schedule:
    """β_t·T rises linearly from `first_rate` to `last_rate`: with T = 1,000, from 10⁻⁴ to 0.02 (Ho et al., 2020).

    Args:
        num_steps: T.
        max_beta: cap of β_t, which binds for T of 20 and fewer.

    Raises:
        ValueError: `num_steps` is less than 1, or a β is not in (0, 1).
    """
    at_least("num_steps", num_steps, 1)
    return from_betas(np.minimum(np.linspace(first_rate, last_rate, num_steps) / num_steps, max_beta))


def cosine(num_steps: int, *, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """ᾱ_t = f(t)/f(0), f(t) = cos²(π/2 · (t/T + s)/(1 + s)), with β_t capped (Nichol and Dhariwal, 2021, eq. 17).

    Raises:
        ValueError: `num_steps` is less than 1.
    """
    at_least("num_steps", num_steps, 1)
    f = np.cos((np.linspace(0.0, 1.0, num_steps + 1) + offset) / (1.0 + offset) * np.pi / 2) ** 2
    return from_betas(np.minimum(1.0 - f[1:] / f[:-1], max_beta))


def respace(schedule: Schedule, num_steps: int) -> Schedule:
    """The sub-sequence of `num_steps` steps of a schedule, evenly spaced from 0 to T, for sampling in fewer steps.

    Raises:
        ValueError: `num_steps` is not in 1..T.
    """
    if not 1 <= num_steps <= schedule.num_steps:
        raise ValueError(f"`num_steps` must be in 1..{schedule.num_steps}, got {num_steps}.")
    kept = np.round(np.linspace(0, schedule.num_steps, num_steps + 1)).astype(int)
    return Schedule(schedule.log_snr[kept], schedule.time[kept])
