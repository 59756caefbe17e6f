"""Noise for samplers: one draw for all leaves and the accept test follows the same laws as several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import stat_checks as stat

from jgen import random

TREE = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(()), "c": jnp.zeros(4, jnp.bfloat16)}


def test_noise_and_number_follow_their_laws_and_do_not_know_each_other() -> None:
    keys = random.example_keys(jax.random.key(0), 40_000)
    noise, uniform = jax.jit(jax.vmap(lambda key: random.normal_and_uniform(key, TREE)))(keys)
    flat = np.concatenate([np.asarray(noise["a"]).reshape(-1, 6), np.asarray(noise["b"])[:, None]], axis=1)
    uniform = np.asarray(uniform, np.float64)
    assert uniform.min() >= 0.0
    assert uniform.max() < 1.0
    stat.check_cdf(uniform, scipy.stats.uniform.cdf, sees=0.03)
    for column in flat.T:
        stat.check_cdf(column, scipy.stats.norm.cdf, sees=0.03)
    everything = np.concatenate([flat, scipy.stats.norm.ppf(np.maximum(uniform, 1e-9))[:, None]], axis=1)
    rows, columns = np.triu_indices(8, 1)
    stat.check_mean(everything[:, rows] * everything[:, columns], 0.0, sees=0.1)


@pytest.mark.parametrize("draw", [random.normal_like, lambda key, tree: random.normal_and_uniform(key, tree)[0]])
def test_shapes_and_dtypes_are_those_of_the_leaves(draw) -> None:
    noise = draw(jax.random.key(1), TREE)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), noise) == jax.tree.map(lambda x: (x.shape, x.dtype), TREE)
    with jax.enable_x64(True):
        assert draw(jax.random.key(1), jnp.zeros(3, jnp.float64)).dtype == jnp.float64
    assert float(jnp.abs(noise["a"][0] - noise["a"][1]).min()) > 0


def test_the_number_zero_gives_finite_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.zeros(shape, dtype))
    noise, uniform = random.normal_and_uniform(jax.random.key(0), jnp.zeros(3))
    assert bool(jnp.all(jnp.isfinite(noise)))
    assert float(uniform) == 0.0
