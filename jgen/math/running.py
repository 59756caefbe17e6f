"""Means and variances of a stream of values of any shape, one value at a time or part by part.

    n ← n + 1,  µ' = µ + (x − µ)/n,  S ← S + (x − µ)(x − µ');    of two parts with δ = µ₂ − µ₁:
    n = n₁ + n₂,  µ = µ₁ + δ·n₂/n,  S = S₁ + S₂ + δ²·n₁n₂/n.

Papers: Welford, 1962; Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979. (`jgen.math.moments` has those of batches of rows, with covariances.)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


class Running(NamedTuple):
    """What a stream of pytrees has shown, element by element.

    Attributes:
        num: n, one number for all elements.
        mean: µ, built like a value.
        squares: S = Σ (x − µ)², built like a value.
    """

    num: Int[Array, ""]
    mean: Any
    squares: Any


def empty(value: Any) -> Running:
    """Nothing seen yet of values of the shapes of `value`, in float32 or finer."""

    def zeros(x: Any) -> Array:
        return jnp.zeros(jnp.shape(x), jnp.result_type(x.dtype if hasattr(x, "dtype") else x, jnp.float32))

    return Running(jnp.zeros((), jnp.int32), jax.tree.map(zeros, value), jax.tree.map(zeros, value))


def step(mean: Array, squares: Array, x: Any, num: Any) -> tuple[Array, Array]:
    """(µ', S) with `x`, the `num`-th value."""
    new = mean + (x - mean) / num
    return new, squares + (x - mean) * (x - new)


def add(running: Running, value: Any) -> Running:
    """With one value more."""
    num = running.num + 1
    pairs = jax.tree.map(lambda m, s, x: step(m, s, x, num.astype(m.dtype)), running.mean, running.squares, value)
    return Running(num, *jax.tree.transpose(jax.tree.structure(value), jax.tree.structure((0, 0)), pairs))


def merge(mean: Array, squares: Array, counts: Any) -> tuple[Array, Array, Int[Array, ""]]:
    """(µ, S, n) of parts along the first axis that hold `counts` (parts,) values; parts of 0 are left out."""
    weights = jnp.reshape(counts.astype(mean.dtype), (-1, *[1] * (mean.ndim - 1)))
    total = jnp.maximum(jnp.sum(weights), 1)
    whole = jnp.sum(weights * mean, axis=0) / total
    between = jnp.sum(weights * jnp.square(mean - whole[None]), axis=0)
    return whole, jnp.sum(jnp.where(weights > 0, squares, 0), axis=0) + between, jnp.sum(counts)


def pooled(running: Running) -> Running:
    """As if the values along the first axis (such as chains) had come one after another."""
    leaves = jax.tree.leaves(running.mean)
    counts = jnp.broadcast_to(running.num, leaves[0].shape[:1])
    merged = jax.tree.map(lambda m, s: merge(m, s, counts)[:2], running.mean, running.squares)
    two = jax.tree.transpose(jax.tree.structure(running.mean), jax.tree.structure((0, 0)), merged)
    return Running(jnp.sum(counts), *two)


def variance(running: Running, ddof: int = 1) -> Any:
    """S/(n − ddof) of each element; NaN while there are too few values."""
    free = running.num - ddof
    return jax.tree.map(lambda s: s / jnp.where(free > 0, free, jnp.nan).astype(s.dtype), running.squares)
