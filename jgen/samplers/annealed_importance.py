"""Annealed importance sampling: log Z of an unnormalized density, from below and from above.

Chains walk a path of densities f_β, β from 0 (normalized) to 1 (the target), and carry importance weights:
    log w += log f_{β'}(x) − log f_β(x), then x ~ K_{β'}(x, ·);    E[w] = Z_1/Z_0, at any number of temperatures.
Started at β = 0 this is a lower bound of log Z in mean; started at exact draws of the target with the temperatures
reversed it bounds log Z from above (E[w] = Z_0/Z_1). Neither is to be trusted alone: the gap between them says how far.

Paper: Neal, "Annealed importance sampling", 2001; reversed: Burda, Grosse and Salakhutdinov, 2015.
Differs from the paper: increments are taken as differences and summed with Kahan's compensation, for float32.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen._checks import at_least, positive
from jgen._types import Key, Scalar
from jgen.sampler import Sampler, parallel, run


class State(NamedTuple):
    """Many chains on the path.

    Attributes:
        position: where they stand; every leaf has leading axis `chains`.
        log_weights: log w so far, nats.
        compensation: what rounding has taken from log_weights (Kahan).
        stage: the number of the temperature at which they stand.
    """

    position: Any
    log_weights: Float[Array, " chains"]
    compensation: Float[Array, " chains"]
    stage: Int[Array, ""]


class Info(NamedTuple):
    """What a step added to the log-weights."""

    increment: Float[Array, " chains"]


class Path(NamedTuple):
    """Densities f_β between a normalized one and the target, with a kernel for each.

    Attributes:
        increment: (position, β, β') -> (chains,), log f_{β'} − log f_β at each chain. Write it as a difference of
            small terms, not of two large sums.
        kernel: (β) -> a Sampler over the batch of chains that keeps f_β.
    """

    increment: Callable[[Any, Any, Any], Any]
    kernel: Callable[[Any], Sampler[Any]]


class Estimate(NamedTuple):
    """An estimate of log Z_end − log Z_start.

    Attributes:
        log_ratio: log mean w, nats.
        standard_error: of log_ratio, from the spread of w; it does not see the modes that no chain found.
        ess: (Σ w)²/Σ w², of `chains`.
        log_weights: log w of each chain.
        position: where the chains ended.
    """

    log_ratio: Scalar
    standard_error: Scalar
    ess: Scalar
    log_weights: Float[Array, " chains"]
    position: Any


class Sandwich(NamedTuple):
    """log Z from both sides, nats.

    Attributes:
        forward: the estimate from the normalized density: E ≤ log Z.
        reverse: the estimate from draws of the target: E ≥ log Z, if the draws are exact.
        gap: reverse − forward; below 0 only by Monte-Carlo error.
        standard_error: of forward and of reverse.
        ess: of forward and of reverse, of `chains`.
    """

    forward: Scalar
    reverse: Scalar
    gap: Scalar
    standard_error: Float[Array, "2"]
    ess: Float[Array, "2"]


class Doubling(NamedTuple):
    """What doubling the temperatures came to.

    Attributes:
        sandwich: of the last round.
        betas: its temperatures.
        counts: steps of every round.
        gaps: the sandwich's gap in every round, nats.
        converged: whether the last gap and its standard errors are within the tolerance.
    """

    sandwich: Sandwich
    betas: Any
    counts: tuple[int, ...]
    gaps: tuple[float, ...]
    converged: bool


def temperatures(counts: Sequence[int] = (500, 4_000, 10_000), edges: Sequence[float] = (0.0, 0.5, 0.9, 1.0)) -> Any:
    """Inverse temperatures from 0 to 1, evenly spaced within each piece: `counts[i]` steps from edges[i] to edges[i+1].

    The default are the 14,500 steps of Salakhutdinov and Murray (2008). `temperatures([n], [0, 1])` is linear.

    Raises:
        ValueError: edges do not rise from 0 to 1, or there is not one positive count for each piece.
    """
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or np.any(np.diff(edges) <= 0):
        raise ValueError(f"`edges` must rise from 0 to 1, got {tuple(edges)}.")
    if len(counts) != len(edges) - 1 or min(counts) < 1:
        raise ValueError(f"`counts` must be {len(edges) - 1} positive numbers, got {tuple(counts)}.")
    pieces = zip(itertools.pairwise(edges), counts, strict=True)
    return np.concatenate([np.linspace(low, high, n, endpoint=False) for (low, high), n in pieces] + [[1.0]])


def geometric(
    log_base: Callable[[Any], Any], log_target: Callable[[Any], Any], kernel: Callable[[Any], Sampler[Any]]
) -> Path:
    """log f_β(x) = (1 − β)·log_base(x) + β·log_target(x), for densities and kernels of one position.

    Args:
        log_base: normalized or with known normalizer; (position) -> scalar.
        log_target: (position) -> scalar.
        kernel: (log_density) -> a Sampler for one chain, such as metropolis.sampler with its proposal bound.
    """

    def increment(position: Any, old: Any, new: Any) -> Any:
        return (new - old) * jax.vmap(lambda x: log_target(x) - log_base(x))(position)

    def batched(beta: Any) -> Sampler[Any]:
        return parallel(kernel(lambda x: (1 - beta) * log_base(x) + beta * log_target(x)))

    return Path(increment, batched)


def anneal(key: Key, path: Path, position: Any, betas: Any) -> Estimate:
    """Walks from exact draws of f at betas[0] to betas[-1]; E[exp log_weights] = Z(betas[-1])/Z(betas[0]).

    Args:
        key: of the whole walk.
        path: the densities.
        position: exact draws at betas[0], leading axis `chains`.
        betas: (steps + 1,) inverse temperatures in the order of the walk.
    """
    walk = sampler(path, betas)
    state, _ = run(key, walk, walk.init(key, position), len(betas) - 1)
    return summarize(state)


def sandwich(
    key: Key, path: Path, base_draws: Any, target_draws: Any, betas: Any, *, log_base_normalizer: Any = 0.0
) -> Sandwich:
    """log Z of the target by forward annealing from `base_draws` and by reverse annealing from `target_draws`.

    Args:
        key: split between the two directions.
        path: the densities.
        base_draws: exact draws at β = 0.
        target_draws: exact draws at β = 1; draws of a long chain make the upper bound approximate.
        betas: rising from 0 to 1, as `temperatures` gives them.
        log_base_normalizer: log Z at β = 0, nats.
    """
    forward_key, reverse_key = jax.random.split(key)
    forward = anneal(forward_key, path, base_draws, betas)
    reverse = anneal(reverse_key, path, target_draws, betas[::-1])
    low, high = log_base_normalizer + forward.log_ratio, log_base_normalizer - reverse.log_ratio
    errors = jnp.stack([forward.standard_error, reverse.standard_error])
    return Sandwich(low, high, high - low, errors, jnp.stack([forward.ess, reverse.ess]))


def refine(betas: Any) -> Any:
    """Twice the steps: each of `betas`' steps is halved."""
    table = np.asarray(betas, np.float64)
    return np.interp(np.arange(2 * len(table) - 1) / 2, np.arange(len(table)), table)


def double(
    key: Key, bounds: Callable[[Key, Any], Sandwich], betas: Any, *, tolerance: float, max_doublings: int = 8
) -> Doubling:
    """Bounds log Z with twice, four times, … the steps of `betas`, until the bounds agree.

    They agree when |gap| and both standard errors are at most `tolerance`. A gap that more temperatures do not close
    means that the target's draws are none, or that no chain finds a mode: the last round is returned all the same.

    Args:
        key: round r draws from fold_in(key, r).
        bounds: (key, betas) -> Sandwich, such as `sandwich` of a path; it is compiled once a round.
        betas: of the first round.
        tolerance: nats, positive.
        max_doublings: rounds after the first, at least 0.

    Raises:
        ValueError: `tolerance` is not positive, or `max_doublings` is negative.
    """
    positive("tolerance", tolerance)
    at_least("max_doublings", max_doublings, 0)
    counts, gaps = [], []
    while True:
        found = jax.jit(lambda key, betas=betas: bounds(key, betas))(jax.random.fold_in(key, len(gaps)))
        counts.append(len(betas) - 1)
        gaps.append(float(found.gap))
        converged = max(abs(gaps[-1]), float(jnp.max(found.standard_error))) <= tolerance
        if converged or len(gaps) > max_doublings:
            return Doubling(found, betas, tuple(counts), tuple(gaps), converged)
        betas = refine(betas)


def summarize(state: State) -> Estimate:
    """The estimate that the chains' weights make."""
    log_weights = state.log_weights - state.compensation
    num = log_weights.shape[0]
    log_ratio = jax.nn.logsumexp(log_weights) - jnp.log(float(num))
    relative = jnp.exp(log_weights - log_ratio)  # w / mean w
    error = jnp.std(relative, ddof=1 if num > 1 else 0) / jnp.sqrt(float(num))
    return Estimate(log_ratio, error, num / jnp.mean(jnp.square(relative)), log_weights, state.position)


def sampler(path: Path, betas: Any) -> Sampler[State]:
    """The walk as a Sampler over a batch of chains: step t weighs betas[t] -> betas[t+1], then moves at betas[t+1].

    Raises:
        ValueError: `betas` are not at least two numbers in [0, 1].
    """
    table = np.asarray(betas, np.float64)
    if table.ndim != 1 or len(table) < 2 or not (table.min() >= 0 and table.max() <= 1):
        raise ValueError(f"`betas` must be at least two numbers in [0, 1] along one axis, got {betas}.")
    betas = jnp.asarray(table, jnp.float32)

    def init(key: Key, position: Any) -> State:
        del key
        zeros = jnp.zeros(_num_chains(position))
        return State(position, zeros, jnp.zeros_like(zeros), jnp.zeros((), jnp.int32))

    def step(key: Key, state: State) -> tuple[State, Info]:
        old, new = betas[state.stage], betas[state.stage + 1]
        increment = path.increment(state.position, old, new)
        total, lost = _kahan(state.log_weights, state.compensation, increment)
        init_key, step_key = jax.random.split(key)
        kernel = path.kernel(new)
        chains, _ = kernel.step(step_key, kernel.init(init_key, state.position))
        return State(chains.position, total, lost, state.stage + 1), Info(increment)

    return Sampler(init, step)


def _kahan(total: Any, lost: Any, term: Any) -> tuple[Any, Any]:
    term = term - lost
    grown = total + term
    return grown, (grown - total) - term


def _num_chains(tree: Any) -> int:
    return jax.tree.leaves(tree)[0].shape[0]
