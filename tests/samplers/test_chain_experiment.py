"""Chains as a Model: the streaming statistics are those of all draws after warm-up."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.samplers import chains
from jgen import run
from jgen.metrics import chains as diagnostics
from jgen.metrics import streaming
from jgen.sampler import parallel
from jgen.samplers import metropolis

KERNEL = metropolis.sampler(lambda z: -0.5 * jnp.sum(z**2), metropolis.random_walk(1.0))
STARTS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), jnp.float32)


def _statistics(z: Any) -> Any:
    return jnp.stack([z[0], z[0] * z[1], z[1] ** 2])


def _keep(state: Any, info: Any) -> Any:
    return jax.vmap(_statistics)(state.position), info.accept_prob


def test_streaming_statistics_are_those_of_all_draws_after_warm_up() -> None:
    model = chains.model(KERNEL, _statistics, num_steps=8, warm_up=2)
    state = jax.jit(model.init)(jax.random.key(0), {"x": STARTS})
    walk = jax.jit(lambda key, start: run(key, parallel(KERNEL), start, 8, keep=_keep)[1])
    update, kept, metrics = jax.jit(model.update), [], {}
    for step in range(6):
        key, before = jax.random.key(step), state.rest._replace(position=state.params)
        state, metrics = update(key, state, {"x": STARTS})
        kept.append(jax.tree.map(np.asarray, walk(key, before)))
        if step < 2:
            assert int(state.seen.num) == 0
            assert float(metrics["r_hat"]) == 1.0
    draws, prob = (np.concatenate([part[i] for part in kept[2:]]) for i in (0, 1))
    assert int(state.seen.num) == 32
    found = streaming.summary(state.seen)
    np.testing.assert_allclose(found.mean["statistics"], draws.mean(axis=(0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.variance["statistics"], draws.reshape(-1, 3).var(axis=0, ddof=1), rtol=1e-4)
    largest = max(float(diagnostics.split_r_hat(jnp.asarray(draws[..., i].T))) for i in range(3))
    np.testing.assert_allclose(metrics["r_hat"], largest, rtol=1e-4)
    np.testing.assert_allclose(metrics["accept_prob"], prob.mean(), rtol=1e-4)
