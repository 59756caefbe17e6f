"""Parallel tempering: its exact transition matrix, and modes between which a single chain does not cross."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat

from jgen.energy import rbm
from jgen.sampler import run
from jgen.samplers import markov_chain, metropolis, tempering

WEIGHTS = np.array([0.05, 0.4, 0.15, 0.4])
BETAS = np.array([1.0, 0.5, 0.2])
JOINT = np.array(list(itertools.product(range(4), repeat=3)))
CIRCLE = 0.5 * (np.roll(np.eye(4), 1, axis=1) + np.roll(np.eye(4), -1, axis=1))


def _log_density(x: Any, beta: Any) -> Any:
    return beta * jnp.log(jnp.asarray(WEIGHTS))[x]


def _law() -> np.ndarray:
    """π of the joint states, Π_i w^{β_i} normalized."""
    each = WEIGHTS[None] ** BETAS[:, None]
    each = each / each.sum(axis=1, keepdims=True)
    return np.prod([each[i][JOINT[:, i]] for i in range(3)], axis=0)


def _number(states: np.ndarray) -> np.ndarray:
    return states @ np.array([16, 4, 1])


def _swaps(parity: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact matrix of one half of the swaps, from the probabilities that `exchange` reports; and those."""
    betas = jnp.asarray(BETAS)
    swap = functools.partial(tempering.exchange, jax.random.key(0), _log_density)
    _, swaps = jax.vmap(lambda x: swap(x, betas, parity))(jnp.asarray(JOINT))
    assert np.all(np.asarray(swaps.tried) == (np.arange(2) == parity))
    matrix, prob = np.zeros((64, 64)), np.asarray(swaps.accept_prob)[:, parity]
    swapped = JOINT.copy()
    swapped[:, [parity, parity + 1]] = JOINT[:, [parity + 1, parity]]
    matrix[np.arange(64), np.arange(64)] = 1 - prob
    matrix[np.arange(64), _number(swapped)] += prob
    return matrix, prob


def _moves() -> np.ndarray:
    """All replicas move at once, by Metropolis on the circle."""
    each = [np.asarray(markov_chain.metropolis(jnp.asarray(CIRCLE), jnp.asarray(WEIGHTS**beta))) for beta in BETAS]
    return functools.reduce(np.kron, each)


def _check_balance() -> None:
    with jax.enable_x64(True):
        moves, halves, law = _moves(), [_swaps(0)[0], _swaps(1)[0]], _law()
        for matrix in (moves, *halves):
            np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
            flow = law[:, None] * matrix
            np.testing.assert_allclose(flow, flow.T, atol=1e-12)
        both = moves @ halves[0] @ moves @ halves[1]
        np.testing.assert_allclose(law @ both, law, atol=1e-12)
        assert np.abs(law[:, None] * both - (law[:, None] * both).T).max() > 1e-4  # kept, but not reversible
        values = np.sort(np.abs(np.linalg.eigvals(both)))
        assert values[-2] < 0.9  # it forgets


def test_halves_are_reversible_and_their_alternation_keeps_the_joint_law() -> None:
    _check_balance()


@pytest.mark.parametrize("mutant", ["always", "sign"])
def test_wrong_acceptance_breaks_the_balance(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    right = metropolis.decide
    wrong = {"always": lambda u, r: right(u, jnp.zeros_like(r)), "sign": lambda u, r: right(u, -r)}
    monkeypatch.setattr(metropolis, "decide", wrong[mutant])
    with pytest.raises(AssertionError, match="Not equal"):
        _check_balance()


def test_swap_rates_are_the_exact_expectations() -> None:
    """Σ_{x,y} π_i(x) π_j(y) min(1, (w_x/w_y)^{β_j − β_i}) from exact starts; swaps carry the walkers with them."""
    kernel = tempering.sampler(
        *tempering.powers(
            lambda x: jnp.log(jnp.asarray(WEIGHTS, jnp.float32))[x],
            lambda f: metropolis.sampler(f, lambda key, x: ((x + jax.random.choice(key, jnp.array([1, 3]))) % 4, 0.0)),
        ),
        BETAS,
    )
    law = _law()
    num = 10_000
    starts = jnp.asarray(JOINT)[jax.random.categorical(jax.random.key(0), jnp.log(jnp.asarray(law)), shape=(num,))]

    def chain(key: Any, x: Any) -> Any:
        return run(key, kernel, kernel.init(key, x), 2, keep=lambda state, info: (state.walkers, info.swaps))

    end, (walkers, swaps) = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(1), num), starts)
    stat.check_counts(np.bincount(_number(np.asarray(end.position)), minlength=64), law)
    exact = [float(law @ _swaps(parity)[1]) for parity in (0, 1)]
    rates = np.stack([np.asarray(swaps.accept_prob)[:, i, i] for i in (0, 1)], axis=1)
    stat.check_mean(rates, exact, sees=0.05)
    np.testing.assert_allclose(
        tempering.swap_rates(jax.tree.map(lambda x: jnp.reshape(x, (-1, 2)), swaps)), rates.mean(axis=0), rtol=1e-4
    )
    accepted, expected = np.asarray(swaps.accepted), np.tile(np.arange(3), (num, 1))
    assert not accepted[:, 0, 1].any()
    for step in (0, 1):
        pair = [step, step + 1]
        swapped = accepted[:, step, step]
        expected[swapped] = expected[swapped][:, [1, 0, 2] if step == 0 else [0, 2, 1]]
        np.testing.assert_array_equal(walkers[:, step], expected, err_msg=str(pair))


def _deep_well(x: Any) -> Any:
    return -25 * jnp.square(jnp.square(x) - 1) + 0.5 * x


def _visits(kernel: Any, start: Any, of: Any, num_chains: int, num_steps: int) -> np.ndarray:
    """The share of each chain's second half that it spends on the right, from starts on the left."""

    def chain(key: Any) -> Any:
        kept = run(key, kernel, kernel.init(key, start), num_steps, keep=lambda state, info: of(state.position))[1]
        return jnp.mean(kept[num_steps // 2 :] > 0)

    return np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(2), num_chains)))


def test_double_well_visits_both_modes_as_often_as_it_should() -> None:
    def walk(log_density: Any) -> Any:
        return metropolis.sampler(log_density, metropolis.random_walk(0.4))

    grid = np.linspace(-2, 2, 4_001)
    weight = np.exp(np.asarray(_deep_well(grid), np.float64))
    exact = weight[grid > 0].sum() / weight.sum()
    kernel = tempering.sampler(*tempering.powers(_deep_well, walk), tempering.ladder(0.04, 5), num_moves=2)
    shares = _visits(kernel, jnp.full(5, -1.0), lambda x: x[0], 300, 600)
    stat.check_mean(shares, exact, sees=0.2)
    assert np.mean((shares > 0) & (shares < 1)) > 0.9
    alone = _visits(walk(_deep_well), jnp.asarray(-1.0), lambda x: x, 300, 600)
    assert alone.mean() < 0.05


def test_machine_with_two_patterns_visits_both() -> None:
    """Eight visible units held together by one hidden unit: all off, or all on. Plain sweeps stay where they are."""
    params = rbm.RBM(jnp.full((8, 1), 8.0), jnp.full(8, -4.0), jnp.full(1, -32.5))
    states = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=8)))
    exact = float(jnp.sum(jnp.where(states.sum(axis=1) > 4, jnp.exp(rbm.log_prob(params, states)), 0.0)))

    def log_density(v: Any, beta: Any) -> Any:
        return -rbm.free_energy(params, v, beta=beta)

    kernel = tempering.sampler(log_density, lambda beta: rbm.gibbs(params, beta=beta), tempering.ladder(0.05, 6))

    def chains(kernel: Any, start: Any, of: Any) -> np.ndarray:
        def keep(state: Any, info: Any) -> Any:
            del info
            return (of(state.position).sum(axis=-1) > 4).astype(jnp.float32)

        kept = jax.jit(lambda key: run(key, kernel, kernel.init(key, start), 800, keep=keep)[1])(jax.random.key(4))
        return np.asarray(kept)[400:].mean(axis=0)

    shares = chains(kernel, jnp.zeros((6, 300, 8)), lambda v: v[0])  # a batch of 300 chains in each replica
    stat.check_mean(shares, exact, sees=0.2)
    assert chains(rbm.gibbs(params), jnp.zeros((300, 8)), lambda v: v).mean() < 0.05
    assert 0.2 < exact < 0.8


def test_what_is_not_finite_does_not_swap() -> None:
    def log_density(x: Any, beta: Any) -> Any:
        return jnp.where(x > 0, -beta * x, -jnp.inf)

    x, betas = jnp.asarray([1.0, -1.0, 2.0, jnp.nan]), jnp.asarray([1.0, 0.5, 0.2, 0.1])
    kept, swaps = tempering.exchange(jax.random.key(0), log_density, x, betas, 0)
    np.testing.assert_array_equal(kept, x)
    assert not np.any(swaps.accepted)


def test_bad_arguments() -> None:
    at, kernel = tempering.powers(_deep_well, lambda f: metropolis.sampler(f, metropolis.random_walk(0.4)))
    for betas in ([1.0], [1.0, 1.0], [0.5, 1.0], [[1.0, 0.5]], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="`betas` must be at least two numbers that fall"):
            tempering.sampler(at, kernel, betas)
    with pytest.raises(ValueError, match="`num_moves` must be at least 1, got 0"):
        tempering.sampler(at, kernel, [1.0, 0.5], num_moves=0)
    with pytest.raises(ValueError, match="`position` must have a leading axis of 2 replicas"):
        tempering.sampler(at, kernel, [1.0, 0.5]).init(jax.random.key(0), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"`hottest` must be in \(0, 1\), got 1\.0"):
        tempering.ladder(1.0, 3)
    with pytest.raises(ValueError, match="`num` must be at least 2, got 1"):
        tempering.ladder(0.1, 1)
