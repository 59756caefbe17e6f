"""The deep energy: its update against the likelihood's gradient by quadrature, its chains' law, its learned density."""

import functools
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import stat_checks as stat
from flax import linen as nn

from jgen import linen
from jgen.energy import ebm
from jgen.learners import replay
from jgen.math import quadrature
from jgen.nets.mlp import MLP
from jgen.nets.scalar import Tilted

NODES = quadrature.box(-6.0, 6.0, 601, 1)
MODULE = Tilted(MLP((5, 1), jnp.tanh), 1.2)
DATA = jnp.asarray(np.random.default_rng(0).normal(0.5, 0.8, (16, 1)), jnp.float32)
LAZY = ebm.langevin_kernel(1e-10)
"""A kernel that leaves its chains where they are, but for rounding."""


class Spring(nn.Module):
    """E = ½·stiffness·x²."""

    stiffness: float

    @nn.compact
    def __call__(self, x: Any) -> Any:
        shift = self.param("shift", nn.initializers.zeros, ())
        return 0.5 * self.stiffness * jnp.sum(jnp.square(x - shift), axis=1)


def test_chains_have_the_law_of_their_step_size_and_temperature() -> None:
    """x ← (1 − αk)x + √(2αT)ξ keeps the variance 2αT/(1 − (1 − αk)²), which is T/k for small α."""
    step_size, temperature, stiffness, num = 0.2, 0.25, 2.0, 20_000
    chains = ebm.Chains(ebm.langevin_kernel(step_size, temperature), temperature, num_sample_steps=30)
    energy = functools.partial(ebm.energy, {"shift": jnp.zeros(())}, module=Spring(stiffness))
    x = np.asarray(jax.jit(lambda key: ebm.sample(key, chains, energy, jnp.zeros((1, 1)), num))(jax.random.key(0)))
    variance = 2 * step_size * temperature / (1 - (1 - step_size * stiffness) ** 2)
    stat.check_mean(x[:, 0] ** 2, variance, sees=0.15 * variance)
    stat.check_mean(x[:, 0], 0.0, sees=0.1)
    for wrong in (0.8 * variance, variance / temperature, temperature / stiffness):
        with pytest.raises(AssertionError, match="z ="):
            stat.check_mean(x[:, 0] ** 2, wrong)


def test_temperature_of_step_and_noise() -> None:
    step_size, noise_std = 1.0, 0.01
    found = ebm.temperature_of(step_size, noise_std)
    assert found == pytest.approx(5e-5)
    assert np.sqrt(2 * step_size * found) == pytest.approx(noise_std)


def mean_update(temperature: float = 1.0, restart_rate: float = 0.0, **settings: Any) -> tuple[Any, np.ndarray]:
    """(parameters, updates (keys, parameters)) from buffers of exact draws, with a learning rate of 1."""
    chains = ebm.Chains(LAZY, temperature, 32, 32, restart_rate=restart_rate, num_steps=1)
    model = ebm.model(MODULE, (1,), optax.sgd(1.0), chains=chains, **settings)
    state = jax.jit(model.init)(jax.random.key(0), {"x": DATA})
    flat, unflatten = jax.flatten_util.ravel_pytree(state.params)
    flat = jnp.asarray(np.random.default_rng(1).normal(size=flat.shape), jnp.float32)
    params = unflatten(flat)
    mass = ebm.log_density(params, NODES.points, module=MODULE, temperature=temperature)

    def move(key: Any) -> Any:
        draw_key, key = jax.random.split(key)
        buffer = NODES.points[jax.random.categorical(draw_key, mass, shape=(32,))]
        start = state._replace(params=params, chains=replay.begin(buffer, 32))
        return jax.flatten_util.ravel_pytree(model.update(key, start, {"x": DATA})[0].params)[0] - flat

    return params, np.asarray(jax.jit(jax.vmap(move))(jax.random.split(jax.random.key(2), 2_000)))


def likelihood_gradient(params: Any, temperature: float, energy_weight: float = 0.0) -> np.ndarray:
    """∇ T·(mean log p(data) − λ(mean E(data)² + E_p E²)), the expectation by quadrature with p held fixed."""
    density = functools.partial(ebm.log_density, module=MODULE, temperature=temperature)
    law = jax.nn.softmax(density(params, NODES.points) + NODES.log_weights)

    def objective(params: Any) -> Any:
        log_z = ebm.log_partition(params, NODES, module=MODULE, temperature=temperature)
        known, drawn = (ebm.energy(params, x, module=MODULE) for x in (DATA, NODES.points))
        squares = jnp.mean(known**2) + jnp.sum(law * drawn**2)
        return temperature * (jnp.mean(density(params, DATA)) - log_z) - energy_weight * squares

    return np.asarray(jax.flatten_util.ravel_pytree(jax.jit(jax.grad(objective))(params))[0])


def test_expected_update_from_exact_draws_is_the_likelihood_gradient() -> None:
    """And neither that of another temperature nor that of another weight of the squares."""
    params, moves = mean_update(2.0, energy_weight=0.1)
    stat.check_mean(moves, likelihood_gradient(params, 2.0, 0.1), sees=0.3)
    for wrong in ((1.0, 0.1), (2.0, 0.0)):
        with pytest.raises(AssertionError, match="z ="):
            stat.check_mean(moves, likelihood_gradient(params, *wrong))


def test_chains_that_all_start_anew_have_another_gradient() -> None:
    params, moves = mean_update(restart_rate=1.0)
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(moves, likelihood_gradient(params, 1.0))


def target(x: Any) -> Any:
    """log p of two equal Gaussians of standard deviation 0.5 at (±1.2, 0)."""
    away = [-2 * jnp.sum(jnp.square(x - jnp.array([[c, 0.0]])), axis=1) for c in (-1.2, 1.2)]
    return jnp.logaddexp(*away) - jnp.log(2 * 2 * jnp.pi * 0.25)


def test_the_learned_plane_has_its_targets_density_by_quadrature() -> None:
    """KL(target ‖ model) falls below a tenth of that of the best Gaussian, which is ½ log det Σ + log 2πe − entropy."""
    nodes = quadrature.box(-4.0, 4.0, 81, 2)
    chains = ebm.Chains(ebm.langevin_kernel(0.05), num=128, buffer_size=1_024, num_steps=10)
    optimizer = optax.adam(optax.linear_schedule(2e-2, 0.0, 600))
    model = ebm.model(Tilted(MLP((16, 16, 1), nn.silu), 2.0), (2,), optimizer, chains=chains, nodes=nodes)

    def draw(key: Any) -> Any:
        side_key, noise_key = jax.random.split(key)
        side = jax.random.rademacher(side_key, (128, 1), jnp.float32)
        return {"x": 0.5 * jax.random.normal(noise_key, (128, 2)) + side * jnp.array([[1.2, 0.0]])}

    def learn(state: Any, key: Any) -> Any:
        data_key, key = jax.random.split(key)
        return model.update(key, state, draw(data_key))[0], None

    assert model.log_prob is not None
    state = jax.jit(model.init)(jax.random.key(0), draw(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), 600)
    state, _ = jax.jit(lambda state: jax.lax.scan(learn, state, keys))(state)
    log_p = np.asarray(target(nodes.points), np.float64)
    mass = np.exp(log_p + np.asarray(nodes.log_weights))
    assert abs(mass.sum() - 1) < 1e-3
    divergence = np.sum(mass * (log_p - np.asarray(jax.jit(model.log_prob)(state, {"x": nodes.points}))))
    entropy, variances = -np.sum(mass * log_p), np.array([0.25 + 1.2**2, 0.25])
    gaussian = 0.5 * np.log(variances).sum() + np.log(2 * np.pi * np.e) - entropy
    assert 0 <= divergence + 1e-4 < 0.1 * gaussian, (divergence, gaussian)


def test_energies_and_gradients_stay_finite_far_away() -> None:
    params, _ = jax.jit(lambda key: linen.init(MODULE, key, DATA))(jax.random.key(0))
    x = jnp.array([[1e4], [-1e4], [0.0]])
    value, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(ebm.energy(params, x, module=MODULE))))(x)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num": 0}, "`num` must be at least 1, got 0"),
        ({"num": 9, "buffer_size": 8}, "`buffer_size` must be at least 9, got 8"),
        ({"num_steps": 0}, "`num_steps` must be at least 1, got 0"),
        ({"num_sample_steps": 0}, "`num_sample_steps` must be at least 1, got 0"),
        ({"temperature": 0.0}, "`temperature` must be positive, got 0.0"),
        ({"restart_rate": -0.1}, r"`restart_rate` must lie in \[0.0, 1.0\]"),
        ({"energy_weight": -1.0}, "`energy_weight` must be at least 0.0, got -1.0"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    weight = {"energy_weight": kwargs.pop("energy_weight", 0.0)}
    with pytest.raises(ValueError, match=message):
        ebm.model(MODULE, (1,), optax.sgd(0.1), chains=ebm.Chains(LAZY, **kwargs), **weight)


def test_bad_data() -> None:
    model = ebm.model(MODULE, (2,), optax.sgd(0.1), chains=ebm.Chains(LAZY))
    with pytest.raises(ValueError, match=r"`x` must have examples of shape \(2,\), got \(1,\)"):
        model.init(jax.random.key(0), {"x": DATA})
