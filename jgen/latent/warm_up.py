"""The weight of a rate while learning begins: it rises linearly from 0 to 1. Reported bounds always have weight 1."""

from typing import Any

import jax.numpy as jnp

from jgen._types import Params

STEP = "step"  # the entry of `stats` that counts updates


def start() -> Params:
    """The entry before the first update."""
    return {STEP: jnp.zeros((), jnp.int32)}


def weight(stats: Params, num_steps: int) -> Any:
    """min(1, updates so far/num_steps); 1 where `num_steps` is 0."""
    return jnp.minimum(1.0, stats[STEP] / num_steps) if num_steps else 1.0


def counted(stats: Params, *, train: bool) -> Params:
    """The entry after one more pass, which counts in training alone."""
    return {STEP: stats[STEP] + int(train)}
