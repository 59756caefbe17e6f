"""STCN: causality by jacobians, precision weighting, a linear model and a small one with their exact likelihoods."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from stat_checks import check_mean
from stcn_checks import BITS, REAL, exact, params_of, real

from jgen import random
from jgen.latent import gaussian, stcn, stcn_network
from jgen.math import framewise, likelihoods
from jgen.nets import temporal
from jgen.nets.temporal import TemporalConv

# Causality


def moved(function, x):
    """[t, s]: does what `function` gives of frame t move with frame s? By the jacobian, exactly."""
    jacobian = np.asarray(jax.jit(jax.jacrev(function))(x))[..., 0, :, :]  # (time, *outputs, time, dims)
    return np.any(jacobian != 0, axis=(*range(1, jacobian.ndim - 2), -1))


def terms_of(params):
    return lambda x: jnp.stack(stcn.frame_terms(REAL, random.example_keys(jax.random.key(1), 1), params, x)[:2], -1)[0]


def priors_of(params):
    """Means and scales of all priors, given fixed draws above them."""

    def function(x):
        before, _ = stcn_network.states(REAL, params, x)
        top = stcn_network.prior(REAL, params, 1, None, before)
        lower = stcn_network.prior(REAL, params, 0, jnp.ones((1, x.shape[1], 1)), before)
        return jnp.concatenate([*top, *lower], axis=-1)[0]

    return function


def test_terms_see_their_frame_and_those_before_and_priors_only_those_before():
    params, x, below = params_of(REAL), real(), np.tri(9, dtype=bool)
    np.testing.assert_array_equal(moved(terms_of(params), x), below & (np.subtract(*np.indices((9, 9))) <= 7))
    np.testing.assert_array_equal(
        moved(priors_of(params), x), np.tri(9, k=-1) * (np.subtract(*np.indices((9, 9))) <= 7)
    )


def test_a_prior_that_is_fed_its_frame_is_caught(monkeypatch):
    monkeypatch.setattr(temporal, "before", lambda d: d)
    assert np.all(np.diag(moved(priors_of(params_of(REAL)), real())))


# Precision weighting


def conjugate(prior, observed):
    """N(m, s²) after one observation of it with noise: by the gain, in float64."""
    m, s = np.float64(prior.mean), np.exp(np.float64(prior.log_std))
    y, noise = np.float64(observed.mean), np.exp(np.float64(observed.log_std))
    gain = s**2 / (s**2 + noise**2)
    return m + gain * (y - m), 0.5 * np.log1p(-gain) + np.log(s)


def weighting_error(network, params, prior):
    """Of `stcn_network.posterior`, against a conjugate update by what f_q alone says."""
    now = jax.random.normal(jax.random.key(2), (5, 2, 3))

    @jax.jit
    def both(now):
        message = stcn_network.prior(network, {"prior": params["posterior"]}, 1, None, now)
        return message, stcn_network.posterior(network, params, 1, None, now, prior)

    message, found = both(now)
    mean, log_std = conjugate(prior, message)
    return max(np.abs(found.mean - mean).max(), np.abs(found.log_std - log_std).max())


PRIORS = gaussian.Gaussian(
    jnp.array([[0.3], [-2.0], [4.0], [0.0], [1.0]]), jnp.array([[0.0], [1.5], [-2.0], [-6.0], [5.9]])
)


def test_the_posterior_is_that_of_one_gaussian_observation():
    assert weighting_error(REAL, params_of(REAL), PRIORS) < 2e-6


def variance_for_deviation(one, other, product=gaussian.product):
    found = product(one, other)
    return gaussian.Gaussian(found.mean, 2 * found.log_std)


def test_a_variance_taken_for_a_standard_deviation_is_caught(monkeypatch):
    monkeypatch.setattr(gaussian, "product", variance_for_deviation)
    assert weighting_error(REAL, params_of(REAL), PRIORS) > 0.1


# A linear model: z² = a x_{t−1} + τε, z¹ = w z² + σε, x = A z¹ + B z² + sε, with its exact posterior

A, B, W, LAG, TAU, SIGMA, NOISE = 1.5, -0.4, 0.8, 0.6, 0.9, 0.5, 0.7
LINEAR = stcn.Network(likelihoods.Gaussian(NOISE), TemporalConv(1, 1, 2), (1, 1), (), ())
SLOPE, SPREAD = A * W + B, (A * W + B) ** 2 * TAU**2 + A**2 * SIGMA**2


def layer(inputs, mean, std):
    """A head: rows of `mean` beside a fixed scale; from_raw bounds log σ by 6 tanh(·/6)."""
    kernel = np.zeros((inputs, 2))
    kernel[:, 0] = mean
    return {
        "Dense_0": {
            "kernel": jnp.asarray(kernel, jnp.float32),
            "bias": jnp.array([0.0, 6 * np.arctanh(np.log(std) / 6)]),
        }
    }


def linear_params():
    params = jax.tree.map(jnp.zeros_like, params_of(LINEAR, 1))
    params["convolutions"]["input"]["kernel"] = jnp.ones((1, 1))
    params["prior"] = [layer(2, [0.0, W], SIGMA), layer(1, [LAG], TAU)]
    upper = np.sqrt(A**2 * SIGMA**2 + NOISE**2) / abs(SLOPE)
    params["posterior"] = [layer(2, [1 / A, -B / A], NOISE / A), layer(1, [1 / SLOPE], upper)]
    params["decoder"] = {"Dense_0": {"kernel": jnp.array([[A], [B]]), "bias": jnp.zeros(1)}}
    return params


def linear_exact(x):
    """log N(x_t; (Aw + B) a x_{t−1}, (Aw + B)²τ² + A²σ² + s²)."""
    before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
    return scipy.stats.norm.logpdf(x, SLOPE * LAG * before, np.sqrt(SPREAD + NOISE**2))[..., 0]


def weights_of(params, x):
    keys = framewise.keys_at(random.example_keys(jax.random.key(0), len(x)), jnp.arange(x.shape[1]))
    before, now = stcn_network.states(LINEAR, params, x)
    return stcn.frame_log_weight(LINEAR, keys, params, x, before, now)


def weight_error():
    x = 2 * real(120, 6, 1)
    found = jax.jit(lambda params, x: weights_of(params, x))(linear_params(), x)  # traced anew, for the mutants
    return np.abs(found - linear_exact(np.asarray(x, np.float64))).max()


def test_every_weight_of_the_exact_posterior_is_the_likelihood():
    assert weight_error() < 2e-5


def fresh_draws(network, params, noise, before, now=None, *, key=None):
    """Priors given another draw of the layer above than posterior and decoder see."""
    other, above, below, found = [jnp.roll(n, 1, axis=0) for n in noise], None, None, []
    for level in reversed(range(len(noise))):
        p = stcn_network.prior(network, params, level, below, before)
        q = stcn_network.posterior(network, params, level, above, now, p)
        above, below = (q.mean + jnp.exp(q.log_std) * n[level] for n in (noise, other))
        found.append((above, q, p))
    return stcn_network.Descent(*zip(*reversed(found), strict=True))


def mutate(mutant, monkeypatch):
    if mutant == "fresh draw for the prior":
        monkeypatch.setattr(stcn_network, "descend", fresh_draws)
    elif mutant == "variance for deviation":
        monkeypatch.setattr(gaussian, "product", variance_for_deviation)
    else:
        monkeypatch.setattr(temporal, "before", lambda d: d)


@pytest.mark.parametrize("mutant", ["fresh draw for the prior", "variance for deviation", "prior fed its frame"])
def test_mutants_lose_the_exact_likelihood(mutant, monkeypatch):
    mutate(mutant, monkeypatch)
    assert weight_error() > 0.05


def test_elbo_is_the_likelihood_on_average_and_reconstruction_the_filtered_mean():
    params, x = linear_params(), 2 * real(400, 6, 1)
    mask = (jnp.arange(6)[None] < 1 + jnp.arange(400)[:, None] % 6).astype(jnp.float32)
    exact = (linear_exact(np.asarray(x, np.float64)) * mask).sum(axis=1)
    batch = {"x": x, "mask": mask}
    found = jax.jit(lambda batch: stcn.elbo(jax.random.key(0), params, batch, network=LINEAR))(batch)
    check_mean(np.asarray(found) - exact, 0.0)
    before = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1) * SLOPE * LAG
    again = jax.jit(lambda batch: stcn.reconstruct(params, batch, network=LINEAR))(batch)
    np.testing.assert_allclose(again, before + SPREAD / (SPREAD + NOISE**2) * (x - before), atol=1e-5)


# Bounds of a model whose likelihood is known by quadrature


def test_the_mass_sums_to_one_and_bounds_rise_towards_it():
    params = params_of(BITS)
    # One more vague than a random one is: with that the bound would need very many draws.
    params["posterior"] = jax.tree.map(lambda leaf: 0.3 * leaf, params["posterior"])
    for head in params["posterior"]:
        head["Dense_1"]["bias"] += jnp.array([0.0, 2.0])
    space = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=6))).reshape(-1, 3, 2)
    log_prob = np.asarray(jax.jit(lambda x: exact(BITS, params, x))(space), np.float64)
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, atol=1e-5)
    many, means = {"x": jnp.tile(space, (16, 1, 1))}, []
    for num in (1, 8, 128):
        bound = jax.jit(lambda key, num=num: stcn.iwae_bound(key, params, many, network=BITS, num_samples=num))
        found = bound(jax.random.key(num))
        gaps = np.asarray(found, np.float64) - np.tile(log_prob, 16)
        check_mean(gaps, min(gaps.mean(), 0.0))
        means.append(gaps.mean())
    elbo = jax.jit(lambda key: stcn.elbo(key, params, many, network=BITS))(jax.random.key(7))
    assert abs(float(elbo.mean()) - log_prob.mean() - means[0]) < 0.1
    assert means[0] < means[1] - 0.05 < means[2]
    assert -0.02 < means[2] < 0.01
