"""The No-U-Turn sampler: Hamiltonian Monte Carlo that finds the length of its trajectories; the kernel is BlackJAX's.

A trajectory is doubled forwards or backwards at random until its ends begin to approach each other; the next position
is drawn from its points in proportion to exp(−H).

Papers: Hoffman and Gelman, "The No-U-Turn sampler", 2014; Betancourt, "A conceptual introduction to Hamiltonian Monte
Carlo", 2017 (the draw from the trajectory).
Differs from the papers: what BlackJAX differs. Chains under one `vmap` wait for the longest trajectory of each step:
for hundreds of chains `hmc` with a jittered length is faster.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Int

from jgen._checks import at_least, positive
from jgen._types import Key, Scalar
from jgen.math import trees
from jgen.sampler import Sampler
from jgen.samplers import interchange, langevin

State = langevin.State


class Info(NamedTuple):
    """What the step did.

    Attributes:
        accept_prob: the mean of min(1, exp(H − H')) over the trajectory; what step-size adaptation aims.
        diverging: an energy error passed BlackJAX's threshold, 1,000 nats, and ended the trajectory.
        depth: how often it was doubled.
        num_leapfrog: its steps.
    """

    accept_prob: Scalar
    diverging: Bool[Array, ""]
    depth: Int[Array, ""]
    num_leapfrog: Int[Array, ""]


def sampler(
    log_density: Callable[[Any], Any], step_size: Any, *, inverse_mass: Any = 1.0, max_depth: int = 10
) -> Sampler[State]:
    """The NUTS kernel of one chain; many chains by `sampler.parallel` or `jax.vmap`.

    Args:
        log_density: (position) -> log π up to a constant, differentiable; leaves of the position are floats.
        step_size: ε, positive, or traced.
        inverse_mass: M⁻¹, positive: a number, or a pytree like the position.
        max_depth: doublings after which a trajectory ends.

    Raises:
        ImportError: BlackJAX is not installed.
        ValueError: `step_size` or `inverse_mass` is not positive, or `max_depth` is less than 1.
    """
    positive("step_size", step_size)
    at_least("max_depth", max_depth, 1)
    for leaf in jax.tree.leaves(inverse_mass):
        positive("inverse_mass", leaf)
    blackjax = interchange.library()

    def init(key: Key, position: Any) -> State:
        del key
        return langevin.at(log_density, position)

    def step(key: Key, state: State) -> tuple[State, Info]:
        weights = trees.like(inverse_mass, state.position)
        masses = jax.tree.map(lambda w, x: jnp.broadcast_to(w, jnp.shape(x)), weights, state.position)
        vector, _ = ravel_pytree(masses)
        kernel = blackjax.nuts(log_density, step_size, vector, max_num_doublings=max_depth)
        new, info = kernel.step(key, blackjax.mcmc.hmc.HMCState(*state))
        counts = (jnp.asarray(n) for n in (info.num_trajectory_expansions, info.num_integration_steps))
        return State(*new), Info(info.acceptance_rate, info.is_divergent, *counts)

    return Sampler(init, step)
