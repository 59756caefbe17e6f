"""The contract of models: what the trainer, the metrics and the tests see of every family."""

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from jgen._types import Batch, Key, Metrics

State = TypeVar("State")


@dataclasses.dataclass(frozen=True)
class Model(Generic[State]):
    """A generative model as pure functions over one explicit state.

    Every state is a NamedTuple with a field `params` (what was learned); its other fields are what learning needs to
    go on. The fields below that are None are the taxonomy: `log_prob` is a tractable explicit density, `log_bound` an
    approximate one, neither an implicit model.

    Attributes:
        init: (key, batch) -> state. Shapes and data-dependent first values come from `batch`.
        update: (key, state, batch) -> (state, metrics). One step of learning: a gradient, an EM round, a count, two
            players. Metrics are scalars.
        evaluate: (key, state, batch) -> metrics. Held-out numbers, one per example or scalar; changes nothing.
        sample: (key, state, num) -> batch. Every leaf has leading axis `num`; example i depends on (key, i) alone.
        log_prob: (state, batch) -> (batch,). Exact log-density or log-mass of each example, in nats.
        log_bound: (key, state, batch) -> (batch,). A lower bound on it (ELBO, IWAE, diffusion), in nats.
    """

    init: Callable[[Key, Batch], State]
    update: Callable[[Key, State, Batch], tuple[State, Metrics]]
    evaluate: Callable[[Key, State, Batch], Metrics]
    sample: Callable[[Key, State, int], Batch] | None = None
    log_prob: Callable[[State, Batch], Any] | None = None
    log_bound: Callable[[Key, State, Batch], Any] | None = None
