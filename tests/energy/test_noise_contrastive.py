"""Noise-contrastive estimation: a Gaussian's parameters and its log-normalizer come back, whatever the noise ratio."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
import stat_checks as stat
from flax import linen as nn

from jgen.energy import noise_contrastive as nce
from jgen.nets.mlp import MLP
from jgen.nets.scalar import Tilted

MEAN, STD = 0.7, 0.6
TRUTH = {"mean": MEAN, "log_precision": -2 * math.log(STD), "log_z": 0.5 * math.log(2 * math.pi * STD**2)}


class Parabola(nn.Module):
    """E = ½·precision·(x − mean)²."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        mean = self.param("mean", nn.initializers.zeros, ())
        log_precision = self.param("log_precision", nn.initializers.zeros, ())
        return 0.5 * jnp.exp(log_precision) * jnp.sum(jnp.square(x - mean), axis=1)


def params_of(flat: Any) -> nce.Normalized:
    """(mean, log precision, c) as parameters."""
    return nce.Normalized({"mean": flat[0], "log_precision": flat[1]}, flat[2])


def quantiles(law: Any, num: int = 4_000) -> Any:
    """The middles of `num` parts of equal mass: means over them are integrals."""
    return jnp.asarray(law.ppf((np.arange(num) + 0.5) / num))[:, None]


def recovered(ratio: int) -> np.ndarray:
    """The minimum of the population's objective, by Newton's method in float64 from a nearby start."""
    noise_law: Any = scipy.stats.norm(0.0, 1.5)
    with jax.enable_x64(True):
        data, drawn = quantiles(scipy.stats.norm(MEAN, STD)), quantiles(noise_law)
        log_q = jnp.asarray(noise_law.logpdf(data[:, 0])), jnp.asarray(noise_law.logpdf(drawn[:, 0]))

        def value(flat: Any) -> Any:
            density = functools.partial(nce.log_density, params_of(flat), module=Parabola())
            return nce.objective(density(data) - log_q[0], density(drawn) - log_q[1], ratio)

        step = jax.jit(lambda flat: flat - jnp.linalg.solve(jax.hessian(value)(flat), jax.grad(value)(flat)))
        flat = jnp.array(list(TRUTH.values())) + jnp.array([0.1, -0.15, 0.1])
        for _ in range(8):
            flat = step(flat)
        return np.asarray(flat)


def test_the_minimum_is_the_gaussian_with_its_normalizer() -> None:
    np.testing.assert_allclose(recovered(5), list(TRUTH.values()), atol=1e-3)


objective = nce.objective
MUTANTS = {
    "log ν forgotten": lambda data, drawn, ratio: objective(data, drawn, ratio) if ratio == 1 else (
        -jnp.mean(jax.nn.log_sigmoid(data)) - ratio * jnp.mean(jax.nn.log_sigmoid(-drawn))
    ),
    "noise counted once": lambda data, drawn, ratio: (
        -jnp.mean(jax.nn.log_sigmoid(data - math.log(ratio))) - jnp.mean(jax.nn.log_sigmoid(math.log(ratio) - drawn))
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_have_another_minimum(monkeypatch: Any, mutant: str) -> None:
    monkeypatch.setattr(nce, "objective", MUTANTS[mutant])
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(recovered(5), list(TRUTH.values()), atol=1e-3)


def test_expected_gradient_at_the_truth_is_zero() -> None:
    """Over draws of the data and of the noise; with the normalizer off by a tenth it is not."""
    noise = nce.gaussian(jnp.asarray(np.random.default_rng(0).normal(0.0, 1.5, (200, 1)), jnp.float32))

    @jax.jit
    def gradients(truth: Any) -> Any:
        def one(key: Any) -> Any:
            data_key, key = jax.random.split(key)
            batch = {"x": MEAN + STD * jax.random.normal(data_key, (32, 1))}

            def value(flat: Any) -> Any:
                return nce.loss(key, params_of(flat), {}, batch, module=Parabola(), noise=noise, ratio=3)[0]

            return jax.grad(value)(truth)

        return jax.vmap(one)(jax.random.split(jax.random.key(0), 4_000))

    truth = jnp.array(list(TRUTH.values()))
    stat.check_mean(gradients(truth), 0.0, sees=0.05)
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(gradients(truth + jnp.array([0.0, 0.0, 0.1])))


def test_gaussian_noise_against_scipy() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2)) @ np.array([[1.0, 0.8], [0.0, 0.5]]) + 2.0
    noise = nce.gaussian(jnp.asarray(x, jnp.float32), widening=2.0)
    normal: Any = scipy.stats.multivariate_normal
    law = normal(x.mean(0), 4 * np.cov(x.T))
    np.testing.assert_allclose(noise.log_prob(jnp.asarray(x[:9], jnp.float32)), law.logpdf(x[:9]), rtol=1e-4)
    draws = np.asarray(jax.jit(jax.vmap(noise.sample))(jax.random.split(jax.random.key(0), 20_000)))
    stat.check_mean(draws, law.mean, sees=0.2)
    away = draws - law.mean
    stat.check_mean(away[:, :, None] * away[:, None], law.cov, sees=0.5)


def test_samples_by_importance_resampling_follow_the_model() -> None:
    noise = nce.gaussian(jnp.asarray(np.random.default_rng(0).normal(0.0, 1.5, (200, 1)), jnp.float32))
    params = params_of(jnp.array(list(TRUTH.values())))
    draw = functools.partial(nce.sample, module=Parabola(), noise=noise, num_proposals=300)
    x = np.asarray(jax.jit(draw, static_argnums=2)(jax.random.key(0), params, 8_000))[:, 0]
    stat.check_cdf(x, scipy.stats.norm(MEAN, STD).cdf, sees=0.07)


def test_learning_recovers_the_gaussian() -> None:
    """From 4,000 draws, within the standard errors of an estimate whose classifier sees every draw many times."""
    x = MEAN + STD * np.random.default_rng(1).normal(size=(4_000, 1))
    noise = nce.gaussian(jnp.asarray(x, jnp.float32), widening=1.5)
    model = nce.model(Parabola(), optax.adam(optax.linear_schedule(0.05, 0.0, 400)), noise=noise, ratio=4)
    batch = {"x": jnp.asarray(x, jnp.float32)}
    state = jax.jit(model.init)(jax.random.key(0), batch)
    keys = jax.random.split(jax.random.key(1), 400)
    state, metrics = jax.jit(lambda s: jax.lax.scan(lambda s, k: model.update(k, s, batch), s, keys))(state)
    # The maximum-likelihood errors are σ/√n, √(2/n) and √(1/2n); the classifier's are at most three times as large.
    errors = 3 * np.array([STD, math.sqrt(2), math.sqrt(0.5)]) / math.sqrt(len(x))
    found = np.array([state.params.energy["mean"], state.params.energy["log_precision"], state.params.log_z])
    assert np.all(np.abs(found - list(TRUTH.values())) < stat.threshold(3) * errors)
    assert 0.5 < float(metrics["accuracy"][-1]) < 1.0


def test_losses_stay_finite_where_the_classifier_is_certain() -> None:
    assert np.isfinite(nce.objective(jnp.array([1e4, -1e4]), jnp.array([1e4, -1e4]), 2.0))
    noise = nce.gaussian(jnp.asarray(np.random.default_rng(0).normal(size=(9, 2)), jnp.float32))
    model = nce.model(Tilted(MLP((4, 1))), optax.sgd(1e-3), noise=noise)
    batch = {"x": jnp.array([[1e3, -1e3], [0.0, 0.0]])}
    step = jax.jit(lambda key: model.update(key, model.init(key, batch), batch))
    state, metrics = step(jax.random.key(0))
    assert np.isfinite(metrics["loss"])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nce.gaussian(jnp.zeros((1, 2))), r"`len\(x\)` must be at least 2, got 1"),
        (lambda: nce.gaussian(jnp.ones((5, 2))), "`x` must vary in all of its 2 dimensions"),
        (lambda: nce.model(MLP((1,)), optax.sgd(0.1), noise=nce.Noise(jnp.exp, jnp.exp), ratio=0), "`ratio` must be"),
        (
            lambda: nce.model(MLP((1,)), optax.sgd(0.1), noise=nce.Noise(jnp.exp, jnp.exp), num_proposals=0),
            "`num_proposals` must be at least 1, got 0",
        ),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
