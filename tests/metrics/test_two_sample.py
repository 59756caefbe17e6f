"""MMD² against its closed form and the explicit double sum."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.metrics import two_sample


def gaussian_mmd2(mean, bandwidth, dim):
    """MMD² of N(0, I) and N(mean, I): E k over a difference N(m, 2I) is (h²/(h²+2))^{d/2} exp(-|m|²/2(h²+2))."""
    total = bandwidth**2 + 2
    return 2 * (bandwidth**2 / total) ** (dim / 2) * (1 - np.exp(-np.sum(mean**2) / (2 * total)))


def test_equals_the_closed_form_for_gaussians():
    dim, num, shift = 3, 2_000, np.array([0.5, -0.3, 0.2])
    estimates, how = [], jax.jit(lambda x, y: two_sample.mmd2(x, y, (0.7, 1.5)))
    for seed in range(8):
        one, two = jax.random.split(jax.random.key(seed))
        x = jax.random.normal(one, (num, dim))
        y = jax.random.normal(two, (num, dim)) + jnp.asarray(shift)[None]
        estimates.append(float(how(x, y)))
    expected = gaussian_mmd2(shift, 0.7, dim) + gaussian_mmd2(shift, 1.5, dim)
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - expected) < 4 * error
    assert error < 0.1 * expected


def test_is_unbiased_where_both_laws_are_one():
    values = []
    how = jax.jit(lambda x, y: two_sample.mmd2(x, y, (1.0,)))
    for seed in range(200):
        one, two = jax.random.split(jax.random.key(seed))
        values.append(float(how(jax.random.normal(one, (20, 2)), jax.random.normal(two, (30, 2)))))
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0


def test_equals_the_explicit_sum_whatever_the_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 2)).astype(np.float32) + 100, rng.normal(size=(5, 2)).astype(np.float32) + 101

    def k(a, b):
        return sum(np.exp(-np.sum((a - b) ** 2) / (2 * h**2)) for h in (0.5, 2.0))

    expected = (
        np.mean([k(a, b) for a, b in itertools.permutations(x, 2)])
        + np.mean([k(a, b) for a, b in itertools.permutations(y, 2)])
        - 2 * np.mean([k(a, b) for a in x for b in y])
    )
    one = two_sample.mmd2(jnp.asarray(x), jnp.asarray(y), (0.5, 2.0))
    monkeypatch.setattr(two_sample, "CHUNK", 2)
    other = two_sample.mmd2(jnp.asarray(x[::-1]), jnp.asarray(y), (0.5, 2.0))
    np.testing.assert_allclose(one, expected, atol=1e-5)
    np.testing.assert_allclose(other, expected, atol=1e-5)


def test_median_distance():
    assert two_sample.median_distance(jnp.array([[0.0], [1.0], [3.0]])) == pytest.approx(2.0)


def test_bad_arguments_are_refused():
    x = jnp.zeros((3, 2))
    with pytest.raises(ValueError, match="`y` must have at least 2 rows, got 1"):
        two_sample.mmd2(x, x[:1], (1.0,))
    with pytest.raises(ValueError, match="same number of columns"):
        two_sample.mmd2(x, jnp.zeros((3, 1)), (1.0,))
    with pytest.raises(ValueError, match="`bandwidths` must be positive"):
        two_sample.mmd2(x, x, (1.0, 0.0))
    with pytest.raises(ValueError, match="`x` must lie in"):
        two_sample.mmd2(x.at[0, 0].set(jnp.nan), x, (1.0,))
