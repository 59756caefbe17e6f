"""Recurrent language models: a normalized mass over strings, causality, carried states, sampling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen import linen
from jgen.autoregressive import rnn
from jgen.data.streams import streams

EOS = 2


def build(cell="lstm", size=3, num_units=5, num_layers=2):
    """A module with random weights of size 1 everywhere."""
    module = rnn.RNN(size, cell, num_units, num_layers, embedding_size=4)
    tokens = jnp.zeros((1, 2), jnp.int32)
    make = jax.jit(lambda key: linen.init(module, key, tokens, rnn.zero_carry(module, 1))[0])
    leaves, tree = jax.tree.flatten(make(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return module, jax.tree.unflatten(tree, drawn)


def strings(length):
    """Every string that ends with EOS within `length` tokens (then EOS to the end), and every unfinished prefix."""
    rows = set()
    for row in itertools.product(range(3), repeat=length):
        end = row.index(EOS) if EOS in row else length
        rows.add(row[:end] + (EOS,) * (length - end))
    return jnp.array(sorted(rows))


def mass(module, params, tokens, eos: int | None = EOS):
    each, _ = jax.jit(lambda tokens: rnn.token_log_prob(module, params, tokens))(tokens)
    return jnp.exp(jnp.sum(each * rnn.counted(tokens, eos), axis=1))


@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_finished_strings_and_unfinished_prefixes_sum_to_one(cell):
    module, params = build(cell)
    tokens = strings(4)
    assert len(tokens) == 1 + 2 + 4 + 8 + 16
    np.testing.assert_allclose(jnp.sum(mass(module, params, tokens)), 1.0, atol=1e-5)
    everything = jnp.array(list(itertools.product(range(3), repeat=4)))
    np.testing.assert_allclose(jnp.sum(mass(module, params, everything, eos=None)), 1.0, atol=1e-5)


def test_masked_eos_and_counted_padding_are_caught():
    module, params = build()
    tokens = strings(4)
    each, _ = rnn.token_log_prob(module, params, tokens)
    without_eos = jnp.exp(jnp.sum(each * rnn.counted(tokens, EOS) * (tokens != EOS), axis=1))
    with_padding = jnp.exp(jnp.sum(each, axis=1))
    assert abs(float(jnp.sum(without_eos)) - 1.0) > 0.1
    assert abs(float(jnp.sum(with_padding)) - 1.0) > 0.01


def test_unshifted_targets_are_caught(monkeypatch):
    module, params = build()
    real = linen.apply

    def shifted(module, params, stats, inputs, *rest):
        return real(module, params, stats, jnp.roll(inputs, -1, axis=1), *rest)

    monkeypatch.setattr(linen, "apply", shifted)
    tokens = jnp.array(list(itertools.product(range(3), repeat=4)))
    assert abs(float(jnp.sum(jnp.exp(jnp.sum(rnn.token_log_prob(module, params, tokens)[0], axis=1)))) - 1.0) > 0.01


def test_logits_depend_on_the_past_alone_and_on_all_of_it():
    module, params = build(num_layers=2)
    table = params["embedding"]["embedding"]
    tokens = jnp.array([[0, 1, 2, 1, 0]])

    def logits(delta):
        """The embedding of each input moved by its own delta: the Jacobian shows which inputs matter."""
        x = (table[tokens[0]] + delta)[:, None]
        for i, state in enumerate(rnn.zero_carry(module, 1)):
            layer = rnn.recurrent.Recurrent(module.cell, module.num_units)
            x, _ = linen.apply(layer, params[f"layer_{i}"], {}, x, state)
        return x[:, 0] @ params["kernel"] + params["bias"][None]

    jacobian = jax.jit(jax.jacrev(logits))(jnp.zeros((5, 4)))
    reach = np.abs(jacobian).sum(axis=(1, 3))
    assert np.all(np.triu(reach, 1) == 0.0)
    assert np.all(reach[np.tril_indices(5)] > 0)
    direct = linen.apply(module, params, {}, tokens, rnn.zero_carry(module, 1))[0][0]
    np.testing.assert_allclose(logits(jnp.zeros((5, 4))), direct, rtol=1e-5, atol=1e-5)


def test_windows_with_a_carried_state_are_the_whole_text():
    module, params = build()
    text = jax.random.randint(jax.random.key(0), (23,), 0, 3)
    each, _ = rnn.token_log_prob(module, params, text[None])
    for window in (1, 5, 23, 100):
        carried = jax.jit(lambda t, w=window: rnn.stream_log_prob(module, params, t, window=w))(text)
        np.testing.assert_allclose(carried, jnp.sum(each), rtol=1e-5)


def stepwise(module, params, key, num, length):
    """Each token from a full pass over all tokens before it, the same noise."""
    rows = []
    for i in range(num):
        own, row = jax.random.fold_in(key, i), []
        for t in range(length):
            inputs = jnp.array([[module.vocabulary_size, *row]])
            logits = linen.apply(module, params, {}, inputs, rnn.zero_carry(module, 1))[0][0, -1]
            row.append(int(jnp.argmax(logits + jax.random.gumbel(jax.random.fold_in(own, t), logits.shape))))
        rows.append(row)
    return np.array(rows)


def test_samples_with_the_state_as_cache_are_those_of_full_passes():
    module, params = build()
    drawn = jax.jit(lambda key: rnn.sample(module, key, params, 3, 4))(jax.random.key(5))
    np.testing.assert_array_equal(drawn, stepwise(module, params, jax.random.key(5), 3, 4))


def test_samples_follow_the_mass_and_eos_ends_a_row():
    module, params = build()
    num, space = 20_000, strings(3)
    drawn = np.asarray(jax.jit(lambda key: rnn.sample(module, key, params, num, 3, eos=EOS))(jax.random.key(0)))
    place = np.array([9, 3, 1])
    counts = np.bincount(drawn @ place, minlength=27)[np.asarray(space) @ place]
    assert counts.sum() == num
    expected = num * np.asarray(mass(module, params, space))
    large = expected >= 5
    counts, expected = (np.append(v[large], v[~large].sum()) for v in (counts, expected))
    assert np.sum((counts - expected) ** 2 / np.maximum(expected, 1.0)) < 45.0  # χ², p ≈ 1e-4 at 16 degrees


def test_temperature_zero_is_greedy_and_prompts_condition():
    module, params = build()
    prompt = jnp.array([1, 0, 1])
    drawn = jax.jit(lambda key: rnn.sample(module, key, params, 2, 3, temperature=0.0, prompt=prompt))(
        jax.random.key(0)
    )
    row = [int(t) for t in prompt]
    for _ in range(3):
        inputs = jnp.array([[3, *row]])
        row.append(int(jnp.argmax(linen.apply(module, params, {}, inputs, rnn.zero_carry(module, 1))[0][0, -1])))
    np.testing.assert_array_equal(drawn, [row[3:]] * 2)


def test_the_kept_tokens_alone_are_drawn():
    module, params = build()

    def draw(**how):
        return np.asarray(jax.jit(lambda key: rnn.sample(module, key, params, 8, 4, **how))(jax.random.key(0)))

    greedy = draw(temperature=0.0)
    np.testing.assert_array_equal(draw(top_k=1), greedy)
    np.testing.assert_array_equal(draw(top_p=1e-6), greedy)
    np.testing.assert_array_equal(draw(top_k=3, top_p=1.0), draw())
    assert not np.array_equal(draw(), greedy)


def carried(**arguments):
    return rnn.model(optax.sgd(0.1), 3, num_units=4, embedding_size=3, carried=True, **arguments)


def test_update_carries_the_state_and_resets_it_at_the_start_of_a_stream():
    model = carried()
    tokens = jax.random.randint(jax.random.key(0), (2, 10), 0, 3)
    first = {"tokens": tokens[:, :5], "previous": jnp.array([3, 3])}
    second = {"tokens": tokens[:, 5:], "previous": jnp.array([tokens[0, 4], 3])}
    state = jax.jit(model.init)(jax.random.key(0), first)
    module = rnn.RNN(3, "lstm", 4, 1, 3)
    update = jax.jit(model.update)
    after, _ = update(jax.random.key(1), state, first)
    _, carry = rnn.token_log_prob(module, state.params, first["tokens"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.stats["carry"], carry)
    _, metrics = update(jax.random.key(2), after, second)
    goes_on = rnn.token_log_prob(
        module, after.params, second["tokens"][:1], previous=tokens[:1, 4], carry=jax.tree.map(lambda s: s[:1], carry)
    )[0]
    starts = rnn.token_log_prob(module, after.params, second["tokens"][1:])[0]
    np.testing.assert_allclose(metrics["nats_per_token"], -(jnp.mean(goes_on) + jnp.mean(starts)) / 2, rtol=1e-5)


def test_shards_keep_the_whole_carry():
    batch = {"tokens": jax.random.randint(jax.random.key(0), (8, 5), 0, 3), "previous": jnp.full((8,), 3)}
    model, sharded = carried(dropout_rate=0.5), carried(dropout_rate=0.5, axis_name="shards")
    state = jax.jit(model.init)(jax.random.key(0), batch)
    whole, _ = jax.jit(model.update)(jax.random.key(1), state, batch)
    parts = {name: x.reshape(4, 2, *x.shape[1:]) for name, x in batch.items()}
    many, _ = jax.jit(jax.vmap(sharded.update, (None, None, 0), axis_name="shards"))(jax.random.key(1), state, parts)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b[0], atol=1e-6)


def test_streams_go_on_and_start_anew():
    text = np.arange(97) % 7
    data = streams({"train": text, "valid": text, "test": text[:10]}, 7, 3, 4, seed=0)
    before = data.train(0)
    assert np.all(before["previous"] == 7)
    for step in range(1, 7):
        now = data.train(step)
        np.testing.assert_array_equal(now["previous"], before["tokens"][:, -1])
        np.testing.assert_array_equal(now["tokens"][:, 0], (now["previous"] + 1) % 7)
        before = now
    assert np.all(data.train(7)["previous"] == 7)
    (batch, num), *rest = data.batches("test")
    assert (num, batch["tokens"].shape, rest) == (3, (3, 3), [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "elman"}, "`cell`"),
        ({"num_units": 0}, "`num_units`"),
        ({"dropout_rate": 1.0}, "`dropout_rate`"),
        ({"eos": 3}, "`eos`"),
        ({"temperature": -1.0}, "`temperature`"),
        ({"length": 0}, "`length`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rnn.model(optax.sgd(0.1), 3, **arguments)


def test_bad_data_is_refused():
    model = rnn.model(optax.sgd(0.1), 3, num_units=2)
    for tokens in (jnp.full((2, 3), 3), jnp.zeros(3, jnp.int32)):
        with pytest.raises(ValueError, match="`tokens` must"):
            model.init(jax.random.key(0), {"tokens": tokens})
    with pytest.raises(ValueError, match="`length` must leave two windows"):
        streams({"train": np.zeros(20)}, 2, 2, 6, seed=0)
