"""Draws by transformation: Kolmogorov–Smirnov against SciPy, densities by autodiff against closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import stat_checks as stat

from jgen import random
from jgen.math import bijectors
from jgen.sampler import run
from jgen.samplers import transforms

NUM = 1_000_000
SEES = 0.008  # twice the limit of a million draws


@pytest.mark.parametrize(
    ("quantile", "law"),
    [
        (lambda u: transforms.exponential(u, 2.0), scipy.stats.expon(scale=0.5)),
        (lambda u: transforms.cauchy(u, 1.0, 3.0), scipy.stats.cauchy(1.0, 3.0)),
        (lambda u: transforms.logistic(u, -1.0, 0.5), scipy.stats.logistic(-1.0, 0.5)),
        (transforms.invert(jax.scipy.stats.norm.cdf, -6.0, 6.0), scipy.stats.norm()),
    ],
    ids=["exponential", "cauchy", "logistic", "bisected normal"],
)
def test_inverse_cdf_against_scipy(quantile: Any, law: Any) -> None:
    x = np.asarray(jax.jit(lambda key: transforms.inverse_cdf(key, quantile, (NUM,)))(jax.random.key(0)))
    assert np.all(np.isfinite(x))
    stat.check_cdf(x, law.cdf, sees=SEES)
    with pytest.raises(AssertionError, match="distance"):
        stat.check_cdf(1.05 * x + 0.01, law.cdf, sees=SEES)
    u = np.linspace(0.001, 0.999, 999)
    np.testing.assert_allclose(quantile(jnp.asarray(u, jnp.float32)), law.ppf(u), rtol=2e-4, atol=2e-5)


def test_finite_laws_by_their_sums() -> None:
    probs = np.array([0.1, 0.0, 0.4, 0.3, 0.2])
    u = np.linspace(0, 1, 1001)[:-1] + 0.0005
    found = transforms.categorical(jnp.asarray(u, jnp.float32), jnp.asarray(probs, jnp.float32))
    np.testing.assert_array_equal(found, np.searchsorted(np.cumsum(probs), u))
    assert int(transforms.categorical(jnp.asarray(1.0), jnp.asarray(probs))) == 4
    draws = transforms.inverse_cdf(
        jax.random.key(1), lambda u: transforms.categorical(u, jnp.asarray(probs, jnp.float32)), (50_000,)
    )
    stat.check_counts(np.bincount(np.asarray(draws), minlength=5), probs)


def _check_normals(pairs: np.ndarray) -> None:
    """Each is standard normal, and they are independent: the angle is uniform and the sum of squares exponential."""
    for x in pairs.T:
        stat.check_cdf(x, scipy.stats.norm.cdf, sees=SEES)
    stat.check_cdf(np.arctan2(pairs[:, 1], pairs[:, 0]), scipy.stats.uniform(-np.pi, 2 * np.pi).cdf, sees=SEES)
    stat.check_cdf(np.sum(pairs**2, axis=1), scipy.stats.expon(scale=2).cdf, sees=SEES)
    x, y = pairs.T
    stat.check_mean(np.stack([x * y, x**2 * y, x**2 * y**2 - 1], axis=1), 0.0, sees=0.1)


def test_box_muller_against_scipy() -> None:
    pairs = np.asarray(jax.jit(transforms.box_muller, static_argnums=1)(jax.random.key(2), NUM), np.float64)
    _check_normals(pairs)
    assert np.abs(pairs).max() < 5.77
    np.testing.assert_array_equal(transforms.box_muller(jax.random.key(2), 5)[:3], pairs[:3].astype(np.float32))
    with pytest.raises(AssertionError, match="distance"):
        _check_normals(pairs / np.sqrt(2))  # the factor 2 of −2 log u forgotten


def test_uniform_numbers_are_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    for extreme in (0.0, float(np.nextafter(np.float32(1), np.float32(0)))):
        monkeypatch.setattr(jax.random, "uniform", lambda key, shape=(), value=extreme: jnp.full(shape, value))
        key = jax.random.key(0)
        assert 0 < float(transforms.uniform(key)) <= 1
        assert np.all(np.isfinite(transforms.box_muller(key, 1)))
        for quantile in (transforms.exponential, transforms.cauchy, transforms.logistic):
            assert np.isfinite(float(transforms.inverse_cdf(key, quantile)))


MIX = jnp.asarray([[1.0, 0.5, 0.0], [0.0, 2.0, -1.0], [0.3, 0.0, 0.7]])


def _twist(z: Any) -> Any:
    """A linear map, then a shear that depends on the first coordinate, then sinh."""
    y = MIX.astype(z.dtype) @ z
    return jnp.sinh(y + jnp.asarray([0.0, 1.0, 0.0], z.dtype) * y[0] ** 2)


def _untwist(x: Any) -> Any:
    y = jnp.arcsinh(x)
    return jnp.linalg.solve(MIX.astype(x.dtype), y - jnp.asarray([0.0, 1.0, 0.0], x.dtype) * y[0] ** 2)


def _log_normal(z: Any) -> Any:
    return -0.5 * jnp.sum(z**2) - 0.5 * z.size * jnp.log(2 * jnp.pi)


TWISTED = transforms.Transport(lambda key: jax.random.normal(key, (3,)), _log_normal, _twist, _untwist)
LOG_NORMAL = transforms.Transport(jax.random.normal, _log_normal, jnp.exp, jnp.log)


def test_density_is_the_base_over_the_jacobian() -> None:
    with jax.enable_x64(True):
        z = jax.random.normal(jax.random.key(0), (20, 3), jnp.float64)
        x = jax.vmap(_twist)(z)
        found = jax.vmap(lambda x: transforms.log_prob(TWISTED, x))(x)
        y = np.asarray(z @ MIX.T.astype(jnp.float64))
        shifted = y + np.array([0.0, 1.0, 0.0]) * y[:, :1] ** 2
        by_hand = np.linalg.slogdet(np.asarray(MIX, np.float64))[1] + np.sum(np.log(np.cosh(shifted)), axis=1)
        base = scipy.stats.norm.logpdf(np.asarray(z)).sum(axis=1)
        np.testing.assert_allclose(found, base - by_hand, atol=1e-9)
        points = jnp.linspace(0.1, 5.0, 30, dtype=jnp.float64)
        one = jax.vmap(lambda x: transforms.log_prob(LOG_NORMAL, x))(points)
        np.testing.assert_allclose(one, scipy.stats.lognorm.logpdf(points, 1.0), atol=1e-12)


def test_bijectors_of_the_house_are_transports() -> None:
    """Pixels by the inverse logit: its own log-determinant is the one of autodiff, and ∫ p = 1."""

    def forward(z: Any) -> Any:
        return bijectors.inverse_logit(z[None], 0.05)[0][0]

    transport = transforms.Transport(
        lambda key: jax.random.normal(key, (1,)), _log_normal, forward, lambda x: bijectors.logit(x[None], 0.05)[0][0]
    )
    low, high = (float(forward(jnp.full(1, value))[0]) for value in (-8.0, 8.0))
    x = jnp.linspace(low, high, 20_001)[:, None]
    density = jnp.exp(jax.vmap(lambda x: transforms.log_prob(transport, x))(x))
    np.testing.assert_allclose(jnp.sum(density) * (high - low) / 20_000, 1.0, atol=1e-3)
    z = jnp.linspace(-3, 3, 7)[:, None]
    own = bijectors.inverse_logit(z, 0.05)[1]
    np.testing.assert_allclose(jax.vmap(lambda z: transforms.log_abs_det(forward, z))(z), own, rtol=1e-4, atol=1e-5)


def _integral(log_prob: Any) -> float:
    x = np.linspace(1e-4, 60.0, 200_001)
    values = np.exp(np.asarray(jax.vmap(log_prob)(jnp.asarray(x, jnp.float32)), np.float64))
    return float(np.sum(values) * (x[1] - x[0]))


def test_missing_or_flipped_jacobian_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(_integral(lambda x: transforms.log_prob(LOG_NORMAL, x)) - 1) < 1e-3
    right = transforms.log_abs_det
    for mutant in (lambda function, z: 0.0, lambda function, z: -right(function, z)):
        monkeypatch.setattr(transforms, "log_abs_det", mutant)
        assert abs(_integral(lambda x: transforms.log_prob(LOG_NORMAL, x)) - 1) > 0.1


def test_chain_of_independent_draws_knows_its_density() -> None:
    kernel = transforms.sampler(TWISTED)

    def chain(key: Any) -> Any:
        state = kernel.init(key, jnp.zeros(3))
        return run(key, kernel, state, 2, keep=lambda state, info: (state.position, info.log_density))[1]

    x, density = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(3), 50_000))
    z = np.asarray(jax.vmap(_untwist)(x[:, 1]))
    stat.check_cdf(z[:, 0], scipy.stats.norm.cdf, sees=0.04)
    stat.check_mean(z * np.asarray(jax.vmap(_untwist)(x[:, 0])), 0.0, sees=0.1)
    again = jax.vmap(lambda x: transforms.log_prob(TWISTED, x))(x[:100, 1])
    np.testing.assert_allclose(density[:100, 1], again, rtol=1e-3, atol=1e-2)


def _beta(log_m: float) -> transforms.Kept:
    """Beta(2, 4) from uniform proposals; its mode is 1/4."""
    law: Any = scipy.stats.beta(2, 4)
    constant = float(law.logpdf(0.5)) - np.log(0.5) - 3 * np.log(0.5)

    def log_ratio(x: Any) -> Any:
        return constant + jnp.log(x) + 3 * jnp.log1p(-x) - log_m

    return jax.jit(lambda key: transforms.rejection(key, jax.random.uniform, log_ratio, 100_000))(jax.random.key(4))


def test_rejection_is_exact_and_keeps_one_in_m() -> None:
    law: Any = scipy.stats.beta(2, 4)
    log_m = float(law.logpdf(0.25))
    kept = _beta(log_m)
    stat.check_cdf(kept.x, law.cdf, sees=0.03)
    stat.check_mean(kept.tries, np.exp(log_m), sees=0.1)
    stat.check_mean(np.asarray(kept.tries) == 1, np.exp(-log_m), sees=0.03)
    with pytest.raises(AssertionError, match="distance"):
        stat.check_cdf(_beta(0.0).x, law.cdf, sees=0.03)  # M too small cuts the mode off
    few = transforms.rejection(jax.random.key(4), jax.random.uniform, lambda x: jnp.asarray(-jnp.inf), 3, max_tries=7)
    np.testing.assert_array_equal(few.tries, 7)


def test_draws_do_not_depend_on_how_many_there_are() -> None:
    many, few = (transforms.rejection(jax.random.key(5), jax.random.uniform, jnp.log, num).x for num in (8, 3))
    np.testing.assert_array_equal(many[:3], few)
    assert len(np.unique(np.asarray(transforms.box_muller(random.stream(0, "sample"), 8)))) == 16


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`high` must be above `low` = 1\.0, got 0\.0"):
        transforms.invert(jnp.tanh, 1.0, 0.0)
    with pytest.raises(ValueError, match="`num_halvings` must be at least 1, got 0"):
        transforms.invert(jnp.tanh, 0.0, 1.0, num_halvings=0)
    with pytest.raises(ValueError, match="`max_tries` must be at least 1, got 0"):
        transforms.rejection(jax.random.key(0), jax.random.uniform, jnp.log, 1, max_tries=0)
