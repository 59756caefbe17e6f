"""Bagging: the mean of models that each learned from a bootstrap sample of the data."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgen import random
from jgen._checks import at_least
from jgen._types import Batch, Key, Metrics, Params
from jgen.model import Model


class BaggingState(NamedTuple):
    """Attributes: `params`, the members', leading axis `members`; `rest`, their states without the parameters."""

    params: Params
    rest: Any


def members(state: BaggingState) -> Any:
    """The members' states, every leaf with a leading axis."""
    return state.rest._replace(params=state.params)


def bootstrap(seed: int, member: Any, num: int) -> Any:
    """(num,) indices drawn with replacement from 0..num-1: a function of (seed, member), the same in every update."""
    return jax.random.randint(jax.random.fold_in(random.stream(seed, "bootstrap"), member), (num,), 0, num)


def bagging(
    model: Model[Any], num_members: int, *, seed: int = 0, batch_size: int | None = None
) -> Model[BaggingState]:
    """`num_members` copies of `model` side by side, each on its own bootstrap sample of the batch: give it all data.

        p(x) = mean_m p_m(x);  where log p_m is log p(y|x), this is the members' mean prediction.

    Breiman: Bagging Predictors, 1996. A draw is one of a member chosen with equal chances.

    Args:
        model: with a `log_prob`.
        num_members: M.
        seed: of the bootstrap samples.
        batch_size: members learn from so many examples of their sample in an update, drawn anew; None for all.

    Raises:
        ValueError: `num_members` or `batch_size` is below 1, or `model` has no `log_prob`.
    """
    at_least("num_members", num_members, 1)
    at_least("batch_size", 1 if batch_size is None else batch_size, 1)
    if (own_log_prob := model.log_prob) is None:
        raise ValueError("`model` must have a `log_prob`, got one without.")

    gathered = functools.partial(_gathered, num_members, seed, batch_size)

    def init(key: Key, batch: Batch) -> BaggingState:
        which, start = jax.random.split(key)
        return _split(jax.vmap(model.init)(random.example_keys(start, num_members), gathered(which, batch)))

    def update(key: Key, state: BaggingState, batch: Batch) -> tuple[BaggingState, Metrics]:
        which, move = jax.random.split(key)
        keys = random.example_keys(move, num_members)
        states, metrics = jax.vmap(model.update)(keys, members(state), gathered(which, batch))
        return _split(states), {name: jnp.mean(value) for name, value in metrics.items()}

    def log_prob(state: BaggingState, batch: Batch) -> Any:
        each = jax.vmap(own_log_prob, (0, None))(members(state), batch)
        return jax.nn.logsumexp(each, axis=0) - jnp.log(float(num_members))

    def evaluate(key: Key, state: BaggingState, batch: Batch) -> Metrics:
        del key
        return {"nll": -log_prob(state, batch)}

    return Model(init, update, evaluate, model.sample and functools.partial(_sample, model.sample), log_prob)


def _gathered(num_members: int, seed: int, batch_size: int | None, key: Key, batch: Batch) -> Batch:
    """What every member learns from in an update, leading axis `members`."""
    num = random.batch_size(batch)

    def one(key: Key, member: Any) -> Any:
        rows = bootstrap(seed, member, num)
        return rows if batch_size is None else rows[jax.random.randint(key, (batch_size,), 0, num)]

    rows = jax.vmap(one)(random.example_keys(key, num_members), jnp.arange(num_members))
    return {name: jnp.asarray(x)[rows] for name, x in batch.items()}


def _split(states: Any) -> BaggingState:
    return BaggingState(states.params, states._replace(params=None))


def _sample(draw: Callable[[Key, Any, int], Batch], key: Key, state: BaggingState, num: int) -> Batch:
    """Each example by a member of its own, drawn with equal chances."""
    states = members(state)
    count = jax.tree.leaves(states)[0].shape[0]

    def one(key: Key) -> Batch:
        which, what = jax.random.split(key)
        member = jax.random.randint(which, (), 0, count)
        return {name: x[0] for name, x in draw(what, jax.tree.map(lambda leaf: leaf[member], states), 1).items()}

    return jax.vmap(one)(random.example_keys(key, num))
