"""Warm-up: Stan's schedule, dual averaging on a known curve, kernels that accept what they aim at, and refusals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat

from jgen.sampler import parallel, run
from jgen.samplers import adaptation, hmc, mala

SCALES = np.geomspace(0.01, 1.0, 8).astype(np.float32)  # condition 10⁴


def _log_density(z: Any) -> Any:
    return -0.5 * jnp.sum((z["a"] / SCALES) ** 2) - 0.5 * (z["b"] / 30) ** 2


def _starts(num: int) -> Any:
    a, b = jax.random.split(jax.random.key(5))
    return {"a": jax.random.normal(a, (num, 8)) * SCALES[None], "b": 30 * jax.random.normal(b, (num,))}


def _hmc(parameters: Any) -> Any:
    return hmc.sampler(_log_density, parameters.step_size, (4, 8), inverse_mass=parameters.inverse_mass)


@pytest.mark.parametrize(
    ("num_steps", "expected"),
    [
        (18, [(0, 17)]),
        (50, [(0, 6), (7, 44), (45, 49)]),
        (100, [(0, 14), (15, 89), (90, 99)]),
        (150, [(0, 74), (75, 99), (100, 149)]),
        (200, [(0, 74), (75, 99), (100, 149), (150, 199)]),
        (280, [(0, 74), (75, 99), (100, 229), (230, 279)]),
        (1000, [(0, 74), (75, 99), (100, 149), (150, 249), (250, 449), (450, 949), (950, 999)]),
    ],
)
def test_windows_are_those_of_stan(num_steps: int, expected: Any) -> None:
    assert adaptation.windows(num_steps) == expected


def test_dual_averaging_finds_the_step_that_accepts_its_target() -> None:
    """On the noiseless curve α(ε) = exp(−ε) it converges to ε = −log δ, from far above and far below."""
    for first in (1e-3, 1.0, 50.0):

        def body(dual: Any, _: None) -> Any:
            return adaptation.average(dual, 0.7 - jnp.exp(-jnp.exp(dual.log_step))), None

        dual, _ = jax.jit(lambda d: jax.lax.scan(body, d, length=2000))(adaptation.begin(first))
        np.testing.assert_allclose(jnp.exp(dual.log_average), -np.log(0.7), rtol=0.02)


def test_dual_averaging_written_out() -> None:
    errors = [0.8, -0.2, 0.1, 0.3]
    dual, mean, average = adaptation.begin(0.5), 0.0, np.log(0.5)
    for t, error in enumerate(errors, 1):
        dual = adaptation.average(dual, jnp.asarray(error))
        mean = (1 - 1 / (t + 10)) * mean + error / (t + 10)
        log_step = np.log(5.0) - np.sqrt(t) / 0.05 * mean
        average = t**-0.75 * log_step + (1 - t**-0.75) * average
        np.testing.assert_allclose([dual.log_step, dual.log_average, dual.error], [log_step, average, mean], rtol=1e-5)


def test_reasonable_step_size_brackets_the_target() -> None:
    def prob(size: Any) -> Any:
        return jnp.exp(-size)

    for first in (1e-4, 0.2, 1e3):
        size = adaptation.reasonable_step_size(prob, first, 0.8)
        assert 0.5 * -np.log(0.8) / 1.001 < float(size) < 2 * -np.log(0.8) * 1.001
    for never in (0.0, 1.0):
        assert np.isfinite(adaptation.reasonable_step_size(lambda size, p=never: jnp.asarray(p), 1.0, 0.8))


@pytest.fixture(scope="module")
def tuned() -> Any:
    warm_up = jax.jit(lambda key: adaptation.warm_up(key, _hmc, _starts(64), 300))
    return warm_up(jax.random.key(0))


def test_tuned_hmc_accepts_its_target_and_knows_the_variances(tuned: Any) -> None:
    assert not bool(tuned.status.degenerate)
    assert int(tuned.status.divergences) == 0
    kernel = parallel(_hmc(tuned.parameters))
    keep = jax.jit(lambda key: run(key, kernel, tuned.state, 200, keep=lambda s, i: (s.position, i.accept_prob))[1])
    draws, prob = keep(jax.random.key(1))
    assert abs(float(prob.mean()) - 0.8) < 0.06
    mass = tuned.parameters.inverse_mass
    np.testing.assert_allclose(mass["a"], SCALES**2, rtol=0.15)
    np.testing.assert_allclose(mass["b"], 900.0, rtol=0.15)
    scaled = np.mean(np.asarray(draws["a"]) ** 2, axis=0) / SCALES**2
    stat.check_mean(scaled, 1.0, sees=1.0)


def test_one_chain_and_no_mass() -> None:
    starts = jax.tree.map(lambda x: x[:1], _starts(1))
    warm_up = jax.jit(lambda key: adaptation.warm_up(key, _hmc, starts, 120, adapt_mass=False, target=0.65))
    found = warm_up(jax.random.key(3))
    assert jax.tree.leaves(jax.tree.map(lambda m: bool(jnp.all(m == 1)), found.parameters.inverse_mass)) == [True, True]
    assert 0.005 < float(found.parameters.step_size) < 0.05  # the smallest scale is 0.01
    assert not bool(found.status.degenerate)


def test_mala_is_tuned_by_the_same_wrapper() -> None:
    def build(parameters: Any) -> Any:
        return mala.sampler(_log_density, parameters.step_size, inverse_mass=parameters.inverse_mass)

    found = jax.jit(lambda key: adaptation.warm_up(key, build, _starts(32), 300, target=0.574))(jax.random.key(0))
    assert not bool(found.status.degenerate)
    assert abs(float(found.status.accept_prob) - 0.574) < 0.1
    np.testing.assert_allclose(found.parameters.inverse_mass["a"], SCALES**2, rtol=0.4)


@pytest.mark.parametrize(
    "log_density",
    [
        lambda x: 0.0 * jnp.sum(x),  # flat: any step is accepted
        lambda x: jnp.where(jnp.all(x == 0), 0.0, -jnp.inf) + 0.0 * jnp.sum(x),  # a point: none is
        lambda x: jnp.sum(x) * jnp.nan,
    ],
    ids=["flat", "point", "nan"],
)
def test_degenerate_step_sizes_are_flagged(log_density: Any) -> None:
    def build(parameters: Any) -> Any:
        return hmc.sampler(log_density, parameters.step_size, 2, inverse_mass=parameters.inverse_mass)

    found = jax.jit(lambda key: adaptation.warm_up(key, build, jnp.zeros((4, 2)), 60))(jax.random.key(0))
    assert bool(found.status.degenerate)
    assert np.isfinite(found.parameters.step_size)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`num_steps` must be at least 1, got 0"):
        adaptation.windows(0)
    with pytest.raises(ValueError, match=r"`target` must be in \(0, 1\), got 1.0"):
        adaptation.warm_up(jax.random.key(0), _hmc, _starts(2), 10, target=1.0)
    with pytest.raises(ValueError, match="`step_size` must be positive"):
        adaptation.warm_up(jax.random.key(0), _hmc, _starts(2), 10, step_size=0.0)
