"""Learning by counting: sufficient statistics are summed over batches, and the parameters solved in closed form."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jgen import random
from jgen._types import Batch, Key, Metrics, Params
from jgen.model import Model


class CountingState(NamedTuple):
    """Attributes: `params`, the solution so far; `moments`, the sums over every batch seen."""

    params: Params
    moments: Params


def counting(
    empty: Callable[[Batch], Params],
    collect: Callable[[Batch], Params],
    solve: Callable[[Params], Params],
    *,
    evaluate: Callable[[Key, CountingState, Batch], Metrics],
    sample: Callable[[Key, CountingState, int], Batch] | None = None,
    log_prob: Callable[[CountingState, Batch], Any] | None = None,
    axis_name: str | None = None,
) -> Model[CountingState]:
    """The model whose `update` adds a batch's sufficient statistics and solves again.

    Args:
        empty: (batch) -> moments before any data, all zeros; the batch lends shapes.
        collect: (batch) -> the batch's sums.
        solve: (moments) -> params.
        axis_name: the mapped axis over which the batch's sums are added.
    """

    def init(key: Key, batch: Batch) -> CountingState:
        del key
        random.batch_size(batch)  # raises where this is no batch
        moments = empty(batch)
        return CountingState(solve(moments), moments)

    def update(key: Key, state: CountingState, batch: Batch) -> tuple[CountingState, Metrics]:
        random.batch_size(batch)  # raises where this is no batch
        added = collect(batch)
        if axis_name is not None:
            added = jax.lax.psum(added, axis_name)
        moments = jax.tree.map(lambda total, new: total + new, state.moments, added)
        state = CountingState(solve(moments), moments)
        metrics = jax.tree.map(lambda value: value.mean(), evaluate(key, state, batch))
        return state, metrics if axis_name is None else jax.lax.pmean(metrics, axis_name)

    return Model(init, update, evaluate, sample, log_prob)
