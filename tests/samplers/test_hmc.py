"""Hamiltonian Monte Carlo: the leapfrog's exact properties in float64, and kernels with one thing wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat
from cases import SAMPLERS
from sampler_checks import check_caught

from jgen.sampler import Sampler, parallel, run
from jgen.samplers import hmc, langevin

CASE = next(case for case in SAMPLERS if case.name == "hmc")
START, MOMENTUM = np.array([0.7, -0.4]), np.array([0.9, -1.3])
CORRELATED = np.array([[1.0, 0.8], [0.8, 2.0]])


def _banana(z: Any) -> Any:
    return -(z[0] ** 2) / 8 - 0.5 * (z[1] - (z[0] ** 2 - 4) / 2) ** 2


def _flow(leapfrog: Any, step_size: float = 0.1, num_steps: int = 7, inverse_mass: Any = 1.0) -> Any:
    """(x, p) -> (x', p') of the banana, on vectors of length 4."""

    def flow(xp: Any) -> Any:
        state = langevin.at(_banana, xp[:2])
        new, momentum = leapfrog(_banana, state, xp[2:], step_size, num_steps, inverse_mass=inverse_mass)
        return jnp.concatenate([new.position, momentum])

    return flow


def _no_last_kick(log_density: Any, state: Any, momentum: Any, step_size: Any, num_steps: Any, **mass: Any) -> Any:
    new, end = hmc.leapfrog(log_density, state, momentum, step_size, num_steps, **mass)
    return new, end - step_size / 2 * new.gradient


def _whole_first_kick(log_density: Any, state: Any, momentum: Any, step_size: Any, num_steps: Any, **mass: Any) -> Any:
    return hmc.leapfrog(log_density, state, momentum + step_size / 2 * state.gradient, step_size, num_steps, **mass)


def _euler(log_density: Any, state: Any, momentum: Any, step_size: Any, num_steps: int, **mass: Any) -> Any:
    for _ in range(num_steps):
        position = state.position + step_size * momentum
        momentum = momentum + step_size * state.gradient
        state = langevin.at(log_density, position)
    return state, momentum


def _check_reversible(leapfrog: Any) -> None:
    start = np.concatenate([START, MOMENTUM])
    end = _flow(leapfrog)(jnp.asarray(start))
    back = _flow(leapfrog)(end * jnp.asarray([1.0, 1.0, -1.0, -1.0]))
    np.testing.assert_allclose(back * jnp.asarray([1.0, 1.0, -1.0, -1.0]), start, atol=1e-13)


def _check_keeps_volume(leapfrog: Any, inverse_mass: Any = 1.0) -> None:
    start = jnp.asarray(np.concatenate([START, MOMENTUM]))
    jacobian = jax.jacfwd(_flow(leapfrog, inverse_mass=inverse_mass))(start)
    form = np.block([[np.zeros((2, 2)), np.eye(2)], [-np.eye(2), np.zeros((2, 2))]])
    np.testing.assert_allclose(jacobian.T @ form @ jacobian, form, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(jacobian), 1.0, atol=1e-12)


def _error_ratios(leapfrog: Any) -> np.ndarray:
    """Energy errors over one time span with 64, 128, … steps, each divided by the next: 4 for second order."""
    errors = []
    for num_steps in (64, 128, 256):
        state = langevin.at(_banana, jnp.asarray(START))
        new, end = leapfrog(_banana, state, jnp.asarray(MOMENTUM), 1.28 / num_steps, num_steps)
        errors.append(float(hmc.energy_error(state, new, jnp.asarray(MOMENTUM), end)))
    return np.array(errors[:-1]) / np.array(errors[1:])


def test_leapfrog_is_reversible_keeps_volume_and_errs_by_the_square() -> None:
    with jax.enable_x64(True):
        _check_reversible(hmc.leapfrog)
        _check_keeps_volume(hmc.leapfrog)
        _check_keeps_volume(hmc.leapfrog, inverse_mass=jnp.asarray([0.3, 2.0]))
        np.testing.assert_allclose(_error_ratios(hmc.leapfrog), 4.0, rtol=2e-3)
        # A negative step size walks the same way back.
        flow, back = _flow(hmc.leapfrog), _flow(hmc.leapfrog, step_size=-0.1)
        start = jnp.asarray(np.concatenate([START, MOMENTUM]))
        np.testing.assert_allclose(back(flow(start)), start, atol=1e-13)


def test_broken_integrators_fail() -> None:
    with jax.enable_x64(True):
        for mutant in (_no_last_kick, _whole_first_kick, _euler):
            with pytest.raises(AssertionError):
                _check_reversible(mutant)
        with pytest.raises(AssertionError):
            _check_keeps_volume(_euler)
        assert np.abs(_error_ratios(_no_last_kick) - 4).min() > 1


def test_leapfrog_written_out_and_its_two_loops() -> None:
    def slow(x: Any, p: Any, size: float, num: int, mass: Any) -> Any:
        for _ in range(num):
            p = p + size / 2 * jax.grad(_banana)(x)
            x = x + size * mass * p
            p = p + size / 2 * jax.grad(_banana)(x)
        return x, p

    with jax.enable_x64(True):
        x, p, mass = jnp.asarray(START), jnp.asarray(MOMENTUM), jnp.asarray([0.5, 2.0])
        state = langevin.at(_banana, x)
        for num_steps in (1, 5, 12):
            expected = slow(x, p, 0.07, num_steps, mass)
            for count in (num_steps, jnp.asarray(num_steps)):  # unrolled, and looped
                new, end = hmc.leapfrog(_banana, state, p, 0.07, count, inverse_mass=mass)
                np.testing.assert_allclose(new.position, expected[0], rtol=1e-12)
                np.testing.assert_allclose(end, expected[1], rtol=1e-12)
                np.testing.assert_allclose(new.gradient, jax.grad(_banana)(new.position), rtol=1e-12)
                np.testing.assert_allclose(new.log_density, _banana(new.position), rtol=1e-12)


def test_harmonic_leapfrog_keeps_its_modified_energy() -> None:
    """On N(0, σ²) it keeps p² + (x/σ)²·(1 − ε²/(4σ²)), and so without a test the variance σ²/(1 − ε²/(4σ²))."""
    std, size = 1.3, 0.9
    with jax.enable_x64(True):
        state, p = langevin.at(lambda x: -0.5 * (x / std) ** 2, jnp.asarray(0.8)), jnp.asarray(-0.5)

        def modified(x: Any, p: Any) -> Any:
            return p**2 + (x / std) ** 2 * (1 - size**2 / (4 * std**2))

        for num_steps in (1, 4, 33):
            new, end = hmc.leapfrog(lambda x: -0.5 * (x / std) ** 2, state, p, size, num_steps)
            np.testing.assert_allclose(modified(new.position, end), modified(state.position, p), rtol=1e-12)


def test_mass_is_a_change_of_coordinates() -> None:
    """With M⁻¹ = s², x/s moves as with M = 1 and momentum p·s."""
    scale = jnp.asarray([0.5, 3.0])
    state, p = langevin.at(_banana, jnp.asarray(START, jnp.float32)), jnp.asarray(MOMENTUM, jnp.float32)
    new, end = hmc.leapfrog(_banana, state, p, 0.05, 6, inverse_mass=scale**2)
    other = langevin.at(lambda y: _banana(y * scale), state.position / scale)
    plain, plain_end = hmc.leapfrog(lambda y: _banana(y * scale), other, p * scale, 0.05, 6)
    np.testing.assert_allclose(new.position, plain.position * scale, rtol=1e-4)
    np.testing.assert_allclose(end * scale, plain_end, rtol=1e-4)
    np.testing.assert_allclose(
        hmc.energy_error(state, new, p, end, inverse_mass=scale**2),
        hmc.energy_error(other, plain, p * scale, plain_end),
        atol=1e-4,
    )


def _mutant(name: str, monkeypatch: pytest.MonkeyPatch) -> Sampler[Any]:
    right = hmc.sampler(CASE.log_density, 0.7, 3)
    leapfrog = hmc.leapfrog

    def patched(target: str, value: Any) -> Sampler[Any]:
        monkeypatch.setattr(hmc, target, value)
        return right

    def stale(field: str) -> Any:
        def step(key: Any, state: Any) -> Any:
            new, info = right.step(key, state)
            return new._replace(**{field: getattr(state, field)}), info

        return Sampler(right.init, step)

    def no_last_kick(log_density: Any, state: Any, momentum: Any, step_size: Any, num: Any, **mass: Any) -> Any:
        new, end = leapfrog(log_density, state, momentum, step_size, num, **mass)
        return new, end - step_size / 2 * new.gradient

    def euler(log_density: Any, state: Any, momentum: Any, step_size: Any, num: Any, **mass: Any) -> Any:
        del mass
        return _euler(log_density, state, momentum, step_size, num)

    return {
        "no last kick": lambda: patched("leapfrog", no_last_kick),
        "Euler": lambda: patched("leapfrog", euler),
        "no kinetic energy": lambda: patched(
            "energy_error", lambda old, new, p, end, **mass: old.log_density - new.log_density
        ),
        "accepts always": lambda: patched("energy_error", lambda old, new, p, end, **mass: jnp.zeros(())),
        "stale gradient": lambda: stale("gradient"),
        "stale log-density": lambda: stale("log_density"),
    }[name]()


@pytest.mark.parametrize(
    "name", ["no last kick", "Euler", "no kinetic energy", "accepts always", "stale gradient", "stale log-density"]
)
def test_broken_kernels_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_caught(CASE, _mutant(name, monkeypatch))


def test_momentum_of_the_wrong_mass_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """p ~ N(0, M⁻¹) in place of N(0, M): the same for M = 1, wrong for any other."""
    case = next(case for case in SAMPLERS if case.name == "hmc_jitter_mass")
    kernel, draw = case.build(case.log_density), hmc.random.normal_and_uniform

    def mutant(key: Any, position: Any) -> Any:
        noise, uniform = draw(key, position)
        return {"x": noise["x"] * 0.6, "y": noise["y"] * 1.5}, uniform

    monkeypatch.setattr(hmc.random, "normal_and_uniform", mutant)
    check_caught(case, kernel)


def test_moments_of_a_correlated_gaussian_and_a_banana() -> None:
    """20 dimensions with condition 100, started at 0; and the banana's moments, both from independent chains."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0]
    covariance = (rotation * np.geomspace(0.1, 10.0, 20)) @ rotation.T
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    for log_density, dims, size, count, exact in (
        (lambda x: -0.5 * x @ (precision @ x), 20, 0.2, (10, 30), np.diag(covariance)),
        (_banana, 2, 0.25, (5, 15), np.array([4.0, 9.0])),
    ):
        kernel = parallel(hmc.sampler(log_density, size, count))
        state = kernel.init(jax.random.key(0), jnp.zeros((300, dims)))
        go = jax.jit(lambda key, s, k=kernel: run(key, k, s, 100, keep=lambda s, i: (s.position, i.accept_prob))[1])
        draws, prob = go(jax.random.key(1), state)
        draws = np.asarray(draws)[50:]
        stat.check_mean(np.mean(draws, axis=0), 0.0, sees=np.sqrt(exact))
        stat.check_mean(np.mean(draws**2, axis=0), exact, sees=exact)
        assert 0.6 < float(prob.mean()) < 1.0


def test_divergences_are_flagged_and_refused() -> None:
    def funnel(z: Any) -> Any:
        return -0.5 * (z["v"] / 3) ** 2 - 0.5 * jnp.sum(z["x"] ** 2) * jnp.exp(-z["v"]) - 0.5 * 9 * z["v"]

    kernel = hmc.sampler(funnel, 0.5, 10)
    start = kernel.init(jax.random.key(0), {"v": jnp.asarray(-8.0), "x": jnp.full((9,), 0.02)})
    state, info = jax.jit(kernel.step)(jax.random.key(1), start)
    assert bool(info.diverging)
    assert float(info.energy_error) > 1000
    assert float(info.accept_prob) == 0.0
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), state, start)))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_values_that_are_not_finite_reject(value: Any) -> None:
    def log_density(x: Any) -> Any:
        return jnp.where(x > 0.5, value, -0.5 * x**2)

    kernel = hmc.sampler(log_density, 0.5, (2, 4))
    walk = jax.jit(lambda key, s: run(key, kernel, s, 300, keep=lambda s, i: (s, i)))
    _, (states, infos) = walk(jax.random.key(1), kernel.init(jax.random.key(0), jnp.asarray(0.0)))
    assert float(states.position.max()) <= 0.5
    assert bool(jnp.all(jnp.isfinite(states.log_density)))
    assert bool(jnp.any(infos.diverging))
    assert bool(jnp.any(infos.accepted))
    assert bool(jnp.all(infos.energy_error[infos.diverging] == jnp.inf))
    assert set(np.asarray(infos.num_leapfrog)) == {2, 3, 4}


def test_acceptance_does_not_feel_a_large_constant() -> None:
    """log π + 10⁵ leaves the energy error to its rounding, 2⁻⁷ nats, and the acceptance where it was."""
    state, momentum = jnp.linspace(-1.0, 1.0, 10), jnp.linspace(1.0, -2.0, 10)

    def error(offset: Any) -> Any:
        def log_density(x: Any) -> Any:
            return offset - 0.5 * jnp.sum(x**2)

        start = langevin.at(log_density, state)
        new, end = hmc.leapfrog(log_density, start, momentum, 0.5, 5)
        return hmc.energy_error(start, new, momentum, end)

    np.testing.assert_allclose(jax.jit(error)(1e5), jax.jit(error)(0.0), atol=2 * 2**-7)


def test_density_is_traced_a_constant_number_of_times() -> None:
    for count in (1, 10, 50, (3, 30)):
        calls = []

        def log_density(x: Any, calls: Any = calls) -> Any:
            calls.append(1)
            return -0.5 * x**2

        kernel = hmc.sampler(log_density, 0.1, count)
        jax.make_jaxpr(kernel.step)(jax.random.key(0), kernel.init(jax.random.key(0), jnp.asarray(0.1)))
        assert len(calls) <= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 3), "`step_size` must be positive"),
        ((float("nan"), 3), "`step_size` must be positive"),
        ((0.1, 0), "`num_leapfrog` must be at least 1, got 0"),
        ((0.1, (4, 2)), r"`num_leapfrog` must be a range \(low, high\) with low <= high, got \(4, 2\)"),
    ],
)
def test_bad_arguments(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hmc.sampler(_banana, *arguments)


def test_bad_mass() -> None:
    with pytest.raises(ValueError, match="`inverse_mass` must be positive"):
        hmc.sampler(_banana, 0.1, 3, inverse_mass={"a": 1.0, "b": jnp.asarray([1.0, -1.0])})
