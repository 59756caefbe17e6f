"""Every likelihood sums or integrates to 1, follows its own law when sampled, and survives extreme parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jgen import random
from jgen.math import likelihoods

RAW = jax.random.normal(jax.random.key(3), (5, 4)) * 2.0
DISCRETE = [
    likelihoods.Bernoulli(),
    likelihoods.Categorical(17),
    likelihoods.Categorical(256),
    likelihoods.DiscretizedLogistic(2),
    likelihoods.DiscretizedLogistic(17),
    likelihoods.DiscretizedLogistic(256),
]


def _raw(likelihood, extreme=None):
    raw = jax.random.normal(jax.random.key(1), (6, likelihood.num_parameters)) * 2.0
    return raw if extreme is None else jnp.full_like(raw, extreme)


def _total(likelihood, raw):
    levels = jnp.arange(likelihood.levels)
    return jnp.stack([jnp.sum(jnp.exp(likelihood.log_prob(jnp.tile(r[None], (len(levels), 1)), levels))) for r in raw])


@pytest.mark.parametrize("likelihood", DISCRETE, ids=str)
@pytest.mark.parametrize("extreme", [None, -100.0, 100.0, 0.0])
def test_masses_sum_to_one(likelihood, extreme):
    np.testing.assert_allclose(_total(likelihood, _raw(likelihood, extreme)), 1.0, atol=1e-4)


@pytest.mark.parametrize("likelihood", DISCRETE, ids=str)
def test_gradients_stay_finite(likelihood):
    for extreme in (-100.0, 100.0, -8.0, 8.0):
        for level in (0, likelihood.levels // 2, likelihood.levels - 1):
            raw = _raw(likelihood, extreme)
            x = jnp.full(len(raw), level)
            value, slope = jax.value_and_grad(lambda r, x=x: jnp.sum(likelihood.log_prob(r, x)))(raw)
            assert np.isfinite(value)
            assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("likelihood", DISCRETE, ids=str)
def test_samples_follow_the_masses(likelihood):
    raw = jnp.tile(_raw(likelihood)[:1], (20_000, 1))
    draws = likelihood.sample(random.example_keys(jax.random.key(5), len(raw)), raw).astype(int)
    levels = jnp.arange(likelihood.levels)
    mass = np.exp(likelihood.log_prob(raw[: len(levels)], levels)).astype(float)
    counts = np.bincount(np.asarray(draws), minlength=len(levels))
    order = np.argsort(mass)[::-1]
    many = order[mass[order] * len(raw) >= 5]
    expected = np.append(mass[many], max(1 - mass[many].sum(), 1e-12)) * len(raw)
    found = np.append(counts[many], len(raw) - counts[many].sum())
    statistic = np.sum((found - expected)[expected > 1] ** 2 / expected[expected > 1])
    assert statistic < scipy.stats.chi2.isf(1e-6, max(len(many), 1))


def test_missing_edge_bins_would_be_seen():
    # Without the open first and last bins the masses near an edge do not sum to 1.
    edge = likelihoods.DiscretizedLogistic(17)
    raw = jnp.array([[-1.0, -1.0]])
    inner = edge.log_prob(jnp.tile(raw, (15, 1)), jnp.arange(1, 16))
    assert abs(float(jnp.sum(jnp.exp(inner))) - 1.0) > 0.1


@pytest.mark.parametrize("std", [None, 0.3])
def test_gaussian_is_the_normal_density(std):
    likelihood = likelihoods.Gaussian(std)
    raw = jax.random.normal(jax.random.key(0), (7, 3, likelihood.num_parameters))
    x = jax.random.normal(jax.random.key(1), (7, 3))
    scale = 0.3 if std else np.log1p(np.exp(np.asarray(raw[..., 1], float))) + 1e-3
    expected = scipy.stats.norm.logpdf(x, raw[..., 0], scale).sum(-1)
    np.testing.assert_allclose(likelihood.log_prob(raw, x), expected, rtol=1e-5)
    draws = likelihood.sample(random.example_keys(jax.random.key(2), 20_000), jnp.tile(raw[:1], (20_000, 1, 1)))
    assert scipy.stats.kstest((draws[:, 0] - raw[0, 0, 0]) / np.broadcast_to(scale, (7, 3))[0, 0], "norm").pvalue > 1e-6


@pytest.mark.parametrize("likelihood", [*DISCRETE, likelihoods.Gaussian()], ids=str)
def test_offset_fits_the_marginals(likelihood):
    top = (likelihood.levels or 5) - 1
    x = jax.random.randint(jax.random.key(0), (500, 3), 0, top + 1)
    offset = likelihood.offset(x)
    assert offset.shape == (3, likelihood.num_parameters)
    fitted = likelihood.log_prob(jnp.tile(offset[None], (500, 1, 1)), x).mean()
    other = likelihood.log_prob(jnp.tile(offset[None], (500, 1, 1)) + 1.5 * jnp.sign(offset)[None], x).mean()
    assert fitted >= other - 1e-3


@pytest.mark.parametrize(
    ("likelihood", "x"),
    [
        (likelihoods.Bernoulli(), np.array([0.0, 0.5])),
        (likelihoods.Bernoulli(), np.array([0, 2])),
        (likelihoods.Categorical(17), np.array([-1, 3])),
        (likelihoods.Categorical(17), np.array([17])),
        (likelihoods.DiscretizedLogistic(256), np.array([1.5])),
        (likelihoods.Gaussian(), np.array([np.nan])),
    ],
)
def test_data_outside_the_support_is_refused(likelihood, x):
    with pytest.raises(ValueError, match="`x` must"):
        likelihood.check(x)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`levels` must be at least 2, got 1"):
        likelihoods.Categorical(1)
    with pytest.raises(ValueError, match="`std` must be positive"):
        likelihoods.Gaussian(0.0)
