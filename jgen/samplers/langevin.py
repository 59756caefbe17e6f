"""Unadjusted Langevin dynamics.

    x' = x + step_size·∇log π(x) + √(2·step_size)·ξ,   ξ ~ N(0, I).

Paper: Roberts and Tweedie, "Exponential convergence of Langevin distributions and their discrete approximations",
1996.
Differs from the paper: nothing. Without a Metropolis test the law it keeps is not π: on N(0, σ²) it has variance
σ²/(1 − step_size/(2σ²)), and it diverges for step_size ≥ 2σ². (Where others write the drift ½ε²∇log π, step_size is
ε²/2.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgen import random
from jgen._checks import positive
from jgen._types import Key, Scalar
from jgen.math import trees
from jgen.sampler import Sampler


class State(NamedTuple):
    """Where the chain stands, with log π (up to a constant, nats) and its gradient there."""

    position: Any
    log_density: Scalar
    gradient: Any


class Info(NamedTuple):
    """The norm of the gradient that moved the chain, over all leaves."""

    gradient_norm: Scalar


def at(log_density: Callable[[Any], Any], position: Any) -> State:
    """The state at `position`."""
    return State(position, *jax.value_and_grad(lambda x: jnp.asarray(log_density(x)))(position))


def displace(position: Any, gradient: Any, noise: Any, step_size: Any) -> Any:
    """x + step_size·gradient + √(2·step_size)·noise."""
    spread = jnp.sqrt(2 * step_size)
    return jax.tree.map(lambda x, g, n: x + jnp.asarray(step_size * g + spread * n, x.dtype), position, gradient, noise)


def move(key: Key, position: Any, gradient: Any, step_size: Any) -> Any:
    """x + step_size·gradient + √(2·step_size)·ξ."""
    return displace(position, gradient, random.normal_like(key, position), step_size)


def sampler(log_density: Callable[[Any], Any], step_size: Any) -> Sampler[State]:
    """The unadjusted Langevin kernel of one chain; many chains by `jax.vmap`.

    Args:
        log_density: (position) -> log π up to a constant, differentiable; leaves of the position are floats.
        step_size: positive, or traced.

    Raises:
        ValueError: `step_size` is not positive.
    """
    positive("step_size", step_size)

    def init(key: Key, position: Any) -> State:
        del key
        return at(log_density, position)

    def step(key: Key, state: State) -> tuple[State, Info]:
        norm = jnp.sqrt(trees.inner(state.gradient, state.gradient))
        return at(log_density, move(key, state.position, state.gradient, step_size)), Info(norm)

    return Sampler(init, step)
