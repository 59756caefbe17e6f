"""Discrete variables: log-masses sum to one, draws follow them, biases start at the data's frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from stat_checks import check_counts

from jgen.math import discrete


@pytest.mark.parametrize("levels", [2, 3, 17])
def test_log_masses_sum_to_one_and_draws_follow_them(levels):
    logits = jax.random.normal(jax.random.key(0), (discrete.width(levels),))
    each = jnp.stack([discrete.log_prob(logits, jnp.array(k)) for k in range(levels)])
    np.testing.assert_allclose(jnp.sum(jnp.exp(each)), 1.0, rtol=1e-6)
    noise = discrete.noise(jax.random.key(1), (20_000,), levels)
    x = discrete.draw(jnp.broadcast_to(logits, noise.shape), noise)
    assert jnp.issubdtype(x.dtype, jnp.floating) == (levels == 2)
    check_counts(np.bincount(np.asarray(x, int), minlength=levels), np.exp(each))


def test_log_mass_is_scipys():
    logits = np.array([0.3, -1.2, 2.0], np.float32)
    np.testing.assert_allclose(
        [discrete.log_prob(jnp.asarray(logits), jnp.array(k)) for k in range(3)],
        scipy.special.log_softmax(logits),
        rtol=1e-5,
    )
    np.testing.assert_allclose(discrete.log_prob(jnp.array([0.7]), jnp.array(1.0)), scipy.special.log_expit(0.7))


@pytest.mark.parametrize("logit", [100.0, -100.0])
def test_extreme_logits_have_finite_values_and_slopes(logit):
    for x in (0.0, 1.0):
        value, slope = jax.value_and_grad(lambda a, x=x: discrete.log_prob(a, jnp.array(x)))(jnp.array([logit]))
        assert jnp.isfinite(value)
        assert jnp.all(jnp.isfinite(slope))


def test_log_odds_are_the_smoothed_frequencies():
    x = jnp.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(discrete.log_odds(x, 2), np.log([[1.5 / 2.5], [3.5 / 0.5]]), rtol=1e-6)
    frequencies = np.exp(discrete.log_odds(x, 3))
    np.testing.assert_allclose(frequencies.sum(-1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(frequencies[0], np.array([2.5, 1.5, 0.5]) / 4.5, rtol=1e-6)


def test_points_are_numbered_in_their_order():
    levels = (2, 3, 4)
    points = discrete.points(levels)
    assert points.shape == (24, 3)
    np.testing.assert_array_equal(discrete.row(jnp.asarray(points), levels), np.arange(24))
    np.testing.assert_array_equal(np.ravel_multi_index(tuple(points.T), levels), np.arange(24))
    assert discrete.points(()).shape == (1, 0)
    np.testing.assert_array_equal(discrete.row(jnp.zeros((5, 0)), ()), np.zeros(5))


def test_frequencies_are_counts_over_their_sum():
    counts = jnp.array([[3.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(discrete.frequencies(counts), [[0.75, 0.25], [0.5, 0.5]])
    np.testing.assert_allclose(discrete.frequencies(counts, 1.0), [[4 / 6, 2 / 6], [0.5, 0.5]])


def test_data_of_two_levels_are_floats():
    x = jnp.array([0, 1])
    assert discrete.as_data(x, (2, 2)).dtype == jnp.float32
    assert discrete.as_data(x, (2, 3)).dtype == jnp.int32
