"""Annealed importance sampling: E[w] = Z₁/Z₀ at three temperatures, both directions, and its mutants."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat

from jgen.sampler import Sampler, run
from jgen.samplers import annealed_importance as ais
from jgen.samplers import gibbs, metropolis

NUM = 50_000
WELL_Z = 0.947837833  # ∫ exp(−4(x² − 1)²) dx by quadrature in float64


def _log_base(x: Any) -> Any:
    return -0.5 * x**2


def _log_well(x: Any) -> Any:
    return -4 * jnp.square(jnp.square(x) - 1)


def _path() -> ais.Path:
    def kernel(log_density: Any) -> Any:
        return metropolis.sampler(log_density, metropolis.random_walk(0.7))

    return ais.geometric(_log_base, _log_well, kernel)


def _well_draws(num: int) -> Any:
    """Exact draws by inverting the distribution function on a grid."""
    x = np.linspace(-2.5, 2.5, 200_001)
    cdf = np.cumsum(np.exp(-4 * (x**2 - 1) ** 2))
    return jnp.asarray(np.interp(np.random.default_rng(0).random(num), cdf / cdf[-1], x), jnp.float32)


@functools.cache
def _log_weights(num_steps: int, reverse: bool = False) -> np.ndarray:
    betas = ais.temperatures([num_steps], [0, 1])
    start = _well_draws(NUM) if reverse else jax.random.normal(jax.random.key(0), (NUM,))
    walk = jax.jit(lambda key, start: ais.anneal(key, _path(), start, betas[::-1] if reverse else betas))
    return np.asarray(walk(jax.random.key(1), start).log_weights, np.float64)


RATIO = WELL_Z / np.sqrt(2 * np.pi)


@pytest.mark.parametrize("num_steps", [1, 3, 5, 20])
def test_weights_are_unbiased_at_any_number_of_temperatures(num_steps: int) -> None:
    stat.check_mean(np.exp(_log_weights(num_steps)), RATIO, sees=0.15 * RATIO)


@pytest.mark.parametrize("num_steps", [3, 60])
def test_reverse_weights_are_unbiased_and_bound_from_above(num_steps: int) -> None:
    weights = _log_weights(num_steps, True)
    assert -np.mean(weights) > np.log(RATIO) > np.mean(_log_weights(num_steps))
    if num_steps == 60:  # with 3 the weights' tails are too heavy for a test of their mean
        stat.check_mean(np.exp(weights), 1 / RATIO, sees=0.3 / RATIO)


@pytest.mark.parametrize("mutant", ["kernel before weight", "kernel of the next temperature", "sum of targets"])
def test_wrong_order_fails(mutant: str) -> None:
    right = _path()

    def step(key: Any, x: Any, old: Any, new: Any, after: Any) -> tuple[Any, Any]:
        kernel = right.kernel(after if mutant == "kernel of the next temperature" else new)
        moved = kernel.step(key, kernel.init(key, x))[0].position
        if mutant == "kernel before weight":
            return moved, right.increment(moved, old, new)
        if mutant == "sum of targets":
            return moved, new * jax.vmap(_log_well)(x) - old * jax.vmap(_log_base)(x)
        return moved, right.increment(x, old, new)

    @jax.jit
    def walk(key: Any, x: Any) -> Any:
        total, betas = jnp.zeros(NUM), jnp.asarray([0.0, 1 / 3, 2 / 3, 1.0, 1.0])
        for i in range(3):
            x, term = step(jax.random.fold_in(key, i), x, *betas[i : i + 3])
            total = total + term
        return total

    log_weights = np.asarray(walk(jax.random.key(1), jax.random.normal(jax.random.key(0), (NUM,))), np.float64)
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(np.exp(log_weights), RATIO)


def test_chains_end_where_their_weights_say() -> None:
    betas = ais.temperatures([20], [0, 1])
    found = jax.jit(lambda key: ais.anneal(key, _path(), jax.random.normal(key, (NUM,)), betas))(jax.random.key(4))
    w, y = np.exp(np.asarray(found.log_weights, np.float64)), np.asarray(found.position, np.float64)
    stat.check_mean(w * (y**2 - 0.917670861), 0.0, sees=0.1 * RATIO)  # E x² of the well by quadrature


def test_sandwich_closes_with_more_temperatures() -> None:
    draws = jax.random.normal(jax.random.key(0), (500,)), _well_draws(500)

    @functools.partial(jax.jit, static_argnums=1)
    def both(key: Any, num: int) -> Any:
        log_z0 = 0.5 * jnp.log(2 * jnp.pi)
        betas = ais.temperatures([num], [0, 1])
        return ais.sandwich(key, _path(), *draws, betas, log_base_normalizer=log_z0)

    found = both(jax.random.key(2), 300)
    assert abs(float(found.forward) - np.log(WELL_Z)) < 0.05
    assert abs(float(found.reverse) - np.log(WELL_Z)) < 0.05
    np.testing.assert_allclose(found.gap, found.reverse - found.forward, rtol=1e-6)
    assert np.all(np.asarray(found.ess) > 400)
    assert np.all(np.asarray(found.ess) <= 500)
    assert np.all(np.asarray(found.standard_error) < 0.03)


def _bounds(key: Any, betas: Any) -> ais.Sandwich:
    draws = jax.random.normal(jax.random.key(0), (300,)), _well_draws(300)
    return ais.sandwich(key, _path(), *draws, betas, log_base_normalizer=0.5 * np.log(2 * np.pi))


def test_temperatures_are_doubled_until_the_bounds_agree() -> None:
    first = ais.temperatures([1, 1], [0, 0.8, 1])
    found = ais.double(jax.random.key(3), _bounds, first, tolerance=0.1)
    assert found.converged
    assert len(found.gaps) == len(found.counts) > 1
    assert found.counts == tuple(2 * 2**r for r in range(len(found.counts)))
    assert abs(found.gaps[-1]) <= 0.1
    assert float(jnp.max(found.sandwich.standard_error)) <= 0.1
    again = jax.jit(lambda key: _bounds(key, found.betas))(jax.random.fold_in(jax.random.key(3), len(found.gaps) - 1))
    np.testing.assert_allclose(again.gap, found.gaps[-1], atol=1e-6)
    np.testing.assert_allclose(found.sandwich.forward, np.log(WELL_Z), atol=0.15)
    short = ais.double(jax.random.key(3), _bounds, first, tolerance=1e-6, max_doublings=1)
    assert not short.converged
    assert short.counts == (2, 4)
    with pytest.raises(ValueError, match=r"`tolerance` must be positive, got 0\.0"):
        ais.double(jax.random.key(0), _bounds, first, tolerance=0.0)
    with pytest.raises(ValueError, match="`max_doublings` must be at least 0, got -1"):
        ais.double(jax.random.key(0), _bounds, first, tolerance=0.1, max_doublings=-1)


def test_refining_halves_every_step() -> None:
    np.testing.assert_allclose(ais.refine([0.0, 0.5, 0.9, 1.0]), [0, 0.25, 0.5, 0.7, 0.9, 0.95, 1])
    assert ais.refine(ais.temperatures())[-1] == 1
    assert len(ais.refine(ais.temperatures())) == 29_001


def test_increments_are_summed_without_loss() -> None:
    """20,000 increments of 1e-3 on a weight of 10,000: a plain float32 sum loses some."""
    path = ais.Path(lambda x, old, new: jnp.full_like(x, 1e-3), lambda beta: _still())
    walk = ais.sampler(path, np.linspace(0, 1, 20_001))
    state = walk.init(jax.random.key(0), jnp.zeros(2))._replace(log_weights=jnp.full(2, 1e4))
    end = jax.jit(lambda key: run(key, walk, state, 20_000)[0])(jax.random.key(0))
    np.testing.assert_allclose(ais.summarize(end).log_weights, 1e4 + 20_000 * np.float32(1e-3), rtol=2e-7)
    plain = np.float32(1e4)
    for _ in range(20_000):
        plain = np.float32(plain + np.float32(1e-3))
    assert abs(plain - 10_020) > 0.3


def _still() -> Sampler[gibbs.State]:
    return Sampler(lambda key, x: gibbs.State(x), lambda key, state: (state, None))


def test_summary_of_weights() -> None:
    log_weights = jnp.asarray([0.0, np.log(3.0), -1000.0, 5.0])
    state = ais.State(jnp.zeros(4), log_weights, jnp.zeros(4), jnp.asarray(1))
    w = np.array([1.0, 3.0, 0.0, np.exp(5.0)])
    found = ais.summarize(state)
    np.testing.assert_allclose(found.log_ratio, np.log(w.mean()), rtol=1e-6)
    np.testing.assert_allclose(found.ess, w.sum() ** 2 / (w**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(found.standard_error, w.std(ddof=1) / 2 / w.mean(), rtol=1e-5)


def test_temperatures_and_bad_arguments() -> None:
    betas = ais.temperatures()
    assert len(betas) == 14_501
    assert betas[0] == 0
    assert betas[-1] == 1
    assert np.all(np.diff(betas) > 0)
    np.testing.assert_allclose(betas[[500, 4500]], [0.5, 0.9])
    for edges in ([0.1, 1.0], [0.0, 0.9], [0.0, 0.0, 1.0], [0.0]):
        with pytest.raises(ValueError, match="`edges` must rise from 0 to 1"):
            ais.temperatures([3] * (len(edges) - 1), edges)
    with pytest.raises(ValueError, match="`counts` must be 1 positive numbers"):
        ais.temperatures([0], [0, 1])
    for bad in ([0.0], [0.0, 1.5], [[0.0, 1.0]], [0.0, np.nan]):
        with pytest.raises(ValueError, match="`betas` must be at least two numbers"):
            ais.sampler(_path(), bad)
