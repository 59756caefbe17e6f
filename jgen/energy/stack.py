"""Greedy learning of a stack: one layer after the other, each on what those below make of the data; then the whole.

Paper: Hinton, Osindero and Teh, "A fast learning algorithm for deep belief nets", 2006, section 4.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics, Params
from jgen.learners.contrastive import ContrastiveState
from jgen.model import Model


class Layer(NamedTuple):
    """One hidden layer: its units, what moves its parameters, and for how many updates it learns by itself."""

    hidden_size: int
    optimizer: optax.GradientTransformation
    num_updates: int


class StackState(NamedTuple):
    """What persists.

    Attributes:
        params: of the whole.
        layers: the state of each layer's own model.
        tuning: what learning the whole needs to go on; () before and without it.
        step: updates made.
    """

    params: Params
    layers: tuple[ContrastiveState, ...]
    tuning: Any
    step: Int[Array, ""]


class Tuning(NamedTuple):
    """How the whole learns after its layers: start (key, params, batch) -> tuning, and an update of the whole state."""

    start: Callable[[Key, Params, Batch], Any]
    update: Callable[[Key, StackState, Batch], tuple[StackState, Metrics]]


def stacked(
    models: Sequence[Model[ContrastiveState]],
    num_updates: Sequence[int],
    lift: Callable[[Key, int, Params, Any], Any],
    compose: Callable[[Sequence[Params]], Params],
    tuning: Tuning | None,
    *,
    begin: Callable[[Key, ContrastiveState, ContrastiveState], ContrastiveState] | None = None,
    axis_name: str | None = None,
) -> tuple[Callable[[Key, Batch], StackState], Callable[[Key, StackState, Batch], tuple[StackState, Metrics]]]:
    """(init, update) of the stack; without `tuning` the last layer goes on when all have had their updates.

    Args:
        models: of each layer over {"x": rows}; their updates all report the same metrics.
        num_updates: of each layer.
        lift: (key, layer, its parameters, rows) -> the rows of the layer above.
        compose: (parameters of every layer) -> those of the whole.
        tuning: of the whole; it reports the same metrics too.
        begin: (key, state of the layer below, own state) -> own state, before a layer's first update; not of the first.
        axis_name: as in the learners.
    """
    ends = jnp.asarray(list(itertools.accumulate(num_updates)))
    ends = ends[:-1] if tuning is None else ends
    learn = functools.partial(_learn, models, lift, compose, axis_name)
    firsts = [0, *itertools.accumulate(num_updates)]
    stages: list[Any] = [functools.partial(learn, begin, firsts[index], index) for index in range(len(models))]
    stages += [] if tuning is None else [tuning.update]

    def init(key: Key, batch: Batch) -> StackState:
        random.batch_size(batch)  # raises where this is no batch
        tuning_key, key = jax.random.split(key)
        x, layers = batch["x"], []
        for index, model in enumerate(models):
            init_key, lift_key = jax.random.split(jax.random.fold_in(key, index))
            layers.append(model.init(init_key, {"x": x}))
            x = lift(lift_key, index, layers[-1].params, x)
        params = compose([layer.params for layer in layers])
        own = () if tuning is None else tuning.start(tuning_key, params, batch)
        return StackState(params, tuple(layers), own, jnp.zeros((), jnp.int32))

    def update(key: Key, state: StackState, batch: Batch) -> tuple[StackState, Metrics]:
        random.batch_size(batch)  # raises where this is no batch
        state, metrics = jax.lax.switch(jnp.sum(state.step >= ends), stages, key, state, batch)
        return state._replace(step=state.step + 1), metrics

    return init, update


def _learn(
    models: Sequence[Model[ContrastiveState]],
    lift: Callable[[Key, int, Params, Any], Any],
    compose: Callable[[Sequence[Params]], Params],
    axis_name: str | None,
    begin: Callable[[Key, ContrastiveState, ContrastiveState], ContrastiveState] | None,
    first: int,
    index: int,
    key: Key,
    state: StackState,
    batch: Batch,
) -> tuple[StackState, Metrics]:
    """An update of layer `index` alone, whose first is at step `first`, on what those below it draw from the batch."""
    own_key, key = jax.random.split(key)
    if axis_name is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    own: Any = state.layers[index]
    if begin is not None and index > 0:
        begin_key, below = jax.random.fold_in(key, index), state.layers[index - 1]
        own = jax.lax.cond(state.step == first, lambda own: begin(begin_key, below, own), lambda own: own, own)
    x = batch["x"]
    for lower in range(index):
        x = lift(jax.random.fold_in(key, lower), lower, state.layers[lower].params, x)
    layer, metrics = models[index].update(own_key, own, {"x": x})
    layers = (*state.layers[:index], layer, *state.layers[index + 1 :])
    return state._replace(params=compose([layer.params for layer in layers]), layers=layers), metrics


def check(visible_size: int, layers: Sequence[Layer]) -> None:
    """Raises ValueError unless there are at least two layers of at least one unit, and counts are not negative."""
    _checks.at_least("visible_size", visible_size, 1)
    _checks.at_least("layers", len(layers), 2)
    for layer in layers:
        _checks.at_least("hidden_size", layer.hidden_size, 1)
        _checks.at_least("num_updates", layer.num_updates, 0)
