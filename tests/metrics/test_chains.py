"""Chain diagnostics against AR(1) truth and the definitions written out."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from jgen.metrics import chains


def _ar1(rho: float, num_chains: int = 16, num: int = 20_000) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(num_chains, num + 500))
    return np.asarray(scipy.signal.lfilter([1.0], [1.0, -rho], noise, axis=1))[:, 500:].astype(np.float32)


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.6, 0.9])
def test_effective_sample_size_of_ar1(rho: float) -> None:
    draws = _ar1(rho)
    truth = (1 - rho) / (1 + rho)
    np.testing.assert_allclose(chains.effective_sample_size(jnp.asarray(draws)) / draws.size, truth, rtol=0.07)


def test_geyer_sequence_written_out() -> None:
    draws = _ar1(0.7, 3, 101).astype(np.float64)
    halves = np.concatenate([draws[:, :50], draws[:, 51:]])
    num = 50
    centred = halves - halves.mean(1, keepdims=True)
    covariance = [np.mean([c[: num - t] @ c[t:] / num for c in centred]) for t in range(num)]
    within = halves.var(1, ddof=1).mean()
    pooled = within * (num - 1) / num + halves.mean(1).var(ddof=1)
    rho = [1.0] + [1 - (within - covariance[t] * num / (num - 1)) / pooled for t in range(1, num)]
    total, last = 0.0, np.inf
    for k in range(num // 2):
        pair = rho[2 * k] + rho[2 * k + 1]
        if pair <= 0:
            break
        last = min(last, pair)
        total += last
    found = chains.effective_sample_size(jnp.asarray(draws, jnp.float32))
    np.testing.assert_allclose(found, halves.size / (2 * total - 1), rtol=1e-4)
    np.testing.assert_allclose(chains.split_r_hat(jnp.asarray(draws, jnp.float32)), np.sqrt(pooled / within), rtol=1e-5)


def test_r_hat_sees_chains_that_disagree_and_chains_that_drift() -> None:
    draws = np.random.default_rng(0).normal(size=(4, 1000)).astype(np.float32)
    assert abs(float(chains.split_r_hat(jnp.asarray(draws))) - 1) < 0.01
    assert chains.split_r_hat(jnp.asarray(draws + np.arange(4, dtype=np.float32)[:, None])) > 1.5
    assert chains.split_r_hat(jnp.asarray(draws + np.linspace(0, 3, 1000, dtype=np.float32)[None])) > 1.15
    means, variances = jnp.asarray(draws.mean(1)), jnp.asarray(draws.var(1, ddof=1))
    pooled = draws.var(1, ddof=1).mean() * 0.999 + draws.mean(1).var(ddof=1)
    expected = np.sqrt(pooled / draws.var(1, ddof=1).mean())
    np.testing.assert_allclose(chains.r_hat(means, variances, 1000), expected, rtol=1e-5)


def test_monte_carlo_error_covers_the_truth() -> None:
    draws = _ar1(0.9, 200, 2_000)
    errors = np.array([float(chains.monte_carlo_error(jnp.asarray(draws[i : i + 4]))) for i in range(0, 200, 4)])
    z = draws.reshape(50, -1).mean(1) / errors
    assert 0.6 < z.std() < 1.5


def test_too_few_draws() -> None:
    for function in (chains.split_r_hat, chains.effective_sample_size, chains.monte_carlo_error):
        with pytest.raises(ValueError, match=r"`draws` must hold at least 4 draws per chain, got 3"):
            function(jnp.zeros((2, 3)))
