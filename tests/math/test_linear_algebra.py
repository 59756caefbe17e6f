"""Ordered eigenvectors and principal angles, against SciPy."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jgen.math import linear_algebra

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("dim", "one", "other"), [(6, 2, 2), (6, 4, 2), (5, 2, 3), (3, 3, 1)])
def test_principal_angles_equal_scipy(dim, one, other):
    a, b = RNG.standard_normal((dim, one)), RNG.standard_normal((dim, other))
    found = linear_algebra.principal_angles(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    np.testing.assert_allclose(found, scipy.linalg.subspace_angles(a, b), atol=2e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 1e-2, np.pi / 4, np.pi / 2 - 1e-5, np.pi / 2])
def test_small_and_large_angles_keep_their_digits(angle):
    a = jnp.asarray([[1.0], [0.0], [0.0]])
    b = jnp.asarray([[np.cos(angle)], [np.sin(angle)], [0.0]], jnp.float32)
    np.testing.assert_allclose(linear_algebra.principal_angles(a, b), [angle], atol=2e-7, rtol=1e-5)


def test_angles_do_not_depend_on_the_basis():
    a = jnp.asarray(RNG.standard_normal((6, 3)), jnp.float32)
    mixed = a @ jnp.asarray(RNG.standard_normal((3, 3)), jnp.float32)
    assert float(linear_algebra.principal_angles(a, mixed)[0]) < 1e-5


def test_principal_axes_rebuild_the_covariance_in_order():
    x = RNG.standard_normal((50, 4)) * [1.0, 3.0, 0.1, 2.0]
    covariance = np.cov(x.T)
    axes, variances = linear_algebra.principal_axes(jnp.asarray(covariance, jnp.float32))
    assert np.all(np.diff(variances) <= 0)
    np.testing.assert_allclose(axes @ jnp.diag(variances) @ axes.T, covariance, atol=1e-5)
    np.testing.assert_allclose(axes.T @ axes, np.eye(4), atol=1e-6)
    largest = np.take_along_axis(np.asarray(axes), np.argmax(np.abs(axes), axis=0)[None], axis=0)
    assert np.all(largest > 0)
    assert np.all(linear_algebra.principal_axes(jnp.zeros((3, 3)))[1] == 0)
