"""The linear-Gaussian β-VAE is reverse water-filling: exact distortion, rate, and price of the constraint."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.latent import beta_vae, gaussian, vae
from jgen.math import likelihoods

SPECTRUM = np.array([4.0, 2.0, 1.0, 0.5, 0.1])
NETWORKS = vae.dense((5,), likelihoods.Gaussian(1.0), 5, hidden_sizes=())
NUM_STEPS = 5_000


@functools.cache
def _data():
    """Rows whose mean is 0 and whose covariance is exactly of the spectrum, on turned axes."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((256, 5))
    x = x - x.mean(0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(x.T, bias=True)), x.T).T
    turn = np.linalg.qr(generator.standard_normal((5, 5)))[0]
    return jnp.asarray(white * np.sqrt(SPECTRUM) @ turn.T, jnp.float32)


def _water_filling(level):
    """(D, R) with d_i = min(level, λ_i): D = ½ Σ d_i, R = ½ Σ log(λ_i/d_i), nats."""
    kept = np.minimum(level, SPECTRUM)
    return 0.5 * kept.sum(), 0.5 * np.log(SPECTRUM / kept).sum()


def _train(**keywords):
    """(state, D, R) after training; D without the constant of the likelihood, the expectation over z in closed form."""
    model = beta_vae.model(NETWORKS, optax.adam(optax.cosine_decay_schedule(1e-2, NUM_STEPS)), **keywords)
    batch = {"x": _data()}

    def step(state, t):
        return model.update(jax.random.fold_in(jax.random.key(1), t), state, batch)

    state = model.init(jax.random.key(0), batch)
    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(NUM_STEPS)))(state)
    q = vae.encode(state.params, state.stats, _data(), networks=NETWORKS)
    mean = vae.decode(state.params, state.stats, q.mean, networks=NETWORKS)
    kernel = state.params["decoder"]["Dense_0"]["kernel"]
    noise = jnp.exp(2 * q.log_std) * jnp.sum(kernel**2, axis=1)[None]
    distortion = 0.5 * jnp.mean(jnp.sum((_data() - mean) ** 2, axis=1) + jnp.sum(noise, axis=1))
    rate = jnp.mean(jnp.sum(gaussian.kl_to_standard_normal(q), axis=1))
    return state, float(distortion), float(rate)


_trained = functools.cache(_train)


def test_fixed_weight_is_the_water_level():
    _, distortion, rate = _trained(beta=0.7)
    np.testing.assert_allclose((distortion, rate), _water_filling(0.7), rtol=0.01)
    np.testing.assert_allclose((distortion, rate), (1.350, 1.575), rtol=0.01)


def test_limit_is_reached_at_the_multiplier_of_its_water_level():
    state, distortion, rate = _trained(max_rate=1.5)
    price = float(beta_vae.multiplier(state.stats))
    np.testing.assert_allclose(rate, 1.5, rtol=0.02)
    np.testing.assert_allclose(price, 0.73576, rtol=0.02)
    np.testing.assert_allclose(distortion, _water_filling(0.73576)[0], rtol=0.02)
    assert price * abs(rate - 1.5) < 0.02


def test_multiplier_is_the_price_of_a_nat():
    price = float(beta_vae.multiplier(_trained(max_rate=1.5)[0].stats))
    dear, cheap = _trained(max_rate=1.65), _trained(max_rate=1.35)
    slope = (dear[1] - cheap[1]) / (dear[2] - cheap[2])
    np.testing.assert_allclose(price, -slope, rtol=0.05)


def test_idle_limit_has_no_price():
    state, _, rate = _trained(max_rate=200.0, multiplier_rate=1e-2)
    assert rate < 200.0
    np.testing.assert_allclose(beta_vae.multiplier(state.stats), np.exp(beta_vae.LOWEST), rtol=1e-3)


def _conditions(state, price, max_rate):
    many = {"x": jnp.tile(_data(), (100, 1))}
    found = beta_vae.sides(jax.random.key(2), state.params, state.stats, many, networks=NETWORKS)
    return beta_vae.conditions(found, price, max_rate)


def test_conditions_of_an_optimum_hold_at_its_multiplier_and_at_no_other():
    state, _, _ = _trained(max_rate=1.5)
    price = beta_vae.multiplier(state.stats)
    found = _conditions(state, price, 1.5)
    assert found.stationarity < 0.05
    assert found.violation < 0.03
    assert found.multiplier > 0
    assert found.slackness < 0.03
    assert _conditions(state, 2 * price, 1.5).stationarity > 0.2
    assert _conditions(state, price, 1.0).violation > 0.4
    assert _conditions(state, price, 1.0).slackness > 0.3


def test_mean_over_latents_would_be_seen(monkeypatch):
    right = gaussian.kl_to_standard_normal
    monkeypatch.setattr(gaussian, "kl_to_standard_normal", lambda q: right(q) / q.mean.shape[-1])
    _, distortion, _ = _train(beta=0.7)
    assert abs(distortion - _water_filling(0.7)[0]) > 0.5


def test_descending_multiplier_would_be_seen(monkeypatch):
    monkeypatch.setattr(beta_vae, "ascend", lambda price, mean, max_rate, rate: price - rate * (mean - max_rate))
    _, _, rate = _train(max_rate=1.5)
    assert abs(rate - 1.5) > 0.3


def test_average_is_the_mean_at_first_and_moves_later():
    values, found = np.random.default_rng(0).normal(size=300).astype(np.float32), jnp.zeros(())
    for step, value in enumerate(values):
        before = found
        found = beta_vae.average(jnp.asarray(value), found, jnp.asarray(step), 0.98)
        if step == 49:
            np.testing.assert_allclose(found, values[:50].mean(), atol=1e-6)
    np.testing.assert_allclose(found, 0.98 * before + 0.02 * values[-1], atol=1e-6)


def test_objective_is_the_lagrangian_and_its_parts_are_state():
    model, batch = beta_vae.model(NETWORKS, optax.sgd(0.0), max_rate=2.0, multiplier_rate=0.5), {"x": _data()}
    start = model.init(jax.random.key(0), batch)
    first, metrics = model.update(jax.random.key(1), start, batch)
    lagrangian = metrics["distortion"] + metrics["multiplier"] * (metrics["rate"] - 2.0)
    np.testing.assert_allclose(metrics["loss"], lagrangian, rtol=1e-6)
    np.testing.assert_allclose(metrics["multiplier"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(first.stats[beta_vae.AVERAGE], metrics["rate"], rtol=1e-6)
    moved = first.stats[beta_vae.PRICE] - start.stats[beta_vae.PRICE]
    np.testing.assert_allclose(moved, 0.5 * (metrics["rate"] - 2.0), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, first.params, start.params)
    assert "negative_elbo" in model.evaluate(jax.random.key(2), first, batch)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({}, "`beta` or `max_rate` must be given, and not both"),
        ({"beta": 1.0, "max_rate": 1.0}, "`beta` or `max_rate` must be given, and not both"),
        ({"beta": -1.0}, "`beta` must be at least 0"),
        ({"max_rate": 0.0}, "`max_rate` must be positive"),
        ({"max_rate": 1.0, "multiplier_rate": 0.0}, "`multiplier_rate` must be positive"),
        ({"max_rate": 1.0, "multiplier": 0.0}, "`multiplier` must be positive"),
        ({"max_rate": 1.0, "decay": 1.5}, r"`decay` must lie in \[0.0, 1.0\]"),
    ],
)
def test_bad_arguments_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        beta_vae.model(NETWORKS, optax.sgd(0.1), **keywords)
