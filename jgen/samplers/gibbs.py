"""Gibbs sampling: one block of the position after another, each from its conditional given the rest.

    x_b ~ π(x_b | x_{−b}),  b = 0, 1, …, B − 1 in order (systematic scan), or one b drawn uniformly (random scan).

Paper: Geman and Geman, "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images", 1984.
Differs from the paper: nothing. A random scan is reversible; a systematic one keeps π but is not.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jgen._checks import at_least, one_of
from jgen._types import Key
from jgen.sampler import Sampler

Conditional: TypeAlias = Callable[[Key, Any], Any]
"""(key, x) -> x with one block drawn anew given the others."""

UNROLLED = 8  # blocks up to which a systematic scan is unrolled, not looped


class State(NamedTuple):
    """Where the chain stands."""

    position: Any


class Info(NamedTuple):
    """The number of the block that was drawn; of the last one in a systematic scan."""

    block: Int[Array, ""]


class Blocks(NamedTuple):
    """A partition of the position.

    Attributes:
        num: B, how many blocks.
        draw: (key, position, b) -> position with block b drawn anew; b may be traced.
    """

    num: int
    draw: Callable[[Key, Any, Any], Any]


def blocks(conditionals: Sequence[Conditional]) -> Blocks:
    """Blocks that are drawn by functions of their own.

    Raises:
        ValueError: there is no conditional.
    """
    at_least("conditionals", len(conditionals), 1)

    def draw(key: Key, position: Any, index: Any) -> Any:
        if isinstance(index, int):
            return conditionals[index](key, position)
        return jax.lax.switch(index, conditionals, key, position)

    return Blocks(len(conditionals), draw)


def sites(log_density: Callable[[Any], Any], num_sites: int, values: Any) -> Blocks:
    """Single sites of a vector, each with finitely many values, drawn from log π itself.

    Args:
        log_density: (position (num_sites,)) -> log π up to a constant; it is evaluated once for each value.
        num_sites: length of the position.
        values: (k,), what a site may be.

    Raises:
        ValueError: `num_sites` is less than 1, or there are fewer than two values.
    """
    at_least("num_sites", num_sites, 1)
    values = jnp.asarray(values)
    at_least("values", len(values), 2)

    def draw(key: Key, position: Any, index: Any) -> Any:
        candidates = jax.vmap(lambda value: position.at[index].set(value.astype(position.dtype)))(values)
        return candidates[jax.random.categorical(key, jax.vmap(log_density)(candidates))]

    return Blocks(num_sites, draw)


def sampler(conditionals: Blocks | Sequence[Conditional], *, scan: str = "systematic") -> Sampler[State]:
    """The Gibbs kernel of one chain; many chains by `jax.vmap`.

    Args:
        conditionals: the blocks, or one function per block.
        scan: "systematic" draws all blocks in order in each step, "random" one block, chosen uniformly.

    Raises:
        ValueError: `scan` is neither, or there is no block.
    """
    one_of("scan", scan, ("systematic", "random"))
    parts = conditionals if isinstance(conditionals, Blocks) else blocks(conditionals)

    def init(key: Key, position: Any) -> State:
        del key
        return State(position)

    def systematic(key: Key, state: State) -> tuple[State, Info]:
        def draw(index: Any, position: Any) -> Any:
            return parts.draw(jax.random.fold_in(key, index), position, index)

        position = state.position
        if parts.num <= UNROLLED:
            for index in range(parts.num):
                position = draw(index, position)
        else:
            position = jax.lax.fori_loop(0, parts.num, draw, position)
        return State(position), Info(jnp.asarray(parts.num - 1))

    def at_random(key: Key, state: State) -> tuple[State, Info]:
        block_key, draw_key = jax.random.split(key)
        index = jax.random.randint(block_key, (), 0, parts.num)
        return State(parts.draw(draw_key, state.position, index)), Info(index)

    return Sampler(init, systematic if scan == "systematic" else at_random)
