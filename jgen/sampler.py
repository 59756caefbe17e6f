"""The contract of samplers, and `run`, the scan that drives any of them."""

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp

from jgen import random
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


@dataclasses.dataclass(frozen=True)
class Reducer:
    """What a run keeps of its steps without storing them; `jgen.metrics.streaming` has the usual ones.

    Attributes:
        empty: (state, info) -> the accumulator of no step; only shapes and dtypes are there to look at.
        add: (accumulator, state, info) -> the accumulator of one step more, of the same shapes and dtypes.
    """

    empty: Callable[[Any, Any], Any]
    add: Callable[[Any, Any, Any], Any]


def parallel(sampler: Sampler[Any]) -> Sampler[Any]:
    """The kernel of many chains at once: every leaf of position, state and info has leading axis `chains`.

    Chain i draws from fold_in(key, i), so the first chains do not depend on how many there are.
    """

    def over_chains(function: Callable[[Key, Any], Any]) -> Callable[[Key, Any], Any]:
        def call(key: Key, tree: Any) -> Any:
            return jax.vmap(function)(random.example_keys(key, jax.tree.leaves(tree)[0].shape[0]), tree)

        return call

    return Sampler(over_chains(sampler.init), over_chains(sampler.step))


def _nothing(state: Any, info: Any) -> None:
    del state, info


def run(
    key: Key,
    sampler: Sampler[State],
    state: State,
    num_steps: int,
    *,
    keep: Callable[[State, Any], Any] | Reducer = _nothing,
    first_step: Any = 0,
    kept: Any = None,
) -> tuple[State, Any]:
    """Applies `sampler.step` `num_steps` times as one `lax.scan`.

    Step t draws from fold_in(key, t), so a chain may be cut anywhere: `run` of n steps equals `run` of m steps followed
    by `run` of n - m steps with `first_step=m`, bit for bit.

    Args:
        key: the key of the whole chain.
        sampler: the kernel.
        state: where the chain stands; from `sampler.init`.
        num_steps: how many steps to take, at least 0.
        keep: what to store of each step, (state, info) -> pytree; or a Reducer, then memory does not grow with
            `num_steps`; nothing by default.
        first_step: the number of the first step; it may be traced.
        kept: a Reducer's accumulator to go on with, from the run before; by default it starts empty.

    Returns:
        The last state; and the kept values stacked along a new leading axis of length `num_steps`, or the Reducer's
        accumulator.

    Raises:
        ValueError: `num_steps` is negative, or `kept` is given without a Reducer.
    """
    if num_steps < 0:
        raise ValueError(f"`num_steps` must be at least 0, got {num_steps}.")
    if kept is not None and not isinstance(keep, Reducer):
        raise ValueError("`kept` must be None where `keep` is no Reducer: what was stored before is not changed.")
    first = jnp.asarray(first_step, jnp.int32)
    if isinstance(keep, Reducer):
        return _reduce(key, sampler, state, num_steps, keep, first, kept)

    def body(carry: tuple[Any, State], _: None) -> tuple[tuple[Any, State], Any]:
        t, state = carry
        state, info = sampler.step(jax.random.fold_in(key, t), state)
        return (t + 1, state), keep(state, info)

    # The step's number is carried, not scanned over: an array of them would be memory that grows.
    (_, state), stored = jax.lax.scan(body, (first, state), length=num_steps)
    return state, stored


def _reduce(key: Key, sampler: Any, state: Any, num_steps: int, reducer: Reducer, first: Any, kept: Any) -> Any:
    if kept is None:
        kept = reducer.empty(*jax.eval_shape(sampler.step, key, state))

    def body(t: Any, carry: Any) -> Any:
        state, info = sampler.step(jax.random.fold_in(key, first + t), carry[0])
        return state, reducer.add(carry[1], state, info)

    return jax.lax.fori_loop(0, num_steps, body, (state, kept))
