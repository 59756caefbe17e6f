"""Beam search over tables p(next | prefix): as wide as the space it is exhaustive, of width one it is greedy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.autoregressive import beam

EOS, SIZE, LENGTH = 0, 3, 4


def tables(num, seed=0, scale=2.0):
    """Random log p(next | prefix) of `num` models; a prefix is its number in base V + 1, START being V."""
    logits = scale * jax.random.normal(jax.random.key(seed), (num, (SIZE + 1) ** LENGTH, SIZE))
    return jax.nn.log_softmax(logits)


def step_of(table):
    """The state is the number of the prefix before the token."""

    def step(tokens, prefix):
        prefix = jnp.where(tokens == SIZE, 0, prefix * (SIZE + 1) + tokens + 1)
        return jax.vmap(lambda rows, at: rows[at])(table, prefix), prefix

    return step


def run(function, table, **arguments):
    num = table.shape[0]
    start, first = jnp.zeros((num, 1), jnp.int32), jnp.full((num,), SIZE)
    return jax.jit(lambda: function(step_of(table), start, first, LENGTH, eos=EOS, **arguments))()


def outputs():
    """Every finished output, padded with EOS, and every prefix of full length without one."""
    rows = {row[: row.index(EOS)] + (EOS,) * (LENGTH - row.index(EOS)) if EOS in row else row for row in strings()}
    return np.array(sorted(rows))


def strings():
    return itertools.product(range(SIZE), repeat=LENGTH)


def masses(table, tokens):
    """log p of each output under each model, one Python loop over its tokens."""
    table, total = np.asarray(table, np.float64), np.zeros((table.shape[0], len(tokens)))
    for j, row in enumerate(tokens):
        prefix = 0
        for token in row:
            total[:, j] += table[:, prefix, token]
            if token == EOS:
                break
            prefix = prefix * (SIZE + 1) + token + 1
    return total


def sizes(tokens):
    return np.minimum((tokens != EOS).sum(axis=-1) + 1, tokens.shape[-1])


def check_exhaustive(alpha=0.0, search=beam.search):
    table = tables(50)
    every = outputs()
    mass = masses(table, every)
    np.testing.assert_allclose(np.exp(mass).sum(axis=1), 1.0, atol=1e-5)
    score = mass / ((5.0 + sizes(every)) / 6.0)[None] ** alpha
    width = SIZE ** (LENGTH - 1)
    found = run(search, table, width=width, alpha=alpha)
    order = np.argsort(-score, axis=1)[:, :5]
    np.testing.assert_allclose(found.score[:, :5], np.take_along_axis(score, order, 1), atol=1e-5)
    np.testing.assert_array_equal(found.tokens[:, 0], every[order[:, 0]])
    np.testing.assert_allclose(found.log_prob[:, 0], np.take_along_axis(mass, order, 1)[:, 0], atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 3.0])
def test_a_beam_as_wide_as_the_space_finds_the_best_outputs_of_all(alpha):
    check_exhaustive(alpha)


def test_a_beam_of_one_is_greedy():
    table = tables(500)
    one, best = run(beam.search, table, width=1), run(beam.greedy, table)
    np.testing.assert_array_equal(one.tokens, best.tokens)
    np.testing.assert_allclose(one.log_prob, best.log_prob, atol=1e-5)
    for row, log_probs in zip(np.asarray(best.tokens[:, 0]), np.asarray(table), strict=True):
        prefix = 0
        for token in row:
            assert token == np.argmax(log_probs[prefix])
            if token == EOS:
                break
            prefix = prefix * (SIZE + 1) + token + 1


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_scores_are_those_of_the_outputs_best_first_and_none_comes_twice(width, alpha):
    table = tables(200, seed=1)
    found = run(beam.search, table, width=width, alpha=alpha)
    tokens = np.asarray(found.tokens)
    each = np.stack([masses(table[i : i + 1], tokens[i])[0] for i in range(len(tokens))])
    np.testing.assert_allclose(found.log_prob, each, atol=1e-5)
    np.testing.assert_allclose(found.score, each / ((5.0 + sizes(tokens)) / 6.0) ** alpha, atol=1e-5)
    assert np.all(np.diff(found.score, axis=1) <= 0)
    assert all(len({tuple(row) for row in rows}) == width for rows in tokens)
    ended = np.cumsum(tokens == EOS, axis=2) > 0
    assert np.all(tokens[ended] == EOS)


def trap():
    """Token 1, then 1, then anything surely 1: 0.17 by greedy. After 2 come two continuations of 0.225 that fan out."""
    table = np.full(((SIZE + 1) ** LENGTH, SIZE), 1 / 3)

    def at(*row):
        return functools.reduce(lambda prefix, token: prefix * (SIZE + 1) + token + 1, row, 0)

    table[at()] = [0.05, 0.5, 0.45]
    table[at(1)] = [0.33, 0.34, 0.33]
    table[at(2)] = [0.0, 0.5, 0.5]
    table[at(1, 1)] = table[at(1, 1, 1)] = [0.01, 0.98, 0.01]
    return jnp.log(jnp.asarray(table, jnp.float32) + 1e-30)[None]


def test_the_beam_can_lose_to_greedy_and_decode_cannot():
    table = jnp.concatenate([trap(), tables(2_000, seed=2)])
    best, found, both = (
        run(function, table, **arguments).log_prob[:, 0]
        for function, arguments in ((beam.greedy, {}), (beam.search, {"width": 2}), (beam.decode, {"width": 2}))
    )
    np.testing.assert_allclose(jnp.exp(best[0]), 0.5 * 0.34 * 0.98**2, rtol=1e-5)
    assert found[0] < best[0] - 0.5
    assert jnp.mean(found) > jnp.mean(best) + 0.01, "on average it wins"
    np.testing.assert_allclose(both, jnp.maximum(found, best), atol=1e-6)


def test_stopping_early_changes_nothing_whatever_else_is_in_the_batch():
    table = tables(64, seed=3, scale=4.0)
    sure = jnp.zeros_like(table[:1]).at[:, :, EOS].set(50.0)
    sure = jax.nn.log_softmax(sure)
    many = run(beam.search, jnp.concatenate([sure, table]), width=2)
    alone = run(beam.search, sure, width=2)
    np.testing.assert_array_equal(many.tokens[:1], alone.tokens)
    np.testing.assert_array_equal(many.tokens[1:], run(beam.search, table, width=2).tokens)
    np.testing.assert_array_equal(alone.tokens[0, 0], np.zeros(LENGTH))


def test_masses_of_zero_are_no_outputs():
    table = jnp.log(jnp.zeros((1, (SIZE + 1) ** LENGTH, SIZE)).at[:, :, 1].set(1.0))
    found = run(beam.search, table, width=3)
    np.testing.assert_array_equal(found.tokens[0, 0], np.ones(LENGTH))
    np.testing.assert_array_equal(found.score[0], [0.0, -np.inf, -np.inf])


def test_the_penalty_favours_length():
    assert beam.penalty(1, 0.6) == 1.0
    assert beam.penalty(7, 0.0) == 1.0
    np.testing.assert_allclose(beam.penalty(7, 1.0), 2.0)
    table = jax.nn.log_softmax(jnp.zeros((1, (SIZE + 1) ** LENGTH, SIZE)).at[:, :, EOS].add(1e-3))
    short, long = (run(beam.search, table, width=27, alpha=alpha).tokens[0, 0] for alpha in (0.0, 20.0))
    assert (sizes(np.asarray(short)), sizes(np.asarray(long))) == (1, LENGTH)


def _finished_from_all(now, log_probs, state, eos, alpha, *, real):
    """A pool that takes no finished output at all."""
    after = real(now, log_probs, state, eos, alpha)
    return after._replace(pool=now.pool)


def _without_parents(leaf, index, *, real):
    """A state that stays with its lane."""
    return leaf if leaf.ndim == 2 and leaf.dtype == jnp.int32 and leaf.shape == index.shape else real(leaf, index)


@pytest.mark.parametrize(("name", "broken"), [("_select", _finished_from_all), ("_take", _without_parents)])
def test_mutants_are_caught(monkeypatch, name, broken):
    monkeypatch.setattr(beam, name, functools.partial(broken, real=getattr(beam, name)))
    with pytest.raises(AssertionError):
        check_exhaustive()


@pytest.mark.parametrize(
    ("arguments", "message"), [({"width": 0}, "`width`"), ({"width": 1, "alpha": -0.1}, "`alpha`")]
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(beam.search, tables(1), **arguments)
    with pytest.raises(ValueError, match="`length`"):
        beam.greedy(step_of(tables(1)), jnp.zeros((1, 1), jnp.int32), jnp.zeros(1, jnp.int32), 0, eos=EOS)
