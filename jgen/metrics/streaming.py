"""Means, variances, R-hat and ESS of chains that are not stored: reducers for `jgen.run`.

    kernel = parallel(hmc.sampler(log_density, 0.1, 10))
    state, seen = run(key, kernel, kernel.init(key, positions), 1_000_000, keep=streaming.batches())
    streaming.summary(seen).r_hat

A chain is kept as at most K batches, each by its mean and its sum of squared deviations. When all are full, neighbours
are merged and a batch holds twice as many steps: memory is K values, whatever the length. From them come the exact mean
and variance, split R̂ of the halves, and ESS = C n V⁺/Σ, with Σ the batch size times the variance of batch means.

Papers: Welford, 1962; Flegal and Jones, "Batch means and spectral variance estimators in MCMC", 2010 (batch means);
Gelman et al., "Bayesian Data Analysis", 2013 (split R-hat).
Differs from the papers: batch means vary around the mean over all chains, so chains that disagree lower the ESS.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jgen._types import Scalar
from jgen.math import running
from jgen.metrics import chains
from jgen.sampler import Reducer


class Batches(NamedTuple):
    """A stream in batches; every leaf has leading axis K.

    Attributes:
        num: steps seen.
        size: steps in a full batch.
        means: of each batch, a leaf (K, ...).
        squares: sums of squared deviations from it, a leaf (K, ...).
    """

    num: Int[Array, ""]
    size: Int[Array, ""]
    means: Any
    squares: Any


class Summary(NamedTuple):
    """What many chains say, element by element of a chain's value.

    Attributes:
        mean: over all steps of all chains.
        variance: of all of them, ddof 1.
        r_hat: split R̂; NaN with fewer than two full batches.
        ess: of the mean, by batch means; NaN with fewer than two full batches.
        monte_carlo_error: √(variance/ess).
    """

    mean: Any
    variance: Any
    r_hat: Any
    ess: Any
    monte_carlo_error: Any


def position(state: Any, info: Any) -> Any:
    """The chain's position."""
    del info
    return state.position


def moments(value: Callable[[Any, Any], Any] = position) -> Reducer:
    """Keeps a `running.Running`: mean and variance of each element of `value(state, info)`, a pytree of numbers."""

    def add(seen: running.Running, state: Any, info: Any) -> running.Running:
        return running.add(seen, value(state, info))

    return Reducer(lambda state, info: running.empty(jax.eval_shape(value, state, info)), add)


def batches(value: Callable[[Any, Any], Any] = position, num_batches: int = 32) -> Reducer:
    """Keeps `Batches` of `value(state, info)`, for `summary`.

    Args:
        value: (state, info) -> a pytree of numbers; of a `parallel` kernel its leaves lead with `chains`.
        num_batches: K, even; a chain's ESS is known to about √(2/K), that of C chains to √(2/(CK)).

    Raises:
        ValueError: `num_batches` is no even number from 4 on.
    """
    if num_batches < 4 or num_batches % 2:
        raise ValueError(f"`num_batches` must be an even number of at least 4, got {num_batches}.")

    def empty(state: Any, info: Any) -> Batches:
        one = running.empty(jax.eval_shape(value, state, info)).mean
        zeros = jax.tree.map(lambda x: jnp.zeros((num_batches, *x.shape), x.dtype), one)
        return Batches(jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros))

    def add(seen: Batches, state: Any, info: Any) -> Batches:
        seen = _add(seen, value(state, info))
        # A loop of no turn or one: unlike `cond`, XLA lets it work in place.
        return jax.lax.while_loop(lambda s: s.num == num_batches * s.size, _halve, seen)

    return Reducer(empty, add)


def summary(seen: Batches) -> Summary:
    """Mean, variance, R̂, ESS and standard error over the chains of a `parallel` kernel: leaves (K, chains, ...)."""
    found = jax.tree.map(lambda means, squares: _summarize(seen, means, squares), seen.means, seen.squares)
    outer, inner = jax.tree.structure(seen.means), jax.tree.structure(Summary(*[0] * len(Summary._fields)))
    return jax.tree.transpose(outer, inner, found)


def _add(seen: Batches, value: Any) -> Batches:
    index, place = seen.num // seen.size, seen.num % seen.size

    def put(means: Array, squares: Array, x: Any) -> tuple[Array, Array]:
        new = running.step(means[index], squares[index], x, (place + 1).astype(means.dtype))
        return means.at[index].set(new[0]), squares.at[index].set(new[1])

    pairs = jax.tree.map(put, seen.means, seen.squares, value)
    return Batches(
        seen.num + 1,
        seen.size,
        *jax.tree.transpose(jax.tree.structure(seen.means), jax.tree.structure((0, 0)), pairs),
    )


def _halve(seen: Batches) -> Batches:
    """Neighbouring batches become one; the second half of the places is free again."""

    def merged(means: Array, squares: Array) -> tuple[Array, Array]:
        one, two = means[0::2], means[1::2]
        inside = squares[0::2] + squares[1::2] + jnp.square(two - one) * (seen.size / 2).astype(means.dtype)
        free = jnp.zeros_like(one)
        return jnp.concatenate([(one + two) / 2, free]), jnp.concatenate([inside, free])

    pairs = jax.tree.map(merged, seen.means, seen.squares)
    two = jax.tree.transpose(jax.tree.structure(seen.means), jax.tree.structure((0, 0)), pairs)
    return Batches(seen.num, 2 * seen.size, *two)


def _summarize(seen: Batches, means: Array, squares: Array) -> Summary:
    num_batches, num_chains = means.shape[:2]
    order = jnp.arange(num_batches)
    counts = jnp.clip(seen.num - order * seen.size, 0, seen.size)
    each_mean, each_squares, _ = running.merge(means, squares, counts)
    mean, total, _ = running.merge(each_mean, each_squares, jnp.broadcast_to(seen.num, (num_chains,)))
    num, steps = num_chains * seen.num, seen.num.astype(means.dtype)
    within = jnp.mean(each_squares, axis=0) / jnp.maximum(steps - 1, 1)
    between = jnp.var(each_mean, axis=0, ddof=min(1, num_chains - 1))
    size = _batch_means_size(seen, means, mean, within * (steps - 1) / steps + between)
    variance = total / jnp.maximum(num - 1, 1)
    return Summary(mean, variance, _split_r_hat(seen, means, squares), size, jnp.sqrt(variance / size))


def _batch_means_size(seen: Batches, means: Array, mean: Array, variance: Array) -> Array:
    """C n V⁺/Σ, at most C n log₁₀(C n) (chains that alternate)."""
    full, num_chains = seen.num // seen.size, means.shape[1]
    known = jnp.reshape(jnp.arange(means.shape[0]) < full, (-1, *[1] * (means.ndim - 1)))
    spread = jnp.sum(jnp.where(known, jnp.square(means - mean[None, None]), 0.0), axis=(0, 1))
    asymptotic = seen.size * spread / jnp.maximum(num_chains * full - 1, 1)
    num = num_chains * seen.num.astype(means.dtype)
    size = jnp.minimum(num * variance / asymptotic, num * jnp.log10(num))
    return jnp.where(full >= 2, size, jnp.nan)


def _split_r_hat(seen: Batches, means: Array, squares: Array) -> Array:
    """R̂ of the first and the last h of an even number of full batches; an odd one's middle belongs to neither."""
    full = seen.num // seen.size
    half, order = full // 2, jnp.arange(means.shape[0])
    sides = (order < half, (order >= full - half) & (order < full))
    parts = [running.merge(means, squares, jnp.where(side, seen.size, 0)) for side in sides]
    num: Scalar = (half * seen.size).astype(means.dtype)
    half_means, half_squares = (jnp.concatenate([part[i] for part in parts]) for i in (0, 1))
    value = chains.r_hat(half_means, half_squares / jnp.maximum(num - 1, 1), jnp.maximum(num, 1))
    return jnp.where(full >= 2, value, jnp.nan)
