"""The partition function of a deep Boltzmann machine by annealing over every second layer, from below and from above.

Paper: Salakhutdinov and Hinton, "Deep Boltzmann machines", 2009, section 3.3.
Differs from the paper: any number of layers, base rates that fit the data, and the reverse as well.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen._types import Key
from jgen.energy.dbm import DBM, GibbsInfo, GibbsState, draw_parity, logits
from jgen.math import binary
from jgen.sampler import Sampler
from jgen.samplers import annealed_importance


def annealing_path(params: DBM, base: Float[Array, " visible"]) -> annealed_importance.Path:
    """f_t over the odd layers, the even ones summed out, from base rates of v and fair coins (t = 0) to p (t = 1).

    log f_t = t Σ_odd b_l·x_l + Σ_even softplus(a_l(t)), a_l(t) the inputs of layer l times t, and (1 − t)·base for v.
    log Z₀ = Σ softplus(base) + (number of hidden units)·log 2.
    """
    odd, even = range(1, len(params.biases), 2), range(0, len(params.biases), 2)

    def inputs(t: Any, units: Any, layer: int) -> Any:
        scaled = t * logits(params, units, layer)
        return scaled + (1 - t) * base[None] if layer == 0 else scaled

    def increment(position: Any, old: Any, new: Any) -> Any:
        units = _spread(position, len(params.biases))
        total = (new - old) * sum(units[layer] @ params.biases[layer] for layer in odd)
        for layer in even:
            terms = jax.nn.softplus(inputs(new, units, layer)) - jax.nn.softplus(inputs(old, units, layer))
            total += jnp.sum(terms, axis=-1)
        return total

    def kernel(t: Any) -> Sampler[GibbsState]:
        def step(key: Key, state: GibbsState) -> tuple[GibbsState, GibbsInfo]:
            units = draw_parity(key, 0, _spread(state.position, len(params.biases)), functools.partial(inputs, t))
            return GibbsState(draw_parity(key, 1, units, functools.partial(inputs, t))[1::2]), GibbsInfo()

        return Sampler(lambda key, position: GibbsState(tuple(position)), step)

    return annealed_importance.Path(increment, kernel)


def annealed_log_partition(
    key: Key, params: DBM, base: Float[Array, " visible"], particles: Sequence[Any], betas: Any
) -> annealed_importance.Sandwich:
    """log Z by annealing forward from the base rates and in reverse from `particles`, draws of all layers.

    Args:
        key: of both walks.
        params: the model's.
        base: visible biases of the start, from `rbm.base_bias` of the training data.
        particles: (chains, size) of every layer; of long chains, the upper bound is approximate.
        betas: temperatures of the walk, from `annealed_importance.temperatures`.
    """
    draw_key, walk_key = jax.random.split(key)
    end = tuple(particles)[1::2]
    keys = jax.random.split(draw_key, len(end))
    start = tuple(binary.bernoulli(k, jnp.zeros_like(x)) for k, x in zip(keys, end, strict=True))
    num_hidden = sum(len(bias) for bias in params.biases[1:])
    log_z = jnp.sum(jax.nn.softplus(base)) + num_hidden * jnp.log(2.0)
    path = annealing_path(params, base)
    return annealed_importance.sandwich(walk_key, path, start, end, betas, log_base_normalizer=log_z)


def _spread(odd: Sequence[Any], num: int) -> list[Any]:
    """The odd layers in their places among `num` layers, and None in the even ones."""
    return [odd[layer // 2] if layer % 2 else None for layer in range(num)]
