"""Gibbs sampling: the 3×3 Ising torus by enumeration, the exact transition matrix of a scan, and block order."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat

from jgen.sampler import run
from jgen.samplers import gibbs

SPINS = np.array(list(itertools.product([-1.0, 1.0], repeat=9)), np.float32)


def ising(x: Any, coupling: float = 0.3, side: int = 3) -> Any:
    """log π = K Σ s_i s_j over the bonds of a torus."""
    grid = jnp.reshape(x, (side, side))
    return coupling * jnp.sum(grid * (jnp.roll(grid, 1, 0) + jnp.roll(grid, 1, 1)))


def _probs() -> np.ndarray:
    log_p = np.asarray(jax.vmap(ising)(jnp.asarray(SPINS)), np.float64)
    return np.exp(log_p) / np.exp(log_p).sum()


def _cell(x: Any) -> np.ndarray:
    return ((np.asarray(x) > 0) @ 2 ** np.arange(8, -1, -1)).astype(int)


@pytest.mark.parametrize("scan", ["systematic", "random"])
def test_ising_by_enumeration(scan: str) -> None:
    kernel = gibbs.sampler(gibbs.sites(ising, 9, [-1.0, 1.0]), scan=scan)
    num = 20_000

    def chain(key: Any, x: Any) -> Any:
        return run(key, kernel, kernel.init(key, x), 60 if scan == "systematic" else 400)[0].position

    cold = jnp.ones((num, 9))  # all up: far from equilibrium
    ends = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), num), cold)
    stat.check_counts(np.bincount(_cell(ends), minlength=512), _probs())
    energy = np.asarray(jax.vmap(ising)(ends)) / 0.3
    exact = float(_probs() @ np.asarray(jax.vmap(ising)(jnp.asarray(SPINS)), np.float64) / 0.3)
    stat.check_mean(energy, exact, sees=0.8)


THREE = np.array(list(itertools.product([0.0, 1.0, 2.0], repeat=3)))


def _potts(x: Any) -> Any:
    """log π of three sites of three values each, all different in their couplings."""
    return 0.3 * x[0] * x[1] - 0.5 * x[1] * x[2] + 0.2 * x[0] * x[2] + 0.1 * x[0] - 0.4 * x[2] ** 2


def _site_matrices(log_density: Any, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """P_b of every site, from the logits that the sampler itself draws with."""
    blocks, seen = gibbs.sites(log_density, 3, [0.0, 1.0, 2.0]), []

    def choose(value: int, key: Any, logits: Any) -> Any:
        seen.append(jax.nn.softmax(logits)[value])
        return value

    def move(site: int, x: Any) -> Any:
        return blocks.draw(jax.random.key(0), x, site), seen.pop()

    matrices = np.zeros((3, 27, 27))
    for site, value in itertools.product(range(3), repeat=2):
        monkeypatch.setattr(jax.random, "categorical", functools.partial(choose, value))
        ends, probs = jax.vmap(functools.partial(move, site))(jnp.asarray(THREE))
        matrices[site, np.arange(27), np.asarray(ends @ jnp.asarray([9.0, 3.0, 1.0]), int)] += np.asarray(probs)
    return list(matrices)


def _check_matrices(log_density: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with jax.enable_x64(True):
        matrices = _site_matrices(log_density, monkeypatch)
        law = np.asarray(jax.nn.softmax(jax.vmap(_potts)(jnp.asarray(THREE))))
    random_scan, sweep = sum(matrices) / 3, matrices[0] @ matrices[1] @ matrices[2]
    for matrix in (*matrices, random_scan):
        flow = law[:, None] * matrix
        np.testing.assert_allclose(flow, flow.T, atol=1e-12)
    np.testing.assert_allclose(sweep.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(law @ sweep, law, atol=1e-12)
    assert np.abs(law[:, None] * sweep - (law[:, None] * sweep).T).max() > 1e-4  # kept, but not reversible


def test_transition_matrices_keep_the_law_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    _check_matrices(_potts, monkeypatch)
    with pytest.raises(AssertionError, match="Not equal"):
        _check_matrices(lambda x: 0.99 * _potts(x), monkeypatch)


def test_wrong_conditional_fails() -> None:
    kernel = gibbs.sampler(gibbs.sites(lambda x: 0.85 * ising(x), 9, [-1.0, 1.0]))
    ends = jax.jit(jax.vmap(lambda key: run(key, kernel, kernel.init(key, jnp.ones(9)), 60)[0].position))(
        jax.random.split(jax.random.key(0), 20_000)
    )
    with pytest.raises(AssertionError, match="G ="):
        stat.check_counts(np.bincount(_cell(ends), minlength=512), _probs())


def test_sweep_draws_every_block_once_in_order() -> None:
    def block(index: int) -> gibbs.Conditional:
        return lambda key, x: jnp.concatenate([x[1:], jnp.full(1, float(index))])

    for num in (3, gibbs.UNROLLED + 2):
        kernel = gibbs.sampler([block(i) for i in range(num)])
        state, info = kernel.step(jax.random.key(0), kernel.init(jax.random.key(0), jnp.full(num, -1.0)))
        np.testing.assert_array_equal(state.position, np.arange(num))
        assert int(info.block) == num - 1


def test_random_scan_chooses_blocks_uniformly_and_draws_only_one() -> None:
    kernel = gibbs.sampler([lambda key, x, i=i: x.at[i].add(1.0) for i in range(4)], scan="random")
    state = kernel.init(jax.random.key(0), jnp.zeros(4))
    state, blocks = jax.jit(lambda key: run(key, kernel, state, 4000, keep=lambda s, info: info.block))(
        jax.random.key(1)
    )
    counts = np.bincount(np.asarray(blocks), minlength=4)
    np.testing.assert_array_equal(state.position, counts)
    stat.check_counts(counts, np.full(4, 0.25))


def test_blocks_of_a_pytree_reach_a_correlated_gaussian() -> None:
    """x, y of correlation ρ: x|y ~ N(ρy, 1 − ρ²); the lag-1 correlation of x under a sweep is exactly ρ²."""
    rho = 0.7

    def draw(name: str, other: str) -> gibbs.Conditional:
        def conditional(key: Any, z: Any) -> Any:
            return {**z, name: rho * z[other] + np.sqrt(1 - rho**2) * jax.random.normal(key)}

        return conditional

    kernel = gibbs.sampler([draw("x", "y"), draw("y", "x")])

    def chain(key: Any) -> Any:
        start = {"x": jnp.asarray(3.0), "y": jnp.asarray(-3.0)}
        return run(key, kernel, kernel.init(key, start), 32, keep=lambda state, info: state.position)[1]

    kept = jax.tree.map(np.asarray, jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), 20_000)))
    x, y, before = kept["x"][:, -1], kept["y"][:, -1], kept["x"][:, -2]
    stat.check_mean(np.stack([x, y, x**2, y**2, x * y, x * before], 1), [0, 0, 1, 1, rho, rho**2], sees=0.15)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`scan` must be one of 'systematic', 'random', got 'zigzag'"):
        gibbs.sampler([lambda key, x: x], scan="zigzag")
    with pytest.raises(ValueError, match="`conditionals` must be at least 1, got 0"):
        gibbs.sampler([])
    with pytest.raises(ValueError, match="`values` must be at least 2"):
        gibbs.sites(ising, 9, [1.0])
    with pytest.raises(ValueError, match="`num_sites` must be at least 1"):
        gibbs.sites(ising, 0, [0.0, 1.0])
