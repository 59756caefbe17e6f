"""Stochastic-gradient Langevin dynamics: Langevin's walk with the gradient of a random part of the data.

    θ' = θ + ε_t·ĝ(θ) + √(2ε_t T)·ξ,  ξ ~ N(0, I),    E ĝ(θ) = ∇ log p(θ) + Σ_{i ≤ N} ∇ log p(x_i|θ)
    plain:              ĝ(θ) = ∇ log p(θ) + N/n·Σ_{i ∈ S} ∇ log p(x_i|θ)
    control variates:   ĝ(θ) = ĝ_N(θ̂) + ∇ log p(θ) − ∇ log p(θ̂) + N/n·Σ_{i ∈ S} [∇ log p(x_i|θ) − ∇ log p(x_i|θ̂)]
with S of n indices drawn independently and ĝ_N the gradient of all data. As ε_t falls (Σ ε_t = ∞, Σ ε_t² < ∞),
averages weighted by ε_t tend to those of p(θ|x)^{1/T}. At a constant ε the law is wider: for a posterior N(m, σ²) and a
gradient whose noise has variance s² everywhere, it has mean m and variance (2εT + ε²s²)/(1 − (1 − ε/σ²)²).

Papers: Welling and Teh, "Bayesian learning via stochastic gradient Langevin dynamics", 2011; Baker et al., "Control
variates for stochastic gradient MCMC", 2019.
Differs from the papers: step_size is their ε/2, as in `langevin`; indices are drawn with replacement.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Int

from jgen import random
from jgen._checks import at_least, positive
from jgen._types import Batch, Key, Scalar
from jgen.math import trees
from jgen.sampler import Sampler
from jgen.samplers import langevin

Gradient: TypeAlias = Callable[[Key, Any], Any]
"""(key, θ) -> an unbiased estimate of the gradient of the log-posterior, of the form of θ."""


class State(NamedTuple):
    """Where the chain stands, and how many steps it has taken."""

    position: Any
    step: Int[Array, ""]


class Info(NamedTuple):
    """What moved the chain.

    Attributes:
        step_size: ε_t: the weight of this position in averages, where step sizes fall.
        gradient_norm: the norm of ĝ, over all leaves.
    """

    step_size: Scalar
    gradient_norm: Scalar


def minibatch(
    log_prior: Callable[[Any], Any], log_likelihood: Callable[[Any, Any], Any], data: Batch, batch_size: int
) -> Gradient:
    """The plain estimate.

    Args:
        log_prior: (θ) -> log p(θ) up to a constant.
        log_likelihood: (θ, example) -> log p(x_i|θ) up to a constant; an example is `data` without its leading axis.
        data: dict of arrays that share their leading axis, of length N.
        batch_size: n.

    Raises:
        ValueError: `batch_size` is less than 1, or `data` is no batch.
    """
    at_least("batch_size", batch_size, 1)
    num = random.batch_size(data)

    def gradient(key: Key, position: Any) -> Any:
        rows = _rows(key, data, num, batch_size)
        return jax.grad(lambda theta: _log_joint(log_prior, log_likelihood, theta, rows, num / batch_size))(position)

    return gradient


def control_variates(
    log_prior: Callable[[Any], Any],
    log_likelihood: Callable[[Any, Any], Any],
    data: Batch,
    batch_size: int,
    centre: Any,
) -> Gradient:
    """The estimate that knows the whole gradient at `centre`: its noise falls with the distance from there.

    Args:
        log_prior: as in `minibatch`.
        log_likelihood: as in `minibatch`.
        data: as in `minibatch`.
        batch_size: n.
        centre: θ̂, near the mode; the gradient of all N examples is computed there once, here.

    Raises:
        ValueError: `batch_size` is less than 1, or `data` is no batch.
    """
    at_least("batch_size", batch_size, 1)
    num = random.batch_size(data)
    whole = jax.grad(lambda theta: _log_joint(log_prior, log_likelihood, theta, data, 1.0))(centre)

    def gradient(key: Key, position: Any) -> Any:
        rows = _rows(key, data, num, batch_size)
        at = jax.grad(lambda theta: _log_joint(log_prior, log_likelihood, theta, rows, num / batch_size))
        return jax.tree.map(lambda all_there, here, there: all_there + (here - there), whole, at(position), at(centre))

    return gradient


def polynomial(first: float, *, delay: float = 1.0, power: float = 0.55) -> Callable[[Any], Any]:
    """ε_t = first·(1 + t/delay)^{−power}.

    Args:
        first: ε_0, positive.
        delay: steps over which the first fall to 2^{−power} takes place, positive.
        power: in (1/2, 1], where Σ ε_t diverges and Σ ε_t² does not.

    Raises:
        ValueError: an argument is outside of its range.
    """
    positive("first", first)
    positive("delay", delay)
    if not 0.5 < power <= 1:
        raise ValueError(f"`power` must be in (0.5, 1], got {power}.")
    return lambda t: first * (1 + t / delay) ** -power


def sampler(gradient: Gradient, step_size: Any, *, temperature: Any = 1.0) -> Sampler[State]:
    """The kernel of one chain; many chains by `jax.vmap`.

    Args:
        gradient: from `minibatch` or `control_variates`, or any unbiased estimate.
        step_size: ε, positive; or (t) -> ε_t, such as `polynomial`.
        temperature: T, at least 0; with 0 it is stochastic gradient ascent, with 1 it aims at the posterior.

    Raises:
        ValueError: `step_size` is not positive, or `temperature` is negative.
    """
    if not callable(step_size):
        positive("step_size", step_size)
    if not isinstance(temperature, Tracer):
        at_least("temperature", temperature, 0)

    def init(key: Key, position: Any) -> State:
        del key
        return State(position, jnp.zeros((), jnp.int32))

    def step(key: Key, state: State) -> tuple[State, Info]:
        gradient_key, noise_key = jax.random.split(key)
        size = jnp.asarray(step_size(state.step) if callable(step_size) else step_size, jnp.result_type(float))
        direction = gradient(gradient_key, state.position)
        noise = jax.tree.map(lambda n: jnp.sqrt(temperature) * n, random.normal_like(noise_key, state.position))
        position = langevin.displace(state.position, direction, noise, size)
        return State(position, state.step + 1), Info(size, jnp.sqrt(trees.inner(direction, direction)))

    return Sampler(init, step)


def _rows(key: Key, data: Batch, num: int, batch_size: int) -> Batch:
    index = jax.random.randint(key, (batch_size,), 0, num)
    return {name: jnp.asarray(x)[index] for name, x in data.items()}


def _log_joint(log_prior: Any, log_likelihood: Any, theta: Any, rows: Batch, scale: float) -> Scalar:
    terms = jax.vmap(log_likelihood, (None, 0))(theta, rows)
    return log_prior(theta) + scale * jnp.sum(terms)
