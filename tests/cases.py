"""Every model and every sampler, built tiny: one line each. The contract suites run over these lists."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgen import Model, Sampler

ADAM = optax.adam(1e-2)
BATCH = 32


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """How to build a model tiny, and what is known of it.

    Attributes:
        name: unique.
        build: () -> Model.
        batch: () -> the batch of `BATCH` examples that it eats.
        space: () -> a batch with every point of its (small, discrete) space: Σ exp log_prob over it must be 1, and
            samples must follow it.
        bounds: (low, high) of a 1-D or 2-D real space over which exp log_prob must integrate to 1.
        exact: (state, batch) -> (batch,), the exact log p, where only a bound is in the contract.
    """

    name: str
    build: Callable[[], Model[Any]]
    batch: Callable[[], dict[str, Any]]
    space: Callable[[], dict[str, Any]] | None = None
    bounds: tuple[float, float] | None = None
    exact: Callable[[Any, Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class SamplerCase:
    """A sampler with a target that can be drawn from exactly.

    Attributes:
        name: unique.
        build: (log_density) -> Sampler for one chain; `log_density` is the target's, or a counting wrapper of it.
        log_density: (position) -> scalar, up to a constant.
        draw: (key, num) -> (num, ...) exact draws from the law that the sampler must keep (for unadjusted samplers
            their own biased stationary law).
        statistics: (positions (num, ...)) -> (num, k), functions whose means must be kept.
        reversible: the kernel satisfies detailed balance (pair exchange is tested).
        support: () -> (states, ...) every state of a small discrete space, else None.
    """

    name: str
    build: Callable[[Any], Sampler[Any]]
    log_density: Callable[[Any], Any]
    draw: Callable[[Any, int], Any]
    statistics: Callable[[Any], Any]
    reversible: bool = True
    support: Callable[[], Any] | None = None


def binary(num_dims: int, rate: float = 0.3) -> Callable[[], dict[str, Any]]:
    """Bernoulli rows."""
    return lambda: {"x": jax.random.bernoulli(jax.random.key(0), rate, (BATCH, num_dims)).astype(jnp.float32)}


def real(*shape: int) -> Callable[[], dict[str, Any]]:
    """Gaussian rows with mean 1 and standard deviation 1/2."""
    return lambda: {"x": jax.random.normal(jax.random.key(0), (BATCH, *shape)) * 0.5 + 1.0}


def tokens(length: int, size: int) -> Callable[[], dict[str, Any]]:
    """Uniform tokens."""
    return lambda: {"tokens": jax.random.randint(jax.random.key(0), (BATCH, length), 0, size)}


def every(num_dims: int, levels: int = 2, name: str = "x", dtype: Any = jnp.float32) -> Callable[[], dict[str, Any]]:
    """All levels^num_dims points."""
    rows = np.array(list(itertools.product(range(levels), repeat=num_dims)))
    return lambda: {name: jnp.asarray(rows, dtype)}


MODELS: list[ModelCase] = [
]

SAMPLERS: list[SamplerCase] = [
]
