"""Streaming statistics: those of the stored chain, and memory that the number of steps does not touch."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.math import running
from jgen.metrics import chains, streaming
from jgen.sampler import Reducer, Sampler, parallel, run
from jgen.samplers import metropolis

KERNEL = parallel(metropolis.sampler(lambda z: -0.5 * jnp.sum(z**2), metropolis.random_walk(1.5)))
summarize = jax.jit(streaming.summary)
STARTS = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)


def _value(state: Any, info: Any) -> Any:
    return {"z": state.position, "square": jnp.sum(state.position**2, axis=1), "accepted": info.accepted}


def _both(num_steps: int, reducer: Reducer) -> tuple[Any, Any]:
    """What the reducer kept, and the stored values (chains, steps, ...)."""
    start = KERNEL.init(jax.random.key(0), STARTS)
    kept = jax.jit(lambda key: run(key, KERNEL, start, num_steps, keep=reducer)[1])(jax.random.key(1))
    stored = jax.jit(lambda key: run(key, KERNEL, start, num_steps, keep=_value)[1])(jax.random.key(1))
    return kept, jax.tree.map(lambda x: np.swapaxes(np.asarray(x, np.float64), 0, 1), stored)


def test_moments_are_those_of_the_stored_chain() -> None:
    kept, stored = _both(500, streaming.moments(_value))
    assert int(kept.num) == 500
    jax.tree.map(lambda m, x: np.testing.assert_allclose(m, x.mean(1), rtol=1e-4, atol=1e-5), kept.mean, stored)
    variances = running.variance(kept)
    jax.tree.map(lambda v, x: np.testing.assert_allclose(v, x.var(1, ddof=1), rtol=1e-4), variances, stored)


@pytest.mark.parametrize("num_steps", [8, 512, 700])
def test_summary_is_that_of_the_stored_chain(num_steps: int) -> None:
    kept, stored = _both(num_steps, streaming.batches(_value, 8))
    found = summarize(kept)
    size = int(kept.size)
    full = num_steps // size
    assert int(kept.num) == num_steps
    assert 4 <= full <= 8
    for name, draws in stored.items():
        rest = draws.reshape(6 * num_steps, *draws.shape[2:])
        np.testing.assert_allclose(found.mean[name], rest.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.variance[name], rest.var(0, ddof=1), rtol=1e-4)
        half = full // 2 * size
        used = np.concatenate([draws[:, :half], draws[:, full * size - half : full * size]], axis=1)
        for column in np.ndindex(draws.shape[2:]):
            flat = used[(slice(None), slice(None), *column)]
            np.testing.assert_allclose(found.r_hat[name][column], chains.split_r_hat(jnp.asarray(flat)), rtol=1e-4)
            _check_batch_means(draws[(slice(None), slice(None), *column)], size, full, found.ess[name][column])
        np.testing.assert_allclose(
            found.monte_carlo_error[name], np.sqrt(found.variance[name] / found.ess[name]), rtol=1e-5
        )


def _check_batch_means(draws: np.ndarray, size: int, full: int, found: Any) -> None:
    """C n V⁺/Σ written out."""
    num = draws.shape[1]
    batch_means = draws[:, : full * size].reshape(6, full, size).mean(2)
    spread = size * ((batch_means - draws.mean()) ** 2).sum() / (6 * full - 1)
    pooled = draws.var(1, ddof=1).mean() * (num - 1) / num + draws.mean(1).var(ddof=1)
    total = 6 * num
    np.testing.assert_allclose(found, min(total * pooled / spread, total * np.log10(total)), rtol=2e-3)


def _ar1(rho: float, noise_std: float) -> Sampler[Any]:
    def step(key: Any, state: Any) -> Any:
        new = rho * state.position + noise_std * jax.random.normal(key, state.position.shape)
        return metropolis.State(new, state.log_density), None

    return Sampler(lambda key, x: metropolis.State(x, jnp.zeros(x.shape)), step)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.8])
def test_size_of_ar1_is_the_true_one(rho: float) -> None:
    """ESS/n = (1 − ρ)/(1 + ρ); 64 chains of 32 to 64 batches know it to √(2/2048) = 3 %."""
    kernel = _ar1(rho, float(np.sqrt(1 - rho**2)))
    start = metropolis.State(jax.random.normal(jax.random.key(0), (64,)), jnp.zeros(64))
    reducer = streaming.batches(num_batches=64)
    seen = jax.jit(lambda key: run(key, kernel, start, 20_000, keep=reducer)[1])(jax.random.key(1))
    found = summarize(seen)
    assert abs(float(found.ess) / (64 * 20_000) * (1 + rho) / (1 - rho) - 1) < 5 * np.sqrt(2 / 2048)
    assert abs(float(found.r_hat) - 1) < 0.01
    assert abs(float(found.mean)) < 5.3 * float(found.monte_carlo_error)


def test_chains_that_disagree_are_seen() -> None:
    kernel = _ar1(0.99, 0.0)  # each decays from where it stands
    start = metropolis.State(jnp.linspace(-3.0, 3.0, 16), jnp.zeros(16))
    found = summarize(run(jax.random.key(0), kernel, start, 200, keep=streaming.batches())[1])
    assert float(found.r_hat) > 1.2
    assert float(found.ess) < 0.2 * 16 * 200


def test_a_run_in_parts_goes_on_with_what_it_kept() -> None:
    start, reducer = KERNEL.init(jax.random.key(0), STARTS), streaming.batches(num_batches=4)

    @functools.partial(jax.jit, static_argnums=1)
    def go(state: Any, num_steps: int, first: Any = 0, kept: Any = None) -> Any:
        return run(jax.random.key(1), KERNEL, state, num_steps, keep=reducer, first_step=first, kept=kept)

    whole = go(start, 40)
    middle, kept = go(start, 20)
    parts = go(middle, 20, 20, kept)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


def _memory(num_steps: int, keep: Any) -> int:
    start = KERNEL.init(jax.random.key(0), STARTS)
    compiled = jax.jit(lambda key, state: run(key, KERNEL, state, num_steps, keep=keep)).lower(jax.random.key(0), start)
    analysis: Any = compiled.compile().memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    assert _memory(100, streaming.batches()) == _memory(1_000_000, streaming.batches())
    assert _memory(100, lambda state, info: None) == _memory(1_000_000, lambda state, info: None)
    assert _memory(1_000_000, streaming.position) > 6 * 2 * 4 * 1_000_000  # which the check would see


def test_too_short_for_batches() -> None:
    start = KERNEL.init(jax.random.key(0), STARTS)
    found = summarize(run(jax.random.key(0), KERNEL, start, 1, keep=streaming.batches())[1])
    assert bool(jnp.all(jnp.isnan(found.ess)))
    assert bool(jnp.all(jnp.isnan(found.r_hat)))
    assert found.variance.shape == (2,)


@pytest.mark.parametrize("num_batches", [2, 7])
def test_number_of_batches(num_batches: int) -> None:
    with pytest.raises(ValueError, match=f"`num_batches` must be an even number of at least 4, got {num_batches}"):
        streaming.batches(num_batches=num_batches)


def test_kept_needs_a_reducer() -> None:
    with pytest.raises(ValueError, match="`kept` must be None where `keep` is no Reducer"):
        run(jax.random.key(0), KERNEL, KERNEL.init(jax.random.key(0), STARTS), 2, kept=0)
