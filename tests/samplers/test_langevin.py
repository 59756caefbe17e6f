"""Unadjusted Langevin against its own exact law on Gaussians."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat

from jgen.sampler import run
from jgen.samplers import langevin

STD = 1.5


def _log_density(x: Any) -> Any:
    return -0.5 * (x / STD) ** 2


def _ends(step_size: float, move: Any = None, num_steps: int = 200) -> np.ndarray:
    kernel = langevin.sampler(_log_density, step_size)

    def chain(key: Any) -> Any:
        return run(key, kernel, kernel.init(key, jnp.zeros(())), num_steps)[0].position

    return np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(3), 40_000)))


def _law(step_size: float) -> float:
    return STD**2 / (1 - step_size / (2 * STD**2))


@pytest.mark.parametrize("step_size", [0.2, 1.0, 3.0])
def test_variance_is_its_own_biased_law(step_size: float) -> None:
    ends = _ends(step_size)
    stat.check_mean(ends**2, _law(step_size), sees=0.1 * _law(step_size))
    stat.check_mean(ends, 0.0, sees=0.1 * STD * np.sqrt(_law(step_size)))
    if step_size > 0.5:
        with pytest.raises(AssertionError, match="z ="):
            stat.check_mean(ends**2, STD**2)  # and not that of the target


def test_recursion_of_mean_and_variance_from_a_point() -> None:
    """From x₀: E = a^t x₀, V = 2ε (1 − a^{2t})/(1 − a²), a = 1 − ε/σ²."""
    step_size, num_steps, start = 0.3, 4, 5.0
    kernel = langevin.sampler(_log_density, step_size)
    ends = jax.jit(jax.vmap(lambda key: run(key, kernel, kernel.init(key, jnp.asarray(start)), num_steps)[0].position))(
        jax.random.split(jax.random.key(0), 40_000)
    )
    a = 1 - step_size / STD**2
    variance = 2 * step_size * (1 - a ** (2 * num_steps)) / (1 - a**2)
    x = np.asarray(ends)
    stat.check_mean(np.stack([x, (x - a**num_steps * start) ** 2], 1), [a**num_steps * start, variance], sees=0.2)


def test_noise_of_half_the_variance_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def mutant(key: Any, position: Any, gradient: Any, step_size: Any) -> Any:
        return position + step_size * gradient + jnp.sqrt(step_size) * jax.random.normal(key)

    monkeypatch.setattr(langevin, "move", mutant)
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(_ends(1.0) ** 2, _law(1.0))


def test_pytrees_states_and_finite_tails() -> None:
    def log_density(z: Any) -> Any:
        return -0.5 * jnp.sum(z["a"] ** 2) - 2.0 * z["b"] ** 2

    kernel = langevin.sampler(log_density, 0.1)
    state = kernel.init(jax.random.key(0), {"a": jnp.full(3, 100.0), "b": jnp.asarray(-100.0)})
    np.testing.assert_allclose(state.gradient["b"], 400.0)
    end, norms = run(jax.random.key(1), kernel, state, 300, keep=lambda state, info: info.gradient_norm)
    assert norms[0] > 400
    assert norms[-1] < 20
    assert float(jnp.abs(end.position["a"]).max()) < 6
    np.testing.assert_allclose(end.log_density, log_density(end.position), rtol=1e-5)


@pytest.mark.parametrize("step_size", [0.0, -0.1, float("nan")])
def test_step_size_must_be_positive(step_size: float) -> None:
    with pytest.raises(ValueError, match="`step_size` must be positive"):
        langevin.sampler(_log_density, step_size)
