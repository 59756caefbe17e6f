"""β-VAE: a weight on the rate, or a limit on it.

    fixed         min_θ D(θ) + β·R(θ),   distortion D = −E_q log p(x|z),  rate R = E KL(q(z|x) ‖ p(z))
    constrained   min_θ D(θ) subject to R(θ) ≤ δ,   by its Lagrangian D + λ·(R − δ),  λ = softplus(b) ≥ 0

While θ descends the Lagrangian, b ascends it: b ← b + η·(R̄ − δ), R̄ a moving average of R, so that a violated limit
makes the rate dearer. Where both rest, the conditions of Karush, Kuhn and Tucker hold: ∇D + λ∇R = 0, R ≤ δ, λ ≥ 0,
λ·(R − δ) = 0; then λ = −dD*/dδ, the price of a nat, is the β whose own optimum has rate δ.

Papers: Higgins et al., "β-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework", 2017, eqs. 2
to 4; the multiplier's ascent, for a limit on the distortion: Rezende and Viola, "Taming VAEs", 2018, algorithm 1.
Differs from the papers: the limit itself is solved for, where the first paper fixes its multiplier; b is kept above
−12, so that a limit which was idle for long is not answered late.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgen import _checks
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.latent import vae, warm_up
from jgen.latent.networks import Networks
from jgen.learners import GradientState
from jgen.model import Model

PRICE, AVERAGE = "price", "rate_average"  # the entries of `stats` that hold b and R̄
LOWEST = -12.0


class Sides(NamedTuple):
    """Both sides of the trade on one batch: means in nats, and their gradients, trees like `params`."""

    distortion: Scalar
    rate: Scalar
    distortion_gradient: Params
    rate_gradient: Params


class Conditions(NamedTuple):
    """How far the conditions of Karush, Kuhn and Tucker are from being met; all are 0 (or more) at an optimum.

    Attributes:
        stationarity: ‖∇D + λ∇R‖/(‖∇D‖ + ‖∇R‖), which is 0 at an optimum, whatever the units of θ.
        violation: max(R − δ, 0), nats; 0 where the limit is kept.
        multiplier: λ, never negative.
        slackness: λ·|R − δ|, nats; 0 where the limit is either reached or without a price.
    """

    stationarity: Scalar
    violation: Scalar
    multiplier: Scalar
    slackness: Scalar


def multiplier(stats: Params) -> Scalar:
    """λ = softplus(b)."""
    return jax.nn.softplus(stats[PRICE])


def average(rate: Scalar, rate_average: Scalar, step: Any, decay: float) -> Scalar:
    """R̄ ← R̄ + w·(R − R̄) with w = max(1 − decay, 1/(step + 1)): the plain mean, until a moving one has as much in it.

    Args:
        rate: of the batch.
        rate_average: R̄ so far.
        step: how many batches are in it.
        decay: of the moving average.
    """
    return rate_average + jnp.maximum(1 - decay, 1 / (step + 1)) * (rate - rate_average)


def ascend(price: Scalar, rate_average: Scalar, max_rate: float, multiplier_rate: float) -> Scalar:
    """b + η·(R̄ − δ), but at least −12 (λ = 6e-6): the sign of the Lagrangian's slope along b."""
    return jnp.maximum(price + multiplier_rate * (rate_average - max_rate), LOWEST)


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    networks: Networks,
    max_rate: float,
    multiplier_rate: float = 1e-3,
    decay: float = 0.99,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """The Lagrangian D + λ·(R̄ − δ) of a batch, nats, with the gradient of D + λ·R; b and R̄ go on in training.

    λ is a constant to the gradient, and neither it nor R̄ is a weight: no optimizer moves them.
    """
    price = multiplier(stats)
    weighted, (after, metrics) = vae.loss(key, params, stats, batch, train=train, networks=networks, beta=price)
    rate, mean = metrics["rate"], stats[AVERAGE]
    if train:
        mean = average(jax.lax.stop_gradient(rate), mean, stats[warm_up.STEP], decay)
        after = {**after, AVERAGE: mean, PRICE: ascend(stats[PRICE], mean, max_rate, multiplier_rate)}
    value = weighted + price * (jax.lax.stop_gradient(mean - rate) - max_rate)
    return value, (after, {**metrics, "loss": value, "multiplier": price, "rate_average": mean})


def sides(key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks) -> Sides:
    """D, R and their gradients on a batch, from one draw of z per example; means of them over batches are unbiased."""

    def both(params: Params) -> tuple[Scalar, Scalar]:
        values = vae.terms(key, params, stats, batch, networks=networks)
        return jnp.mean(values.distortion), jnp.mean(values.rate)

    (distortion, rate), pull = jax.vjp(both, params)
    one, zero = jnp.ones(()), jnp.zeros(())
    return Sides(distortion, rate, pull((one, zero))[0], pull((zero, one))[0])


def conditions(found: Sides, price: Scalar, max_rate: float) -> Conditions:
    """The conditions at the multiplier `price` and the limit `max_rate`; `found` is a mean of `sides` over the data."""
    residual = jax.tree.map(lambda d, r: d + price * r, found.distortion_gradient, found.rate_gradient)
    scale = optax.tree.norm(found.distortion_gradient) + optax.tree.norm(found.rate_gradient)
    gap = found.rate - max_rate
    stationarity = optax.tree.norm(residual) / jnp.maximum(scale, jnp.finfo(jnp.float32).tiny)
    return Conditions(stationarity, jnp.maximum(gap, 0.0), jnp.asarray(price), price * jnp.abs(gap))


def model(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    *,
    beta: float | None = None,
    max_rate: float | None = None,
    multiplier_rate: float = 1e-3,
    decay: float = 0.99,
    multiplier: float = 1.0,
    num_bound_samples: int = 1,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The VAE with a weight or with a limit on its rate; one of `beta` and `max_rate` is given.

    Args:
        networks: as in `vae.model`.
        optimizer: of the weights; the multiplier has a rate of its own.
        beta: the fixed weight of the rate.
        max_rate: δ, nats per example.
        multiplier_rate: η. The loop over the average swings where η·|dR/dλ|/(1 − decay) is much above ¼.
        decay: of the moving average R̄ that moves the multiplier.
        multiplier: λ before the first update.
        num_bound_samples: K of `log_bound`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: both or none of `beta` and `max_rate` are given, or an argument is out of its range.
    """
    if (beta is None) == (max_rate is None):
        raise ValueError(f"`beta` or `max_rate` must be given, and not both, got {beta} and {max_rate}.")
    common = {"num_bound_samples": num_bound_samples, "axis_name": axis_name}
    if max_rate is None:
        return vae.model(networks, optimizer, beta=beta or 0.0, **common)
    _checks.positive("max_rate", max_rate)
    _checks.positive("multiplier_rate", multiplier_rate)
    _checks.positive("multiplier", multiplier)
    _checks.within("decay", decay, 0.0, 1.0)
    settings = {"max_rate": max_rate, "multiplier_rate": multiplier_rate, "decay": decay}
    objective = functools.partial(loss, networks=networks, **settings)
    first = {PRICE: jnp.asarray(np.log(np.expm1(multiplier)), jnp.float32), AVERAGE: jnp.zeros(())}
    return vae.trained_by(objective, networks, optimizer, more_stats=first, **common)
