"""Parallel tempering: replicas of one chain at falling inverse temperatures, which trade places.

    π(x_1, …, x_R) ∝ Π_i f_{β_i}(x_i),  β_1 > … > β_R;  each replica moves by a kernel of its own f_β, then neighbours
    i, j = i + 1 swap with probability min(1, r),  log r = log f_{β_i}(x_j) + log f_{β_j}(x_i) − log f_{β_i}(x_i)
    − log f_{β_j}(x_j): pairs (1, 2), (3, 4), … in even steps, (2, 3), (4, 5), … in odd ones.

Hot replicas cross between modes and hand them down; replica 1 stays on the target. Each half keeps the joint law and is
reversible; their alternation keeps it and is not, so that replicas travel instead of diffusing.

Papers: Geyer, "Markov chain Monte Carlo maximum likelihood", 1991; Okabe et al., 2001 (even and odd in turn); Syed et
al., "Non-reversible parallel tempering", 2022.
Differs from the papers: nothing.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jgen import random
from jgen._checks import at_least
from jgen._types import Key
from jgen.sampler import Sampler, run
from jgen.samplers import metropolis


class State(NamedTuple):
    """Where the replicas stand.

    Attributes:
        position: leading axis `replicas`; the first is at the first inverse temperature, the target.
        walkers: which walker stands at each temperature: a permutation that swaps change; (replicas,), or (replicas,
            chains) where a replica is a batch of chains.
        step: how many steps were taken.
    """

    position: Any
    walkers: Int[Array, "replicas *chains"]
    step: Int[Array, ""]


class Swaps(NamedTuple):
    """What became of each pair of neighbours, (1, 2), (2, 3), ….

    Attributes:
        tried: whether it was this pair's turn.
        accepted: whether it swapped; (pairs,), or (pairs, chains) where a replica is a batch of chains.
        accept_prob: min(1, r); also of pairs whose turn it was not, 0.
    """

    tried: Bool[Array, " pairs"]
    accepted: Bool[Array, "pairs *chains"]
    accept_prob: Float[Array, "pairs *chains"]


class Info(NamedTuple):
    """What the step did.

    Attributes:
        swaps: the trades.
        kernel: the Info of each replica's last move, leading axis `replicas`.
    """

    swaps: Swaps
    kernel: Any


def ladder(hottest: float, num: int) -> Float[np.ndarray, " num"]:
    """Inverse temperatures 1 = β_1 > … > β_num = hottest in one ratio.

    Raises:
        ValueError: `num` is less than 2, or `hottest` is not in (0, 1).
    """
    at_least("num", num, 2)
    if not 0 < hottest < 1:
        raise ValueError(f"`hottest` must be in (0, 1), got {hottest}.")
    return np.geomspace(1.0, hottest, num)


def powers(
    log_density: Callable[[Any], Any], kernel: Callable[[Any], Sampler[Any]]
) -> tuple[Callable[[Any, Any], Any], Callable[[Any], Sampler[Any]]]:
    """log f_β = β·log π with its kernel: the first two arguments of `sampler`.

    Args:
        log_density: (position) -> log π up to a constant.
        kernel: (log-density) -> a Sampler of it, such as `metropolis.sampler` with its proposal bound.
    """

    def at(position: Any, beta: Any) -> Any:
        return beta * log_density(position)

    return at, lambda beta: kernel(lambda position: at(position, beta))


def exchange(
    key: Key, log_density: Callable[[Any, Any], Any], position: Any, betas: Float[Array, " replicas"], parity: Any
) -> tuple[Any, Swaps]:
    """Swaps neighbours (i, i + 1), i ≡ parity modulo 2: the new positions, and what became of each pair.

    Args:
        key: one uniform number per pair, and per chain where `log_density` gives one value per chain.
        log_density: (position, β) -> log f_β up to a constant that may depend on β.
        position: leading axis `replicas`.
        betas: (replicas,).
        parity: 0 or 1; may be traced.
    """
    num = betas.shape[0]
    index = jnp.arange(num)
    partner = jnp.where((index + parity) % 2 == 0, index + 1, index - 1)
    partner = jnp.where((partner < 0) | (partner >= num), index, partner)
    theirs = jax.tree.map(lambda x: x[partner], position)
    gain = jax.vmap(log_density)(theirs, betas) - jax.vmap(log_density)(position, betas)
    lower = jnp.minimum(index, partner)
    uniform = jax.random.uniform(key, gain.shape)[lower]
    accepted, prob = metropolis.decide(uniform, gain + gain[partner])
    accepted = accepted & _lead(partner != index, accepted.ndim)
    swapped = jax.tree.map(lambda new, old: jnp.where(_lead(accepted, new.ndim), new, old), theirs, position)
    upper = (partner == index + 1)[:-1]
    turn = _lead(upper, prob.ndim)
    return swapped, Swaps(upper, accepted[:-1] & turn, prob[:-1] * turn)


def swap_rates(swaps: Swaps) -> Float[Array, " pairs"]:
    """The mean acceptance of each pair over its turns; `swaps` as `run` keeps them, leading axis `steps`."""
    prob = jnp.mean(jnp.reshape(swaps.accept_prob, (*swaps.tried.shape, -1)), axis=-1)
    return jnp.sum(prob, axis=0) / jnp.sum(swaps.tried, axis=0)


def sampler(
    log_density: Callable[[Any, Any], Any],
    kernel: Callable[[Any], Sampler[Any]],
    betas: Any,
    *,
    num_moves: int = 1,
) -> Sampler[State]:
    """The kernel of one set of replicas; many sets by `jax.vmap`. `init` takes positions with leading axis `replicas`.

    A kernel that moves a batch of chains, such as block Gibbs of an RBM, serves too: then `log_density` gives one value
    per chain, and every chain of a replica swaps by itself.

    Args:
        log_density: (position, β) -> log f_β, up to a constant for each β; see `powers`.
        kernel: (β) -> a Sampler that keeps f_β; β is traced.
        betas: (R,), β_1 > … > β_R, the target's first.
        num_moves: moves of each replica between swaps.

    Raises:
        ValueError: `betas` do not fall or are fewer than two, or `num_moves` is less than 1.
    """
    table = np.asarray(betas, np.float64)
    if table.ndim != 1 or len(table) < 2 or not np.all(np.diff(table) < 0):
        raise ValueError(f"`betas` must be at least two numbers that fall, along one axis, got {betas}.")
    at_least("num_moves", num_moves, 1)
    levels = jnp.asarray(table, jnp.result_type(float))

    def init(key: Key, position: Any) -> State:
        del key
        lengths = {x.shape[:1] for x in jax.tree.leaves(position)}
        if lengths != {(len(table),)}:
            raise ValueError(f"`position` must have a leading axis of {len(table)} replicas, got {lengths}.")
        chains = jax.eval_shape(jax.vmap(log_density), position, levels).shape[1:]
        walkers = jnp.broadcast_to(_lead(jnp.arange(len(table)), len(chains) + 1), (len(table), *chains))
        return State(position, walkers, jnp.zeros((), jnp.int32))

    def step(key: Key, state: State) -> tuple[State, Info]:
        move_key, swap_key = jax.random.split(key)
        keys = random.example_keys(move_key, len(table))
        position, infos = jax.vmap(functools.partial(_move, kernel, num_moves))(keys, levels, state.position)
        together = (position, state.walkers)  # the walkers' numbers travel with them
        (position, walkers), swaps = exchange(
            swap_key, lambda x, beta: log_density(x[0], beta), together, levels, state.step % 2
        )
        return State(position, walkers, state.step + 1), Info(swaps, infos)

    return Sampler(init, step)


def _move(kernel: Callable[[Any], Sampler[Any]], num_moves: int, key: Key, beta: Any, position: Any) -> tuple[Any, Any]:
    """Where one replica stands after its moves, and the Info of the last."""
    init_key, run_key = jax.random.split(key)
    inner = kernel(beta)
    end, infos = run(run_key, inner, inner.init(init_key, position), num_moves, keep=lambda state, info: info)
    return end.position, jax.tree.map(lambda x: x[-1], infos)


def _lead(mask: Any, ndim: int) -> Any:
    """`mask` with trailing axes of length 1, `ndim` in all."""
    return jnp.reshape(mask, mask.shape + (1,) * (ndim - mask.ndim))
