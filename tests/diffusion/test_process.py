"""The Gaussian process against Bayes' rule, SciPy and enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jgen import random
from jgen.diffusion import process, schedules
from jgen.diffusion.process import Gaussian

SCHEDULE = schedules.linear(100)


def test_forward_has_the_moments_of_its_draws() -> None:
    x, t = jnp.full((200_000, 1), 0.7), jnp.full(200_000, 30)
    noise = jax.random.normal(jax.random.key(0), x.shape)
    drawn = process.diffuse(x, noise, t, SCHEDULE)
    law = process.forward(x[:1], t[:1], SCHEDULE)
    std = float(jnp.exp(0.5 * law.log_variance[0, 0]))
    assert abs(float(drawn.mean() - law.mean[0, 0])) < 4 * std / 200_000**0.5
    assert float(drawn.std()) == pytest.approx(std, rel=0.01)


@pytest.mark.parametrize("t", [2, 50, 100])
def test_posterior_is_bayes_rule_on_a_grid(t: int) -> None:
    """q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0), normalized by a sum."""
    with jax.enable_x64(True):
        x_start, x_noisy = 0.4, -0.9
        law = process.posterior(jnp.array([[x_start]]), jnp.array([[x_noisy]]), jnp.array([t]), SCHEDULE)
        a, b = SCHEDULE.alpha[t] / SCHEDULE.alpha[t - 1], SCHEDULE.beta[t]
        std = np.exp(0.5 * float(law.log_variance[0, 0]))
        grid = float(law.mean[0, 0]) + std * np.linspace(-12, 12, 20_001)
        log_density = scipy.stats.norm.logpdf(
            grid, SCHEDULE.alpha[t - 1] * x_start, SCHEDULE.sigma[t - 1]
        ) + scipy.stats.norm.logpdf(x_noisy, a * grid, np.sqrt(b))
        mass = np.exp(log_density - scipy.special.logsumexp(log_density))
        mean = mass @ grid
        np.testing.assert_allclose(float(law.mean[0, 0]), mean, rtol=1e-9)
        np.testing.assert_allclose(std**2, mass @ (grid - mean) ** 2, rtol=1e-7)


def test_prior_kl_is_that_of_two_gaussians() -> None:
    x = jnp.array([[0.3, -1.0], [2.0, 0.0]])
    law = process.forward(x, jnp.array([100, 100]), SCHEDULE)
    mean, variance = np.asarray(law.mean, np.float64), SCHEDULE.sigma[-1] ** 2
    expected = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(axis=1)
    np.testing.assert_allclose(process.prior_kl(x, SCHEDULE), expected, rtol=1e-4)


@pytest.mark.parametrize("kind", process.PREDICTIONS)
@pytest.mark.parametrize("log_snr", [-20.0, -5.0, 0.0, 5.0, 20.0])
def test_conversions_round_trip(kind: str, log_snr: float) -> None:
    with jax.enable_x64(True):
        key = jax.random.key(1)
        start, noise = jax.random.normal(key, (2, 4, 3), jnp.float64)
        alpha = jnp.full((4, 1), np.sqrt(scipy.special.expit(log_snr)))
        sigma = jnp.full((4, 1), np.sqrt(scipy.special.expit(-log_snr)))
        output = process.prediction_target(kind, start, noise, alpha, sigma)
        back = process.start_and_noise(kind, output, alpha * start + sigma * noise, alpha, sigma)
        np.testing.assert_allclose(back[0], start, atol=1e-9)
        np.testing.assert_allclose(back[1], noise, atol=1e-9)


@pytest.mark.parametrize("log_snr", [-5.0, 0.0, 5.0])
def test_conversions_in_single_precision(log_snr: float) -> None:
    start, noise = jax.random.normal(jax.random.key(1), (2, 4, 3))
    alpha, sigma = (jnp.full((4, 1), np.sqrt(scipy.special.expit(s * log_snr)), jnp.float32) for s in (1, -1))
    for kind in process.PREDICTIONS:
        output = process.prediction_target(kind, start, noise, alpha, sigma)
        back = process.start_and_noise(kind, output, alpha * start + sigma * noise, alpha, sigma)
        np.testing.assert_allclose(back[0], start, atol=1e-4)
        np.testing.assert_allclose(back[1], noise, atol=1e-4)


def test_velocity_error_is_the_known_multiple_of_the_noise_error() -> None:
    """|v − v'|² = (1 + 1/SNR)|ε − ε'|² for one x_t (Salimans and Ho, 2022)."""
    x, v, guess = jax.random.normal(jax.random.key(2), (3, 1, 5))
    alpha, sigma = jnp.full((1, 1), 0.6), jnp.full((1, 1), 0.8)
    noises = [process.start_and_noise("velocity", out, x, alpha, sigma)[1] for out in (v, guess)]
    ratio = float(jnp.sum((v - guess) ** 2) / jnp.sum((noises[0] - noises[1]) ** 2))
    assert ratio == pytest.approx(1 + 0.64 / 0.36, rel=1e-4)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("std", [1e-3, 0.05, 1.0, 30.0])
def test_discretized_gaussian_sums_to_one(levels: int, std: float) -> None:
    x = process.scale(jnp.arange(levels), levels)[None]
    for mean in (-1.0, 0.013, 3.0):
        law = Gaussian(jnp.full((1, levels), mean), jnp.full((1, levels), 2 * np.log(std)))
        total = float(jnp.exp(process.discretized_log_prob(x, law, levels)).sum())
        assert total == pytest.approx(1.0, abs=3e-6)


def test_discretized_gaussian_equals_scipy_deep_in_its_tails() -> None:
    levels, mean, std = 256, -0.7, 0.07
    x = process.scale(jnp.arange(levels), levels)[None]
    law = Gaussian(jnp.full((1, levels), mean), jnp.full((1, levels), 2 * np.log(std)))
    found = np.asarray(process.discretized_log_prob(x, law, levels), np.float64)[0]
    lower, upper = ((2 * np.arange(levels) / 255 - 1 + s / 255 - mean) / std for s in (-1, 1))
    # Above the mean the mass is reflected: log(Φ(−lower) − Φ(−upper)).
    a, b = np.where(lower + upper > 0, -lower, upper), np.where(lower + upper > 0, -upper, lower)
    high, low = scipy.special.log_ndtr(a), scipy.special.log_ndtr(b)
    expected = high + np.log(-np.expm1(low - high))
    expected[0], expected[-1] = scipy.special.log_ndtr(upper[0]), scipy.special.log_ndtr(-lower[-1])
    assert expected.min() < -250
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def test_discretized_gaussian_has_finite_gradients_everywhere() -> None:
    x = process.scale(jnp.arange(256), 256)[None]

    def total(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
        law = Gaussian(jnp.full((1, 256), mean), jnp.full((1, 256), log_variance))
        return process.discretized_log_prob(x, law, 256).sum()

    for mean in (-1.0, 0.0, 1e3):
        for log_variance in (-20.0, -9.0, 0.0, 8.0):
            value, gradient = jax.value_and_grad(total, (0, 1))(mean, log_variance)
            assert np.all(np.isfinite([value, *gradient])), (mean, log_variance)


def test_scale_and_unscale_are_inverse() -> None:
    for levels in (2, 17, 256, 1000):
        whole = jnp.arange(levels)
        x = process.scale(whole, levels)
        assert (float(x[0]), float(x[-1])) == (-1.0, pytest.approx(1.0))
        np.testing.assert_array_equal(process.unscale(x, levels), whole)
    assert process.unscale(jnp.array([-9.0, 9.0]), 17).tolist() == [0, 16]


def test_stratified_draws_cover_evenly_and_agree_between_shards() -> None:
    key, whole = jax.random.key(3), {"x": jnp.zeros(128)}
    drawn = np.sort(np.asarray(process.uniforms(key, whole))[:, 0])
    assert np.diff(drawn, append=drawn[0] + 1).max() < 3 / 128
    half = {"x": jnp.zeros(64), random.INDEX: jnp.arange(64, 128)}
    for stratified in (True, False):
        rows = process.uniforms(key, whole, 3, stratified=stratified)
        np.testing.assert_array_equal(process.uniforms(key, half, 3, stratified=stratified), rows[64:])
        assert rows.shape == (128, 3)
        assert np.all((rows >= 0) & (rows < 1))


def test_stratified_draws_are_uniform_over_keys_with_far_less_variance() -> None:
    batch = {"x": jnp.zeros(64)}
    keys = random.example_keys(jax.random.key(4), 4000)
    mean = {s: jax.vmap(lambda k, s=s: process.uniforms(k, batch, stratified=s).mean())(keys) for s in (True, False)}
    third = jax.vmap(lambda k: process.uniforms(k, batch)[3, 0])(keys)
    assert scipy.stats.kstest(np.asarray(third), "uniform").pvalue > 1e-4
    assert float(mean[True].mean()) == pytest.approx(0.5, abs=0.002)
    assert float(mean[False].var() / mean[True].var()) > 10


def test_refuses_wrong_kinds_and_levels() -> None:
    x = jnp.zeros((1, 1))
    with pytest.raises(ValueError, match="`kind`"):
        process.start_and_noise("epsilon", x, x, x, x)
    with pytest.raises(ValueError, match="`kind`"):
        process.prediction_target("epsilon", x, x, x, x)
    with pytest.raises(ValueError, match="`x`"):
        process.scale(jnp.array([17]), 17)
    with pytest.raises(ValueError, match="whole"):
        process.scale(jnp.array([0.5]), 17)
