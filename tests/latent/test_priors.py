"""Priors and diagonal Gaussians: masses, draws, closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from linear_gaussian import Linear

from jgen import random
from jgen.latent import gaussian, iaf_vae, priors, vae
from jgen.math import likelihoods

COMPONENTS = priors.Components(
    jnp.array([[0.0, 1.0], [2.0, -1.0], [-1.0, 0.5]]), jnp.log(jnp.array([[1.0, 0.5], [0.3, 0.8], [0.6, 0.6]])),
    jnp.array([0.0, 1.0, -0.5]),
)  # fmt: skip


def _encode(features):
    """A posterior with one-dimensional latents from one feature."""
    return gaussian.Gaussian(features, 0.1 * features - 0.5)


def test_mixture_integrates_to_one_and_is_its_sum():
    line, step = np.linspace(-8, 8, 401, retstep=True)
    grid = jnp.asarray(np.stack(np.meshgrid(line, line), -1).reshape(-1, 2), jnp.float32)
    log_p = priors.mixture_log_prob(grid, COMPONENTS)[:, 0]
    assert abs(float(jnp.sum(jnp.exp(log_p)) * step**2) - 1) < 1e-4
    shares = np.asarray(jax.nn.softmax(COMPONENTS.logits))
    z = np.array([0.3, -0.4])
    expected = sum(
        share * np.prod(scipy.stats.norm(np.asarray(mean), np.exp(np.asarray(log_std))).pdf(z))
        for share, mean, log_std in zip(shares, COMPONENTS.mean, COMPONENTS.log_std, strict=True)
    )
    found = priors.mixture_log_prob(jnp.asarray(z[None], jnp.float32), COMPONENTS)[0, 0]
    np.testing.assert_allclose(found, np.log(expected), rtol=1e-5)


def test_draws_of_a_mixture_have_its_moments():
    z = np.asarray(priors.mixture_sample(random.example_keys(jax.random.key(0), 40_000), COMPONENTS))
    shares = np.asarray(jax.nn.softmax(COMPONENTS.logits))
    mean = shares @ np.asarray(COMPONENTS.mean)
    error = z.std(0) / np.sqrt(len(z))
    assert np.all(np.abs(z.mean(0) - mean) < 4 * error)


def test_vamp_is_the_mixture_of_its_pseudo_inputs_posteriors():
    prior = priors.Vamp(3)
    inputs = jnp.array([[0.0], [1.0], [3.0]])
    law = prior.law(inputs, _encode)
    z = np.linspace(-2, 5, 7)
    expected = np.mean([scipy.stats.norm(u, np.exp(0.1 * u - 0.5)).pdf(z) for u in (0.0, 1.0, 3.0)], axis=0)
    np.testing.assert_allclose(
        prior.log_prob(law, jnp.asarray(z[:, None], jnp.float32))[:, 0], np.log(expected), rtol=1e-4
    )


def test_vamp_starts_at_data_or_at_the_papers_mean():
    x = jnp.arange(4.0)[:, None] * jnp.ones((4, 3))
    start = priors.Vamp(50).init(jax.random.key(0), x, 2)
    assert start.shape == (50, 3)
    assert np.max(np.abs(start - np.round(start))) < 0.06
    paper = priors.Vamp(50, "mean").init(jax.random.key(0), x, 2)
    assert np.max(np.abs(paper - 0.05)) < 0.06


def test_a_prior_at_the_aggregate_posterior_is_no_worse_in_the_bound():
    # With a decoder that ignores z, log p(x) = log p(x|·) whatever the prior: every weight is then p/q on average.
    networks = vae.Networks(Linear(2), Linear(2, (2, 1)), likelihoods.Gaussian(1.0), 1, priors.Mixture(3))
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    model = vae.model(networks, optax.adam(1e-2))
    state = model.init(jax.random.key(0), {"x": x})
    decoder = jax.tree.map(jnp.zeros_like, state.params["decoder"])
    params = {**state.params, "decoder": decoder, "offset": jnp.zeros((2, 1))}
    exact = scipy.stats.norm.logpdf(x).sum(1)
    many = {"x": np.repeat(x, 50, 0)}
    bound = vae.iwae_bound(jax.random.key(1), params, state.stats, many, networks=networks, num_samples=400)
    difference = np.asarray(bound) - np.repeat(exact, 50)
    assert -0.2 < difference.mean() < 0.01


def test_sum_of_two_gaussians_divergences_is_that_of_scipy():
    q = gaussian.Gaussian(jnp.array([0.3, -1.0]), jnp.array([0.2, -0.5]))
    p = gaussian.Gaussian(jnp.array([0.0, 0.5]), jnp.array([-0.3, 0.4]))
    grid = np.linspace(-15, 15, 200_001)
    for i, value in enumerate(gaussian.kl(q, p)):
        one = scipy.stats.norm(float(q.mean[i]), float(np.exp(q.log_std[i])))
        other = scipy.stats.norm(float(p.mean[i]), float(np.exp(p.log_std[i])))
        expected = np.trapezoid(one.pdf(grid) * (one.logpdf(grid) - other.logpdf(grid)), grid)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    zero = gaussian.kl(q, gaussian.standard(q.mean))
    np.testing.assert_allclose(zero, gaussian.kl_to_standard_normal(q), rtol=1e-6)


def test_product_is_the_posterior_of_one_observation():
    # z ~ N(m, s²) seen through N(z, t²): precision 1/s² + 1/t².
    seen, prior = (
        gaussian.Gaussian(jnp.array([1.3]), jnp.log(jnp.array([0.4]))),
        gaussian.Gaussian(jnp.array([-0.5]), jnp.log(jnp.array([2.0]))),
    )
    found = gaussian.product(seen, prior)
    precision = 1 / 0.4**2 + 1 / 2.0**2
    np.testing.assert_allclose(np.exp(-2 * found.log_std), precision, rtol=1e-5)
    np.testing.assert_allclose(found.mean, (1.3 / 0.4**2 - 0.5 / 2.0**2) / precision, rtol=1e-5)


def test_extreme_scales_stay_finite():
    wide = gaussian.from_raw(jnp.array([[0.0, 1e30, 500.0, -500.0]]))
    assert np.all(np.isfinite(gaussian.kl_to_standard_normal(gaussian.Gaussian(wide.mean[:, :1], wide.log_std[:, :1]))))
    assert np.max(np.abs(wide.log_std)) <= gaussian.LOG_STD_BOUND
    far = gaussian.product(
        gaussian.Gaussian(jnp.array([1.0]), jnp.array([-6.0])), gaussian.Gaussian(jnp.array([-1.0]), jnp.array([6.0]))
    )
    np.testing.assert_allclose(far.mean, 1.0, atol=1e-4)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`num_components` must be at least 1"):
        priors.Mixture(0)
    with pytest.raises(ValueError, match="`start` must be one of"):
        priors.Vamp(3, "random")
    flow = iaf_vae.InverseAutoregressive(1, (8,), 2)
    with pytest.raises(ValueError, match="`prior` must not be Vamp"):
        vae.dense((4,), likelihoods.Bernoulli(), 2, prior=priors.Vamp(3), posterior=flow)
    conditional = vae.dense((4,), likelihoods.Bernoulli(), 2, num_classes=3, hidden_sizes=(8,))
    model, x = vae.model(conditional, optax.adam(1e-2)), np.zeros((3, 4))
    with pytest.raises(ValueError, match="`batch` must hold `label`"):
        model.init(jax.random.key(0), {"x": x})
    with pytest.raises(ValueError, match=r"`label` must lie in \[0, 2\]"):
        model.init(jax.random.key(0), {"x": x, "label": np.array([0, 1, 3])})
    with pytest.raises(ValueError, match="`label` must be given just where there are classes"):
        vae.encode({}, {}, x, networks=conditional)
    with pytest.raises(ValueError, match="`shape` must have 3 axes"):
        vae.convolutional((4,), likelihoods.Bernoulli(), 2)
