"""Learning by expectation-maximization."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jgen import random
from jgen._types import Batch, Key, Metrics, Params
from jgen.learners.gradient import mean_over
from jgen.model import Model


class EMState(NamedTuple):
    """EM needs nothing beside its parameters."""

    params: Params


def em(
    init: Callable[[Key, Batch], Params],
    expect: Callable[[Params, Batch], tuple[Params, Metrics]],
    maximize: Callable[[Params, Params], Params],
    *,
    evaluate: Callable[[Key, EMState, Batch], Metrics],
    sample: Callable[[Key, EMState, int], Batch] | None = None,
    log_prob: Callable[[EMState, Batch], Any] | None = None,
    axis_name: str | None = None,
) -> Model[EMState]:
    """The model whose `update` is one E-step and one M-step on the batch; with the whole data set as batch, plain EM.

    Args:
        init: (key, batch) -> params.
        expect: (params, batch) -> (statistics, metrics). Statistics are means over examples of the expected sufficient
            statistics, so that shards of equal size average.
        maximize: (params, statistics) -> params; the old parameters serve where a statistic says nothing.
        axis_name: the mapped axis over which statistics and metrics are averaged.
    """

    def update(key: Key, state: EMState, batch: Batch) -> tuple[EMState, Metrics]:
        del key
        random.batch_size(batch)  # raises where this is no batch
        statistics, metrics = mean_over(expect(state.params, batch), axis_name)
        return EMState(maximize(state.params, statistics)), metrics

    def init_state(key: Key, batch: Batch) -> EMState:
        random.batch_size(batch)  # raises where this is no batch
        return EMState(init(key, batch))

    return Model(init_state, update, evaluate, sample, log_prob)
