"""Metropolis–Hastings: the exact transition matrix on six states, and the acceptance rule at its edges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat

from jgen.sampler import run
from jgen.samplers import metropolis

WEIGHTS = np.array([0.05, 0.3, 0.1, 0.25, 0.2, 0.1])
PROPOSAL = np.array([[(1 + (3 * i + 2 * j) % 5) * (i != j) for j in range(6)] for i in range(6)], float)
PROPOSAL /= PROPOSAL.sum(1, keepdims=True)  # far from symmetric


def _propose(correct: bool = True) -> metropolis.Proposal:
    def propose(key: Any, x: Any) -> Any:
        table = jnp.log(jnp.asarray(PROPOSAL))
        new = jax.random.categorical(key, table[x])
        return new, table[new, x] - table[x, new] if correct else 0.0

    return propose


def _matrix(propose: metropolis.Proposal) -> np.ndarray:
    """P_ij = q_ij·accept_ij, with the acceptance that the sampler itself reports for the move i -> j."""
    density = jnp.log(jnp.asarray(WEIGHTS))
    result = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            if i != j:
                # The move is forced to j; the log-ratio stays the proposal's own.
                ratio = _log_ratio(propose, i, j)
                forced = metropolis.sampler(lambda x: density[x], lambda key, x, j=j, r=ratio: (jnp.asarray(j), r))
                _, info = forced.step(jax.random.key(0), forced.init(jax.random.key(0), jnp.asarray(i)))
                result[i, j] = PROPOSAL[i, j] * float(info.accept_prob)
        result[i, i] = 1 - result[i].sum()
    return result


def _log_ratio(propose: metropolis.Proposal, i: int, j: int) -> Any:
    for seed in range(500):
        new, ratio = propose(jax.random.key(seed), jnp.asarray(i))
        if int(new) == j:
            return ratio
    raise AssertionError(f"never proposed {i} -> {j}")


def test_transition_matrix_satisfies_detailed_balance() -> None:
    with jax.enable_x64(True):
        matrix = _matrix(_propose())
    flow = WEIGHTS[:, None] * matrix
    np.testing.assert_allclose(flow, flow.T, atol=1e-12)
    np.testing.assert_allclose(WEIGHTS @ matrix, WEIGHTS, atol=1e-12)
    values, vectors = np.linalg.eig(matrix.T)
    stationary = np.real(vectors[:, np.argmax(np.real(values))])
    np.testing.assert_allclose(stationary / stationary.sum(), WEIGHTS, atol=1e-12)
    assert np.sort(np.abs(values))[-2] < 0.95  # a gap: the chain forgets


def test_forgotten_proposal_ratio_breaks_detailed_balance() -> None:
    with jax.enable_x64(True):
        flow = WEIGHTS[:, None] * _matrix(_propose(correct=False))
    assert np.abs(flow - flow.T).max() > 1e-3


def _ends(propose: metropolis.Proposal, num: int = 50_000) -> np.ndarray:
    kernel = metropolis.sampler(lambda x: jnp.log(jnp.asarray(WEIGHTS, jnp.float32))[x], propose)
    starts = jax.random.categorical(jax.random.key(1), jnp.log(jnp.asarray(WEIGHTS, jnp.float32)), shape=(num,))

    def chain(key: Any, x: Any) -> Any:
        return run(key, kernel, kernel.init(key, x), 5)[0].position

    return np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(2), num), starts))


def test_asymmetric_proposal_is_unbiased_and_its_mutant_is_not() -> None:
    stat.check_counts(np.bincount(_ends(_propose()), minlength=6), WEIGHTS)
    with pytest.raises(AssertionError, match="G ="):
        stat.check_counts(np.bincount(_ends(_propose(correct=False)), minlength=6), WEIGHTS)


def test_accept_at_its_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = jax.random.split(jax.random.key(0), 1000)
    accept = jax.jit(jax.vmap(metropolis.accept, (0, None)))
    for ratio, expected, prob in (
        (0.0, True, 1.0),
        (jnp.inf, True, 1.0),
        (-jnp.inf, False, 0.0),
        (jnp.nan, False, 0.0),
    ):
        accepted, probs = accept(keys, ratio)
        assert bool(jnp.all(accepted == expected))
        assert bool(jnp.all(probs == prob))
    monkeypatch.setattr(jax.random, "uniform", lambda key: jnp.zeros(()))  # u = 0 does happen
    assert not metropolis.accept(keys[0], jnp.asarray(-jnp.inf))[0]


def test_support_nan_and_pytrees() -> None:
    def log_density(x: Any) -> Any:
        return jnp.where(x["a"] > 0, -x["a"], -jnp.inf) - 0.5 * jnp.sum(x["b"] ** 2) + jnp.log(x["b"][0] + 3.0)

    kernel = metropolis.sampler(log_density, metropolis.random_walk({"a": 2.0, "b": 3.0}))
    start = kernel.init(jax.random.key(0), {"a": jnp.asarray(1.0), "b": jnp.zeros(2)})
    walk = jax.jit(lambda key: run(key, kernel, start, 2000, keep=lambda state, info: (state, info)))
    _, (states, infos) = walk(jax.random.key(1))
    assert bool(jnp.all(states.position["a"] > 0))
    assert bool(jnp.all(states.position["b"][:, 0] > -3))
    assert bool(jnp.all(jnp.isfinite(states.log_density)))
    assert 0.02 < float(jnp.mean(infos.accepted)) < 0.9
    np.testing.assert_allclose(states.log_density, jax.vmap(log_density)(states.position), rtol=1e-5, atol=1e-5)


def test_independence_proposal_accepts_everything_at_its_target() -> None:
    def log_density(x: Any) -> Any:
        return -0.5 * x**2

    kernel = metropolis.sampler(log_density, metropolis.independence(jax.random.normal, log_density))
    start = kernel.init(jax.random.key(0), jnp.asarray(0.3))
    _, accepted = run(jax.random.key(1), kernel, start, 200, keep=lambda state, info: info.accepted)
    assert float(jnp.mean(accepted)) > 0.99


@pytest.mark.parametrize("scale", [0.0, -1.0, {"a": 1.0, "b": 0.0}])
def test_scale_must_be_positive(scale: Any) -> None:
    with pytest.raises(ValueError, match="`scale` must be positive"):
        metropolis.random_walk(scale)
