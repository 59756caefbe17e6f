"""Energies from networks, against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from jgen import linen
from jgen.math import quadrature
from jgen.nets.mlp import MLP
from jgen.nets.scalar import SquaredError, Tilted, TiltedLogits

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)


def test_squared_error_is_half_the_squared_distance_from_the_inner_network():
    net, inner = SquaredError(MLP((4, 3), jnp.tanh), 0.5), MLP((4, 3), jnp.tanh)
    params, _ = linen.init(net, jax.random.key(0), X)
    found = linen.apply(inner, params["inner"], {}, X)
    np.testing.assert_allclose(linen.apply(net, params, {}, X), 2 * np.sum((X - found) ** 2, axis=1), rtol=1e-5)


def test_tilted_is_the_network_and_a_gaussian():
    net, inner = Tilted(MLP((4, 1), jnp.tanh), 2.0), MLP((4, 1), jnp.tanh)
    params, _ = linen.init(net, jax.random.key(0), X)
    expected = linen.apply(inner, params["inner"], {}, X)[:, 0] + np.sum(X**2, axis=1) / 8
    np.testing.assert_allclose(linen.apply(net, params, {}, X), expected, rtol=1e-5)
    # With the network off it is N(0, std²): log Z = ½ log 2π·std².
    net = Tilted(MLP((1,)), 0.5)
    params = jax.tree.map(jnp.zeros_like, linen.init(net, jax.random.key(0), jnp.zeros((1, 1)))[0])
    log_z = quadrature.log_integral(lambda x: -linen.apply(net, params, {}, x), quadrature.box(-5.0, 5.0, 401, 1))
    np.testing.assert_allclose(log_z, 0.5 * np.log(2 * np.pi * 0.25), rtol=1e-5)


def test_the_tilt_of_logits_is_not_seen_by_their_softmax():
    net, inner = TiltedLogits(MLP((4, 3), jnp.tanh), 2.0), MLP((4, 3), jnp.tanh)
    params, _ = linen.init(net, jax.random.key(0), X)
    plain, found = linen.apply(inner, params["inner"], {}, X), linen.apply(net, params, {}, X)
    np.testing.assert_allclose(jax.nn.softmax(found), jax.nn.softmax(plain), rtol=1e-4)
    np.testing.assert_allclose(found, plain - np.sum(X**2, axis=1)[:, None] / 8, rtol=1e-4)
