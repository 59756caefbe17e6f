"""Densities against SciPy."""

import jax.numpy as jnp
import numpy as np
from scipy import stats

from jgen.math import densities


def test_normal_equals_scipy():
    x = np.linspace(-20, 20, 41, dtype=np.float32)
    ours = densities.normal_log_prob(jnp.asarray(x), 1.5, 0.7)
    np.testing.assert_allclose(ours, stats.norm.logpdf(x, 1.5, np.exp(0.7)), rtol=1e-5, atol=1e-5)


def test_standard_normal_equals_scipy_and_sums_over_all_event_axes():
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    expected = stats.multivariate_normal.logpdf(x.reshape(5, 6), np.zeros(6))
    np.testing.assert_allclose(densities.standard_normal_log_prob(jnp.asarray(x)), expected, rtol=1e-5)


def test_extreme_values_are_finite():
    assert np.isfinite(densities.standard_normal_log_prob(jnp.full((1, 3), 1e6)))[0]
