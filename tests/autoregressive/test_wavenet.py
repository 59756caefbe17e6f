"""WaveNet: a normalized mass, a receptive field of exactly 2^L, queues that equal full passes."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stat_checks import check_counts

from jgen import linen
from jgen.autoregressive import wavenet
from jgen.nets import causal

NET = wavenet.WaveNet(levels=4, channels=5, skip_channels=6, num_layers=3)
STACKS = wavenet.WaveNet(levels=4, channels=5, skip_channels=6, num_layers=2, num_stacks=2, num_classes=3)


def params_of(module, scale=0.6, seed=0):
    """Random weights everywhere, biases too."""
    label = None if module.num_classes is None else jnp.zeros(1, jnp.int32)
    shapes = jax.eval_shape(
        lambda key: linen.init(module, key, jnp.zeros((1, 2), jnp.int32), label)[0], jax.random.key(0)
    )
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def labels(module, num):
    return None if module.num_classes is None else jnp.arange(num, dtype=jnp.int32) % module.num_classes


def dependence(module, params, time):
    """[t, j]: do the logits at t change, bit for bit, when token j does?"""
    rng, found = np.random.default_rng(0), np.zeros((time, time), bool)
    label = None if module.num_classes is None else jnp.zeros(time + 1, jnp.int32)
    logits = jax.jit(lambda tokens: linen.apply(module, params, {}, tokens, label)[0])
    for _ in range(12):
        rows = np.repeat(rng.integers(0, module.levels, (1, time)), time + 1, axis=0)
        rows[np.arange(time), np.arange(time)] += rng.integers(1, module.levels, time)
        out = np.asarray(logits(jnp.asarray(rows % module.levels, jnp.int32)))
        found |= np.any(out[:-1] != out[-1:], axis=-1).T
    return found


def band(time, reach):
    rows, columns = np.indices((time, time))
    return (columns < rows) & (rows - columns <= reach)


@pytest.mark.parametrize(("module", "reach"), [(NET, 2**3), (STACKS, 1 + 2 * 3)])
def test_the_receptive_field_is_exact(module, reach):
    assert wavenet.receptive_field(module) == reach
    np.testing.assert_array_equal(dependence(module, params_of(module), reach + 4), band(reach + 4, reach))


@pytest.mark.parametrize("change", [{"exclusive": True}, {"dilation": 1}])
def test_a_wrong_convolution_is_caught(change, monkeypatch):
    params, original = params_of(NET), causal.CausalConv

    def wrong(features, kernel_size, dilation, **keywords):
        return original(features, kernel_size, **{"dilation": dilation, **change}, **keywords)

    monkeypatch.setattr(causal, "CausalConv", wrong)
    assert not np.array_equal(dependence(NET, params, 12), band(12, 8))


def test_targets_that_are_not_shifted_are_caught(monkeypatch):
    params = params_of(NET)
    monkeypatch.setattr(wavenet, "shifted", lambda tokens, previous, start: tokens)
    leaks = dependence(NET, params, 6)
    assert leaks[0, 0]


@pytest.mark.parametrize("module", [NET, STACKS])
def test_the_mass_sums_to_one(module):
    space = jnp.asarray(list(itertools.product(range(4), repeat=4)), jnp.int32)
    label = None if module.num_classes is None else jnp.full(len(space), 2)
    each = jax.jit(lambda tokens: wavenet.token_log_prob(module, params_of(module), tokens, label))(space)
    np.testing.assert_allclose(np.exp(np.asarray(each, np.float64).sum(axis=1)).sum(), 1.0, atol=1e-5)


def draw(module, params, num=16, length=24, seed=1, **keywords):
    function = jax.jit(
        lambda key: wavenet.sample(module, key, params, num, length, label=labels(module, num), **keywords)
    )
    return np.asarray(function(jax.random.key(seed)))


@pytest.mark.parametrize("module", [NET, STACKS])
@pytest.mark.parametrize("start", [0, 1, 2, 5, 11, 24])
def test_cached_and_naive_samples_are_the_same(module, start):
    params = params_of(module)
    known = jax.random.randint(jax.random.key(7), (16, start), 0, 4)
    cached, naive = (draw(module, params, known=known, method=m) for m in ("cached", "naive"))
    np.testing.assert_array_equal(cached, naive)
    np.testing.assert_array_equal(cached[:, :start], known)
    assert start == 24 or len(np.unique(cached)) == 4


@pytest.mark.parametrize("how", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 0.0}])
def test_the_fewest_values_are_the_most_probable(how):
    params = params_of(NET)
    found = draw(NET, params, **how)
    np.testing.assert_array_equal(found, draw(NET, params, method="naive", **how))
    logits = linen.apply(NET, params, {}, jnp.asarray(found), labels(NET, 16))[0]
    np.testing.assert_array_equal(found, jnp.argmax(logits, axis=-1))


def test_queues_from_one_pass_are_those_of_the_steps():
    params, time = params_of(STACKS), 6
    tokens, label = jax.random.randint(jax.random.key(0), (2, time), 0, 4), jnp.array([0, 2])
    queue = wavenet.queues(STACKS, params, tokens[:, :0], label)
    before = jnp.concatenate([jnp.full((2, 1), 4), tokens[:, :-1]], axis=1)
    logits = linen.apply(STACKS, params, {}, tokens, label)[0]
    step = jax.jit(lambda queue, t, token: wavenet.step(STACKS, params, queue, t, token, label))
    for t in range(time):
        np.testing.assert_allclose(queue, wavenet.queues(STACKS, params, tokens[:, :t], label), atol=1e-5)
        queue, found = step(queue, jnp.asarray(t), before[:, t])
        np.testing.assert_allclose(found, logits[:, t], atol=1e-5)


@pytest.mark.parametrize("mutant", ["written before read", "late by one", "one slot off"])
def test_a_wrong_queue_is_caught(mutant, monkeypatch):
    params, real = params_of(NET), wavenet.step

    def wrong(module, params, queue, t, token, label=None):
        if mutant == "written before read":
            queue = real(module, params, queue, t, token, label)[0]
        return real(
            module, params, queue if mutant != "one slot off" else jnp.roll(queue, 1, axis=1), t + 1, token, label
        )

    monkeypatch.setattr(wavenet, "step", wrong)
    if mutant == "late by one":  # a clock that is late throughout is a clock: what is known came by the right one
        known = jax.random.randint(jax.random.key(7), (16, 6), 0, 4)
        assert not np.array_equal(draw(NET, params, known=known), draw(NET, params, known=known, method="naive"))
    else:
        assert not np.array_equal(draw(NET, params), draw(NET, params, method="naive"))


def test_start_symbols_before_the_first_value_are_not_zero_queues():
    """Zeros stand before each layer; START symbols fed through the layers would leave biases there."""
    params, tokens = params_of(NET), jnp.zeros((1, 4), jnp.int32)
    fed = wavenet.queues(NET, params, jnp.full((1, 8), 4), None)
    right = wavenet.step(NET, params, jnp.zeros_like(fed), jnp.array(0), jnp.array([4]))[1]
    wrong = wavenet.step(NET, params, fed, jnp.array(0), jnp.array([4]))[1]
    logits = linen.apply(NET, params, {}, tokens)[0][:, 0]
    np.testing.assert_allclose(right, logits, atol=1e-5)
    assert np.abs(wrong - logits).max() > 0.1


def test_windows_with_their_past_are_the_whole():
    """R values of past in front of a window are enough, whatever padding the window begins with."""
    params, reach = params_of(NET), wavenet.receptive_field(NET)
    tokens = jax.random.randint(jax.random.key(0), (2, 40), 0, 4)
    log_prob = jax.jit(lambda tokens: wavenet.token_log_prob(NET, params, tokens))
    whole, window = log_prob(tokens), log_prob(tokens[:, 11:32])
    np.testing.assert_allclose(window[:, reach:], whole[:, 11 + reach : 32], atol=1e-5)
    assert np.abs(window[:, reach - 1] - whole[:, 11 + reach - 1]).max() > 1e-4


def test_the_rest_follows_its_law_given_what_is_known():
    params, num = params_of(STACKS), 20_000
    label, known = jnp.full(num, 1), np.array([3, 0])
    drawn = jax.jit(lambda key: wavenet.sample(STACKS, key, params, num, 4, label=label, known=known))(
        jax.random.key(3)
    )
    space = np.array(list(itertools.product(range(4), repeat=2)))
    rows = jnp.asarray(np.concatenate([np.tile(known, (16, 1)), space], axis=1), jnp.int32)
    mass = np.exp(np.asarray(wavenet.token_log_prob(STACKS, params, rows, label[:16])[:, 2:], np.float64).sum(axis=1))
    np.testing.assert_allclose(mass.sum(), 1, atol=1e-5)
    check_counts(np.bincount(np.asarray(drawn[:, 2:]) @ [4, 1], minlength=16), mass)


def test_temperature_zero_is_greedy():
    params = params_of(NET)
    drawn = draw(NET, params, num=2, length=6, temperature=0.0)
    logits = linen.apply(NET, params, {}, jnp.asarray(drawn))[0]
    np.testing.assert_array_equal(drawn, np.argmax(logits, axis=-1))


def test_extreme_logits_stay_finite():
    params = params_of(NET)
    params["logits"]["bias"] = jnp.array([100.0, -100.0, 0.0, 100.0])
    tokens = jnp.asarray(list(itertools.product(range(4), repeat=2)), jnp.int32)
    each = wavenet.token_log_prob(NET, params, tokens)
    assert np.all(np.isfinite(each))
    assert each.min() < -190
    np.testing.assert_allclose(np.exp(np.asarray(each, np.float64).sum(axis=1)).sum(), 1.0, atol=1e-5)


def test_the_mask_chooses_what_counts():
    model = wavenet.model(NET, optax.sgd(0.1), length=4)
    tokens = jax.random.randint(jax.random.key(0), (3, 9), 0, 4)
    mask = (jnp.arange(9)[None] < jnp.array([9, 4, 1])[:, None]).astype(jnp.float32)
    state = jax.jit(model.init)(jax.random.key(0), {"tokens": tokens, "mask": mask})
    found = model.evaluate(jax.random.key(0), state, {"tokens": tokens, "mask": mask})
    each = wavenet.token_log_prob(NET, state.params, tokens)
    np.testing.assert_allclose(found["nll"], [-each[0].sum(), -each[1, :4].sum(), -each[2, 0]], rtol=1e-5)
    np.testing.assert_array_equal(found["counted"], [9, 4, 1])
    other = jnp.where(mask > 0, tokens, 3 - tokens)
    moved = model.evaluate(jax.random.key(0), state, {"tokens": other, "mask": mask})
    np.testing.assert_allclose(moved["nll"], found["nll"], rtol=1e-6)
    counts = np.bincount(np.asarray(tokens)[np.asarray(mask) > 0], minlength=4)
    np.testing.assert_allclose(jax.nn.softmax(state.params["logits"]["bias"]), (counts + 0.5) / (14 + 2), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "fast"}, "`method` must be one of"),
        ({"length": 0}, "`length`"),
        ({"temperature": -1.0}, "`temperature`"),
        ({"known": np.zeros((3, 2))}, "`known` must have shape"),
        ({"known": np.zeros(9)}, "`known` must have shape"),
        ({"known": np.array([4])}, "`known` must lie in"),
        ({"label": jnp.zeros(2, jnp.int32)}, "`label` must be absent"),
    ],
)
def test_bad_requests_are_refused(arguments, message):
    arguments = {"num": 2, "length": 8, **arguments}
    with pytest.raises(ValueError, match=message):
        wavenet.sample(NET, jax.random.key(0), params_of(NET), **arguments)


@pytest.mark.parametrize("field", ["levels", "channels", "skip_channels", "num_layers", "num_stacks", "num_classes"])
def test_bad_sizes_are_refused(field):
    with pytest.raises(ValueError, match=f"`{field}`"):
        wavenet.model(dataclasses.replace(NET, **{field: 0}), optax.sgd(0.1), length=4)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"tokens": jnp.zeros((2, 3), jnp.int32)}, "'label'"),
        ({"tokens": jnp.full((2, 3), 4), "label": jnp.zeros(2, jnp.int32)}, "`tokens`"),
        ({"tokens": jnp.zeros((2, 3), jnp.int32), "label": jnp.full(2, 3)}, "`label`"),
        ({"tokens": jnp.zeros((2, 3), jnp.int32), "label": jnp.zeros(2), "mask": jnp.ones((2, 4))}, "`mask`"),
    ],
)
def test_bad_batches_are_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        wavenet.model(STACKS, optax.sgd(0.1), length=4).init(jax.random.key(0), batch)
