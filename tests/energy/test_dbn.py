"""Deep belief nets against enumeration: the joint law, the bound, the tied layer; what up–down learning descends."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import stat_checks as stat

from jgen import Model
from jgen.energy import dbn, rbm, stack
from jgen.energy.stack import Layer
from jgen.learners.contrastive import ContrastiveState


def _states(num: int) -> Any:
    return jnp.asarray(list(itertools.product([0.0, 1.0], repeat=num)))


def _rbm(visible: int, hidden: int, seed: int) -> rbm.RBM:
    generator = np.random.default_rng(seed)
    shapes = ((visible, hidden), (visible,), (hidden,))
    return rbm.RBM(*(jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes))


def _net(sizes: tuple[int, ...], untied: bool = True) -> dbn.DBN:
    machines = [_rbm(low, high, index) for index, (low, high) in enumerate(itertools.pairwise(sizes))]
    params = dbn.from_rbms(machines)
    if untied:
        moved = [jax.tree.map(lambda leaf, i=i: leaf + 0.3 * (-1) ** i, c) for i, c in enumerate(params.recognition)]
        params = params._replace(recognition=tuple(moved))
    return params


def _mass(logits: Any, x: Any) -> np.ndarray:
    p = scipy.special.expit(np.asarray(logits, np.float64))
    return np.prod(np.where(np.asarray(x) > 0, p, 1 - p), axis=-1)


def _exact(params: dbn.DBN, v: Any) -> np.ndarray:
    """p(v) by sums over one layer after the other, in NumPy: Σ_h p(v|x_1) p(x_1|x_2) … p(x_n)."""
    top = _states(params.top.weights.shape[0])
    p = np.asarray(jnp.exp(rbm.log_prob(params.top, top)), np.float64)
    above = top
    for connection in reversed(params.generative):
        below = _states(connection.weights.shape[0]) if connection is not params.generative[0] else v
        logits = np.asarray(connection.bias)[None] + np.asarray(above) @ np.asarray(connection.weights).T
        p = np.array([(_mass(logits, x[None]) * p).sum() for x in below])
        above = below
    return p


def _draws(params: dbn.DBN, v: Any, num: int = 4_000, seed: int = 0) -> np.ndarray:
    keys = jax.random.split(jax.random.key(seed), len(v))
    weigh = jax.jit(lambda keys, params, v: dbn.log_weights(keys, params, v, num))
    return np.asarray(weigh(keys, params, v), np.float64)


@pytest.mark.parametrize("sizes", [(6, 5, 4), (4, 3, 3, 2)])
def test_log_prob_by_enumeration(sizes: tuple[int, ...]) -> None:
    params = _net(sizes)
    v = _states(sizes[0])
    found = np.exp(np.asarray(jax.jit(dbn.log_prob)(params, v), np.float64))
    np.testing.assert_allclose(found, _exact(params, v), rtol=2e-4)
    np.testing.assert_allclose(found.sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(6, 5, 4), (4, 3, 3, 2)])
def test_bound_is_below_the_exact_likelihood_and_its_weights_are_unbiased(sizes: tuple[int, ...]) -> None:
    params = _net(sizes)
    v = _states(sizes[0])[::7]
    weights = _draws(params, v)
    exact = np.log(_exact(params, v))
    slack = stat.threshold(len(v)) * weights.std(axis=1) / np.sqrt(weights.shape[1])
    assert np.all(weights.mean(axis=1) < exact + slack)
    assert np.all(weights.mean(axis=1) < exact - 0.01)  # strict: this recognition is not the posterior
    stat.check_mean(np.exp(weights.T - exact[None]), 1.0)  # E_q[p/q] = p(v)


def _drawn_from_another(key: Any, params: dbn.DBN, v: Any) -> Any:
    return RECOGNIZE(key, jax.tree.map(lambda leaf: leaf + 0.7, params), v)


RECOGNIZE = dbn.recognize
MUTANTS = {
    "draws from another law than its density": ("recognize", _drawn_from_another),
    "bias forgotten on the way down": ("down_logits", lambda connection, x: x @ connection.weights.T),
    "the other layer's bias on the way up": ("up_logits", lambda c, x: x @ c.weights - c.bias[None]),
}


@pytest.mark.parametrize("name", list(MUTANTS))
def test_broken_weights_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = np.log(_exact(_net((4, 3, 3, 2)), _states(4)))
    monkeypatch.setattr(dbn, *MUTANTS[name])
    weights = np.exp(_draws(_net((4, 3, 3, 2)), _states(4)).T - exact[None])
    if name.startswith("the other"):  # draws and density agree: it is a worse q, and no less a bound
        stat.check_mean(weights, 1.0)
        return
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(weights, 1.0)


@pytest.mark.parametrize("sizes", [(6, 5), (6, 5, 4)])
def test_a_tied_layer_leaves_the_bound_unchanged(sizes: tuple[int, ...]) -> None:
    """With R = W and the new RBM the old one upside down, every weight of two layers is log p(v) of the old RBM."""
    machines = [_rbm(low, high, index) for index, (low, high) in enumerate(itertools.pairwise(sizes))]
    old = machines[-1]
    tied = rbm.RBM(old.weights.T, old.hidden_bias, old.visible_bias)
    deeper, v = dbn.from_rbms([*machines, tied]), _states(sizes[0])
    if len(sizes) == 2:
        expected = np.asarray(rbm.log_prob(old, v))
        np.testing.assert_allclose(_draws(deeper, v, 5), np.broadcast_to(expected[:, None], (len(v), 5)), atol=1e-4)
        return
    shallow = dbn.from_rbms(machines)
    np.testing.assert_allclose(jax.jit(dbn.log_prob)(deeper, v), jax.jit(dbn.log_prob)(shallow, v), atol=1e-4)
    # The draws of x_1 are the same for the same key, and given them nothing changes.
    np.testing.assert_allclose(_draws(deeper, v, 5), _draws(shallow, v, 5), atol=1e-4)


@pytest.mark.parametrize("size", [6, 9])
def test_a_layer_that_starts_tied_starts_at_the_likelihood_of_the_one_below(size: int) -> None:
    layers = [Layer(5, optax.sgd(0.2), 200), Layer(size, optax.sgd(0.0), 1)]
    model = dbn.model(6, layers, start_tied=True, num_chains=64, num_steps=2)
    state, update = jax.jit(model.init)(jax.random.key(0), {"x": X}), jax.jit(model.update)
    for step in range(201):
        state, _ = update(jax.random.key(step), state, {"x": X})
    below, own = state.layers
    np.testing.assert_array_equal(own.params.weights[:, :6], below.params.weights.T)
    expected, v = np.asarray(jax.jit(rbm.log_prob)(below.params, _states(6))), _states(6)
    assert expected.std() > 0.5
    np.testing.assert_allclose(jax.jit(dbn.log_prob)(state.params, v), expected, atol=1e-4 if size == 6 else 2e-3)
    bounds = np.broadcast_to(expected[:, None], (len(v), 5))
    np.testing.assert_allclose(_draws(state.params, v, 5), bounds, atol=1e-4 if size == 6 else 5e-3)


def test_chains_of_a_layer_that_starts_tied_stand_above_those_below() -> None:
    weights = 100.0 * jnp.asarray([[1.0, -1, 1], [-1, 1, 1]])  # so large that draws are certain
    machine = rbm.RBM(weights, jnp.zeros(2), jnp.asarray([-50.0, -50.0, -150.0]))
    below = ContrastiveState(machine, jnp.asarray([[1.0, 0], [0, 1], [1, 1]]), ())
    own = ContrastiveState(_rbm(3, 2, 0), jnp.zeros((3, 3)), "kept")
    found = dbn.tied(jax.random.key(0), below, own)
    np.testing.assert_array_equal(found.chains, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert found.opt_state == "kept"


def test_a_layer_begins_with_a_key_of_its_own_in_every_shard() -> None:
    """Fake layers keep the keys that they are given: of an update in params, of the beginning in chains."""

    def init(key: Any, batch: Any) -> Any:
        return ContrastiveState(jnp.zeros(2, jnp.uint32), jnp.zeros(2, jnp.uint32), ())

    def update(key: Any, state: Any, batch: Any) -> Any:
        return state._replace(params=jax.random.key_data(key)), {"loss": jnp.zeros(())}

    def begin(key: Any, below: Any, own: Any) -> Any:
        return own._replace(chains=jax.random.key_data(key))

    fake = Model(init, update, lambda key, state, batch: {}, None, None)
    lift, compose = (lambda key, index, params, x: x), tuple
    init_stack, learn = stack.stacked([fake, fake], [0, 1], lift, compose, None, begin=begin, axis_name="shards")
    start = init_stack(jax.random.key(0), {"x": X})
    shards = jax.vmap(learn, in_axes=(None, None, 0), axis_name="shards")
    state, _ = shards(jax.random.key(1), start, {"x": jnp.stack([X, X])})
    own = state.layers[1]
    assert not np.array_equal(own.chains[0], own.chains[1])
    parts = jax.random.key_data(jax.random.split(jax.random.wrap_key_data(own.params[0]), 8))
    assert not any(np.array_equal(part, chains) for part in parts for chains in own.chains)


def test_a_layer_too_small_to_start_tied_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`layers` must not be smaller .*\[6, 5, 4\]"):
        _learner((1, 1), start_tied=True)


def test_up_down_loss_has_the_gradients_of_its_two_phases() -> None:
    params = _net((4, 3, 3, 2))
    wake = jax.jit(dbn.recognize)(jax.random.key(0), params, _states(4))
    dream = jax.jit(dbn.generate)(jax.random.key(1), params, _states(3))
    grads = jax.jit(jax.grad(dbn.up_down_loss))(params, wake, dream)
    for index, (down, up) in enumerate(zip(params.generative, params.recognition, strict=True)):
        error = wake[index] - jax.nn.sigmoid(dbn.down_logits(down, wake[index + 1]))  # the delta rule of the paper
        np.testing.assert_allclose(grads.generative[index].weights, -error.T @ wake[index + 1] / 16, atol=1e-5)
        np.testing.assert_allclose(grads.generative[index].bias, -jnp.mean(error, axis=0), atol=1e-5)
        error = dream[index + 1] - jax.nn.sigmoid(dbn.up_logits(up, dream[index]))
        np.testing.assert_allclose(grads.recognition[index].weights, -dream[index].T @ error / 8, atol=1e-5)
        np.testing.assert_allclose(grads.recognition[index].bias, -jnp.mean(error, axis=0), atol=1e-5)
    assert not any(np.any(leaf) for leaf in grads.top)


def test_samples_follow_the_model() -> None:
    params = _net((4, 3, 2))
    starts = jnp.zeros((5, 3))
    draws = jax.jit(lambda key: dbn.sample(key, params, starts, 20_000, 40))(jax.random.key(0))
    cells = np.asarray(draws).astype(int) @ 2 ** np.arange(3, -1, -1)
    stat.check_counts(np.bincount(cells, minlength=16), _exact(params, _states(4)))
    few = jax.jit(lambda key: dbn.sample(key, params, starts, 3, 40))(jax.random.key(0))
    np.testing.assert_array_equal(few, draws[:3])


X = jnp.tile(jnp.asarray([[1.0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]]), (16, 1))


def _learner(num_updates: tuple[int, int], **kwargs: Any) -> Any:
    layers = [Layer(5, optax.sgd(0.2), num_updates[0]), Layer(4, optax.sgd(0.2), num_updates[1])]
    return dbn.model(6, layers, num_chains=64, num_steps=2, num_bound_samples=50, **kwargs)


def test_layers_learn_one_after_the_other_then_all() -> None:
    model = _learner((3, 2), tuning=optax.sgd(0.1))
    state, update = jax.jit(model.init)(jax.random.key(0), {"x": X}), jax.jit(model.update)
    moved = []
    for step in range(7):
        new, _ = update(jax.random.key(step), state, {"x": X})
        leaves = {
            "W": (state.params.generative[0].weights, new.params.generative[0].weights),
            "R": (state.params.recognition[0].weights, new.params.recognition[0].weights),
            "top": (state.params.top.weights, new.params.top.weights),
        }
        moved.append({name for name, (a, b) in leaves.items() if not np.array_equal(a, b)})
        tied = np.array_equal(new.params.generative[0].weights, new.params.recognition[0].weights)
        assert tied == (step < 5)
        state = new
    assert moved == [{"W", "R"}] * 3 + [{"top"}] * 2 + [{"W", "R", "top"}] * 2
    without = _learner((1, 1))
    state = jax.jit(without.init)(jax.random.key(0), {"x": X})
    before = state
    for step in range(3):
        before = state
        state, _ = jax.jit(without.update)(jax.random.key(step), state, {"x": X})
    assert not np.array_equal(before.params.top.weights, state.params.top.weights)  # the last layer goes on


def test_learning_raises_the_exact_likelihood() -> None:
    model = _learner((500, 500), tuning=optax.sgd(0.05))
    state, update = jax.jit(model.init)(jax.random.key(0), {"x": X}), jax.jit(model.update)
    log_prob = jax.jit(lambda s: jnp.mean(model.log_prob(s, {"x": X})))
    found = [float(log_prob(state))]
    for step in range(1_300):
        state, _ = update(jax.random.key(step), state, {"x": X})
        found += [float(log_prob(state))] if step in (499, 999, 1_299) else []
    assert found == sorted(found)  # each layer raises it, and so does up–down learning
    assert found[-1] > found[0] + 1.0
    metrics = model.evaluate(jax.random.key(0), state, {"x": X})
    assert float(jnp.mean(metrics["nll_bound"])) > -found[-1]


def test_extreme_weights_stay_finite() -> None:
    params = jax.tree.map(lambda leaf: 100 * jnp.sign(leaf), _net((6, 5, 4)))
    assert np.all(np.isfinite(dbn.log_prob(params, _states(6))))
    assert np.all(np.isfinite(_draws(params, _states(6), 3)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: dbn.model(6, [Layer(5, optax.sgd(0.1), 1)]), "`layers` must be at least 2, got 1"),
        (lambda: dbn.model(0, [Layer(5, optax.sgd(0.1), 1)] * 2), "`visible_size` must be at least 1, got 0"),
        (lambda: dbn.model(6, [Layer(0, optax.sgd(0.1), 1)] * 2), "`hidden_size` must be at least 1, got 0"),
        (lambda: dbn.model(6, [Layer(5, optax.sgd(0.1), -1)] * 2), "`num_updates` must be at least 0, got -1"),
        (lambda: dbn.log_prob(_net((4, 26, 2)), _states(4)), r"at most 25 units to enumerate, got \[26\]"),
        (lambda: _learner((1, 1)).init(jax.random.key(0), {"x": X[:, :4]}), r"`x` must have 6 columns, got shape"),
        (lambda: _learner((1, 1)).init(jax.random.key(0), {"x": 0.5 * X}), "`x` must be whole numbers in 0..1"),
    ],
)
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_what_is_offered() -> None:
    wide = dbn.model(784, [Layer(500, optax.sgd(0.1), 1), Layer(2000, optax.sgd(0.1), 1)])
    assert wide.log_prob is None
    assert wide.log_bound is None
    narrow = dbn.model(784, [Layer(500, optax.sgd(0.1), 1), Layer(16, optax.sgd(0.1), 1)])
    assert narrow.log_prob is None
    assert narrow.log_bound is not None
