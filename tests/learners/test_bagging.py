"""Bagging: each member's own bootstrap sample, the mean of the members' densities, draws from them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stat_checks import check_counts, check_mean

from jgen.classical import pca
from jgen.learners.bagging import bagging, bootstrap, members

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((40, 2)) * [2.0, 0.3], jnp.float32)
MEMBERS = 3


def learned(**keywords):
    model: Any = bagging(pca.model(1), MEMBERS, seed=7, **keywords)
    state, metrics = jax.jit(model.update)(KEY, model.init(KEY, {"x": X}), {"x": X})
    return model, state, metrics


def test_each_member_is_the_model_of_its_own_bootstrap_sample():
    _, state, _ = learned()
    means = []
    for m in range(MEMBERS):
        own = X[bootstrap(7, m, len(X))]
        np.testing.assert_allclose(state.params.mean[m], jnp.mean(own, axis=0), atol=1e-5)
        means.append(np.asarray(state.params.mean[m]))
    assert len(np.unique(np.stack(means), axis=0)) == MEMBERS


def test_a_bootstrap_sample_repeats_and_leaves_out():
    rows = np.asarray(jax.vmap(lambda m: bootstrap(0, m, 100))(jnp.arange(200)))
    assert rows.min() >= 0
    assert rows.max() == 99
    left_out = [100 - len(np.unique(row)) for row in rows]
    check_mean(left_out, 100 * (1 - 1 / 100) ** 100, sees=5)
    check_counts(np.bincount(rows.ravel(), minlength=100), np.ones(100))


def test_density_is_the_mean_of_the_members():
    model, state, _ = learned()
    each = jax.vmap(lambda s: pca.log_prob(s.params, X))(members(state))
    np.testing.assert_allclose(np.exp(model.log_prob(state, {"x": X})), np.exp(each).mean(0), rtol=1e-4)
    assert not np.allclose(model.log_prob(state, {"x": X}), np.mean(each, axis=0), rtol=1e-4), "not the mean of logs"
    np.testing.assert_allclose(model.evaluate(KEY, state, {"x": X})["nll"], -model.log_prob(state, {"x": X}))


def test_members_learn_from_parts_of_their_sample():
    _, state, _ = learned(batch_size=5)
    assert np.all(np.asarray(state.rest.moments.num) == 5)
    other = bagging(pca.model(1), MEMBERS, seed=7, batch_size=5)
    again, _ = other.update(jax.random.key(9), other.init(KEY, {"x": X}), {"x": X})
    assert not np.allclose(again.params.mean, state.params.mean)


def test_draws_come_from_all_members():
    model, state, _ = learned()
    far = state._replace(params=state.params._replace(mean=jnp.asarray([[0.0, 0], [100, 0], [200, 0]])))
    x = np.asarray(jax.jit(model.sample, static_argnums=2)(KEY, far, 600)["x"])
    check_counts(np.bincount(np.round(x[:, 0] / 100).astype(int), minlength=3), np.ones(3))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`num_members` must be at least 1, got 0"):
        bagging(pca.model(1), 0)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        bagging(pca.model(1), 2, batch_size=0)
    with pytest.raises(ValueError, match="`model` must have a `log_prob`"):
        bagging(dataclasses.replace(pca.model(1), log_prob=None), 2)
