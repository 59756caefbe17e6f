"""Markov chains on finitely many states, given by their transition matrix.

    P_ij = p(x_{t+1} = j | x_t = i);   p_{t+1} = p_t P;   equilibrium π = πP;   detailed balance π_i P_ij = π_j P_ji.

A chain that can reach every state from every other at one common time (`is_ergodic`) forgets where it began:
d(t) = max_i TV(Pᵗ(i, ·), π) → 0. Detailed balance makes π its equilibrium, and any proposal can be given it.

Papers: Metropolis et al., 1953; Hastings, 1970; Levin, Peres and Wilmer, "Markov chains and mixing times", 2009.
Differs from the papers: nothing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from jgen._checks import at_least, positive, rank, within
from jgen._types import Key, Scalar
from jgen.sampler import Sampler

Matrix = Float[Array, "states states"]
Law = Float[Array, " states"]


class State(NamedTuple):
    """The number of the state in which the chain is."""

    position: Int[Array, ""]


class Info(NamedTuple):
    """log P_ij of the transition that was taken, nats."""

    log_prob: Scalar


def check(matrix: Any) -> None:
    """Refuses what is no transition matrix; traced values pass.

    Raises:
        ValueError: `matrix` is not square, has entries outside of [0, 1], or rows that do not sum to 1 within 1e-4.
    """
    rank("matrix", matrix, 2, "(states, states)")
    if np.shape(matrix)[0] != np.shape(matrix)[1]:
        raise ValueError(f"`matrix` must be square, got shape {np.shape(matrix)}.")
    within("matrix", matrix, 0.0, 1.0 + 1e-6)
    if not isinstance(matrix, Tracer):
        sums = np.sum(np.asarray(matrix, np.float64), axis=1)
        if np.any(np.abs(sums - 1) > 1e-4):
            raise ValueError(f"`matrix` must have rows that sum to 1, got sums {sums}.")


def stationary(matrix: Matrix) -> Law:
    """π = πP, the left eigenvector of eigenvalue 1, of a chain with one equilibrium: π(I − P + 11ᵀ) = 1ᵀ.

    The system is regular where one class of states absorbs all others, and differentiable; a periodic chain has an
    equilibrium too. NaN or numbers below 0 come of chains that have several.
    """
    num = matrix.shape[0]
    return jnp.linalg.solve((jnp.eye(num, dtype=matrix.dtype) - matrix + 1).T, jnp.ones(num, matrix.dtype))


def evolve(matrix: Matrix, start: Law, num_steps: int) -> Float[Array, "times states"]:
    """The law of the chain at times 0, 1, …, num_steps: start·Pᵗ.

    Raises:
        ValueError: `num_steps` is negative.
    """
    at_least("num_steps", num_steps, 0)
    later = jax.lax.scan(lambda p, _: (p @ matrix, p @ matrix), start, length=num_steps)[1]
    return jnp.concatenate([start[None], later])


def power_iteration(matrix: Matrix, start: Law, *, tolerance: float = 1e-6, max_steps: int = 100_000) -> Law:
    """start·Pᵗ for the first t at which a step changes it by at most `tolerance` in total variation.

    A periodic chain never comes to rest; after `max_steps` the law is returned as it is.

    Raises:
        ValueError: `tolerance` is not positive, or `max_steps` is less than 1.
    """
    positive("tolerance", tolerance)
    at_least("max_steps", max_steps, 1)

    def moving(carry: Any) -> Any:
        t, before, now = carry
        return (t < max_steps) & (total_variation(before, now) > tolerance)

    def step(carry: Any) -> Any:
        t, _, now = carry
        return t + 1, now, now @ matrix

    return jax.lax.while_loop(moving, step, (jnp.asarray(1), start, start @ matrix))[2]


def total_variation(p: Float[Array, "*batch states"], q: Float[Array, "*batch states"]) -> Float[Array, "*batch"]:
    """TV(p, q) = ½ Σ_i |p_i − q_i|: the most that the two laws differ by on any event."""
    return 0.5 * jnp.sum(jnp.abs(p - q), axis=-1)


def mixing_curve(matrix: Matrix, num_steps: int) -> Float[Array, " times"]:
    """d(t) = max_i TV(Pᵗ(i, ·), π) for t = 0, 1, …, num_steps: how far the worst start still is from equilibrium."""
    laws = jax.vmap(lambda row: evolve(matrix, row, num_steps))(jnp.eye(matrix.shape[0], dtype=matrix.dtype))
    pi = jnp.broadcast_to(stationary(matrix)[None, None], laws.shape)
    return jnp.max(total_variation(laws, pi), axis=0)


def imbalance(matrix: Matrix, law: Law) -> Scalar:
    """max_ij |π_i P_ij − π_j P_ji|, the largest net flow in equilibrium: 0 under detailed balance."""
    flow = law[:, None] * matrix
    return jnp.max(jnp.abs(flow - flow.T))


def spectral_gap(matrix: Matrix, law: Law) -> Scalar:
    """1 − |λ_2| of a chain in detailed balance with π > 0: (1 − gap)ᵗ is the rate at which it forgets.

    The eigenvalues are those of the symmetric √π_i P_ij /√π_j.
    """
    root = jnp.sqrt(law)
    symmetric = root[:, None] * matrix / root[None]
    sizes = jnp.sort(jnp.abs(jnp.linalg.eigvalsh(0.5 * (symmetric + symmetric.T))))
    return 1 - sizes[-2]


def is_ergodic(matrix: Matrix) -> Bool[Array, ""]:
    """Whether some power of P has no zero; by Wielandt's theorem the power (n − 1)² + 1 is late enough."""
    reach = (matrix > 0).astype(jnp.float32)
    num, power = matrix.shape[0], 1
    while power < (num - 1) ** 2 + 1:  # once a power has no zero, later ones have none
        reach, power = (reach @ reach > 0).astype(jnp.float32), 2 * power
    return jnp.all(reach > 0)


def metropolis(proposal: Matrix, weights: Law) -> Matrix:
    """The reversible chain that Metropolis and Hastings make of any proposal Q: P_ij = Q_ij·min(1, r_ij) for i ≠ j.

    r_ij = w_j Q_ji/(w_i Q_ij). Its equilibrium is w/Σw if every state can be reached.

    Args:
        proposal: Q, a transition matrix.
        weights: w > 0, up to a constant.
    """
    forward = weights[:, None] * proposal  # w_i Q_ij
    rest = jnp.where(forward > 0, forward, 1.0)
    moves = jnp.where(forward > 0, proposal * jnp.minimum(1.0, forward.T / rest), 0.0)
    moves = moves * (1 - jnp.eye(len(weights), dtype=proposal.dtype))
    return moves + jnp.diag(1 - jnp.sum(moves, axis=1))


def reversal(matrix: Matrix, law: Law) -> Matrix:
    """The chain seen backwards in equilibrium, π_j P_ji/π_i; P itself under detailed balance."""
    return law[None] * matrix.T / law[:, None]


def estimate(path: Int[Array, "chains times"], num_states: int, *, smoothing: float = 0.0) -> Matrix:
    """The likeliest transition matrix of paths: P_ij = (n_ij + s)/(Σ_j n_ij + s·num_states).

    Args:
        path: states in 0..num_states-1.
        num_states: how many there are.
        smoothing: s; with 0 a state that was never left has a row of NaN.

    Raises:
        ValueError: `num_states` is less than 1, or `smoothing` is negative.
    """
    at_least("num_states", num_states, 1)
    at_least("smoothing", smoothing, 0)
    pairs = jnp.ravel(path[:, :-1] * num_states + path[:, 1:])
    counts = jnp.reshape(jnp.bincount(pairs, length=num_states**2), (num_states, num_states)) + smoothing
    return counts / jnp.sum(counts, axis=1, keepdims=True)


def sampler(matrix: Any) -> Sampler[State]:
    """The chain of a (states, states) matrix, one `jax.random.categorical` per step; many by `jax.vmap`.

    Raises:
        ValueError: `matrix` is no transition matrix.
    """
    check(matrix)
    log_matrix = jnp.log(jnp.asarray(matrix, jnp.result_type(float)))

    def init(key: Key, position: Any) -> State:
        del key
        return State(jnp.asarray(position, jnp.int32))

    def step(key: Key, state: State) -> tuple[State, Info]:
        row = log_matrix[state.position]
        new = jax.random.categorical(key, row).astype(jnp.int32)
        return State(new), Info(row[new])

    return Sampler(init, step)
