"""The gradient learner: what it gives optimizers that look at the loss along their direction, shards included."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.learners import gradient

NUM_SHARDS = 4
CURVATURE = jnp.array([1.0, 30.0, 900.0])


def loss(key, params, stats, batch, /, *, train):
    """A badly scaled quadratic about the mean of x, and a count of the examples seen."""
    del key, train
    value = jnp.mean(jnp.sum(CURVATURE[None] * jnp.square(params[None] - batch["x"]), axis=-1)) / 2
    return value, ({"seen": stats["seen"] + 1.0}, {"loss": value})


def model(optimizer: optax.GradientTransformation, axis_name: str | None = None) -> Any:
    return gradient(lambda key, batch: (jnp.zeros(3), {"seen": jnp.zeros(())}), loss, optimizer, axis_name=axis_name)


def rows(num: int = 8) -> dict[str, Any]:
    return {"x": jax.random.normal(jax.random.key(0), (num, 3)) + jnp.array([[1.0, -2.0, 0.5]])}


def learn(model: Any, batch: Any, num_steps: int) -> Any:
    update = jax.jit(model.update)
    state = model.init(jax.random.key(0), batch)
    for step in range(num_steps):
        state, _ = update(jax.random.key(step), state, batch)
    return state


def test_lbfgs_finds_the_minimum_that_gradient_descent_is_far_from():
    batch = rows()
    best = jnp.mean(batch["x"], axis=0)
    state = learn(model(optax.lbfgs()), batch, 8)
    np.testing.assert_allclose(state.params, best, atol=1e-4)
    slow = learn(model(optax.sgd(1e-3)), batch, 8)
    assert float(jnp.max(jnp.abs(slow.params - best))) > 0.5
    assert float(state.stats["seen"]) == 8.0, "evaluations along the line change no statistics"


def test_an_optimizer_that_looks_at_nothing_gets_the_gradient_alone():
    batch, optimizer = rows(), optax.adam(1e-1)
    params = jnp.zeros(3)
    opt_state = optimizer.init(params)
    for _ in range(3):
        grads = jax.grad(lambda p: loss(None, p, {"seen": 0.0}, batch, train=True)[0])(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(learn(model(optimizer), batch, 3).params, params, rtol=1e-5)


def test_an_optimizer_may_ask_for_the_value():
    chain = optax.chain(optax.sgd(1e-3), optax.contrib.reduce_on_plateau(patience=1))
    assert np.all(np.isfinite(learn(model(chain), rows(), 3).params))


def shards(num_steps: int) -> Any:
    """The states of all shards after learning on a part of the batch each."""
    batch = rows()
    parts = jax.tree.map(lambda leaf: leaf.reshape(NUM_SHARDS, -1, *leaf.shape[1:]), batch)
    sharded = model(optax.lbfgs(), axis_name="shards")
    state = jax.vmap(lambda _: model(optax.lbfgs()).init(jax.random.key(0), batch))(jnp.arange(NUM_SHARDS))
    update = jax.jit(jax.vmap(sharded.update, (None, 0, 0), axis_name="shards"))
    for step in range(num_steps):
        state, _ = update(jax.random.key(step), state, parts)
    return state


def test_line_searches_of_shards_agree_with_the_whole():
    whole, parts = learn(model(optax.lbfgs()), rows(), 4), shards(4)
    for leaf in parts.params:
        np.testing.assert_allclose(leaf, whole.params, rtol=1e-4, atol=1e-4)


def test_shards_whose_slope_is_their_own_are_caught(monkeypatch):
    module = sys.modules[gradient.__module__]
    monkeypatch.setattr(module, "mean_value", lambda function, axis: lambda p: module.mean_over(function(p), axis))
    with pytest.raises(AssertionError):
        test_line_searches_of_shards_agree_with_the_whole()
