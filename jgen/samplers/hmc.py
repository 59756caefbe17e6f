"""Hamiltonian Monte Carlo: a trajectory of leapfrog steps as a proposal.

    H(x, p) = −log π(x) + ½ pᵀM⁻¹p,  p ~ N(0, M) anew in each step;
    p ← p + ½ε∇log π(x),  x ← x + εM⁻¹p,  p ← p + ½ε∇log π(x), num_leapfrog times;
    accept the end with probability min(1, exp(H − H')).
The leapfrog is reversible and keeps volumes, so no Jacobian appears; its energy error H' − H is of order ε².

Papers: Duane et al., "Hybrid Monte Carlo", 1987; Neal, "MCMC using Hamiltonian dynamics", 2011; where it does best it
accepts 0.651 of its proposals (Beskos et al., 2013).
Differs from the papers: H' − H is summed from differences, for float32; a value that is not finite rejects.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jgen import random
from jgen._checks import at_least, positive
from jgen._types import Key, Scalar
from jgen.math import trees
from jgen.sampler import Sampler
from jgen.samplers import langevin
from jgen.samplers.mala import judge

UNROLLED = 5
"""Leapfrog steps that one turn of the loop makes: fewer turns are faster, but XLA computes a long chain of cheap steps
anew for each of its results (ten in one piece took four times as long for 1,000 chains on a CPU)."""

State = langevin.State


class Info(NamedTuple):
    """What the step did.

    Attributes:
        accepted: whether the chain moved.
        accept_prob: min(1, exp(H − H')).
        energy_error: H' − H, nats; ∞ where it is not finite.
        diverging: it is above `mala.DIVERGENT`: the trajectory left the level of its energy.
        num_leapfrog: steps of the trajectory.
    """

    accepted: Bool[Array, ""]
    accept_prob: Scalar
    energy_error: Scalar
    diverging: Bool[Array, ""]
    num_leapfrog: Int[Array, ""]


def leapfrog(
    log_density: Callable[[Any], Any],
    state: State,
    momentum: Any,
    step_size: Any,
    num_steps: Any,
    *,
    inverse_mass: Any = 1.0,
) -> tuple[State, Any]:
    """(state, momentum) after `num_steps` steps of the leapfrog; with negative `step_size`, before them.

    Args:
        log_density: (position) -> log π up to a constant.
        state: where the trajectory starts.
        momentum: built like the position.
        step_size: ε.
        num_steps: at least 1; an int, or traced.
        inverse_mass: M⁻¹, a number or a pytree like the position.
    """
    weights = trees.like(inverse_mass, state.position)

    def kick(momentum: Any, gradient: Any, size: Any) -> Any:
        return jax.tree.map(lambda p, g: p + jnp.asarray(size * g, p.dtype), momentum, gradient)

    def body(carry: tuple[State, Any]) -> tuple[State, Any]:
        state, momentum = carry
        drift = jax.tree.map(
            lambda x, w, p: x + jnp.asarray(step_size * w * p, x.dtype), state.position, weights, momentum
        )
        state = langevin.at(log_density, drift)
        return state, kick(momentum, state.gradient, step_size)

    # Between two steps their half kicks are one; the last one is taken back by half.
    carry = (state, kick(momentum, state.gradient, step_size / 2))
    if isinstance(num_steps, int):
        unroll = min(num_steps, UNROLLED)
        (state, momentum), _ = jax.lax.scan(lambda c, _: (body(c), None), carry, length=num_steps, unroll=unroll)
    else:
        state, momentum = jax.lax.fori_loop(0, num_steps, lambda _, c: body(c), carry)
    return state, kick(momentum, state.gradient, -step_size / 2)


def energy_error(old: State, new: State, momentum: Any, new_momentum: Any, *, inverse_mass: Any = 1.0) -> Scalar:
    """H' − H = log π(x) − log π(x') + ½ (p' − p)ᵀM⁻¹(p' + p), nats."""
    weights = trees.like(inverse_mass, momentum)
    change = jax.tree.map(lambda a, b, w: w * (b - a), momentum, new_momentum, weights)
    total = jax.tree.map(jnp.add, momentum, new_momentum)
    return old.log_density - new.log_density + 0.5 * trees.inner(change, total)


def sampler(
    log_density: Callable[[Any], Any],
    step_size: Any,
    num_leapfrog: int | tuple[int, int],
    *,
    inverse_mass: Any = 1.0,
) -> Sampler[State]:
    """The HMC kernel of one chain; many chains by `sampler.parallel` or `jax.vmap`.

    Args:
        log_density: (position) -> log π up to a constant, differentiable; leaves of the position are floats.
        step_size: ε, positive, or traced.
        num_leapfrog: steps of a trajectory; or (low, high), then each step draws it uniformly from low..high, so that
            no period of the dynamics is met every time. Chains under one `vmap` wait for the longest.
        inverse_mass: M⁻¹, positive: a number, or a pytree like the position; best near the variances of π.

    Raises:
        ValueError: `step_size` or `inverse_mass` is not positive, or `num_leapfrog` is no count or range of counts.
    """
    positive("step_size", step_size)
    for leaf in jax.tree.leaves(inverse_mass):
        positive("inverse_mass", leaf)
    low, high = _range(num_leapfrog)

    def init(key: Key, position: Any) -> State:
        del key
        return langevin.at(log_density, position)

    def move(key: Key, state: State, count: Any) -> tuple[State, Info]:
        noise, uniform = random.normal_and_uniform(key, state.position)
        weights = trees.like(inverse_mass, state.position)
        momentum = jax.tree.map(lambda n, w: n / jnp.sqrt(jnp.asarray(w, n.dtype)), noise, weights)
        new, end = leapfrog(log_density, state, momentum, step_size, count, inverse_mass=inverse_mass)
        verdict = judge(uniform, energy_error(state, new, momentum, end, inverse_mass=inverse_mass))
        return trees.select(verdict.accepted, new, state), Info(*verdict, jnp.asarray(count))

    def jittered(key: Key, state: State) -> tuple[State, Info]:
        count_key, move_key = jax.random.split(key)
        return move(move_key, state, jax.random.randint(count_key, (), low, high + 1))

    return Sampler(init, jittered if low < high else lambda key, state: move(key, state, low))


def _range(num_leapfrog: int | tuple[int, int]) -> tuple[int, int]:
    low, high = num_leapfrog if isinstance(num_leapfrog, tuple) else (num_leapfrog, num_leapfrog)
    at_least("num_leapfrog", low, 1)
    if high < low:
        raise ValueError(f"`num_leapfrog` must be a range (low, high) with low <= high, got {num_leapfrog}.")
    return low, high
