"""Cross-validation: folds share no row, copies learn as they would alone, each keeps what did best for itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from experiments import cross_validation
from jgen import random
from jgen.autoregressive import fixed_order, rnade

ROWS = np.random.default_rng(0).normal(size=(46, 2)) * 3.0 + 1.0


def build(rate=0.05):
    return fixed_order.model(rnade.network(2, num_components=2, hidden_size=3), optax.adam(rate))


def test_folds_are_a_partition_and_standardized_by_what_is_not_tested():
    parts = cross_validation.folds(ROWS, 5, seed=1)
    assert [len(part.test) for part in parts] == [9, 9, 9, 9, 10]
    assert [len(part.valid) for part in parts] == [9, 9, 9, 10, 9]
    seen = []
    for part in parts:
        known = np.concatenate([part.train, part.valid])
        assert len(known) + len(part.test) == len(ROWS)
        np.testing.assert_allclose(known.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(known.std(axis=0), 1, atol=1e-5)
        both = np.concatenate([known, part.test])
        assert len(np.unique(both[:, 0])) == len(ROWS), "no row stands in two parts"
        order = np.argsort(both[:, 0])
        seen += list(np.argsort(ROWS[:, 0])[np.isin(order, np.arange(len(known), len(ROWS)))])
    assert sorted(seen) == list(range(len(ROWS))), "each row is tested once"


def test_gaussian_baseline_is_scipys():
    part = cross_validation.folds(ROWS, 4, seed=0)[0]
    known = np.concatenate([part.train, part.valid]).astype(np.float64)
    law = scipy.stats.multivariate_normal(known.mean(axis=0), np.cov(known, rowvar=False, bias=True))
    np.testing.assert_allclose(cross_validation.gaussian_log_likelihood(part), law.logpdf(part.test), rtol=1e-6)


def test_batches_visit_every_training_row_of_each_fold_once_an_epoch():
    parts = cross_validation.folds(ROWS, 5, seed=0)
    data = cross_validation.batches(parts, 3, seed=0)
    epoch = np.concatenate([np.asarray(data.train(step)["x"]) for step in range(9)])
    assert epoch.shape == (27, 5, 2)
    for k, part in enumerate(parts):
        assert np.isin(epoch[:, k, 0], part.train[:, 0]).all()
        assert len(np.unique(epoch[:, k, 0])) == 27
    np.testing.assert_array_equal(data.train(4)["x"], data.train(4)["x"])
    assert not np.array_equal(data.train(0)["x"], data.train(9)["x"])


def learn(model, data, num_steps):
    update, state = jax.jit(model.update), jax.jit(model.init)(jax.random.key(0), data.train(0))
    history = []
    for step in range(num_steps):
        state, _ = update(jax.random.key(step), state, data.train(step))
        history.append(state)
    return history


def test_copies_learn_as_they_would_alone_and_keep_their_best():
    parts = cross_validation.folds(ROWS, 4, seed=0)
    data = cross_validation.batches(parts, 8, seed=0)
    history = learn(cross_validation.cross_validated(build(), parts, 2), data, 12)
    alone, k = build(), 2
    key = random.example_keys(jax.random.key(0), len(parts))[k]
    state, update = alone.init(key, {"x": data.train(0)["x"][:, k]}), jax.jit(alone.update)
    best, kept = np.inf, None
    for step in range(12):
        state, _ = update(jax.random.key(step), state, {"x": data.train(step)["x"][:, k]})
        nll = -float(jnp.mean(alone.log_prob(state, {"x": jnp.asarray(parts[k].valid)})))
        if (step + 1) % 2 == 0 and nll < best:
            best, kept = nll, state.params
    found = cross_validation.fold_state(history[-1], k)
    np.testing.assert_allclose(float(history[-1].best[k]), best, rtol=1e-4)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4), found.params, kept)


def test_a_fold_that_gets_worse_goes_back_to_its_best_while_another_goes_on():
    parts = cross_validation.folds(ROWS, 4, seed=0)
    data = cross_validation.batches(parts, 8, seed=0)
    history = learn(cross_validation.cross_validated(build(0.5), parts, 1), data, 15)
    values = np.array([state.best for state in history])
    assert np.all(np.diff(values, axis=0) <= 0)
    model = cross_validation.cross_validated(build(0.5), parts, 1)
    batch, num = next(data.batches("valid"))
    nll = model.evaluate(jax.random.key(0), history[-1], batch)["nll"]
    assert nll.shape == (num,)
    np.testing.assert_allclose(np.mean(nll), np.mean(values[-1]), rtol=0.05)


@pytest.mark.parametrize(("num_folds", "message"), [(2, "`num_folds` must be at least 3"), (47, "at most the 46 rows")])
def test_bad_folds_are_refused(num_folds, message):
    with pytest.raises(ValueError, match=message):
        cross_validation.folds(ROWS, num_folds, seed=0)


def test_bad_arguments_are_refused():
    parts = cross_validation.folds(ROWS, 4, seed=0)
    with pytest.raises(ValueError, match="`batch_size` must be at most the"):
        cross_validation.batches(parts, 40, seed=0)
    with pytest.raises(ValueError, match="`every`"):
        cross_validation.cross_validated(build(), parts, 0)
