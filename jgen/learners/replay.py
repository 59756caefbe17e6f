"""A replay buffer as a Markov kernel: each step takes some chains out of many, moves them, and puts them back.

Du and Mordatch, "Implicit generation and modeling with energy-based models", 2019. The buffer is a position of the
contract of samplers, in floats on the device, so `contrastive` keeps it in its state and checkpoints it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jgen._checks import at_least, within
from jgen._types import Key
from jgen.sampler import Sampler, run


class Replay(NamedTuple):
    """The position of a replayed kernel.

    Attributes:
        buffer: every chain, leading axis `buffer_size`.
        moved: those that the last step moved, leading axis `num`: what stands for the model.
    """

    buffer: Any
    moved: Any


class State(NamedTuple):
    """Where all chains stand."""

    position: Replay


class Info(NamedTuple):
    """How many of the moved chains started anew."""

    restarted: Int[Array, ""]


def begin(buffer: Any, num: int) -> Replay:
    """The buffer before any step; its first `num` chains stand for the model.

    Raises:
        ValueError: `num` is less than 1 or more than the chains in `buffer`.
    """
    size = jax.tree.leaves(buffer)[0].shape[0]
    if not 1 <= num <= size:
        raise ValueError(f"`num` must be in 1..{size}, the chains of the buffer, got {num}.")
    return Replay(buffer, jax.tree.map(lambda leaf: leaf[:num], buffer))


def replayed(
    kernel: Sampler[Any], num: int, restart: Callable[[Key, int], Any], *, restart_rate: float, num_steps: int
) -> Sampler[State]:
    """The kernel over a buffer: `num` chains, chosen without replacement, take `num_steps` steps.

    Args:
        kernel: a Sampler whose position is a batch of chains.
        num: chains that each step moves.
        restart: (key, num) -> fresh positions.
        restart_rate: the probability with which each chosen chain starts anew, in [0, 1].
        num_steps: steps of `kernel`.

    Raises:
        ValueError: a count is less than 1, or `restart_rate` is not in [0, 1].
    """
    at_least("num", num, 1)
    at_least("num_steps", num_steps, 1)
    within("restart_rate", restart_rate, 0.0, 1.0)

    def step(key: Key, state: State) -> tuple[State, Info]:
        choice_key, again_key, fresh_key, init_key, run_key = jax.random.split(key, 5)
        buffer = state.position.buffer
        rows = jax.random.choice(choice_key, jax.tree.leaves(buffer)[0].shape[0], (num,), replace=False)
        again = jax.random.bernoulli(again_key, restart_rate, (num,))

        def start(old: Any, fresh: Any) -> Any:
            return jnp.where(again.reshape((num,) + (1,) * (fresh.ndim - 1)), fresh, old[rows])

        starts = jax.tree.map(start, buffer, restart(fresh_key, num))
        moved = run(run_key, kernel, kernel.init(init_key, starts), num_steps)[0].position
        buffer = jax.tree.map(lambda old, new: old.at[rows].set(new), buffer, moved)
        return State(Replay(buffer, moved)), Info(jnp.sum(again))

    return Sampler(lambda key, position: State(position), step)
