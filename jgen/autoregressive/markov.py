"""Markov chains of order k over tokens, learned by counting.

    p(x) = Π_{t ≤ k} p(x_t | x_1 … x_{t−1}) · Π_{t > k} p(x_t | x_{t−k} … x_{t−1}),
    p(c | h) = (n(h, c) + α) / (n(h) + α V)

The first k tokens have tables of their own, the initial distribution over k-tuples. A chain of order k over V tokens is
a chain of order 1 over the V^k tuples (`lifted`). Tables are dense, V^{k+1} numbers: for long contexts of text see
`ngram`. Markov: An example of statistical investigation of the text Eugene Onegin, 1913. Differs from it: nothing.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics
from jgen.autoregressive.decoding import token_noise
from jgen.autoregressive.tokens import tokens_of
from jgen.learners import CountingState, counting
from jgen.math import discrete
from jgen.model import Model

LARGEST_TABLE = 2**26


class Tables(NamedTuple):
    """Counts n(h, c), or probabilities p(c | h): rows are contexts, the oldest token the most significant digit.

    Attributes:
        initial: for j = 0 … k−1 the table (V^j, V) of token j + 1 given all j tokens before it.
        transition: (V^k, V), of each later token given the k before it.
    """

    initial: tuple[Any, ...]
    transition: Any


def contexts(tokens: Int[Array, "batch time"], vocabulary_size: int, order: int) -> Int[Array, "batch windows"]:
    """The row of the k tokens that end at each position from k − 1 on: Σ_j x_{t−j} V^j; one zero more for order 0."""
    num = tokens.shape[1] - order + 1
    rows = jnp.zeros((tokens.shape[0], max(num, 0)), jnp.int32)
    for j in range(order):
        rows = rows * vocabulary_size + tokens[:, j : j + num]
    return rows


def count(tokens: Int[Array, "batch time"], vocabulary_size: int, order: int) -> Tables:
    """How often each token followed each context, in all rows of `tokens` together."""

    def table(order: int, first: int, last: int) -> Any:
        counts = jnp.zeros((vocabulary_size**order, vocabulary_size))
        rows = contexts(tokens[:, : last - 1], vocabulary_size, order)[:, first:]
        following = tokens[:, first + order : last]
        return counts.at[rows, following].add(1.0) if following.shape[1] > 0 else counts

    length = tokens.shape[1]
    initial = tuple(table(j, 0, min(j + 1, length)) for j in range(order))
    return Tables(initial, table(order, 0, length))


def solve(counts: Tables, smoothing: float = 0.0) -> Tables:
    """The maximum-likelihood (α = 0) or smoothed probabilities."""
    return jax.tree.map(lambda table: discrete.frequencies(table, smoothing), counts)


def log_prob(params: Tables, tokens: Int[Array, "batch time"]) -> Float[Array, " batch"]:
    """log p(x) in nats; −inf where the probability is zero."""
    order, vocabulary_size = len(params.initial), params.transition.shape[1]
    total = jnp.zeros(tokens.shape[0])
    for j, table in enumerate(params.initial[: tokens.shape[1]]):
        row = contexts(tokens[:, :j], vocabulary_size, j)[:, 0]
        total = total + jnp.log(table[row, tokens[:, j]])
    if tokens.shape[1] <= order:
        return total
    rows = contexts(tokens[:, :-1], vocabulary_size, order)
    return total + jnp.sum(jnp.log(params.transition[rows, tokens[:, order:]]), axis=1)


def lifted(params: Tables) -> Float[Array, "tuples tuples"]:
    """The transition matrix of the chain of order 1 over k-tuples: (a, …, y) goes to (…, y, z) with p(z | a, …, y)."""
    num, vocabulary_size = params.transition.shape
    here = jnp.arange(num)[:, None]
    there = (here * vocabulary_size + jnp.arange(vocabulary_size)[None]) % num
    return jnp.zeros((num, num)).at[here, there].add(params.transition)


def initial_distribution(params: Tables) -> Float[Array, " tuples"]:
    """p(x_1 … x_k) over all V^k tuples."""
    p = jnp.ones(1)
    for table in params.initial:
        p = (p[:, None] * table).reshape(-1)
    return p


def sample(key: Key, params: Tables, num: int, length: int) -> Int[Array, "num length"]:
    """Draws `num` rows; token t of row i draws from (key, i, t)."""
    keys, order = random.example_keys(key, num), len(params.initial)
    size, vocabulary_size = params.transition.shape

    def draw(t: Any, p: Any) -> Any:
        return jnp.argmax(jnp.log(p) + token_noise(keys, t, vocabulary_size), axis=1).astype(jnp.int32)

    row, first = jnp.zeros(num, jnp.int32), []
    for t, table in enumerate(params.initial[:length]):
        first.append(draw(t, table[row]))
        row = row * vocabulary_size + first[-1]

    def step(row: Any, t: Any) -> tuple[Any, Any]:
        token = draw(t, params.transition[row])
        return (row * vocabulary_size + token) % size, token

    later = jax.lax.scan(step, row, jnp.arange(min(order, length), length))[1]
    return jnp.concatenate([jnp.stack(first), later]).T if first else later.T


def model(
    vocabulary_size: int, *, order: int = 1, smoothing: float = 1.0, length: int = 100, axis_name: str | None = None
) -> Model[CountingState]:
    """A Markov chain over batches {"tokens": (batch, time)}; an update adds the batch's counts.

    Args:
        vocabulary_size: V; tokens are 0..V-1.
        order: k, the tokens that the next one depends on; 0 draws them independently.
        smoothing: α, what every count starts with.
        length: how many tokens `sample` draws.
        axis_name: the mapped axis over which the counts are added.

    Raises:
        ValueError: an argument is out of its range, or the table V^{k+1} is larger than 2^26.
    """
    for name, value, low in (("vocabulary_size", vocabulary_size, 1), ("order", order, 0), ("length", length, 1)):
        _checks.at_least(name, value, low)
    _checks.at_least("smoothing", smoothing, 0.0)
    if vocabulary_size ** (order + 1) > LARGEST_TABLE:
        raise ValueError(f"`order` must keep the {vocabulary_size}^(order + 1) table below 2^26 entries, got {order}.")

    def evaluate(key: Key, state: CountingState, batch: Batch) -> Metrics:
        del key
        nll = -log_prob(state.params, tokens_of(batch, vocabulary_size))
        return {"nll": nll, "nats_per_token": nll / batch["tokens"].shape[1]}

    return counting(
        lambda batch: jax.tree.map(jnp.zeros_like, count(tokens_of(batch, vocabulary_size), vocabulary_size, order)),
        lambda batch: count(tokens_of(batch, vocabulary_size), vocabulary_size, order),
        functools.partial(solve, smoothing=smoothing),
        evaluate=evaluate,
        sample=lambda key, state, num: {"tokens": sample(key, state.params, num, length)},
        log_prob=lambda state, batch: log_prob(state.params, tokens_of(batch, vocabulary_size)),
        axis_name=axis_name,
    )
