"""The dequantization bound on a toy mass function (test F19)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import random
from jgen.math import dequantization

LEVELS = 4
WEIGHTS = np.array([[0.1, 0.5, 0.3, 0.1], [0.4, 0.05, 0.25, 0.3]])


def log_density(x):
    """A density on [0, 1)² that is not flat within a level: Π_d 4·w_d(level)·2·fraction."""
    scaled = x * LEVELS
    level = jnp.clip(jnp.floor(scaled), 0, LEVELS - 1).astype(jnp.int32)
    weight = jnp.take_along_axis(jnp.asarray(WEIGHTS)[None], level[..., None], axis=-1)[..., 0]
    fraction = jnp.maximum(scaled - level, 1e-6)
    return jnp.sum(jnp.log(LEVELS * weight * 2 * fraction), axis=1)


@functools.cache
def bounds(num_samples, num=20_000):
    """20,000 draws of the bound at x = (1, 3), whose exact mass is .5 · .3."""
    x = jnp.tile(jnp.array([[1, 3]], jnp.int32), (num, 1))
    keys = random.example_keys(jax.random.key(num_samples), num)
    how = jax.jit(lambda k: dequantization.log_bound(log_density, k, x, LEVELS, num_samples=num_samples))
    return np.asarray(how(keys), np.float64)


EXACT = np.log(0.5 * 0.3)


def test_bound_is_below_the_exact_mass_by_a_known_gap():
    # E log 2u = log 2 - 1 in each of the two dimensions.
    mean, error = bounds(1).mean(), bounds(1).std() / np.sqrt(len(bounds(1)))
    assert abs(mean - (EXACT + 2 * (np.log(2) - 1))) < 4 * error


def test_bound_rises_with_the_number_of_samples_and_stays_below():
    means = [bounds(k).mean() for k in (1, 2, 8, 64)]
    errors = [bounds(k).std() / np.sqrt(len(bounds(k))) for k in (1, 2, 8, 64)]
    for low, high, error in zip(means, means[1:], errors, strict=False):
        assert high > low + 3 * error
    assert means[-1] < EXACT + 3 * errors[-1]
    assert means[-1] > EXACT - 0.02


def test_a_density_that_is_flat_within_levels_makes_the_bound_exact():
    def flat(x):
        return log_density((jnp.floor(x * LEVELS) + 0.5) / LEVELS)

    x = jnp.array([[0, 0], [3, 2]], jnp.int32)
    bound = dequantization.log_bound(flat, random.example_keys(jax.random.key(0), 2), x, LEVELS)
    np.testing.assert_allclose(bound, np.log([0.1 * 0.4, 0.1 * 0.25]), rtol=1e-5)


def test_forgetting_the_constant_of_the_levels_is_caught(monkeypatch):
    monkeypatch.setattr(dequantization.math, "log", lambda value: 0.0)
    with pytest.raises(AssertionError):
        test_a_density_that_is_flat_within_levels_makes_the_bound_exact()


@pytest.mark.parametrize("levels", [2, 17, 256, 300])
def test_quantize_undoes_dequantize(levels):
    x = jnp.tile(jnp.arange(levels)[None], (50, 1))
    unit = dequantization.dequantize(random.example_keys(jax.random.key(0), 50), x, levels)
    assert np.all((unit >= 0) & (unit < 1))
    back = dequantization.quantize(unit, levels)
    assert back.dtype == (jnp.uint8 if levels <= 256 else jnp.int32)
    np.testing.assert_array_equal(back, x)


def test_noise_of_an_example_depends_on_its_own_key():
    x = jnp.zeros((8, 3), jnp.int32)
    long = dequantization.dequantize(random.example_keys(jax.random.key(0), 8), x, LEVELS)
    short = dequantization.dequantize(random.example_keys(jax.random.key(0), 3), x[:3], LEVELS)
    np.testing.assert_array_equal(long[:3], short)


def test_bits_per_dim_of_a_uniform_law_is_the_number_of_bits():
    np.testing.assert_allclose(dequantization.bits_per_dim(jnp.array([-5 * np.log(256.0)]), 5), 8.0, rtol=1e-6)


def test_values_outside_the_levels_are_refused():
    keys = random.example_keys(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="`x` must lie in"):
        dequantization.log_bound(log_density, keys, jnp.array([[0, 4]]), LEVELS)
    with pytest.raises(ValueError, match="`x` must be whole numbers"):
        dequantization.log_bound(log_density, keys, jnp.array([[0.0, 1.5]]), LEVELS)
    with pytest.raises(ValueError, match="`num_samples` must be at least 1"):
        dequantization.log_bound(log_density, keys, jnp.array([[0, 1]]), LEVELS, num_samples=0)
