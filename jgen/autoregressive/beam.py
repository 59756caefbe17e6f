"""Beam search in static shapes: the most probable outputs of any model that gives p(next token | tokens so far).

    maximize  log p(y) / ((5 + |y|) / 6)^α  over y that end with EOS, or have `length` tokens and none

k unfinished prefixes (beams) live side by side, and a pool keeps the k best finished outputs. A step takes the best 2k
of the k·V continuations, so that k of them live on whatever ends. One that ends enters the pool only if it is among the
best k: a beam of width 1 is then the greedy output (for α = 0). Prefixes that reach `length` compete with the pool.
The search stops early where no prefix can still enter the pool: log p only falls, and |y| is at most `length`.

A beam is no bound on greedy: it may drop the greedy prefix and lose. `search` returns what the beam found; `decode`
returns the better of that and the greedy output.
Graves: Sequence transduction with recurrent neural networks, 2012. Penalty: Wu et al., Google's neural machine
translation system, 2016. Differs from it: no coverage term, no pruning.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jgen import _checks

Step = Callable[[Any, Any], tuple[Any, Any]]
"""(tokens (batch, lanes), state) -> (log p of the next token (batch, lanes, vocabulary), state after the tokens).

Leaves of the state have axes (batch, lanes, ...); a lane is one prefix of one example.
"""


class Outputs(NamedTuple):
    """The best outputs of each example, best first; a score of −∞ marks those that do not exist.

    Attributes:
        tokens: EOS from the end of an output on.
        log_prob: log p(y) in nats; that of a prefix where y has no EOS.
        score: log_prob divided by the length penalty.
    """

    tokens: Int[Array, "batch width length"]
    log_prob: Float[Array, "batch width"]
    score: Float[Array, "batch width"]


class _Search(NamedTuple):
    """After `time` tokens: the live prefixes, the state of each before its last token, and the pool."""

    time: Any
    live: Outputs
    state: Any
    pool: Outputs


def penalty(length: Any, alpha: float) -> Any:
    """((5 + length) / 6)^α, by which log-probabilities are divided: 1 for α = 0, greater where longer is better."""
    return ((5.0 + length) / 6.0) ** alpha


def search(
    step: Step, state: Any, first: Int[Array, " batch"], length: int, *, width: int, eos: int, alpha: float = 0.0
) -> Outputs:
    """The `width` best outputs that a beam of that width finds.

    Args:
        step: the model.
        state: before the first token, one lane: leaves (batch, 1, ...).
        first: the token before the first, START.
        length: of the longest output.
        width: k, the number of live prefixes. V^(length−1) of them make the search exhaustive.
        eos: the token that ends an output.
        alpha: of the length penalty; 0 compares probabilities.

    Raises:
        ValueError: `length` or `width` is less than 1, or `alpha` negative.
    """
    _check(length, width, alpha)
    num, bound = first.shape[0], penalty(length, alpha)
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (num, width, *leaf.shape[2:])), state)
    tokens = jnp.full((num, width, length), eos, jnp.int32)
    nothing = jnp.full((num, width), -jnp.inf)
    one = nothing.at[:, 0].set(0.0)  # all lanes hold the same empty prefix, which must count once
    start = _Search(jnp.zeros((), jnp.int32), Outputs(tokens, one, one), state, Outputs(tokens, nothing, nothing))

    def goes_on(now: _Search) -> Any:
        hope = jnp.max(now.live.log_prob, axis=1) / bound > jnp.min(now.pool.score, axis=1)
        return (now.time < length) & jnp.any(hope)

    def advance(now: _Search) -> _Search:
        previous = jnp.take(now.live.tokens, jnp.maximum(now.time - 1, 0), axis=2)
        previous = jnp.where(now.time == 0, first[:, None].astype(jnp.int32), previous)
        log_probs, state = step(previous, now.state)
        return _select(now, log_probs, state, eos, alpha)

    last = jax.lax.while_loop(goes_on, advance, start)
    # Where the search stopped early this score is the bound that no live prefix exceeds: it then changes nothing.
    unfinished = last.live._replace(score=last.live.log_prob / bound)
    return _best(last.pool, unfinished, width)


def greedy(
    step: Step, state: Any, first: Int[Array, " batch"], length: int, *, eos: int, alpha: float = 0.0
) -> Outputs:
    """The output whose every token is the most probable one; width 1. Arguments and errors as in `search`."""
    _check(length, 1, alpha)

    def advance(before: Any, _: None) -> Any:
        token, log_prob, ended, state = before
        log_probs, state = step(token, state)
        token = jnp.where(ended, eos, jnp.argmax(log_probs, axis=-1).astype(jnp.int32))
        log_prob = jnp.where(ended, log_prob, log_prob + jnp.max(log_probs, axis=-1))
        return (token, log_prob, ended | (token == eos), state), token

    lanes = (first.shape[0], 1)
    start = (first[:, None].astype(jnp.int32), jnp.zeros(lanes), jnp.zeros(lanes, bool), state)
    (_, log_prob, _, _), tokens = jax.lax.scan(advance, start, None, length=length)
    tokens = jnp.moveaxis(tokens, 0, 2)
    size = jnp.minimum(jnp.sum(tokens != eos, axis=2) + 1, length)
    return Outputs(tokens, log_prob, log_prob / penalty(size, alpha))


def decode(
    step: Step, state: Any, first: Int[Array, " batch"], length: int, *, width: int, eos: int, alpha: float = 0.0
) -> Outputs:
    """The better of the beam's first output and the greedy one; width 1. Arguments and errors as in `search`."""
    found = search(step, state, first, length, width=width, eos=eos, alpha=alpha)
    first_found = jax.tree.map(lambda leaf: leaf[:, :1], found)
    return _best(first_found, greedy(step, state, first, length, eos=eos, alpha=alpha), 1)


def _select(now: _Search, log_probs: Any, state: Any, eos: int, alpha: float) -> _Search:
    """The next live prefixes and pool, from the best 2k continuations."""
    num, width, size = log_probs.shape
    total = (now.live.log_prob[..., None] + log_probs).reshape(num, width * size)
    log_prob, index = jax.lax.top_k(total, min(2 * width, width * size))
    parent, token = index // size, (index % size).astype(jnp.int32)
    tokens = _take(now.live.tokens, parent).at[:, :, now.time].set(token)
    ended = token == eos
    enters = ended & (jnp.arange(log_prob.shape[1]) < width)[None]
    score = jnp.where(enters, log_prob / penalty(now.time + 1, alpha), -jnp.inf)
    pool = _best(now.pool, Outputs(tokens, log_prob, score), width)
    lives, kept = jax.lax.top_k(jnp.where(ended, -jnp.inf, log_prob), width)
    state = jax.tree.map(lambda leaf: _take(leaf, _take(parent, kept)), state)
    return _Search(now.time + 1, Outputs(_take(tokens, kept), lives, lives), state, pool)


def _best(one: Outputs, other: Outputs, width: int) -> Outputs:
    """The `width` highest scores of both; at equal scores those of `one`, then the earlier ones."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), one, other)
    index = jax.lax.top_k(both.score, width)[1]
    return jax.tree.map(lambda leaf: _take(leaf, index), both)


def _take(leaf: Any, index: Any) -> Any:
    """leaf[b, index[b, i]] for all b and i."""
    return jax.vmap(lambda row, at: row[at])(leaf, index)


def _check(length: int, width: int, alpha: float) -> None:
    _checks.at_least("length", length, 1)
    _checks.at_least("width", width, 1)
    _checks.at_least("alpha", alpha, 0.0)
