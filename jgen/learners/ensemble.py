"""Ensembles: models with parameters of their own that learn side by side, and the mean of their densities."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgen import random
from jgen._types import Batch, Key, Metrics
from jgen.model import Model


class EnsembleState(NamedTuple):
    """Attributes: `params`, one pytree per member; `rest`, the members' states without the parameters."""

    params: tuple[Any, ...]
    rest: tuple[Any, ...]


def members(state: EnsembleState) -> tuple[Any, ...]:
    """The members' states."""
    return tuple(rest._replace(params=params) for params, rest in zip(state.params, state.rest, strict=True))


def ensemble(models: Sequence[Model[Any]]) -> Model[EnsembleState]:
    """`models` side by side, each learning from every batch with a key of its own.

        p(x) = mean_m p_m(x)

    The members may differ in anything but what they model: in their starts alone, or in the order of their variables.
    Unlike a mixture's components they are not told apart by the data, and unlike `bagging`'s they all see all of it.
    A draw is one of a member chosen with equal chances.

    Args:
        models: with a `log_prob`; states need the field `params`.

    Raises:
        ValueError: there are no models, or one has no `log_prob`.
    """
    models = tuple(models)
    if not models or any(model.log_prob is None for model in models):
        given = [model.log_prob is not None for model in models]
        raise ValueError(f"`models` must be one or more models that have a `log_prob`, got {given}.")

    def init(key: Key, batch: Batch) -> EnsembleState:
        keys = random.example_keys(key, len(models))
        return _split(model.init(own, batch) for model, own in zip(models, keys, strict=True))

    def update(key: Key, state: EnsembleState, batch: Batch) -> tuple[EnsembleState, Metrics]:
        keys = random.example_keys(key, len(models))
        moved = [
            model.update(own, member, batch) for model, own, member in zip(models, keys, members(state), strict=True)
        ]
        metrics = jax.tree.map(lambda *values: sum(values) / len(values), *(metrics for _, metrics in moved))
        return _split(member for member, _ in moved), metrics

    def log_prob(state: EnsembleState, batch: Batch) -> Any:
        each = [_log_prob(model, member, batch) for model, member in zip(models, members(state), strict=True)]
        return jax.nn.logsumexp(jnp.stack(each), axis=0) - jnp.log(float(len(models)))

    def evaluate(key: Key, state: EnsembleState, batch: Batch) -> Metrics:
        del key
        return {"nll": -log_prob(state, batch)}

    draws = [model.sample for model in models]
    sample = functools.partial(_sample, draws) if all(draws) else None
    return Model(init, update, evaluate, sample, log_prob)


def _log_prob(model: Model[Any], member: Any, batch: Batch) -> Any:
    assert model.log_prob is not None
    return model.log_prob(member, batch)


def _split(states: Any) -> EnsembleState:
    states = tuple(states)
    return EnsembleState(
        tuple(state.params for state in states), tuple(state._replace(params=None) for state in states)
    )


def _sample(draws: Sequence[Any], key: Key, state: EnsembleState, num: int) -> Batch:
    """Every member draws all examples, and each example is taken from one member, chosen with equal chances."""
    which_key, *keys = random.example_keys(key, 1 + len(draws))
    which = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(draws)))(random.example_keys(which_key, num))
    drawn = [draw(own, member, num) for draw, own, member in zip(draws, keys, members(state), strict=True)]
    return jax.tree.map(lambda *each: jnp.stack(each)[which, jnp.arange(num)], *drawn)
