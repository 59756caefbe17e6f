"""The contract of samplers, and `run`, the scan that drives any of them."""

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp

from jgen._types import Key

State = TypeVar("State")


@dataclasses.dataclass(frozen=True)
class Sampler(Generic[State]):
    """A Markov kernel as pure functions; every state is a NamedTuple with a field `position`.

    Attributes:
        init: (key, position) -> state. A position is any pytree of arrays.
        step: (key, state) -> (state, info). Info is a NamedTuple of what the step did, such as `accepted`.
    """

    init: Callable[[Key, Any], State]
    step: Callable[[Key, State], tuple[State, Any]]


def _nothing(state: Any, info: Any) -> None:
    del state, info


def run(
    key: Key,
    sampler: Sampler[State],
    state: State,
    num_steps: int,
    *,
    keep: Callable[[State, Any], Any] = _nothing,
    first_step: Any = 0,
) -> tuple[State, Any]:
    """Applies `sampler.step` `num_steps` times as one `lax.scan`.

    Step t draws from fold_in(key, t), so a chain may be cut anywhere: `run` of n steps equals `run` of m steps followed
    by `run` of n - m steps with `first_step=m`, bit for bit.

    Args:
        key: the key of the whole chain.
        sampler: the kernel.
        state: where the chain stands; from `sampler.init`.
        num_steps: how many steps to take, at least 0.
        keep: what to store of each step, (state, info) -> pytree; nothing by default.
        first_step: the number of the first step; it may be traced.

    Returns:
        The last state, and the kept values stacked along a new leading axis of length `num_steps`.

    Raises:
        ValueError: `num_steps` is negative.
    """
    if num_steps < 0:
        raise ValueError(f"`num_steps` must be at least 0, got {num_steps}.")

    def body(state: State, t: Any) -> tuple[State, Any]:
        state, info = sampler.step(jax.random.fold_in(key, t), state)
        return state, keep(state, info)

    return jax.lax.scan(body, state, first_step + jnp.arange(num_steps))
