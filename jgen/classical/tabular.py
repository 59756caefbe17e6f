"""The full joint table of discrete variables, written as the chain rule.

    p(x) = Π_i p(x_i | x_1 … x_{i−1}),        p(x_i = c | h) = (n(h, c) + α) / (n(h) + α L_i)

Conditional i of binary variables has a row for each of the 2^{i−1} pasts h, so the whole has 2^n − 1 free parameters:
any distribution on n variables, and the reason for every model with fewer. Without smoothing it is the empirical
distribution. Differs from the textbook: variables may have any number of levels, Π L − 1 parameters.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics
from jgen.learners import CountingState, counting
from jgen.math import discrete
from jgen.model import Model

LARGEST_TABLE = 2**26

Tables = tuple[Any, ...]
"""Counts n(h, c), or probabilities p(c | h), of each variable: (Π_{j<i} L_j, L_i), rows numbered by `discrete.row`."""


def num_parameters(levels: Sequence[int]) -> int:
    """Σ_i (Π_{j<i} L_j)(L_i − 1) = Π L − 1."""
    return sum(math.prod(levels[:i]) * (size - 1) for i, size in enumerate(levels))


def count(x: Num[Array, "batch variables"], levels: Sequence[int]) -> Tables:
    """How often each value followed each past."""

    def table(i: int) -> Any:
        counts = jnp.zeros((math.prod(levels[:i]), levels[i]))
        return counts.at[discrete.row(x, levels[:i]), x[:, i].astype(jnp.int32)].add(1.0)

    return tuple(table(i) for i in range(len(levels)))


def solve(counts: Tables, smoothing: float = 0.0) -> Tables:
    """The maximum-likelihood (α = 0) or smoothed conditionals; uniform after a past that was never seen when α = 0."""
    return tuple(discrete.frequencies(table, smoothing) for table in counts)


def log_prob(params: Tables, x: Num[Array, "batch variables"]) -> Float[Array, " batch"]:
    """log p(x) in nats; −inf where the probability is zero."""
    levels = [table.shape[1] for table in params]
    chosen = [table[discrete.row(x, levels[:i]), x[:, i].astype(jnp.int32)] for i, table in enumerate(params)]
    return jnp.sum(jnp.log(jnp.stack(chosen)), axis=0)


def joint(params: Tables) -> Float[Array, " points"]:
    """p of all Π L points, in the order of `discrete.points`."""
    p = jnp.ones(1)
    for table in params:
        p = (p[:, None] * table).reshape(-1)
    return p


def conditionals(p: Float[Array, " points"], levels: Sequence[int]) -> Tables:
    """The inverse of `joint`: the chain rule of any distribution on the points."""
    marginals = [jnp.sum(p.reshape(math.prod(levels[: i + 1]), -1), axis=1) for i in range(len(levels))]
    return tuple(discrete.frequencies(q.reshape(-1, size)) for q, size in zip(marginals, levels, strict=True))


def sample(key: Key, params: Tables, num: int) -> Num[Array, "num variables"]:
    """Draws one variable after another; variable i of example j draws from (key, j, i)."""
    levels = [table.shape[1] for table in params]

    def one(key: Key) -> Any:
        x, row = [], jnp.zeros((), jnp.int32)
        for i, table in enumerate(params):
            x.append(jax.random.categorical(jax.random.fold_in(key, i), jnp.log(table[row])))
            row = row * levels[i] + x[-1]
        return jnp.stack(x)

    return discrete.as_data(jax.vmap(one)(random.example_keys(key, num)), levels)


def model(levels: Sequence[int], *, smoothing: float = 0.0, axis_name: str | None = None) -> Model[CountingState]:
    """The full table over batches {"x": (batch, variables)}; an update adds the batch's counts.

    Args:
        levels: L_i of each variable; x_i are whole numbers in 0..L_i-1.
        smoothing: α, what every count of every conditional starts with.
        axis_name: the mapped axis over which the counts are added.

    Raises:
        ValueError: a variable has fewer than two levels, there is none, `smoothing` is negative, or the table has more
            than 2^26 entries.
    """
    _checks.at_least("levels", min(levels, default=0), 2)
    _checks.at_least("smoothing", smoothing, 0.0)
    if math.prod(levels) > LARGEST_TABLE:
        raise ValueError(f"`levels` must have a product of at most 2^26, got {math.prod(levels)}.")
    levels = tuple(levels)

    def evaluate(key: Key, state: CountingState, batch: Batch) -> Metrics:
        del key
        return {"nll": -log_prob(state.params, _examples(batch, levels))}

    return counting(
        lambda batch: jax.tree.map(jnp.zeros_like, count(_examples(batch, levels), levels)),
        lambda batch: count(_examples(batch, levels), levels),
        functools.partial(solve, smoothing=smoothing),
        evaluate=evaluate,
        sample=lambda key, state, num: {"x": sample(key, state.params, num)},
        log_prob=lambda state, batch: log_prob(state.params, _examples(batch, levels)),
        axis_name=axis_name,
    )


def _examples(batch: Batch, levels: tuple[int, ...]) -> Any:
    random.batch_size(batch)
    _checks.columns("x", batch["x"], levels)
    return jnp.asarray(batch["x"])
