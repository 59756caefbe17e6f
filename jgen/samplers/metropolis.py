"""Metropolis–Hastings with any proposal.

    x' ~ q(·|x);  accept with probability min(1, r),  log r = log π(x') − log π(x) + log q(x|x') − log q(x'|x).

Papers: Metropolis et al., 1953; Hastings, "Monte Carlo sampling methods using Markov chains", 1970.
Differs from the papers: nothing. A log r that is not a number rejects.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jgen import random
from jgen._checks import positive
from jgen._types import Key, Scalar
from jgen.math import trees
from jgen.sampler import Sampler

Proposal: TypeAlias = Callable[[Key, Any], tuple[Any, Any]]
"""(key, x) -> (x', log q(x|x') − log q(x'|x)); the second is 0 where q is symmetric."""


class State(NamedTuple):
    """Where the chain stands, and log π there up to a constant, nats."""

    position: Any
    log_density: Scalar


class Info(NamedTuple):
    """What the step did.

    Attributes:
        accepted: whether the chain moved to the proposed position.
        accept_prob: min(1, r).
    """

    accepted: Bool[Array, ""]
    accept_prob: Scalar


@dataclasses.dataclass(frozen=True)
class RandomWalk:
    """The proposal of `random_walk`; `move` is its deterministic part, so that the sampler may draw the noise."""

    scale: Any

    def __call__(self, key: Key, position: Any) -> tuple[Any, Any]:
        """Draws the noise and moves."""
        return self.move(random.normal_like(key, position), position), 0.0

    def move(self, noise: Any, position: Any) -> Any:
        """x + scale·noise."""
        return jax.tree.map(lambda x, n, s: x + s * n, position, noise, trees.like(self.scale, position))


def random_walk(scale: Any) -> RandomWalk:
    """x' = x + scale·ξ with ξ standard normal: symmetric.

    Args:
        scale: positive; a scalar, or a pytree like the position.

    Raises:
        ValueError: a scale is not positive.
    """
    for leaf in jax.tree.leaves(scale):
        positive("scale", leaf)
    return RandomWalk(scale)


def independence(draw: Callable[[Key], Any], log_prob: Callable[[Any], Any]) -> Proposal:
    """x' ~ q, whatever x: log q(x) − log q(x').

    Args:
        draw: (key) -> position.
        log_prob: (position) -> log q, nats, up to a constant.
    """

    def propose(key: Key, position: Any) -> tuple[Any, Any]:
        proposed = draw(key)
        return proposed, log_prob(position) - log_prob(proposed)

    return propose


def accept(key: Key, log_ratio: Scalar) -> tuple[Bool[Array, ""], Scalar]:
    """(whether log u ≤ log_ratio, min(1, exp log_ratio)) for u uniform on (0, 1]; NaN is refused."""
    return decide(jax.random.uniform(key), log_ratio)


def decide(
    uniform: Float[Array, "*chains"], log_ratio: Float[Array, "*chains"]
) -> tuple[Bool[Array, "*chains"], Float[Array, "*chains"]]:
    """`accept` with numbers drawn uniformly from [0, 1)."""
    # log1p(-u) and not log(u): u really is 0 once in 2²³ draws, and −inf accepts what π forbids.
    accepted = jnp.log1p(-uniform) <= log_ratio
    return accepted, jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))


def sampler(log_density: Callable[[Any], Any], propose: Proposal) -> Sampler[State]:
    """The Metropolis–Hastings kernel of one chain; many chains by `jax.vmap`.

    Args:
        log_density: (position) -> log π up to a constant; −inf outside the support.
        propose: draws x' and gives the log-ratio of the proposal's densities.
    """

    def init(key: Key, position: Any) -> State:
        del key
        return State(position, jnp.asarray(log_density(position), jnp.result_type(float)))

    def draw(key: Key, position: Any) -> tuple[Any, Any, Scalar]:
        if isinstance(propose, RandomWalk):
            noise, uniform = random.normal_and_uniform(key, position)
            return propose.move(noise, position), 0.0, uniform
        propose_key, accept_key = jax.random.split(key)
        return *propose(propose_key, position), jax.random.uniform(accept_key)

    def step(key: Key, state: State) -> tuple[State, Info]:
        position, log_proposal_ratio, uniform = draw(key, state.position)
        proposed = State(position, jnp.asarray(log_density(position), state.log_density.dtype))
        accepted, prob = decide(uniform, proposed.log_density - state.log_density + log_proposal_ratio)
        return trees.select(accepted, proposed, state), Info(accepted, prob)

    return Sampler(init, step)
