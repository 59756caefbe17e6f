"""A wrapper that evaluates and samples with an exponential moving average of the parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgen._types import Batch, Key, Metrics, Params
from jgen.model import Model


class AverageState(NamedTuple):
    """Attributes: `params`, the average; `inner`, the wrapped model's own state."""

    params: Params
    inner: Any


def average(model: Model[Any], decay: float) -> Model[AverageState]:
    """Keeps θ̄ ← decay·θ̄ + (1 − decay)·θ beside `model`'s own parameters θ, starting from θ̄ = θ.

    `update` moves θ; `evaluate`, `sample`, `log_prob` and `log_bound` see θ̄.

    Raises:
        ValueError: `decay` is not in [0, 1).
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"`decay` must be in [0, 1), got {decay}.")

    def seen(state: AverageState) -> Any:
        return state.inner._replace(params=state.params)

    def init(key: Key, batch: Batch) -> AverageState:
        inner = model.init(key, batch)
        # A copy: the trainer donates the state, and a donated buffer may be owned once only.
        return AverageState(jax.tree.map(jnp.copy, inner.params), inner)

    def update(key: Key, state: AverageState, batch: Batch) -> tuple[AverageState, Metrics]:
        inner, metrics = model.update(key, state.inner, batch)
        params = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.params, inner.params)
        return AverageState(params, inner), metrics

    def evaluate(key: Key, state: AverageState, batch: Batch) -> Metrics:
        return model.evaluate(key, seen(state), batch)

    sample, log_prob, log_bound = model.sample, model.log_prob, model.log_bound
    return Model(
        init,
        update,
        evaluate,
        sample and (lambda key, state, num: sample(key, seen(state), num)),
        log_prob and (lambda state, batch: log_prob(seen(state), batch)),
        log_bound and (lambda key, state, batch: log_bound(key, seen(state), batch)),
    )
