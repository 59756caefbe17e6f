"""Chain diagnostics against ArviZ, AR(1) truth and the definitions written out."""

from typing import Any

import jax
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


def _stream(rho: float, seed: int, num_chains: int, num: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(num_chains, num + 200))
    return np.asarray(scipy.signal.lfilter([1.0], [1.0, -rho], noise, axis=1))[:, 200:]


DRAWS = {
    "autoregressive": _stream(0.7, 0, 4, 250),
    "odd": _stream(0.3, 1, 3, 101),
    "antithetic": _stream(-0.6, 2, 4, 200),
    "cauchy": np.random.default_rng(3).standard_cauchy((4, 300)),
    "short": _stream(0.5, 5, 2, 9),
    "ties": np.round(_stream(0.8, 6, 3, 120)),
}
FUNCTIONS = (
    chains.split_r_hat,
    chains.rank_r_hat,
    chains.effective_sample_size,
    chains.bulk_ess,
    chains.tail_ess,
    chains.monte_carlo_error,
    chains.monte_carlo_error_of_std,
)
# ArviZ 0.23.4: _rhat_split, _rhat_rank, _ess_mean, _ess_bulk, _ess_tail, _mcse_mean, _mcse_sd.
ARVIZ = {
    "autoregressive": [1.024858183, 1.024760611, 187.4750364, 187.3115328, 411.1658478, 0.1003395057, 0.04969588981],
    "odd": [1.017477513, 1.022237821, 150.0452587, 157.1853711, 173.1697324, 0.08643788194, 0.05349219499],
    "antithetic": [0.9967222293, 1.004488413, 2322.47199, 2322.47199, 829.8968586, 0.02613989473, 0.03963520151],
    "cauchy": [0.9999793129, 0.998874123, 1217.602984, 1176.220233, 1238.58474, 5.673361133, 84.03386741],
    "short": [1.65785115, 1.616790269, 19.26591972, 19.26591972, 19.26591972, 0.2480576924, 0.1639479394],
    "ties": [1.005392428, 1.0171824, 72.8228629, 73.32689013, 95.98157604, 0.1817687483, 0.1034778216],
}


@jax.jit
def diagnose(draws: Any) -> list[Any]:
    """All of them."""
    return [function(draws) for function in FUNCTIONS]


@pytest.mark.parametrize("name", list(DRAWS))
def test_every_diagnostic_is_that_of_arviz(name: str) -> None:
    with jax.enable_x64(True):
        found = diagnose(jnp.asarray(DRAWS[name]))
    np.testing.assert_allclose(found, ARVIZ[name], rtol=1e-6)


def test_float32_is_near() -> None:
    found = diagnose(jnp.asarray(DRAWS["autoregressive"], jnp.float32))
    np.testing.assert_allclose(found, ARVIZ["autoregressive"], rtol=2e-3)


def test_mistakes_leave_arviz(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = jnp.asarray(_stream(0.9, 4, 2, 150) + np.linspace(0, 3, 150)[None], jnp.float32)
    expected = float(chains.effective_sample_size(draws))
    for name, mutant in (
        ("_halves", lambda x: x),  # forgets to cut the chains
        ("_pooled_variance", lambda x: jnp.mean(jnp.var(x, axis=1, ddof=1))),  # forgets their disagreement
        ("_autocovariance", lambda x, f=chains._autocovariance: 2 * f(x)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(chains, name, mutant)
            assert abs(float(chains.effective_sample_size(draws)) / expected - 1) > 0.1


def test_values_that_are_not_finite_and_chains_that_stand_still() -> None:
    size, draws = jax.jit(chains.effective_sample_size), jnp.asarray(DRAWS["short"], jnp.float32)
    assert np.isnan(size(draws.at[0, 3].set(jnp.nan)))
    assert np.isnan(size(draws.at[0, 3].set(jnp.inf)))
    assert float(size(jnp.ones((2, 9)))) == 16  # the halves leave out the middle
    assert np.isnan(chains.split_r_hat(jnp.ones((2, 10))))


def test_ranks_see_another_scale_where_means_agree() -> None:
    draws = np.random.default_rng(0).normal(size=(4, 1000)) * np.array([1, 1, 1, 4])[:, None]
    assert abs(float(chains.split_r_hat(jnp.asarray(draws, jnp.float32))) - 1) < 0.01
    assert float(chains.rank_r_hat(jnp.asarray(draws, jnp.float32))) > 1.05


def test_acceptance_is_the_share_of_steps_that_moved() -> None:
    path = jnp.asarray([[0.0, 0.0, 1.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_allclose(chains.acceptance(path), [0.5, 1.0])
    np.testing.assert_allclose(chains.acceptance({"a": path, "b": jnp.zeros((2, 5, 3))}), [0.5, 1.0])


def test_autocorrelation_of_ar1() -> None:
    found = chains.autocorrelation(jnp.asarray(_ar1(0.8)), 6)
    np.testing.assert_allclose(found, 0.8 ** np.arange(6), atol=0.02)
    draws = _stream(0.5, 0, 2, 40)
    centred = draws - draws.mean(1, keepdims=True)
    covariance = [np.mean([c[: 40 - t] @ c[t:] for c in centred]) for t in range(5)]
    np.testing.assert_allclose(
        chains.autocorrelation(jnp.asarray(draws, jnp.float32), 5), covariance / covariance[0], atol=1e-5
    )


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
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match=r"`draws` must hold at least 4 draws per chain, got 3"):
            function(jnp.zeros((2, 3)))
