"""Gradient estimators: unbiased against enumeration and closed forms, variances in their order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stat_checks import check_mean

from jgen.math import estimators

KEY = jax.random.key(0)
LOGITS = jnp.asarray([0.3, -1.0, 0.8, 0.1])
VALUES = jnp.asarray([2.0, 5.0, -1.0, 3.0])
NUM, REPEATS = 4, 20_000


def reward(logits, z):
    """f(z, θ), which depends on θ directly too."""
    return VALUES[z] + 0.5 * jnp.sum(logits**2)


def exact(logits):
    return jnp.sum(jax.nn.softmax(logits) * jax.vmap(lambda z: reward(logits, z))(jnp.arange(4)))


def surrogate(logits, key, baseline):
    z = jax.random.categorical(key, logits, shape=(NUM,))
    values = jax.vmap(lambda z: reward(logits, z))(z)
    return estimators.score_function(values, jax.nn.log_softmax(logits)[z], baseline(values))


def gradients(baseline, function=surrogate):
    """Estimates, (REPEATS, 4)."""
    return np.asarray(
        jax.jit(jax.vmap(jax.grad(lambda logits, key: function(logits, key, baseline)), (None, 0)))(
            LOGITS, jax.random.split(KEY, REPEATS)
        )
    )


BASELINES = {"none": lambda v: 0.0, "constant": lambda v: 2.0, "leave one out": estimators.leave_one_out}


@pytest.mark.parametrize("name", BASELINES)
def test_score_function_is_unbiased_on_a_discrete_latent(name):
    check_mean(gradients(BASELINES[name]), np.asarray(jax.grad(exact)(LOGITS)), sees=0.3)


def test_value_is_the_mean():
    values = jnp.asarray([1.0, 4.0])
    assert estimators.score_function(values, jnp.asarray([-3.0, -2.0]), 7.0) == pytest.approx(2.5)


def biased_by_own_value(values):
    """Each draw's own value as its baseline: not independent of it."""
    return jax.lax.stop_gradient(values)


def without_direct(logits, key, baseline):
    z = jax.random.categorical(key, logits, shape=(NUM,))
    return estimators.score_function(reward(jax.lax.stop_gradient(logits), z), jax.nn.log_softmax(logits)[z])


@pytest.mark.parametrize(("baseline", "function"), [(biased_by_own_value, surrogate), (None, without_direct)])
def test_biased_estimators_are_caught(baseline, function):
    with pytest.raises(AssertionError):
        check_mean(gradients(baseline, function), np.asarray(jax.grad(exact)(LOGITS)))


def test_baselines_lower_the_variance():
    spread = {name: gradients(baseline).var(axis=0).sum() for name, baseline in BASELINES.items()}
    assert spread["leave one out"] < 0.6 * spread["none"]
    assert spread["constant"] < 0.6 * spread["none"]


def variance(baseline):
    """Of (f − b) ∇ log q for one draw, by enumeration, per parameter."""
    q = np.asarray(jax.nn.softmax(LOGITS), np.float64)
    scores = np.eye(4) - q[None]
    terms = (np.asarray(VALUES)[:, None] - baseline) * scores
    return q @ terms**2 - (q @ terms) ** 2


def test_best_baseline_has_the_least_variance():
    q = jax.nn.softmax(LOGITS)
    scores = (jnp.eye(4) - q[None]) * jnp.sqrt(q)[:, None]
    best = np.asarray(estimators.best_baseline(VALUES, scores), np.float64)
    for other in (0.0, float(q @ VALUES), best + 0.1, best - 0.1):
        assert np.all(variance(best) <= variance(other) + 1e-9)


def gaussian(kind):
    """Estimates of ∇ E[z³ + µ] by (µ, log σ), (REPEATS, 2), at µ = ½, σ = e^−1."""

    def one(theta, key):
        mean, log_std = theta
        z = estimators.reparameterize(key, mean[None], log_std[None], NUM)[:, 0]
        if kind == "reparameterized":
            return jnp.mean(z**3 + mean)
        z = jax.lax.stop_gradient(z)
        log_probs = jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(log_std))
        return estimators.score_function(z**3 + mean, log_probs, estimators.leave_one_out(z**3))

    theta = (jnp.asarray(0.5), jnp.asarray(-1.0))
    found = jax.jit(jax.vmap(jax.grad(one), (None, 0)))(theta, jax.random.split(KEY, REPEATS))
    return np.stack([np.asarray(leaf) for leaf in found], axis=1)


@pytest.mark.parametrize("kind", ["reparameterized", "score"])
def test_both_estimators_are_unbiased_on_a_gaussian(kind):
    # E z³ = µ³ + 3µσ², so the derivatives are 3µ² + 3σ² + 1 and 6µσ².
    mean, variance = 0.5, np.exp(-2.0)
    check_mean(gaussian(kind), [3 * mean**2 + 3 * variance + 1, 6 * mean * variance], sees=0.3)


def test_reparameterization_has_less_variance():
    assert np.all(gaussian("reparameterized").var(axis=0) < gaussian("score").var(axis=0))


def test_draws_do_not_depend_on_their_number():
    draw = [estimators.reparameterize(KEY, jnp.zeros(3), jnp.zeros(3), num) for num in (2, 5)]
    np.testing.assert_array_equal(draw[0], draw[1][:2])


def test_one_draw_has_no_others():
    with pytest.raises(ValueError, match=r"`len\(values\)` must be at least 2, got 1"):
        estimators.leave_one_out(jnp.ones(1))
