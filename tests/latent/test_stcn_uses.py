"""STCN: draws from queues, padding, sums, extremes and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stcn_checks import BITS, REAL, SKIP, bits, params_of, real

from jgen import random
from jgen.latent import stcn, stcn_network, warm_up
from jgen.math import framewise, likelihoods
from jgen.nets import temporal
from jgen.nets.temporal import TemporalConv

ADAM = optax.adam(1e-2)


def test_the_bound_does_not_depend_on_its_chunks():
    params, batch = params_of(BITS), {"x": bits(4)}

    def bound(size):
        return stcn.iwae_bound(jax.random.key(0), params, batch, network=BITS, num_samples=12, chunk_size=size)

    one, other = (jax.jit(bound, static_argnums=0)(size) for size in (3, 12))
    np.testing.assert_allclose(one, other, rtol=1e-5)


# Queues


@pytest.mark.parametrize("network", [BITS, SKIP])
def test_queues_give_what_full_passes_give(network):
    params, x, key, num = params_of(network, seed=1), jnp.zeros((6, 20, 2)), jax.random.key(3), 6
    drawn = jax.jit(lambda key: stcn.sample(key, params, num, 20, network=network))(key)

    @jax.jit
    def whole(x, t):
        before, _ = stcn_network.states(network, params, x)
        cache = temporal.Cache(jnp.zeros(()), jax.lax.dynamic_index_in_dim(before, t, 1, keepdims=False), t)
        keys = framewise.keys_at(random.example_keys(key, num), t)
        return x.at[:, t].set(stcn.draw_frame(keys, params, cache, network=network))

    for t in range(20):
        x = whole(x, jnp.asarray(t))
    np.testing.assert_array_equal(drawn, x)
    assert 0.2 < float(x.mean()) < 0.8
    rest = jax.jit(lambda x: stcn.continue_from(key, params, x, 13, network=network))(x[:, :7])
    np.testing.assert_array_equal(rest, x[:, 7:])


# Padding, sums and extremes


def padding_error():
    """How far terms and bound of a padded sequence are from those of the sequence alone."""
    params, x, key = params_of(BITS), bits(2, 7), jax.random.key(4)

    @jax.jit
    def found(batch):
        terms = stcn.terms(key, params, batch, network=BITS)
        bound = stcn.iwae_bound(key, params, batch, network=BITS, num_samples=3)
        return jax.tree.map(lambda value: value[1], (terms, bound))

    mask = jnp.array([[1.0] * 7, [1.0] * 3 + [0.0] * 4])
    both, alone = found({"x": x.at[1, 3:].set(1.0), "mask": mask}), found({"x": x[:, :3]})
    return max(jax.tree.leaves(jax.tree.map(lambda one, other: float(jnp.abs(one - other).max()), both, alone)))


def test_padding_changes_nothing():
    assert padding_error() < 1e-5


def test_rates_of_padding_that_count_are_caught(monkeypatch):
    right = stcn._over_time

    def wrong(each, mask):
        rates = right(each, jnp.ones_like(mask))
        return right(each, mask)._replace(rate=rates.rate, rate_per_layer=rates.rate_per_layer)

    monkeypatch.setattr(stcn, "_over_time", wrong)
    assert padding_error() > 0.05


def test_terms_are_sums():
    params = params_of(REAL)
    found = jax.jit(lambda x: stcn.terms(jax.random.key(0), params, {"x": x}, network=REAL))(real(5))
    np.testing.assert_allclose(found.elbo, -found.rate - found.distortion, rtol=1e-5)
    np.testing.assert_allclose(found.rate, found.rate_per_layer.sum(axis=-1), rtol=1e-5)
    assert np.all(found.rate_per_layer >= 0)


def test_warm_up_and_beta_weigh_the_objective_alone():
    batch, key = {"x": bits(3)}, jax.random.key(1)
    params, stats = params_of(BITS), {warm_up.STEP: jnp.array(5)}
    loss = functools.partial(stcn.loss, train=True, network=BITS, beta=3.0, warm_up_steps=10)
    value, (after, metrics) = jax.jit(loss)(key, params, stats, batch)
    np.testing.assert_allclose(value, metrics["distortion"] + 1.5 * metrics["rate"], rtol=1e-5)
    np.testing.assert_allclose(metrics["negative_elbo"], metrics["distortion"] + metrics["rate"], rtol=1e-5)
    assert int(after[warm_up.STEP]) == 6


def test_extreme_weights_and_values_stay_finite():
    params, batch = params_of(REAL, scale=30.0), {"x": 1e3 * real(2, 4)}

    def loss(params):
        return -jnp.mean(stcn.elbo(jax.random.key(0), params, batch, network=REAL))

    value, grads = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"length": 0}, "`length`"),
        ({"beta": -1.0}, "`beta`"),
        ({"warm_up_steps": -1}, "`warm_up_steps`"),
        ({"num_bound_samples": 0}, "`num_bound_samples`"),
    ],
)
def test_bad_arguments_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        stcn.model(BITS, ADAM, **keywords)


@pytest.mark.parametrize(
    ("sizes", "message"), [((1,), "`latent_sizes` must be 2"), ((1, 0), "`latent_sizes`"), ((), "`latent_sizes`")]
)
def test_bad_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        stcn.Network(likelihoods.Bernoulli(), TemporalConv(3, 2, 2), sizes)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": np.zeros((2, 3))}, "`x` must have shape"),
        ({"x": np.zeros((2, 0, 3))}, "`x` must have shape"),
        ({"x": np.full((2, 3, 2), 0.5)}, "`x` must be whole numbers"),
        ({"x": np.zeros((2, 3, 2)), "mask": np.ones((2, 4))}, "`mask` must have shape"),
        ({"x": np.zeros((2, 3, 2)), "mask": np.array([[1, 0, 1], [1, 1, 1]])}, "`mask` must be ones, then zeros"),
        ({"x": np.zeros((2, 3, 2)), "mask": np.array([[0, 0, 0], [1, 1, 1]])}, "`mask` must be ones, then zeros"),
    ],
)
def test_bad_batches_are_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        stcn.model(BITS, ADAM).init(jax.random.key(0), batch)


def test_bad_requests_are_refused():
    params, key = params_of(BITS), jax.random.key(0)
    with pytest.raises(ValueError, match="`length` must be at least 1"):
        stcn.sample(key, params, 2, 0, network=BITS)
    with pytest.raises(ValueError, match="`num` must be at least 1"):
        stcn.continue_from(key, params, bits(), 0, network=BITS)
    with pytest.raises(ValueError, match="`x` must be whole numbers"):
        stcn.continue_from(key, params, 0.5 * jnp.ones((1, 2, 2)), 1, network=BITS)
    with pytest.raises(ValueError, match="`num_samples` must be at least 1"):
        stcn.iwae_bound(key, params, {"x": bits()}, network=BITS, num_samples=0)
