"""Learning by counting: sufficient statistics are summed over batches, and the parameters solved in closed form."""

import functools
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
    merge: Callable[[Params, Params], Params] | None = None,
    axis_name: str | None = None,
) -> Model[CountingState]:
    """The model whose `update` adds a batch's sufficient statistics and solves again.

    Args:
        empty: (batch) -> moments before any data, all zeros; the batch lends shapes.
        collect: (batch) -> the batch's sums.
        solve: (moments) -> params.
        merge: (moments, moments) -> the moments of both; sums by default. Whatever the order, it must give the same.
        axis_name: the mapped axis over which the batch's moments are put together.
    """

    def init(key: Key, batch: Batch) -> CountingState:
        del key
        random.batch_size(batch)  # raises where this is no batch
        moments = empty(batch)
        return CountingState(solve(moments), moments)

    def update(key: Key, state: CountingState, batch: Batch) -> tuple[CountingState, Metrics]:
        random.batch_size(batch)  # raises where this is no batch
        added = _whole(collect(batch), merge, axis_name)
        moments = (merge or _add)(state.moments, added)
        state = CountingState(solve(moments), moments)
        metrics = jax.tree.map(lambda value: value.mean(), evaluate(key, state, batch))
        return state, metrics if axis_name is None else jax.lax.pmean(metrics, axis_name)

    return Model(init, update, evaluate, sample, log_prob)


def _add(one: Params, other: Params) -> Params:
    return jax.tree.map(lambda total, new: total + new, one, other)


def _whole(moments: Params, merge: Callable[[Params, Params], Params] | None, axis_name: str | None) -> Params:
    """The moments of all shards along `axis_name`."""
    if axis_name is None:
        return moments
    if merge is None:
        return jax.lax.psum(moments, axis_name)
    shards = jax.lax.all_gather(moments, axis_name)
    size = len(jax.tree.leaves(shards)[0])
    return functools.reduce(merge, [jax.tree.map(lambda leaf, i=i: leaf[i], shards) for i in range(size)])
