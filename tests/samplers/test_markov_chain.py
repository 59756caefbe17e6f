"""Finite chains: equilibrium by eigenvector, iteration and simulation; balance; mixing of chains known exactly."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat

from jgen.sampler import run
from jgen.samplers import markov_chain

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.full(5, 0.5), 5)
WEIGHTS = np.array([0.1, 1.0, 3.0, 0.5, 2.0])
CYCLE = np.roll(np.eye(4), 1, axis=1)


@pytest.fixture(autouse=True)
def _double_precision() -> Any:
    with jax.enable_x64(True):
        yield


def _left_eigenvector(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eig(matrix.T)
    pi = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    return pi / pi.sum()


@pytest.mark.parametrize("matrix", [P, CYCLE, np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0.1, 0.2, 0.7]])])
def test_equilibrium_is_the_left_eigenvector(matrix: np.ndarray) -> None:
    found = markov_chain.stationary(jnp.asarray(matrix))  # also of a periodic chain, and of one with a state to leave
    np.testing.assert_allclose(found, _left_eigenvector(matrix), atol=1e-12)
    np.testing.assert_allclose(found @ matrix, found, atol=1e-12)


def test_iteration_and_simulation_come_to_the_same_equilibrium() -> None:
    matrix = jnp.asarray(P)
    exact = markov_chain.stationary(matrix)
    start = jnp.asarray([1.0, 0, 0, 0, 0])
    found = markov_chain.power_iteration(matrix, start, tolerance=1e-13)
    np.testing.assert_allclose(found, exact, atol=1e-11)
    kernel, num = markov_chain.sampler(matrix), 50_000

    def chain(key: Any) -> Any:
        return run(key, kernel, kernel.init(key, 0), 60, keep=lambda state, info: (state.position, info.log_prob))[1]

    path, log_prob = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), num))
    stat.check_counts(np.bincount(np.asarray(path[:, -1]), minlength=5), exact)
    stat.check_counts(np.bincount(np.asarray(path[:, 0]), minlength=5), P[0])
    stat.check_counts(np.bincount(np.asarray(path[:, 1]), minlength=5), (P @ P)[0])
    np.testing.assert_allclose(log_prob[:, 1], np.log(P)[path[:, 0], path[:, 1]], rtol=1e-6)
    np.testing.assert_allclose(markov_chain.estimate(path, 5), P, atol=0.01)


def test_laws_are_powers_of_the_matrix() -> None:
    start = RNG.dirichlet(np.ones(5))
    laws = markov_chain.evolve(jnp.asarray(P), jnp.asarray(start), 7)
    expected = [start @ np.linalg.matrix_power(P, t) for t in range(8)]
    np.testing.assert_allclose(laws, expected, atol=1e-12)


def test_periodic_chain_never_comes_to_rest() -> None:
    start = jnp.asarray([1.0, 0.0, 0.0, 0.0])
    law = markov_chain.power_iteration(jnp.asarray(CYCLE), start, max_steps=41)
    np.testing.assert_array_equal(law, np.roll(start, 41 % 4))
    curve = markov_chain.mixing_curve(jnp.asarray(CYCLE), 9)
    np.testing.assert_allclose(curve, 0.75, atol=1e-12)


def _check_balanced(matrix: Any) -> None:
    pi = WEIGHTS / WEIGHTS.sum()
    assert float(markov_chain.imbalance(matrix, jnp.asarray(pi))) < 1e-12
    np.testing.assert_allclose(markov_chain.stationary(matrix), pi, atol=1e-12)
    np.testing.assert_allclose(np.sum(matrix, axis=1), 1.0, atol=1e-12)
    assert np.all(np.asarray(matrix) >= 0)
    np.testing.assert_allclose(markov_chain.reversal(matrix, jnp.asarray(pi)), matrix, atol=1e-12)


def test_any_proposal_is_given_detailed_balance() -> None:
    one_way = 0.5 * np.eye(5) + 0.3 * np.roll(np.eye(5), 1, 1) + 0.2 * np.roll(np.eye(5), -1, 1)
    for proposal in (P, one_way):
        _check_balanced(markov_chain.metropolis(jnp.asarray(proposal), jnp.asarray(WEIGHTS)))
    pi = markov_chain.stationary(jnp.asarray(P))
    assert float(markov_chain.imbalance(jnp.asarray(P), pi)) > 1e-2
    np.testing.assert_allclose(markov_chain.reversal(markov_chain.reversal(jnp.asarray(P), pi), pi), P, atol=1e-12)


def test_forgotten_proposal_ratio_is_seen() -> None:
    forgotten = P * np.minimum(1.0, WEIGHTS[None] / WEIGHTS[:, None]) * (1 - np.eye(5))
    forgotten += np.diag(1 - forgotten.sum(axis=1))
    with pytest.raises(AssertionError):
        _check_balanced(jnp.asarray(forgotten))


def test_a_balanced_chain_converges_at_the_rate_of_its_gap() -> None:
    matrix = markov_chain.metropolis(jnp.asarray(P), jnp.asarray(WEIGHTS))
    pi = markov_chain.stationary(matrix)
    curve = np.asarray(markov_chain.mixing_curve(matrix, 200))
    gap = float(markov_chain.spectral_gap(matrix, pi))
    values = np.sort(np.abs(np.linalg.eigvals(matrix)))
    np.testing.assert_allclose(1 - gap, values[-2], atol=1e-10)
    assert np.all(np.diff(curve) < 1e-12)  # d(t) never grows
    assert np.all(curve <= (1 - gap) ** np.arange(201) / float(pi.min()) + 1e-12)  # Levin, Peres and Wilmer, Th. 12.4
    assert curve[200] < 1e-3 * curve[0] or gap < 0.03
    np.testing.assert_allclose(curve[0], 1 - float(pi.min()), atol=1e-12)


def test_lazy_walk_on_two_states_in_closed_form() -> None:
    """P = [[1 − a, a], [b, 1 − b]]: π = (b, a)/(a + b), d(t) = |1 − a − b|ᵗ·max π."""
    a, b = 0.1, 0.3
    matrix = jnp.asarray([[1 - a, a], [b, 1 - b]])
    np.testing.assert_allclose(markov_chain.stationary(matrix), [0.75, 0.25], atol=1e-14)
    np.testing.assert_allclose(markov_chain.mixing_curve(matrix, 20), 0.75 * 0.6 ** np.arange(21), atol=1e-12)
    np.testing.assert_allclose(markov_chain.spectral_gap(matrix, jnp.asarray([0.75, 0.25])), 0.4, atol=1e-12)


def test_ergodic_chains_are_told_from_periodic_and_broken_ones() -> None:
    slowest = np.roll(np.eye(5), 1, axis=1)
    slowest[4] = [0.5, 0.5, 0, 0, 0]  # Wielandt's: its power 16 has a zero, 17 has none
    broken = np.array([[1.0, 0.0], [0.5, 0.5]])
    for matrix, expected in ((P, True), (slowest, True), (CYCLE, False), (broken, False), (np.eye(1), True)):
        assert bool(markov_chain.is_ergodic(jnp.asarray(matrix))) == expected
    assert np.linalg.matrix_power(slowest, 16).min() == 0
    assert np.linalg.matrix_power(slowest, 17).min() > 0


def test_equilibrium_is_differentiable() -> None:
    """Along a change of P that keeps its rows' sums."""
    along = jnp.asarray(RNG.dirichlet(np.ones(5), 5) - P)
    slope = jax.jvp(markov_chain.stationary, (jnp.asarray(P),), (along,))[1]
    step = 1e-6
    ahead, behind = (markov_chain.stationary(jnp.asarray(P) + sign * step * along) for sign in (1, -1))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), atol=1e-7)


def test_estimate_counts_transitions() -> None:
    path = jnp.asarray([[0, 1, 1, 0], [1, 1, 0, 1]])
    np.testing.assert_allclose(markov_chain.estimate(path, 2), [[0, 1], [0.5, 0.5]])
    np.testing.assert_allclose(markov_chain.estimate(path, 2, smoothing=1.0), [[0.25, 0.75], [0.5, 0.5]])
    assert bool(jnp.all(jnp.isnan(markov_chain.estimate(path, 3)[2])))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`matrix` must be square"):
        markov_chain.sampler(jnp.ones((2, 3)) / 3)
    with pytest.raises(ValueError, match="`matrix` must have rows that sum to 1"):
        markov_chain.sampler(jnp.full((2, 2), 0.4))
    with pytest.raises(ValueError, match=r"`matrix` must lie in \[0\.0"):
        markov_chain.sampler(jnp.asarray([[1.5, -0.5], [0.5, 0.5]]))
    with pytest.raises(ValueError, match="`matrix` must have 2 axes"):
        markov_chain.sampler(jnp.ones(2))
    with pytest.raises(ValueError, match="`num_steps` must be at least 0, got -1"):
        markov_chain.evolve(jnp.asarray(P), jnp.ones(5) / 5, -1)
    with pytest.raises(ValueError, match=r"`tolerance` must be positive, got 0\.0"):
        markov_chain.power_iteration(jnp.asarray(P), jnp.ones(5) / 5, tolerance=0.0)
    with pytest.raises(ValueError, match="`smoothing` must be at least 0, got -1"):
        markov_chain.estimate(jnp.zeros((1, 2), jnp.int32), 2, smoothing=-1)
