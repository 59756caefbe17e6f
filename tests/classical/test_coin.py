"""The coin: posterior, evidence and predictive beside SciPy's Beta, and by quadrature."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from stat_checks import check_cdf, check_counts

from jgen.classical import coin

BETA: Any = stats.beta
BETA_BINOMIAL: Any = stats.betabinom
SEEN = coin.Flips(jnp.array([7.0, 0.0, 30.0]), jnp.array([3.0, 4.0, 1.0]))
PRIOR = coin.Beta(jnp.array([1.0, 0.5, 2.0]), jnp.array([1.0, 0.5, 5.0]))
AFTER = coin.posterior(PRIOR, SEEN)


def bits(text):
    return jnp.array([[1.0 if letter == "H" else 0.0] for letter in text])


def test_seven_heads_of_ten_have_their_mode_at_seven_tenths():
    model = coin.model()
    state = model.init(jax.random.key(0), {"x": bits("HHHHHHHTTT")})
    state, _ = model.update(jax.random.key(0), state, {"x": bits("HHHHHHHTTT")})
    assert (state.params.a.item(), state.params.b.item()) == (8.0, 4.0)
    np.testing.assert_allclose(coin.mode(state.params), [0.7], rtol=1e-6)
    np.testing.assert_allclose(coin.mean(state.params), [8 / 12], rtol=1e-6)
    rates = jnp.linspace(0.0, 1.0, 1001)
    assert rates[jnp.argmax(coin.log_density(state.params, rates))] == pytest.approx(0.7)


def test_flips_one_by_one_give_what_all_at_once_give():
    model, update = coin.model(prior=(2.0, 3.0)), jax.jit(coin.model(prior=(2.0, 3.0)).update)
    state = model.init(jax.random.key(0), {"x": bits("H")})
    np.testing.assert_allclose(coin.mean(state.params), [0.4])
    for letter in "HHTHT":
        state, _ = update(jax.random.key(0), state, {"x": bits(letter)})
    assert (state.params.a.item(), state.params.b.item()) == (5.0, 5.0)


def test_posterior_is_scipys_beta():
    a, b = np.asarray(AFTER.a), np.asarray(AFTER.b)
    for rate in (0.001, 0.3, 0.7, 0.999):
        np.testing.assert_allclose(coin.log_density(AFTER, jnp.full(3, rate)), BETA.logpdf(rate, a, b), rtol=2e-5)
        np.testing.assert_allclose(coin.cdf(AFTER, jnp.full(3, rate)), BETA.cdf(rate, a, b), rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(coin.mean(AFTER), BETA.mean(a, b), rtol=1e-6)
    np.testing.assert_allclose(coin.variance(AFTER), BETA.var(a, b), rtol=1e-5)
    for u in (0.025, 0.5, 0.975):
        np.testing.assert_allclose(coin.quantile(AFTER, jnp.full(3, u)), BETA.ppf(u, a, b), rtol=1e-4, atol=1e-6)


def test_posterior_is_likelihood_times_prior_over_evidence():
    for rate in (0.2, 0.9):
        rates = jnp.full(3, rate)
        bayes = coin.log_likelihood(rates, SEEN) + coin.log_density(PRIOR, rates) - coin.log_evidence(PRIOR, SEEN)
        np.testing.assert_allclose(coin.log_density(AFTER, rates), bayes, rtol=1e-4)


@pytest.mark.parametrize("i", range(3))
def test_evidence_is_the_integral(i):
    a, b, heads, tails = (float(v[i]) for v in (*PRIOR, *SEEN))

    def integrand(rate):
        return rate**heads * (1 - rate) ** tails * BETA.pdf(rate, a, b)

    area = integrate.quad(integrand, 0, 1)[0]
    np.testing.assert_allclose(coin.log_evidence(PRIOR, SEEN)[i], np.log(area), rtol=1e-5)
    theirs = BETA_BINOMIAL.logpmf(heads, heads + tails, a, b)
    np.testing.assert_allclose(coin.log_beta_binomial(PRIOR, SEEN)[i], theirs, rtol=1e-4, atol=1e-5)


def test_evidence_is_the_product_of_the_predictives():
    total, beta = 0.0, coin.Beta(jnp.ones(1), jnp.ones(1))
    for flip in bits("HHTHTTT"):
        total += coin.log_prob(beta, flip[None])[0]
        beta = coin.posterior(beta, coin.count(flip[None]))
    flat = coin.Beta(jnp.ones(1), jnp.ones(1))
    np.testing.assert_allclose(coin.log_evidence(flat, coin.count(bits("HHTHTTT"))), total, rtol=1e-5)


def test_binomial_likelihood_is_scipys():
    for rate in (0.0, 0.1, 0.5, 1.0):
        ours = coin.log_binomial(jnp.full(11, rate), coin.Flips(jnp.arange(11.0), 10.0 - jnp.arange(11.0)))
        np.testing.assert_allclose(ours, stats.binom.logpmf(np.arange(11), 10, rate), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (1.0, 1.0, 0.5),
        (2.0, 1.0, 1.0),
        (1.0, 3.0, 0.0),
        (0.5, 2.0, 0.0),
        (0.5, 1.0, 0.0),
        (2.0, 0.5, 1.0),
        (1.0, 0.5, 1.0),
        (0.5, 0.5, np.nan),
        (3.0, 3.0, 0.5),
    ],
)
def test_modes_at_the_ends(a, b, expected):
    found = coin.mode(coin.Beta(jnp.array(a), jnp.array(b)))
    np.testing.assert_equal(float(found), expected)


def test_many_flips_stay_exact():
    flips, flat = coin.Flips(jnp.array(7e5), jnp.array(3e5)), coin.Beta(jnp.array(1.0), jnp.array(1.0))
    beta = coin.posterior(flat, flips)
    np.testing.assert_allclose(coin.mode(beta), 0.7, rtol=1e-6)
    exact = BETA_BINOMIAL.logpmf(0, 0, 1, 1) + (-np.log(1e6 + 1) - stats.binom.logpmf(7e5, 1e6, 0.7))
    exact += 7e5 * np.log(0.7) + 3e5 * np.log(0.3)
    np.testing.assert_allclose(coin.log_evidence(flat, flips), exact, rtol=1e-6)
    assert coin.quantile(beta, jnp.array(0.5)) == pytest.approx(0.7, abs=1e-4)
    assert not np.isfinite(coin.log_likelihood(jnp.array(0.0), flips))
    assert coin.log_likelihood(jnp.array(1.0), coin.Flips(jnp.array(5.0), jnp.array(0.0))) == 0.0


def test_draws_have_the_predictive_law():
    drawn = np.asarray(jax.jit(coin.sample, static_argnums=2)(jax.random.key(0), AFTER, 20_000))
    for i, mean in enumerate(np.asarray(coin.mean(AFTER))):
        check_counts([(drawn[:, i] == 0).sum(), (drawn[:, i] == 1).sum()], [1 - mean, mean])


def test_the_truth_is_a_draw_from_its_posterior():
    """Simulation-based calibration with all of the posterior: the truth's place in it is uniform."""
    generator = np.random.default_rng(0)
    rate = generator.beta(2.0, 5.0, 20_000)
    heads = generator.binomial(10, rate)

    @jax.jit
    def place(rate, heads):
        prior = coin.Beta(jnp.full_like(rate, 2.0), jnp.full_like(rate, 5.0))
        return coin.cdf(coin.posterior(prior, coin.Flips(heads, 10.0 - heads)), rate)

    check_cdf(place(jnp.asarray(rate, jnp.float32), jnp.asarray(heads, jnp.float32)), lambda u: u, sees=0.05)


def test_a_posterior_that_forgets_its_prior_is_caught(monkeypatch):
    monkeypatch.setattr(coin, "posterior", lambda prior, flips: coin.Beta(flips.heads + 1e-6, flips.tails + 1e-6))
    with pytest.raises(AssertionError):
        test_evidence_is_the_integral(2)


def test_a_mode_in_place_of_the_mean_is_caught(monkeypatch):
    monkeypatch.setattr(coin, "log_prob", lambda beta, x: jnp.log(coin.mode(beta)))
    with pytest.raises(AssertionError):
        test_evidence_is_the_product_of_the_predictives()


@pytest.mark.parametrize("prior", [(0.0, 1.0), (1.0, -2.0)])
def test_priors_that_are_none_are_refused(prior):
    with pytest.raises(ValueError, match="`prior` must be positive, got"):
        coin.model(prior=prior)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (jnp.ones(3), "`x` must have 2 axes"),
        (jnp.full((2, 1), 2.0), r"`x` must lie in \[0, 1\]"),
        (jnp.full((2, 1), 0.5), "`x` must be whole numbers in 0..1"),
    ],
)
def test_flips_that_are_none_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        coin.model().init(jax.random.key(0), {"x": x})
