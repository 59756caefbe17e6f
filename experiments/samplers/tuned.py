"""What HMC and NUTS share: a warm-up tunes the kernel before its chains are counted."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.samplers import chains
from experiments.samplers.planes import Plane
from jgen import Sampler, random
from jgen.samplers import adaptation
from jgen.train import Experiment


def experiment(
    plane: Plane, build: Callable[[adaptation.Parameters], Sampler[Any]], config: Any, seed: int, protocol: str
) -> Experiment:
    """Chains on `plane` by the kernel that `adaptation.warm_up` tunes from their starts.

    Args:
        plane: the target.
        build: (parameters) -> the kernel of one chain.
        config: with `warm_up`, `accept`, `num_chains`, `num_steps` and `steps_per_update`.
        seed: of the warm-up.
        protocol: what the target and the kernel are.

    Raises:
        ValueError: the warm-up ended with parameters that cannot be used.
    """
    starts = jnp.asarray(plane.starts(config.num_chains))
    warm_up = jax.jit(lambda key: adaptation.warm_up(key, build, starts, config.warm_up, target=config.accept))
    found = warm_up(random.stream(seed, "warm_up"))
    if bool(found.status.degenerate):
        prob = float(found.status.accept_prob)
        raise ValueError(f"`warm_up` must be long enough to reach `accept`, got {config.warm_up} steps and {prob:.2f}.")
    size = float(found.parameters.step_size)
    text = f"{protocol} of size {size:.3f} (tuned by {config.warm_up} steps to accept {config.accept})"
    kernel = build(found.parameters)
    return chains.on_plane(plane, kernel, config.num_chains, config.num_steps, config.steps_per_update, text)
