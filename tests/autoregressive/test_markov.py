"""Markov chains: equal to counts, equal to their lift, normalized; interpolated n-grams against a dictionary."""

import collections
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.autoregressive import markov, ngram
from jgen.autoregressive.tokens import tokens_of

TOKENS = np.array([[0, 1, 2, 1, 0, 1], [1, 1, 0, 2, 2, 0], [0, 1, 0, 1, 2, 2]])


def space(length, size=3):
    return jnp.array(list(itertools.product(range(size), repeat=length)))


def by_dictionary(tokens, order):
    """{(context, token): count} at positions from `order` on, and of the first tokens per prefix."""
    later, first = collections.Counter(), collections.Counter()
    for row in tokens.tolist():
        for t, token in enumerate(row):
            table = later if t >= order else first
            table[tuple(row[max(t - order, 0) : t]), token] += 1
    return first, later


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_tables_are_the_counts(order):
    counts = jax.jit(lambda t: markov.count(t, 3, order))(TOKENS)
    first, later = by_dictionary(TOKENS, order)
    for j, table in enumerate((*counts.initial, counts.transition)):
        known = later if j == order else first
        for row, context in enumerate(itertools.product(range(3), repeat=j)):
            for token in range(3):
                assert table[row, token] == known[context, token]
    probability = markov.solve(counts).transition
    for row, context in enumerate(itertools.product(range(3), repeat=order)):
        total = sum(later[context, token] for token in range(3))
        expected = [later[context, token] / total if total else 1 / 3 for token in range(3)]
        np.testing.assert_allclose(probability[row], expected, rtol=1e-6)


def test_smoothing_adds_alpha():
    p = markov.solve(markov.count(jnp.asarray(TOKENS), 3, 1), smoothing=0.5).transition
    _, later = by_dictionary(TOKENS, 1)
    n = np.array([[later[(a,), b] for b in range(3)] for a in range(3)])
    np.testing.assert_allclose(p, (n + 0.5) / (n.sum(1, keepdims=True) + 1.5), rtol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_sums_to_one(order):
    params = markov.solve(markov.count(jnp.asarray(TOKENS), 3, order), smoothing=0.3)
    for length in (1, 4):
        np.testing.assert_allclose(jnp.sum(jnp.exp(markov.log_prob(params, space(length)))), 1.0, atol=1e-5)


def test_order_k_is_order_1_over_tuples():
    params = markov.solve(markov.count(jnp.asarray(TOKENS), 3, 2), smoothing=0.3)
    chain, start = np.asarray(markov.lifted(params)), np.asarray(markov.initial_distribution(params))
    np.testing.assert_allclose(chain.sum(axis=1), 1.0, rtol=1e-6)
    rows = np.asarray(space(5))
    tuples = rows[:, :-1] * 3 + rows[:, 1:]
    p = start[tuples[:, 0]]
    for t in range(3):
        p = p * chain[tuples[:, t], tuples[:, t + 1]]
    np.testing.assert_allclose(jnp.exp(markov.log_prob(params, jnp.asarray(rows))), p, rtol=1e-4)


def test_a_transposed_table_is_caught():
    params = markov.solve(markov.count(jnp.asarray(TOKENS), 3, 1))
    wrong = params._replace(transition=params.transition.T)
    assert abs(float(jnp.sum(jnp.exp(markov.log_prob(wrong, space(4))))) - 1.0) > 0.01


def test_a_probability_of_zero_is_minus_infinity():
    params = markov.solve(markov.count(jnp.array([[0, 1, 0, 1]]), 3, 1))
    np.testing.assert_array_equal(markov.log_prob(params, jnp.array([[0, 1, 0], [2, 0, 0]])), [0.0, -np.inf])


@pytest.mark.parametrize("order", [0, 2])
def test_samples_follow_the_chain(order):
    params = markov.solve(markov.count(jnp.asarray(TOKENS), 3, order), smoothing=0.5)
    num = 20_000
    drawn = np.asarray(jax.jit(lambda key: markov.sample(key, params, num, 3))(jax.random.key(0)))
    counts = np.bincount(drawn @ np.array([9, 3, 1]), minlength=27)
    expected = num * np.exp(np.asarray(markov.log_prob(params, space(3))))
    assert np.sum((counts - expected) ** 2 / expected) < 62.0  # χ² with 26 degrees of freedom, p = 1e-4


def witten_bell(rows, order, size):
    """The formula of the module's docstring, by dictionaries."""
    seen = collections.Counter()
    for row in rows:
        for j in range(order + 1):
            for t in range(j, len(row)):
                seen[tuple(row[t - j : t + 1])] += 1

    def p(context, token):
        if context is None:
            return 1 / size
        followers = [seen[(*context, c)] for c in range(size)]
        below = p(context[1:] if context else None, token)
        kinds = sum(n > 0 for n in followers)
        return (seen[(*context, token)] + kinds * below) / (sum(followers) + kinds) if kinds else below

    return p


@pytest.mark.parametrize("order", [0, 1, 3])
def test_ngrams_equal_a_dictionary(order):
    model: Any = ngram.model(5, order=order, capacity=40, length=3)
    rng = np.random.default_rng(0)
    parts = [rng.choice(5, size=(2, 9), p=[0.5, 0.2, 0.2, 0.1, 0.0]) for _ in range(3)]
    state, metrics = jax.jit(model.init)(jax.random.key(0), {"tokens": parts[0]}), {}
    for part in parts:
        state, metrics = jax.jit(model.update)(jax.random.key(1), state, {"tokens": part})
    assert jnp.isfinite(metrics["fill"])
    p, rows = witten_bell([row for part in parts for row in part.tolist()], order, 5), rng.integers(0, 5, (20, 4))
    expected = [
        sum(np.log(p(tuple(row[max(t - order, 0) : t]), token)) for t, token in enumerate(row)) for row in rows.tolist()
    ]
    np.testing.assert_allclose(jax.jit(model.log_prob)(state, {"tokens": rows}), expected, rtol=1e-4)
    total = jnp.sum(jnp.exp(jax.jit(model.log_prob)(state, {"tokens": space(3, 5)})))
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_ngram_samples_follow_the_chain():
    model: Any = ngram.model(3, order=2, length=3)
    state = model.update(jax.random.key(0), model.init(jax.random.key(0), {"tokens": TOKENS}), {"tokens": TOKENS})[0]
    drawn = np.asarray(jax.jit(model.sample, static_argnums=2)(jax.random.key(0), state, 20_000)["tokens"])
    counts = np.bincount(drawn @ np.array([9, 3, 1]), minlength=27)
    expected = 20_000 * np.exp(np.asarray(model.log_prob(state, {"tokens": space(3)})))
    assert np.sum((counts - expected) ** 2 / expected) < 62.0


def test_an_overfull_table_is_not_hidden():
    model: Any = ngram.model(5, order=1, capacity=6)
    batch = {"tokens": jnp.asarray(np.random.default_rng(0).integers(0, 5, (4, 30)))}
    _, metrics = model.update(jax.random.key(0), model.init(jax.random.key(0), batch), batch)
    assert jnp.isinf(metrics["fill"])


def test_largest_codes_do_not_overflow():
    model: Any = ngram.model(84, order=4, capacity=64)
    tokens = jnp.full((1, 12), 83)
    state, _ = model.update(jax.random.key(0), model.init(jax.random.key(0), {"tokens": tokens}), {"tokens": tokens})
    p = witten_bell([[83] * 12], 4, 84)
    expected = sum(np.log(p((83,) * min(t, 4), 83)) for t in range(12))
    np.testing.assert_allclose(model.log_prob(state, {"tokens": tokens}), [expected], rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: markov.model(3, order=-1), "`order`"),
        (lambda: markov.model(100, order=4), "`order`"),
        (lambda: markov.model(3, smoothing=-1.0), "`smoothing`"),
        (lambda: markov.model(3, length=0), "`length`"),
        (lambda: markov.model(0), "`vocabulary_size`"),
        (lambda: ngram.model(100, order=4), "`order`"),
        (lambda: ngram.model(3, capacity=0), "`capacity`"),
        (lambda: tokens_of({"tokens": jnp.full((1, 2), 3)}, 3), "`tokens`"),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
