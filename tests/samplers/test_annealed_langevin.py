"""Annealed Langevin: the exact recursion on Gaussians at every level, and its own law on a mixture by quadrature."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import stat_checks as stat

from jgen.sampler import Sampler, run
from jgen.samplers import annealed_langevin, langevin

MEAN, STD = 1.5, 0.7
LEVELS = annealed_langevin.noise_levels(4.0, 0.5, 4)
STEP_SIZE, STEPS = 0.05, 3
NUM = 40_000


def _gaussian_score(x: Any, sigma: Any) -> Any:
    return -(x - MEAN) / (STD**2 + sigma**2)


def _walk(kernel: Sampler[Any], start: Any, num_steps: int) -> np.ndarray:
    """Positions after every step, (NUM, num_steps)."""

    def chain(key: Any, x: Any) -> Any:
        return run(key, kernel, kernel.init(key, x), num_steps, keep=lambda state, info: state.position)[1]

    starts = jnp.broadcast_to(jnp.asarray(start, jnp.float32), (NUM,))
    return np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(1), NUM), starts))


def _recursion(start: float, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance after every step: E' = E + ε_l·(μ − E)/v, V' = (1 − ε_l/v)²·V + 2ε_l, v = s² + σ_l²."""
    mean, variance, means, variances = start, 0.0, [], []
    for t in range(num_steps):
        sigma = LEVELS[min(t // STEPS, len(LEVELS) - 1)]
        step, v = STEP_SIZE * (sigma / LEVELS[-1]) ** 2, STD**2 + sigma**2
        mean, variance = mean + step * (MEAN - mean) / v, (1 - step / v) ** 2 * variance + 2 * step
        means.append(mean)
        variances.append(variance)
    return np.array(means), np.array(variances)


def _check_recursion() -> None:
    kernel = annealed_langevin.sampler(_gaussian_score, LEVELS, STEP_SIZE, steps_per_level=STEPS)
    kept = _walk(kernel, -3.0, 16)  # the last four steps go on at the last level
    means, variances = _recursion(-3.0, 16)
    stat.check_mean(kept - means, 0.0, sees=0.3)
    stat.check_mean((kept - means) ** 2 / variances, 1.0, sees=0.1)


def test_mean_and_variance_follow_the_recursion_at_every_level() -> None:
    _check_recursion()


def _mutant_move(factor: float) -> Callable[..., Any]:
    right = langevin.move
    return lambda key, x, score, step_size: right(key, x, jax.tree.map(lambda s: factor * s, score), step_size)


def _half_noise(key: Any, x: Any, score: Any, step_size: Any) -> Any:
    return x + step_size * score + jnp.sqrt(step_size) * jax.random.normal(key)


@pytest.mark.parametrize("mutant", [_mutant_move(0.8), _half_noise], ids=["drift", "noise"])
def test_wrong_moves_fail(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    monkeypatch.setattr(langevin, "move", mutant)
    with pytest.raises(AssertionError, match="z ="):
        _check_recursion()


WEIGHTS, CENTRES, WIDTH = np.array([0.2, 0.8]), np.array([-4.0, 4.0]), 0.3
MIXTURE_LEVELS = annealed_langevin.noise_levels(10.0, 0.3, 10)
MIXTURE_STEP, MIXTURE_STEPS = 0.04, 10
GRID = np.linspace(-90.0, 90.0, 2_401)
SPACING = GRID[1] - GRID[0]


def _mixture_score(x: Any, sigma: Any) -> Any:
    """∇ log Σ_k w_k N(x; c_k, 0.3² + σ²) of one number."""
    variance = WIDTH**2 + sigma**2
    logits = jnp.log(jnp.asarray(WEIGHTS)) - 0.5 * jnp.square(x - jnp.asarray(CENTRES)) / variance
    return jnp.sum(jax.nn.softmax(logits) * (jnp.asarray(CENTRES) - x)) / variance


def _law(start_std: float, levels: np.ndarray) -> np.ndarray:
    """The density on GRID after all levels, from the operator x ↦ N(x + ε s(x), 2ε) by quadrature in float64."""
    density = scipy.stats.norm.pdf(GRID, scale=start_std)
    with jax.enable_x64(True):
        for sigma in levels:
            step = MIXTURE_STEP * (sigma / levels[-1]) ** 2
            drift = np.asarray(jax.vmap(lambda x, s=sigma: _mixture_score(x, s))(jnp.asarray(GRID)))
            kernel = scipy.stats.norm.pdf(GRID[None] - (GRID + step * drift)[:, None], scale=np.sqrt(2 * step))
            for _ in range(MIXTURE_STEPS):
                density = density @ kernel * SPACING
    return density


def test_mixture_of_known_score_follows_its_own_law_and_its_weights() -> None:
    start = 10.0 * np.random.default_rng(0).normal(size=NUM)
    density = _law(10.0, MIXTURE_LEVELS)
    cdf = np.cumsum(density) * SPACING
    assert abs(cdf[-1] - 1) < 1e-6
    for levels in (MIXTURE_LEVELS, MIXTURE_LEVELS[-1:]):
        kernel = annealed_langevin.sampler(_mixture_score, levels, MIXTURE_STEP, steps_per_level=MIXTURE_STEPS)
        ends = _walk(kernel, start, MIXTURE_STEPS * len(MIXTURE_LEVELS))[:, -1]
        if len(levels) > 1:
            stat.check_cdf(ends, lambda x: np.interp(x, GRID + 0.5 * SPACING, cdf), sees=0.04)
        else:  # without annealing nothing crosses, and the start decides
            stat.check_mean(ends > 0, np.mean(start > 0), sees=0.05)
    # The law itself has the modes nearly in their proportions; the rest is the lag behind the falling levels.
    assert abs(density[GRID > 0].sum() * SPACING - WEIGHTS[1]) < 0.05


def test_spread_at_a_level_is_the_recursion_of_a_point() -> None:
    levels, step_size = annealed_langevin.noise_levels(1.0, 0.01, 10), 2e-5
    variance = levels[-2] ** 2
    for _ in range(5):
        variance = (1 - step_size / levels[-1] ** 2) ** 2 * variance + 2 * step_size
    found = annealed_langevin.blurred_spread(levels, step_size, 5)
    np.testing.assert_allclose(found, variance / levels[-1] ** 2, rtol=1e-12)


def test_denoising_is_the_posterior_mean() -> None:
    """Clean ~ N(μ, s²): E[clean | x] = (s²x + σ²μ)/(s² + σ²)."""
    found = annealed_langevin.denoise(jnp.asarray(3.0), _gaussian_score, 0.5)
    np.testing.assert_allclose(found, (STD**2 * 3.0 + 0.25 * MEAN) / (STD**2 + 0.25), rtol=1e-6)


def test_pytrees_and_what_a_step_tells() -> None:
    def score(z: Any, sigma: Any) -> Any:
        return jax.tree.map(lambda x: -x / (1 + sigma**2), z)

    kernel = annealed_langevin.sampler(score, [2.0, 1.0], 0.1, steps_per_level=2)
    start = kernel.init(jax.random.key(0), {"a": jnp.full(2, 1e3), "b": jnp.asarray(-1e3)})
    end, infos = run(jax.random.key(0), kernel, start, 6, keep=lambda state, info: info)
    np.testing.assert_array_equal(infos.noise_level, [2, 2, 1, 1, 1, 1])
    np.testing.assert_allclose(infos.score_norm[0], np.sqrt(3) * 1e3 / 5, rtol=1e-5)
    assert int(end.step) == 6
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(end.position))


@pytest.mark.parametrize("levels", [[], [1.0, 1.0], [1.0, 2.0], [1.0, 0.0], [[1.0]], [1.0, float("nan")]])
def test_levels_must_fall(levels: Any) -> None:
    with pytest.raises(ValueError, match="`levels` must be positive and fall"):
        annealed_langevin.sampler(_gaussian_score, levels, 0.1)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`step_size` must be positive, got 0\.0"):
        annealed_langevin.sampler(_gaussian_score, [1.0], 0.0)
    with pytest.raises(ValueError, match="`steps_per_level` must be at least 1, got 0"):
        annealed_langevin.sampler(_gaussian_score, [1.0], 0.1, steps_per_level=0)
    with pytest.raises(ValueError, match=r"`widest` must be above `narrowest`, .* got 1\.0 and 2\.0"):
        annealed_langevin.noise_levels(1.0, 2.0, 3)
    with pytest.raises(ValueError, match="`num` must be at least 1, got 0"):
        annealed_langevin.noise_levels(1.0, 0.1, 0)
    with pytest.raises(ValueError, match="`levels` must be at least 2, got 1"):
        annealed_langevin.blurred_spread([1.0], 0.1, 3)
