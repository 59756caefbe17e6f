"""Ensembles: members learn as they would alone, the mean of their densities, draws from them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stat_checks import check_counts

from jgen.autoregressive import made
from jgen.classical import pca
from jgen.learners import ensemble
from jgen.learners.ensemble import members
from jgen.random import example_keys

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (40, 4)), jnp.float32)
NETS: Any = [made.model(optax.sgd(0.5), hidden_sizes=(6,), num_masks=2, mask_seed=i) for i in range(3)]


def learned():
    model: Any = ensemble(NETS)
    init, move = jax.random.split(KEY)
    return model, *jax.jit(model.update)(move, model.init(init, {"x": X}), {"x": X})


def test_members_learn_as_they_would_alone():
    _, state, metrics = learned()
    init, move = jax.random.split(KEY)
    losses = []
    for i, (net, member) in enumerate(zip(NETS, members(state), strict=True)):
        start = net.init(example_keys(init, 3)[i], {"x": X})
        alone, own = jax.jit(net.update)(example_keys(move, 3)[i], start, {"x": X})
        jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6), member, alone)
        losses.append(own["nll"])
    np.testing.assert_allclose(metrics["nll"], np.mean(losses), rtol=1e-5)
    assert len(np.unique(losses)) == 3, "members start from keys of their own"


def test_density_is_the_mean_of_the_members():
    model, state, _ = learned()
    each = np.stack([net.log_prob(member, {"x": X}) for net, member in zip(NETS, members(state), strict=True)])
    np.testing.assert_allclose(np.exp(model.log_prob(state, {"x": X})), np.exp(each).mean(0), rtol=1e-4)
    assert not np.allclose(model.log_prob(state, {"x": X}), each.mean(0), rtol=1e-4), "not the mean of logs"
    np.testing.assert_allclose(model.evaluate(KEY, state, {"x": X})["nll"], -model.log_prob(state, {"x": X}))


def test_draws_come_from_all_members():
    model: Any = ensemble([pca.model(1)] * 3)
    state = model.init(KEY, {"x": jnp.asarray(np.random.default_rng(0).standard_normal((40, 2)), jnp.float32)})
    far = [params._replace(mean=jnp.full(2, 100.0 * i)) for i, params in enumerate(state.params)]
    x = np.asarray(jax.jit(model.sample, static_argnums=2)(KEY, state._replace(params=tuple(far)), 600)["x"])
    check_counts(np.bincount(np.round(x[:, 0] / 100).astype(int), minlength=3), np.ones(3))
    assert len(np.unique(x, axis=0)) == 600


def test_bad_models_are_refused():
    with pytest.raises(ValueError, match="`models` must be one or more models"):
        ensemble([])
    with pytest.raises(ValueError, match=r"`models` must be .* that have a `log_prob`, got \[True, False\]"):
        ensemble([pca.model(1), dataclasses.replace(pca.model(1), log_prob=None)])
    assert ensemble([pca.model(1), dataclasses.replace(pca.model(1), sample=None)]).sample is None
