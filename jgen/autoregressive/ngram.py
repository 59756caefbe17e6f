"""Interpolated n-grams: a Markov chain of order k over text, its tables sparse, each order leaning on the one below.

    p_j(c | h) = (n(h, c) + T(h) p_{j−1}(c | h')) / (n(h) + T(h)),      p_{−1} = 1/V,      p = p_k

n counts what followed the context h of j tokens, T(h) how many different tokens did, h' is h without its oldest token.
Witten and Bell: The zero-frequency problem, 1991, method C. Differs from the paper: characters in place of words.

Each order keeps the sorted codes Σ_i x_{t−i} V^i of the strings it saw, and running totals of their counts; a look-up
is a binary search, so everything has a static shape and compiles.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics
from jgen.autoregressive.decoding import token_noise
from jgen.autoregressive.tokens import tokens_of
from jgen.learners import CountingState
from jgen.model import Model

UNUSED = np.uint32(2**32 - 1)  # fills the end of a table, past every code


class Table(NamedTuple):
    """The strings of one length.

    Attributes:
        codes: (capacity,) uint32, sorted; `UNUSED` at the end.
        totals: (capacity + 1,) int32; string i was seen totals[i + 1] − totals[i] times.
    """

    codes: Any
    totals: Any


def empty(capacity: int) -> Table:
    """A table that has seen nothing."""
    return Table(jnp.full(capacity, UNUSED, jnp.uint32), jnp.zeros(capacity + 1, jnp.int32))


def table(codes: Any, counts: Any, capacity: int) -> Table:
    """Sorts codes and adds up the counts of equal ones; the largest codes fall out of a table that is too small."""
    codes, counts = jax.lax.sort((codes, counts), num_keys=1)
    fresh = jnp.concatenate([jnp.ones(1, bool), codes[1:] != codes[:-1]])
    slot = jnp.cumsum(fresh) - 1
    unique = jnp.full(capacity, UNUSED, jnp.uint32).at[slot].set(codes, mode="drop")
    sums = jnp.zeros(capacity, jnp.int32).at[slot].add(jnp.where(codes == UNUSED, 0, counts), mode="drop")
    return Table(unique, jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(sums)]))


def count(tokens: Int[Array, "batch time"], vocabulary_size: int, order: int, capacity: int) -> tuple[Table, ...]:
    """The tables of strings of 1 … order + 1 tokens."""
    found = []
    for j in range(order + 1):
        # One unused code at the end, so that the table of strings longer than `tokens` is empty, not of size 0.
        codes = jnp.append(_codes(tokens, vocabulary_size, j + 1), UNUSED)
        found.append(table(codes, jnp.ones(codes.shape, jnp.int32), _capacity(vocabulary_size, j, capacity)))
    return tuple(found)


def merge(left: Table, right: Table) -> Table:
    """The counts of both, in a table as large as `left`."""
    codes = jnp.concatenate([left.codes, right.codes])
    return table(codes, jnp.concatenate([jnp.diff(left.totals), jnp.diff(right.totals)]), left.codes.shape[0])


def conditional(tables: tuple[Table, ...], codes: Any, reach: Any, vocabulary_size: int) -> Float[Array, "*batch"]:
    """p(c | h) by Witten and Bell.

    Args:
        codes: for each order j the codes of the j + 1 tokens that end in c.
        reach: how many tokens there are before c; orders above it are left out.
    """
    p = jnp.full(jnp.shape(codes[0]), 1.0 / vocabulary_size)
    for j, (known, code) in enumerate(zip(tables, codes, strict=True)):
        first = code // vocabulary_size * vocabulary_size
        low, high = (jnp.searchsorted(known.codes, edge) for edge in (first, first + vocabulary_size))
        at = jnp.minimum(jnp.searchsorted(known.codes, code), known.codes.shape[0] - 1)
        seen = jnp.where(known.codes[at] == code, known.totals[at + 1] - known.totals[at], 0)
        context, kinds = known.totals[high] - known.totals[low], high - low
        weight = jnp.maximum(context + kinds, 1)
        p = jnp.where((context > 0) & (j <= reach), (seen + kinds * p) / weight, p)
    return p


def token_log_prob(
    tables: tuple[Table, ...], tokens: Int[Array, "batch time"], vocabulary_size: int
) -> Float[Array, "batch time"]:
    """log p(x_t | up to k tokens before it) in nats."""
    reach = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    codes = []
    for j in range(len(tables)):
        code = _codes(tokens, vocabulary_size, j + 1)
        codes.append(jnp.pad(code, ((0, 0), (tokens.shape[1] - code.shape[1], 0))))
    return jnp.log(conditional(tables, codes, reach, vocabulary_size))


def sample(
    key: Key, tables: tuple[Table, ...], num: int, length: int, vocabulary_size: int
) -> Int[Array, "num length"]:
    """Draws `num` rows; token t of row i draws from (key, i, t)."""
    keys, order = random.example_keys(key, num), len(tables) - 1
    choices = jnp.arange(vocabulary_size, dtype=jnp.uint32)[None]

    def step(past: Any, t: Any) -> tuple[Any, Any]:
        codes, code = [jnp.broadcast_to(choices, (num, vocabulary_size))], jnp.zeros(num, jnp.uint32)
        for j in range(1, order + 1):
            code = code + past[:, order - j].astype(jnp.uint32) * vocabulary_size ** (j - 1)
            codes.append(code[:, None] * vocabulary_size + choices)
        p = conditional(tables, codes, t, vocabulary_size)
        token = jnp.argmax(jnp.log(p) + token_noise(keys, t, vocabulary_size), axis=1).astype(jnp.int32)
        return jnp.concatenate([past[:, 1:], token[:, None]], axis=1)[:, :order] if order else past, token

    return jax.lax.scan(step, jnp.zeros((num, order), jnp.int32), jnp.arange(length))[1].T


def model(
    vocabulary_size: int, *, order: int = 4, capacity: int = 2**20, length: int = 500, axis_name: str | None = None
) -> Model[CountingState]:
    """Interpolated n-grams over batches {"tokens": (batch, time)}; an update adds the batch's counts.

    Its metric "fill" is the share of the fullest table that is used; it is infinite, which stops a run, once strings
    had to be dropped.

    Args:
        vocabulary_size: V; tokens are 0..V-1.
        order: k, the longest context.
        capacity: the largest number of different strings of one length.
        length: how many tokens `sample` draws.
        axis_name: the mapped axis over which the counts are added.

    Raises:
        ValueError: an argument is out of its range, or V^{k+1} does not fit 32 bits.
    """
    _check(vocabulary_size, order, capacity, length)

    def init(key: Key, batch: Batch) -> CountingState:
        del key
        tokens_of(batch, vocabulary_size)
        return CountingState(tuple(empty(_capacity(vocabulary_size, j, capacity)) for j in range(order + 1)), {})

    def update(key: Key, state: CountingState, batch: Batch) -> tuple[CountingState, Metrics]:
        del key
        tokens = tokens_of(batch, vocabulary_size)
        if axis_name is not None:
            tokens = jax.lax.all_gather(tokens, axis_name, tiled=True)
        added = count(tokens, vocabulary_size, order, tokens.size)
        tables = tuple(merge(old, new) for old, new in zip(state.params, added, strict=True))
        return CountingState(tables, {}), {"fill": _fill(tables, vocabulary_size)}

    def each(state: CountingState, batch: Batch) -> Any:
        return token_log_prob(state.params, tokens_of(batch, vocabulary_size), vocabulary_size)

    def evaluate(key: Key, state: CountingState, batch: Batch) -> Metrics:
        del key
        nll = -jnp.sum(each(state, batch), axis=1)
        return {"nll": nll, "nats_per_token": nll / batch["tokens"].shape[1]}

    def draw(key: Key, state: CountingState, num: int) -> Batch:
        return {"tokens": sample(key, state.params, num, length, vocabulary_size)}

    return Model(init, update, evaluate, draw, lambda state, batch: jnp.sum(each(state, batch), axis=1))


def _check(vocabulary_size: int, order: int, capacity: int, length: int) -> None:
    bounds = ("vocabulary_size", vocabulary_size, 1), ("order", order, 0), ("capacity", capacity, 1)
    for name, value, low in (*bounds, ("length", length, 1)):
        _checks.at_least(name, value, low)
    if vocabulary_size ** (order + 1) >= int(UNUSED):
        raise ValueError(f"`order` must keep {vocabulary_size}^(order + 1) below 2^32, got {order}.")


def _codes(tokens: Any, vocabulary_size: int, length: int) -> Any:
    """The code of the `length` tokens that end at each position from length − 1 on."""
    num = max(tokens.shape[1] - length + 1, 0)
    code = jnp.zeros((tokens.shape[0], num), jnp.uint32)
    for j in range(length):
        code = code * vocabulary_size + tokens[:, j : j + num].astype(jnp.uint32)
    return code


def _capacity(vocabulary_size: int, order: int, capacity: int) -> int:
    return min(vocabulary_size ** (order + 1), capacity)


def _fill(tables: tuple[Table, ...], vocabulary_size: int) -> Any:
    """The share in use of the fullest table that cannot hold all V^{j+1} strings; infinite once it is full."""
    share = jnp.zeros(())
    for j, known in enumerate(tables):
        if known.codes.shape[0] < vocabulary_size ** (j + 1):
            share = jnp.maximum(share, jnp.mean(known.codes != UNUSED))
    return jnp.where(share == 1.0, jnp.inf, share)
