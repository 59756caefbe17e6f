"""Logistics cut into levels: masses sum to 1 everywhere, mixtures and coupled channels included, and are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jgen.math import logistic

MEANS = [0.0, 0.3, -1.0, 1.0, -1.2, 5.0, -40.0, 1e3]


def masses(mean, log_scale, levels):
    full = jnp.full(levels, mean), jnp.full(levels, log_scale)
    return np.asarray(logistic.log_mass(jnp.arange(levels), *full, levels), np.float64)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("log_scale", [-7.0, -4.0, 0.0, 5.0])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_masses_sum_to_one_also_for_means_far_outside(mean, log_scale, levels):
    assert abs(np.exp(masses(mean, log_scale, levels)).sum() - 1.0) < 1e-6


def test_log_masses_are_those_of_exact_arithmetic_far_into_the_tails():
    mean, log_scale, levels = -0.8, -3.0, 256
    found = masses(mean, log_scale, levels)
    inverse = np.exp(-log_scale) * 2 / (levels - 1)
    centre = (mean + 1) * (levels - 1) / 2
    v = np.arange(levels)[1:-1]
    upper, lower = (v + 0.5 - centre) * inverse, (v - 0.5 - centre) * inverse
    log_sigmoid = -np.logaddexp(0, -upper), -np.logaddexp(0, lower)
    np.testing.assert_allclose(found[1:-1], sum(log_sigmoid) + np.log(-np.expm1(-inverse)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(found[0]), scipy.special.expit((0.5 - centre) * inverse), rtol=1e-5)
    assert found.min() < -30


def test_end_bins_treated_as_interior_are_caught():
    mean, log_scale, levels = -1.0, -1.0, 17
    edges = (np.arange(18) - 0.5 - (mean + 1) * 8) * np.exp(-log_scale) / 8
    interior = np.diff(scipy.special.expit(edges))
    np.testing.assert_allclose(np.exp(masses(mean, log_scale, levels))[1:-1], interior[1:-1], rtol=1e-5)
    assert abs(interior.sum() - 1.0) > 0.1


def mixture(channels, num_components=3, num=4, size=3.0):
    shape = (num, logistic.num_parameters(channels, num_components))
    return logistic.split(size * jax.random.normal(jax.random.key(0), shape), channels, num_components)


@pytest.mark.parametrize("c", [0, 1, 2])
def test_conditionals_of_coupled_channels_sum_to_one_over_256_levels(c):
    x = jax.random.randint(jax.random.key(1), (4, 3), 0, 256)
    total = jnp.sum(jnp.exp(logistic.level_log_mass(mixture(3), x, c, 256)), axis=-1)
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


def test_conditionals_multiply_to_the_mixture_of_products():
    """Σ_k π_k Π_c P_k(x_c | x_<c), with the means of later channels moved by the earlier ones' values."""
    levels, mix = 5, mixture(3, size=1.0)
    x = jax.random.randint(jax.random.key(1), (4, 3), 0, levels)
    scaled = np.asarray(x) / 2 - 1.0
    mean, coupling = np.array(mix.mean), np.asarray(mix.coupling)
    mean[:, 1] += coupling[:, 0] * scaled[:, :1]
    mean[:, 2] += coupling[:, 1] * scaled[:, :1] + coupling[:, 2] * scaled[:, 1:2]
    each = logistic.log_mass(jnp.repeat(x[..., None], 3, -1), jnp.asarray(mean), mix.log_scale, levels)
    joint = jax.nn.logsumexp(mix.log_weight + each.sum(axis=1), axis=-1)
    np.testing.assert_allclose(logistic.log_prob(mix, x, levels).sum(-1), joint, rtol=1e-4, atol=1e-5)


def test_all_colours_sum_to_one():
    x = jnp.stack(jnp.meshgrid(*[jnp.arange(5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    one = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], 125, axis=0), mixture(3))
    assert abs(float(jnp.sum(jnp.exp(jnp.sum(logistic.log_prob(one, x, 5), axis=-1)))) - 1.0) < 1e-5


def test_uncoupled_channels_would_be_seen():
    mix, x = mixture(3), jax.random.randint(jax.random.key(1), (4, 3), 0, 17)
    apart = mix._replace(coupling=0 * mix.coupling)
    both = [np.asarray(logistic.log_prob(m, x, 17)) for m in (mix, apart)]
    np.testing.assert_array_equal(both[0][:, 0], both[1][:, 0])
    assert np.all(np.abs(both[0] - both[1])[:, 1:].max(axis=0) > 1e-2)


def test_values_agree_with_the_masses_of_all_levels():
    mix, x = mixture(2), jax.random.randint(jax.random.key(1), (4, 2), 0, 9)
    for c in range(2):
        table = np.asarray(logistic.level_log_mass(mix, x, c, 9))
        picked = np.take_along_axis(table, np.asarray(x)[:, c : c + 1], axis=1)[:, 0]
        np.testing.assert_allclose(picked, logistic.log_prob(mix, x, 9)[:, c], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [0.0, 100.0, 1e4])
def test_values_and_gradients_stay_finite(size):
    shape, x = (4, logistic.num_parameters(3, 2)), jnp.array([[0, 255, 128]] * 4)
    raw = size * jax.random.normal(jax.random.key(0), shape)

    def total(raw):
        return jnp.sum(logistic.log_prob(logistic.split(raw, 3, 2), x, 256))

    value, slope = jax.jit(jax.value_and_grad(total))(raw)
    assert jnp.isfinite(value)
    assert jnp.all(jnp.isfinite(slope))
