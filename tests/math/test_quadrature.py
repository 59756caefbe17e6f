"""Log-integrals against closed forms and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jgen.math import quadrature


@pytest.mark.parametrize("dims", [1, 2])
def test_gaussians_integrate_to_their_normalizer(dims):
    nodes = quadrature.box(-9.0, 9.0, 101, dims)
    log_z = quadrature.log_integral(lambda x: -0.5 * jnp.sum(jnp.square(x - 0.3), axis=1), nodes)
    np.testing.assert_allclose(log_z, 0.5 * dims * np.log(2 * np.pi), rtol=1e-5)


def test_a_skewed_density_against_scipy_and_its_derivative():
    nodes = quadrature.box(-30.0, 5.0, 2_001, 1)

    def log_z(scale):
        return quadrature.log_integral(lambda x: scale * (x[:, 0] - jnp.exp(x[:, 0])), nodes)

    exact = [integrate.quad(lambda x, s=s: np.exp(s * (x - np.exp(x))), -60, 6)[0] for s in (0.999, 1.0, 1.001)]
    np.testing.assert_allclose(log_z(1.0), np.log(exact[1]), atol=1e-5)
    np.testing.assert_allclose(jax.grad(log_z)(1.0), np.log(exact[2] / exact[0]) / 0.002, rtol=1e-3)


def test_the_ends_count_half_and_the_last_dimension_is_fastest():
    nodes = quadrature.box(0.0, 2.0, 3, 2)
    np.testing.assert_array_equal(nodes.points[:4], [[0, 0], [0, 1], [0, 2], [1, 0]])
    np.testing.assert_allclose(jnp.exp(nodes.log_weights).reshape(3, 3), np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]))
    # The trapezoid rule is exact for what is linear in each coordinate: ∫∫ (1 + x)(1 + y) = 4².
    found = quadrature.log_integral(lambda x: jnp.sum(jnp.log1p(x), axis=1), nodes)
    np.testing.assert_allclose(found, np.log(16.0), rtol=1e-6)


def test_sums_over_all_points():
    nodes = quadrature.every((-1.0, 0.0, 1.0), 2)
    assert nodes.points.shape == (9, 2)
    found = quadrature.log_integral(lambda x: x @ jnp.array([1.0, 2.0]), nodes)
    np.testing.assert_allclose(found, sum(np.log(np.exp(-a) + 1 + np.exp(a)) for a in (1.0, 2.0)), rtol=1e-6)
    far = quadrature.log_integral(lambda x: 1e4 * x[:, 0], nodes)
    np.testing.assert_allclose(far, 1e4 + np.log(3.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: quadrature.box(1.0, 1.0, 3, 1), "`low` must be below `high`, got 1.0 and 1.0"),
        (lambda: quadrature.box(0.0, 1.0, 1, 1), "`num` must be at least 2, got 1"),
        (lambda: quadrature.box(0.0, 1.0, 3, 0), "`num_dims` must be at least 1, got 0"),
        (lambda: quadrature.every((), 2), r"`len\(values\)` must be at least 1, got 0"),
        (lambda: quadrature.every((0.0, 1.0), 0), "`num_dims` must be at least 1, got 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
