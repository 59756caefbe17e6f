"""Temporal convolution network over frames: a normalized mass, causality by jacobian, draws from queues, padding."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from jgen import random
from jgen.autoregressive import tcn
from jgen.math import framewise, likelihoods
from jgen.nets import temporal
from jgen.nets.temporal import TemporalConv

BITS = tcn.Network(likelihoods.Bernoulli(), TemporalConv(3, 2, 2), (4,))
REAL = tcn.Network(likelihoods.Gaussian(), TemporalConv(3, 2, 2), (4,))


def params_of(network, seed=0):
    """Random weights everywhere, biases too."""
    x = jnp.zeros((1, 2, 2))
    shapes = jax.eval_shape(lambda key: tcn.init(network, key, x, jnp.ones((1, 2))), jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(tree, [0.6 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)])


def mass():
    params = params_of(BITS)
    space = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=8))).reshape(-1, 4, 2)
    log_prob = jax.jit(lambda x: tcn.log_prob(BITS, params, x, jnp.ones(x.shape[:2])))(space)
    return np.exp(np.asarray(log_prob, np.float64)).sum()


def test_the_mass_sums_to_one():
    np.testing.assert_allclose(mass(), 1.0, atol=1e-5)


def test_a_frame_that_sees_itself_is_caught(monkeypatch):
    monkeypatch.setattr(temporal, "before", lambda d: d)
    assert abs(mass() - 1) > 0.01


def test_a_frame_sees_itself_through_its_own_law_alone():
    params, x = params_of(REAL), jax.random.normal(jax.random.key(0), (1, 9, 2))

    def raw_of(x):
        d = temporal.states(REAL.convolutions, params["convolutions"], framewise.features(REAL.likelihood, x))
        return tcn.decode(REAL, params, temporal.before(d))[0]

    jacobian = np.any(np.asarray(jax.jit(jax.jacrev(raw_of))(x))[:, :, :, 0] != 0, axis=(1, 2, 4))
    late = np.subtract(*np.indices((9, 9)))
    np.testing.assert_array_equal(jacobian, (late >= 1) & (late <= 7))
    raw, each = jax.jit(lambda x: (raw_of(x), tcn.log_prob_each(REAL, params, x)[0]))(x)
    std = np.log1p(np.exp(raw[..., 1])) + 1e-3
    np.testing.assert_allclose(each, scipy.stats.norm.logpdf(x[0], raw[..., 0], std).sum(axis=-1), rtol=1e-4)


def test_queues_give_what_full_passes_give():
    params, x, num, key = params_of(BITS, 1), jnp.zeros((6, 20, 2)), 6, jax.random.key(3)
    drawn = jax.jit(lambda key: tcn.sample(BITS, key, params, num, 20))(key)

    @jax.jit
    def whole(x, t):
        d = temporal.before(temporal.states(BITS.convolutions, params["convolutions"], x))
        raw = tcn.decode(BITS, params, jax.lax.dynamic_index_in_dim(d, t, 1, keepdims=False))
        return x.at[:, t].set(BITS.likelihood.sample(framewise.keys_at(random.example_keys(key, num), t), raw))

    for t in range(20):
        x = whole(x, jnp.asarray(t))
    np.testing.assert_array_equal(drawn, x)
    assert 0.1 < float(x.mean()) < 0.9
    rest = jax.jit(lambda x: tcn.sample(BITS, key, params, num, 13, prefix=x))(x[:, :7])
    np.testing.assert_array_equal(rest, x[:, 7:])


def test_padding_changes_nothing():
    params, x = params_of(BITS), jax.random.bernoulli(jax.random.key(1), 0.5, (2, 7, 2)).astype(jnp.float32)
    mask = jnp.array([[1.0] * 7, [1.0] * 3 + [0.0] * 4])
    log_prob = jax.jit(lambda x, mask: tcn.log_prob(BITS, params, x, mask))
    padded = log_prob(x.at[1, 3:].set(1.0), mask)
    np.testing.assert_allclose(padded[1], log_prob(x[1:, :3], jnp.ones((1, 3)))[0], rtol=1e-6)
    offset = framewise.offset(BITS.likelihood, x, jnp.ones((2, 7)).at[1, 1:].set(0.0))
    counted = np.concatenate([x[0], np.repeat(x[1, :1], 7, axis=0)])
    np.testing.assert_allclose(offset, BITS.likelihood.offset(jnp.asarray(counted)), rtol=1e-6)


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="`length`"):
        tcn.model(BITS, optax.sgd(0.1), length=0)
    with pytest.raises(ValueError, match="`length`"):
        tcn.sample(BITS, jax.random.key(0), params_of(BITS), 2, 0)
    with pytest.raises(ValueError, match="`prefix` must hold 2 sequences"):
        tcn.sample(BITS, jax.random.key(0), params_of(BITS), 2, 3, prefix=jnp.zeros((3, 1, 2)))
