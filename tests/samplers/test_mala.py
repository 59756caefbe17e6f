"""MALA: its ratio from the proposal's two densities, its identity with one leapfrog step, and broken kernels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import stat_checks as stat
from cases import SAMPLERS
from sampler_checks import check_caught

from jgen.sampler import Sampler, parallel, run
from jgen.samplers import hmc, langevin, mala

CASE = next(case for case in SAMPLERS if case.name == "mala")
STEP = 0.4


def _banana(z: Any) -> Any:
    return -(z[0] ** 2) / 8 - 0.5 * (z[1] - (z[0] ** 2 - 4) / 2) ** 2


@pytest.mark.parametrize("mass", [1.0, np.array([0.4, 2.5])])
def test_ratio_is_that_of_the_proposals_densities(mass: Any) -> None:
    """−energy_error = log π(x') q(x|x') − log π(x) q(x'|x), q(·|x) = N(x + ε M⁻¹ g, 2ε M⁻¹) by SciPy."""
    size = 0.3
    with jax.enable_x64(True):
        kernel = mala.sampler(_banana, size, inverse_mass=mass)
        x = jnp.asarray([0.8, -1.1])
        tried = 0
        for seed in range(20):
            state, info = kernel.step(jax.random.key(seed), kernel.init(jax.random.key(0), x))
            if not bool(info.accepted):
                continue
            y, std = state.position, np.sqrt(2 * size * np.broadcast_to(mass, 2))
            there = scipy.stats.norm.logpdf(y, x + size * mass * jax.grad(_banana)(x), std).sum()
            back = scipy.stats.norm.logpdf(x, y + size * mass * jax.grad(_banana)(y), std).sum()
            expected = _banana(y) - _banana(x) + back - there
            np.testing.assert_allclose(-info.energy_error, expected, atol=1e-11)
            np.testing.assert_allclose(info.accept_prob, min(1.0, np.exp(expected)), atol=1e-11)
            np.testing.assert_allclose(state.gradient, jax.grad(_banana)(y), atol=1e-12)
            tried += 1
        assert tried > 5


def test_is_hamiltonian_monte_carlo_with_one_step() -> None:
    mass = jnp.asarray([0.4, 2.5])
    one = hmc.sampler(_banana, float(np.sqrt(2 * STEP)), 1, inverse_mass=mass)
    kernel = mala.sampler(_banana, STEP, inverse_mass=mass)

    def keep(state: Any, info: Any) -> Any:
        return state, info.accepted, info.energy_error

    start = kernel.init(jax.random.key(0), jnp.asarray([0.1, -2.0]))
    found = jax.jit(lambda: run(jax.random.key(1), kernel, start, 50, keep=keep)[1])()
    expected = jax.jit(lambda: run(jax.random.key(1), one, start, 50, keep=keep)[1])()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), found, expected)


def _mutants(right: Sampler[Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    displace, ratio = langevin.displace, mala.log_proposal_ratio

    def patched(module: Any, name: str, value: Any) -> Any:
        def make() -> Sampler[Any]:
            monkeypatch.setattr(module, name, value)
            return right

        return make

    def stale(field: str) -> Any:
        def step(key: Any, state: Any) -> Any:
            new, info = right.step(key, state)
            return new._replace(**{field: getattr(state, field)}), info

        return lambda: Sampler(right.init, step)

    return {
        "noise of half the variance": patched(
            langevin, "displace", lambda x, g, n, size: displace(x, g, n / np.sqrt(2), size)
        ),
        "no ratio of the proposals": patched(mala, "log_proposal_ratio", lambda n, g, h, size: jnp.zeros(())),
        "ratio with its sign flipped": patched(mala, "log_proposal_ratio", lambda n, g, h, size: -ratio(n, g, h, size)),
        "way back with the old gradient": patched(
            mala, "log_proposal_ratio", lambda n, g, h, size: ratio(n, g, g, size)
        ),
        "accepts always": patched(mala, "judge", lambda u, error: mala.Info(u < 2, u * 0 + 1, error, u > 2)),
        "stale gradient": stale("gradient"),
        "stale log-density": stale("log_density"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "noise of half the variance",
        "no ratio of the proposals",
        "ratio with its sign flipped",
        "way back with the old gradient",
        "accepts always",
        "stale gradient",
        "stale log-density",
    ],
)
def test_broken_kernels_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = mala.sampler(CASE.log_density, STEP)
    check_caught(CASE, _mutants(right, monkeypatch)[name]())


def test_one_number_for_noise_and_test_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right, draw = mala.sampler(CASE.log_density, STEP), mala.random.normal_and_uniform

    def mutant(key: Any, position: Any) -> Any:
        noise, _ = draw(key, position)
        return noise, 0.5 * (1 + jax.lax.erf(noise / np.sqrt(2.0)))

    monkeypatch.setattr(mala.random, "normal_and_uniform", mutant)
    check_caught(CASE, right)


def test_moments_of_the_banana_and_of_20_correlated_dimensions() -> None:
    covariance = 0.6 ** np.abs(np.subtract.outer(np.arange(20), np.arange(20)))
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    noise = jax.random.normal(jax.random.key(2), (300, 2))
    banana = jnp.stack([2 * noise[:, 0], 2 * noise[:, 0] ** 2 - 2 + noise[:, 1]], axis=1)  # exact: it mixes slowly
    for log_density, starts, size, exact in (
        (lambda x: -0.5 * x @ (precision @ x), jnp.zeros((300, 20)), 0.12, np.ones(20)),
        (_banana, banana, 0.25, np.array([4.0, 9.0])),
    ):
        kernel = parallel(mala.sampler(log_density, size))
        state = kernel.init(jax.random.key(0), starts)
        go = jax.jit(lambda key, s, k=kernel: run(key, k, s, 300, keep=lambda s, i: (s.position, i.accept_prob))[1])
        draws, prob = go(jax.random.key(1), state)
        draws = np.asarray(draws)[150:]
        stat.check_mean(np.mean(draws, axis=0), 0.0, sees=np.sqrt(exact))
        stat.check_mean(np.mean(draws**2, axis=0), exact, sees=2 * exact)
        assert 0.4 < float(prob.mean()) < 0.95


def test_steps_that_are_too_large_are_flagged_and_refused() -> None:
    kernel = mala.sampler(lambda x: -0.25 * jnp.sum(x**4), 50.0)
    start = kernel.init(jax.random.key(0), jnp.full((3,), 10.0))
    state, info = kernel.step(jax.random.key(1), start)
    assert bool(info.diverging)
    assert float(info.accept_prob) == 0.0
    assert bool(jnp.all(state.position == start.position))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_values_that_are_not_finite_reject(value: Any) -> None:
    kernel = mala.sampler(lambda x: jnp.where(x > 0.5, value, -0.5 * x**2), 0.3)
    walk = jax.jit(lambda key, s: run(key, kernel, s, 300, keep=lambda s, i: (s, i)))
    _, (states, infos) = walk(jax.random.key(1), kernel.init(jax.random.key(0), jnp.asarray(0.0)))
    assert float(states.position.max()) <= 0.5
    assert bool(jnp.all(jnp.isfinite(states.log_density)))
    assert bool(jnp.any(infos.diverging & ~infos.accepted))
    assert bool(jnp.any(infos.accepted))


def test_judge_never_accepts_what_is_impossible() -> None:
    info = mala.judge(jnp.zeros(()), jnp.asarray(jnp.inf))  # u = 0 does happen
    assert not bool(info.accepted)
    assert float(info.accept_prob) == 0.0
    assert bool(mala.judge(jnp.asarray(0.999999), jnp.asarray(-5.0)).accepted)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`step_size` must be positive, got 0"):
        mala.sampler(_banana, 0)
    with pytest.raises(ValueError, match="`inverse_mass` must be positive"):
        mala.sampler(_banana, 0.1, inverse_mass=jnp.asarray([1.0, 0.0]))
