"""The Metropolis-adjusted Langevin algorithm: Langevin's step as a proposal.

    x' = x + ε·M⁻¹∇log π(x) + √(2ε)·M^{−½}ξ,  ξ ~ N(0, I),  accepted with probability min(1, r),
    log r = log π(x') − log π(x) + ½(|ξ|² − |ξ'|²),  ξ' = ξ + √(ε/2)·M^{−½}(∇log π(x) + ∇log π(x')):
−ξ' is the noise that leads back from x', so ½(|ξ|² − |ξ'|²) = log q(x|x') − log q(x'|x).

Paper: Roberts and Tweedie, "Exponential convergence of Langevin distributions and their discrete approximations",
1996; where it does best it accepts 0.574 of its proposals (Roberts and Rosenthal, 1998).
Differs from the papers: the ratio of the proposal's densities comes from the noise and not from differences of
positions, which float32 would round; an r that is not finite rejects. (Where others write the drift ½ε²∇log π, ε here
is ε²/2: this is Hamiltonian Monte Carlo with one leapfrog step of √(2ε).)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jgen import random
from jgen._checks import positive
from jgen._types import Key, Scalar
from jgen.math import trees
from jgen.sampler import Sampler
from jgen.samplers import langevin, metropolis

DIVERGENT = 1_000.0
"""Energy errors above this, in nats, are called divergences; the value is the field's habit."""

State = langevin.State


class Info(NamedTuple):
    """What the step did.

    Attributes:
        accepted: whether the chain moved.
        accept_prob: min(1, r).
        energy_error: −log r, nats; ∞ where it is not finite.
        diverging: it is above `DIVERGENT`: the step size is too large for the curvature, or π is not finite here.
    """

    accepted: Bool[Array, ""]
    accept_prob: Scalar
    energy_error: Scalar
    diverging: Bool[Array, ""]


def log_proposal_ratio(noise: Any, gradient: Any, new_gradient: Any, step_size: Any) -> Scalar:
    """log q(x|x') − log q(x'|x) = −½ s·(2ξ + s),  s = √(ε/2)·(g + g'), with gradients scaled by M^{−½}."""
    half = jnp.sqrt(step_size / 2)
    shift = jax.tree.map(lambda g, h: half * (g + h), gradient, new_gradient)
    return -0.5 * trees.inner(shift, jax.tree.map(lambda n, s: 2 * n + s, noise, shift))


def judge(uniform: Scalar, energy_error: Scalar) -> Info:
    """Accepts with probability min(1, exp(−energy_error)) by `uniform` in [0, 1); what is not finite is refused."""
    error = jnp.where(jnp.isfinite(energy_error), energy_error, jnp.inf)
    accepted, prob = metropolis.decide(uniform, -error)
    return Info(accepted, prob, error, error > DIVERGENT)


def sampler(log_density: Callable[[Any], Any], step_size: Any, *, inverse_mass: Any = 1.0) -> Sampler[State]:
    """The MALA kernel of one chain; many chains by `sampler.parallel` or `jax.vmap`.

    Args:
        log_density: (position) -> log π up to a constant, differentiable; leaves of the position are floats.
        step_size: ε, positive, or traced.
        inverse_mass: M⁻¹, positive: a number, or a pytree like the position; best near the variances of π.

    Raises:
        ValueError: `step_size` or `inverse_mass` is not positive.
    """
    positive("step_size", step_size)
    for leaf in jax.tree.leaves(inverse_mass):
        positive("inverse_mass", leaf)

    def init(key: Key, position: Any) -> State:
        del key
        return langevin.at(log_density, position)

    def step(key: Key, state: State) -> tuple[State, Info]:
        noise, uniform = random.normal_and_uniform(key, state.position)
        root = jax.tree.map(jnp.sqrt, trees.like(inverse_mass, state.position))
        scaled, old = (jax.tree.map(jnp.multiply, root, x) for x in (noise, state.gradient))
        drift = jax.tree.map(jnp.multiply, root, old)
        proposed = langevin.at(log_density, langevin.displace(state.position, drift, scaled, step_size))
        new = jax.tree.map(jnp.multiply, root, proposed.gradient)
        ratio = proposed.log_density - state.log_density + log_proposal_ratio(noise, old, new, step_size)
        info = judge(uniform, -ratio)
        return trees.select(info.accepted, proposed, state), info

    return Sampler(init, step)
