"""The law of a pen move and mixtures of logistics: normalized, drawn as they say, and finite where it is extreme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from stat_checks import check_counts, check_mean

from jgen import random
from jgen.math import framewise, strokes
from jgen.math.logistic_mixture import LogisticMixture
from jgen.math.strokes import StrokeMixture

MIXTURE = StrokeMixture(4, floor=0.05, pen_states=3)


def raw_of(likelihood, num=3, scale=1.0):
    return scale * jax.random.normal(jax.random.key(1), (num, 3, likelihood.num_parameters))


def integral(likelihood, raw):
    """Σ over the pen's states of ∫∫ exp log_prob, by a grid that the components' widths need."""
    side = np.linspace(-14, 14, 561, dtype=np.float32)
    places = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    total = 0.0
    for pen in range(likelihood.pen_states):
        x = jnp.asarray(np.column_stack([places, np.full(len(places), pen)]), jnp.float32)
        density = jax.lax.map(lambda row: jnp.exp(likelihood.log_prob(raw, row[None])[0]), x, batch_size=20_000)
        total += float(np.asarray(density, np.float64).sum()) * (side[1] - side[0]) ** 2
    return total


@pytest.mark.parametrize("likelihood", [MIXTURE, StrokeMixture(1, floor=0.3)], ids=str)
def test_density_integrates_to_one(likelihood):
    for row in raw_of(likelihood):
        assert abs(integral(likelihood, row[None]) - 1) < 1e-3


def test_density_without_its_constant_would_be_seen(monkeypatch):
    monkeypatch.setattr(strokes, "normal_log_prob", lambda x: -0.5 * x**2)
    assert abs(integral(MIXTURE, raw_of(MIXTURE)[:1]) - 1) > 1e-2


def test_density_is_that_of_scipy():
    raw = np.asarray(raw_of(MIXTURE), np.float64)
    x = np.array([[0.3, -1.0, 0], [2.0, 0.5, 2], [-0.2, 0.1, 1]])
    expected = []
    for row, (dx, dy, pen) in zip(raw, x, strict=True):
        weight, std = np.exp(row[2, :4]) / np.exp(row[2, :4]).sum(), np.logaddexp(0, row[:2, 4:8]) + 0.05
        rho, logits = 0.99 * np.tanh(row[2, 4:8]), row[:, 8]
        density = 0.0
        for k in range(4):
            cross = rho[k] * std[0, k] * std[1, k]
            covariance = [[std[0, k] ** 2, cross], [cross, std[1, k] ** 2]]
            density += weight[k] * scipy.stats.multivariate_normal(row[:2, k], covariance).pdf([dx, dy])
        expected.append(np.log(density) + logits[int(pen)] - np.logaddexp.reduce(logits))
    np.testing.assert_allclose(MIXTURE.log_prob(jnp.asarray(raw), jnp.asarray(x)), expected, rtol=1e-4)


def test_draws_follow_the_law():
    raw = raw_of(MIXTURE, 1, scale=0.7)
    draws = MIXTURE.sample(random.example_keys(jax.random.key(2), 20_000), jnp.tile(raw, (20_000, 1, 1)))
    draws = np.asarray(draws, np.float64)
    mean = np.asarray(MIXTURE.mean(raw), np.float64)[0]
    check_mean(draws, mean, sees=0.3)
    # E[f] for f = dx·dy by the same grid as the integral: the correlation has its sign.
    weight, centre, std, rho, pen = (np.asarray(part) for part in MIXTURE._parts(raw))
    product = np.sum(np.exp(weight) * (centre[0] * centre[1] + rho * std[0] * std[1]))
    check_mean(draws[:, 0] * draws[:, 1], product, sees=0.4)
    check_counts(np.bincount(draws[:, 2].astype(int), minlength=3), np.exp(pen[0]))


@pytest.mark.parametrize("extreme", [-100.0, -8.0, 8.0, 100.0])
def test_extreme_parameters_have_finite_values_and_gradients(extreme):
    for likelihood, x in (
        (MIXTURE, jnp.array([[3.0, -2.0, 1.0]])),
        (LogisticMixture(256, 3), jnp.array([[0, 255, 7]])),
    ):
        raw = jnp.full((1, 3, likelihood.num_parameters), extreme)
        value, slope = jax.value_and_grad(lambda r, f=likelihood.log_prob, x=x: f(r, x)[0])(raw)
        assert np.isfinite(value)
        assert np.all(np.isfinite(slope))


def test_offset_starts_near_the_marginals():
    x = np.random.default_rng(0).normal([1.0, -2.0, 0.0], [0.5, 3.0, 0.0], (500, 3))
    x[:100, 2] = 1
    for likelihood in (StrokeMixture(8), StrokeMixture(8, pen_states=3)):
        first = framewise.offset(likelihood, jnp.asarray(x, jnp.float32)[None], jnp.ones((1, 500)))
        assert first.shape == (3, likelihood.num_parameters)
        nats = likelihood.log_prob(jnp.tile(first[None], (500, 1, 1)), jnp.asarray(x, jnp.float32)).mean()
        best = (
            scipy.stats.norm(0, 0.5).entropy() + scipy.stats.norm(0, 3).entropy() + scipy.stats.bernoulli(0.2).entropy()
        )
        assert -best - 1.0 < nats < -best + 0.2
    assert StrokeMixture(8).offset(jnp.zeros((5, 2, 4, 3))).shape == (2, 4, 3, 17)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 4)), "must end in an axis of 3"),
        (np.array([[0.0, np.inf, 0.0]]), "`x` must lie in"),
        (np.array([[0.0, 0.0, 3.0]]), r"`x\[..., 2\]` must lie in \[0, 2\]"),
        (np.array([[0.0, 0.0, 0.5]]), r"`x\[..., 2\]` must be whole"),
    ],
)
def test_what_is_no_move_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        MIXTURE.check(x)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num": 0}, "`num` must be"),
        ({"num": 1, "floor": 0.0}, "`floor`"),
        ({"num": 1, "pen_states": 4}, "`pen_states`"),
    ],
)
def test_bad_arguments_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        StrokeMixture(**keywords)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("extreme", [None, -100.0, 100.0])
def test_masses_of_logistic_mixtures_sum_to_one(levels, extreme):
    likelihood = LogisticMixture(levels, 3)
    raw = 2 * jax.random.normal(jax.random.key(0), (5, likelihood.num_parameters))
    raw = raw if extreme is None else jnp.full_like(raw, extreme)
    every = jnp.tile(jnp.arange(levels)[:, None], (1, 5))
    logs = likelihood.log_prob(jnp.tile(raw[None], (levels, 1, 1)).reshape(-1, 9), every.reshape(-1))
    np.testing.assert_allclose(jnp.sum(jnp.exp(logs.reshape(levels, 5)), axis=0), 1.0, atol=1e-4)


def test_draws_of_logistic_mixtures_follow_the_masses():
    likelihood = LogisticMixture(9, 3)
    raw = jax.random.normal(jax.random.key(4), (1, likelihood.num_parameters))
    draws = likelihood.sample(random.example_keys(jax.random.key(5), 20_000), jnp.tile(raw, (20_000, 1)))
    mass = np.exp(np.asarray(likelihood.log_prob(jnp.tile(raw, (9, 1)), jnp.arange(9)), np.float64))
    check_counts(np.bincount(np.asarray(draws), minlength=9), mass)
    x = jnp.asarray(draws)[:, None]
    first = likelihood.offset(x)
    assert first.shape == (1, likelihood.num_parameters)
    with pytest.raises(ValueError, match="`x` must lie in"):
        likelihood.check(np.array([9]))
