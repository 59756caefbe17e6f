"""Chains as a Model: the running sums are those of all draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.samplers import chains
from jgen import random, run
from jgen.samplers import metropolis

KERNEL = metropolis.sampler(lambda z: -0.5 * jnp.sum(z**2), metropolis.random_walk(1.0))
STARTS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)


def _statistics(z: Any) -> Any:
    return jnp.stack([z[0], z[0] * z[1], z[1] ** 2])


def _walk(key: Any, start: Any) -> Any:
    return run(key, KERNEL, start, 7, keep=lambda state, info: _statistics(state.position))[1]


def test_running_sums_are_those_of_all_draws_after_warm_up() -> None:
    model = chains.model(KERNEL, _statistics, num_steps=7, warm_up=2)
    state = jax.jit(model.init)(jax.random.key(0), {"x": STARTS})
    update, kept, metrics = jax.jit(model.update), [], {}
    for step in range(5):
        key, before = jax.random.key(step), state.rest._replace(position=state.params)
        state, metrics = update(key, state, {"x": STARTS})
        kept.append(jax.jit(jax.vmap(_walk))(random.example_keys(key, 4), before))
        if step < 2:
            assert not np.any(state.mean)
            assert float(metrics["r_hat"]) == 1.0
    draws = np.concatenate([np.asarray(x) for x in kept[2:]], axis=1)
    assert int(state.num) == 21
    np.testing.assert_allclose(state.mean, draws.mean(axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.squares, draws.var(axis=1) * 21, rtol=1e-4)
    within = draws.var(axis=1, ddof=1).mean(axis=0)
    expected = np.sqrt(20 / 21 + draws.mean(axis=1).var(axis=0, ddof=1) / within).max()
    np.testing.assert_allclose(metrics["r_hat"], expected, rtol=1e-4)
    assert 0.2 < float(metrics["accept_prob"]) < 1.0
