"""Transformer language models: a normalized mass over strings, causality, the cache, windows of long texts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stat_checks import check_counts

from jgen import linen
from jgen.autoregressive import sliding_window, transformer
from jgen.autoregressive.tokens import counted
from jgen.nets import attention

EOS, START = 2, 3
SIZES = {"num_layers": 2, "num_heads": 2, "width": 4}


def build(context=4, positions="learned", scale=0.7, **sizes):
    """A module with random weights everywhere."""
    module = transformer.Transformer(3, context, positions=positions, **{**SIZES, **sizes})
    shapes = jax.eval_shape(lambda key: linen.init(module, key, jnp.zeros((1, 2), jnp.int32))[0], jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return module, jax.tree.unflatten(tree, drawn)


def strings(length):
    """Every string that ends with EOS within `length` tokens (then EOS to the end), and every unfinished prefix."""
    rows = set()
    for row in itertools.product(range(3), repeat=length):
        end = row.index(EOS) if EOS in row else length
        rows.add(row[:end] + (EOS,) * (length - end))
    return jnp.array(sorted(rows))


EVERYTHING = jnp.array(list(itertools.product(range(3), repeat=4)))


def mass(module, params, tokens, eos: int | None = EOS):
    each = jax.jit(lambda tokens: transformer.token_log_prob(module, params, tokens))(tokens)
    return jnp.exp(jnp.sum(each * counted(tokens, eos), axis=1))


@pytest.mark.parametrize("positions", attention.POSITIONS)
def test_finished_strings_and_unfinished_prefixes_sum_to_one(positions):
    module, params = build(positions=positions)
    tokens = strings(4)
    assert len(tokens) == 1 + 2 + 4 + 8 + 16
    np.testing.assert_allclose(jnp.sum(mass(module, params, tokens)), 1.0, atol=1e-5)
    np.testing.assert_allclose(jnp.sum(mass(module, params, EVERYTHING, eos=None)), 1.0, atol=1e-5)


def test_masked_eos_and_counted_padding_are_caught():
    module, params = build()
    tokens = strings(4)
    each = transformer.token_log_prob(module, params, tokens)
    without_eos = jnp.exp(jnp.sum(each * counted(tokens, EOS) * (tokens != EOS), axis=1))
    with_padding = jnp.exp(jnp.sum(each, axis=1))
    assert abs(float(jnp.sum(without_eos)) - 1.0) > 0.05
    assert abs(float(jnp.sum(with_padding)) - 1.0) > 0.01


def unshifted(tokens, previous, start):
    return tokens


def wrong_softmax(query, keys, values, mask):
    scores = jnp.where(mask, jnp.einsum("bhqd,bhkd->bhqk", query, keys), jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-2)
    return jnp.einsum("bhqk,bhkd->bhqd", weights, values), weights


def one_too_far(num_queries, num_keys, start=0):
    return (jnp.arange(num_keys)[None] <= start + 1 + jnp.arange(num_queries)[:, None])[None, None]


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [
        (transformer, "shifted", unshifted),  # the target is not shifted: the network is fed x_t for x_t
        (attention, "attend", wrong_softmax),  # each query's weight depends on later queries
        (attention, "causal_mask", one_too_far),
    ],
)
def test_a_leak_is_caught(where, name, wrong, monkeypatch):
    module, params = build()
    np.testing.assert_allclose(jnp.sum(mass(module, params, EVERYTHING, eos=None)), 1.0, atol=1e-5)
    monkeypatch.setattr(where, name, wrong)
    assert abs(float(jnp.sum(mass(module, params, EVERYTHING, eos=None))) - 1.0) > 1e-3


def test_logits_depend_on_the_past_alone_and_on_all_of_it():
    """The prediction at t reads START, x_1 … x_{t−1}: input columns 0 … t."""
    module, params = build(context=6)
    inputs = jnp.array([START, 0, 1, 2, 1, 0])
    one_hot = jax.nn.one_hot(inputs, 4)

    def logits(rows):
        """The table's rows mixed by float weights: the Jacobian shows which inputs matter."""
        x = rows @ params["embedding"] + params["positions"]["table"]
        h, _ = linen.apply(attention.Stack(2, 2), params["stack"], {}, x[None])
        return h[0] @ params["embedding"][:-1].T + params["bias"][None]

    direct, _ = linen.apply(module, params, {}, inputs[None])
    np.testing.assert_allclose(logits(one_hot), direct[0], rtol=1e-4, atol=1e-5)
    reach = np.abs(jax.jit(jax.jacrev(logits))(one_hot)).sum(axis=(1, 3))
    assert np.all(np.triu(reach, 1) == 0.0)
    assert np.all(reach[np.tril_indices(6)] > 0)


def drawn(module, params, length, num=6, **arguments):
    draw = jax.jit(lambda key: transformer.sample(module, key, params, num, length, **arguments))
    return np.asarray(draw(jax.random.key(5)))


PROMPTS = (None, jnp.array([], jnp.int32), jnp.array([1, 0]), jnp.arange(5) % 2, jnp.arange(9) % 2)


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: "none" if prompt is None else str(len(prompt)))
def test_samples_with_the_cache_are_those_of_whole_passes(prompt):
    module, params = build(context=5)
    how = {"prompt": prompt} if prompt is None else {"prompt": prompt, "eos": EOS, "top_k": 2, "temperature": 2.0}
    expected = drawn(module, params, 13, method="naive", **how)
    assert expected.shape == (6, 13)
    np.testing.assert_array_equal(drawn(module, params, 13, **how), expected)


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_cache_index_off_by_one_is_caught(shift, monkeypatch):
    module, params = build(context=8)
    expected = drawn(module, params, 8, num=32, method="naive")
    np.testing.assert_array_equal(drawn(module, params, 8, num=32), expected)
    write = jax.lax.dynamic_update_slice_in_dim

    def wrong(old, new, start, axis):
        return write(old, new, start + shift, axis)

    monkeypatch.setattr(jax.lax, "dynamic_update_slice_in_dim", wrong)
    assert not np.array_equal(drawn(module, params, 8, num=32), expected)


def test_a_shorter_text_is_the_begin_of_a_longer_one():
    module, params = build(context=4)
    whole = drawn(module, params, 11)
    for length in (1, 4, 5):
        np.testing.assert_array_equal(drawn(module, params, length), whole[:, :length])


def reference(module, params, text, overlap):
    """log p of each token from its own window, one pass per token."""
    text, each = [START, *text], []
    stride = module.context - overlap
    apply = jax.jit(lambda inputs: linen.apply(module, params, {}, inputs)[0][0])
    for t in range(1, len(text)):
        begin = max(0, -(-(t - module.context) // stride)) * stride
        given = text[begin:t]
        logits = apply(jnp.array([given + [0] * (module.context - len(given))]))[len(given) - 1]
        each.append(float(jax.nn.log_softmax(logits)[text[t]]))
    return np.array(each)


@pytest.mark.parametrize("length", [1, 4, 5, 11])
@pytest.mark.parametrize("overlap", [0, 2, 3])
def test_windows_count_every_token_once_in_its_own_window(length, overlap):
    module, params = build(context=4)
    text = jax.random.randint(jax.random.key(0), (length,), 0, 3)
    expected = reference(module, params, text.tolist(), overlap).sum()
    for batch_size in (2, 16):
        whole = functools.partial(transformer.stream_log_prob, module, overlap=overlap, batch_size=batch_size)
        found = jax.jit(whole)(params, text)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("overlap", [0, 1])
def test_windows_are_a_law_over_texts(overlap):
    """Texts of three tokens through windows of two still sum to one."""
    module, params = build(context=2)
    texts = jnp.array(list(itertools.product(range(3), repeat=3)))
    each = jax.vmap(lambda text: transformer.stream_log_prob(module, params, text, overlap=overlap))(texts)
    np.testing.assert_allclose(jnp.sum(jnp.exp(each)), 1.0, atol=1e-5)


def test_texts_beyond_the_context_follow_the_sliding_windows():
    module, params = build(context=2)
    texts = jnp.array(list(itertools.product(range(3), repeat=4)))
    each = jax.vmap(lambda text: transformer.stream_log_prob(module, params, text, overlap=1))(texts)
    found = drawn(module, params, 4, num=20_000)
    check_counts(np.bincount(found @ np.array([27, 9, 3, 1]), minlength=81), np.exp(each))


def test_samples_follow_the_mass_and_eos_ends_a_row():
    module, params = build()
    space, place = np.asarray(strings(3)), np.array([9, 3, 1])
    counts = np.bincount(drawn(module, params, 3, num=20_000, eos=EOS) @ place, minlength=27)[space @ place]
    assert counts.sum() == 20_000
    check_counts(counts, mass(module, params, jnp.asarray(space)))


def test_both_ends_of_the_temperature():
    module, params = build(context=6)
    row = [START, 1, 0, 1]
    for _ in range(3):
        row.append(int(jnp.argmax(linen.apply(module, params, {}, jnp.array([row]))[0][0, -1])))
    greedy = drawn(module, params, 3, num=2, temperature=0.0, prompt=jnp.array([1, 0, 1]))
    np.testing.assert_array_equal(greedy, [row[4:]] * 2)
    uniform = drawn(module, params, 4, num=20_000, temperature=np.inf)
    check_counts(np.bincount(uniform @ np.array([27, 9, 3, 1]), minlength=81), np.full(81, 1 / 81))


def test_log_probabilities_never_see_how_tokens_are_drawn():
    module, params = build()
    each = transformer.token_log_prob(module, params, EVERYTHING)
    logits = linen.apply(module, params, {}, transformer.shifted(EVERYTHING, None, START))[0]
    expected = jnp.take_along_axis(jax.nn.log_softmax(logits), EVERYTHING[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(each, expected, atol=1e-5)


def test_padding_does_not_enter_the_loss():
    module, params = build()
    tokens = jnp.array([[0, EOS, EOS, EOS], [1, 0, 1, EOS]])
    padded = tokens.at[0, 2:].set(1)
    key = jax.random.key(0)

    def gradient(tokens, eos):
        def value(params):
            return transformer.loss(key, params, {}, {"tokens": tokens}, train=True, module=module, eos=eos)

        return jax.grad(value, has_aux=True)(params)

    one, other = gradient(tokens, EOS), gradient(padded, EOS)
    jax.tree.map(np.testing.assert_array_equal, one[0], other[0])
    assert one[1][1] == other[1][1]
    each = transformer.token_log_prob(module, params, tokens)
    np.testing.assert_allclose(one[1][1]["nats_per_token"], -(each[0, :2].sum() + each[1].sum()) / 6, rtol=1e-6)
    assert gradient(tokens, None)[1][1] != gradient(padded, None)[1][1]  # PAD counted


def test_previous_tokens_go_before_the_first():
    module, params = build()
    tokens = jnp.array([[0, 1, 2]])
    after_start = transformer.token_log_prob(module, params, tokens)
    np.testing.assert_array_equal(
        transformer.token_log_prob(module, params, tokens, previous=jnp.array([START])), after_start
    )
    after_one = transformer.token_log_prob(module, params, tokens, previous=jnp.array([1]))
    assert not np.allclose(after_one[:, 0], after_start[:, 0])


def test_attention_maps_are_lower_triangular_and_sum_to_one():
    module, params = build()
    maps = transformer.attention_maps(module, params, EVERYTHING[:5])
    assert maps.shape == (2, 5, 2, 4, 4)
    np.testing.assert_allclose(maps.sum(-1), 1.0, rtol=1e-5)
    assert np.all(np.triu(maps, 1) == 0)


def test_extreme_weights_give_finite_values():
    module, params = build(scale=100.0)
    each = transformer.token_log_prob(module, params, EVERYTHING)
    assert np.all(np.isfinite(each))
    assert np.all(each <= 0)


def test_dropout_of_an_example_is_its_own():
    module, params = build(dropout_rate=0.5)
    keys = jax.random.split(jax.random.key(0), 4)
    tokens = jnp.broadcast_to(EVERYTHING[5][None], (4, 4))
    four = transformer.token_log_prob(module, params, tokens, keys=keys)
    np.testing.assert_allclose(
        four[1:3], transformer.token_log_prob(module, params, tokens[:2], keys=keys[1:3]), rtol=1e-5
    )
    assert not np.allclose(four[0], four[1])


def test_the_first_loss_is_that_of_the_frequencies():
    tokens = jnp.array([[0, 0, EOS, EOS], [0, EOS, EOS, EOS]])
    model = transformer.model(transformer.Transformer(3, 4, **SIZES), optax.sgd(0.1), eos=EOS)
    state = jax.jit(model.init)(jax.random.key(0), {"tokens": tokens})
    p = np.array([3.5, 0.5, 2.5]) / 6.5
    np.testing.assert_allclose(jax.nn.softmax(state.params["bias"]), p, rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "arguments", "message"),
    [
        ({"num_heads": 3}, {}, "`num_heads`"),
        ({"vocabulary_size": 0}, {}, "`vocabulary_size`"),
        ({"context": 0}, {}, "`context`"),
        ({}, {"eos": 3}, "`eos`"),
        ({}, {"length": 0}, "`length`"),
    ],
)
def test_bad_arguments_are_refused(sizes, arguments, message):
    module = transformer.Transformer(**{"vocabulary_size": 3, "context": 4, **SIZES, **sizes})
    with pytest.raises(ValueError, match=message):
        transformer.model(module, optax.sgd(0.1), **arguments)


def test_bad_data_is_refused():
    module, params = build()
    model = transformer.model(module, optax.sgd(0.1))
    for tokens in (jnp.full((2, 3), 3), jnp.zeros(3, jnp.int32), jnp.zeros((1, 5), jnp.int32)):
        with pytest.raises(ValueError, match="`tokens` must"):
            model.init(jax.random.key(0), {"tokens": tokens})
    with pytest.raises(ValueError, match="`method` must be one of 'cached', 'naive'"):
        transformer.sample(module, jax.random.key(0), params, 1, 1, method="fast")
    with pytest.raises(ValueError, match="`length` must be at least 1"):
        transformer.sample(module, jax.random.key(0), params, 1, 0)
    for overlap in (-1, 4):
        with pytest.raises(ValueError, match="`overlap`"):
            transformer.stream_log_prob(module, params, jnp.zeros(3, jnp.int32), overlap=overlap)
    with pytest.raises(ValueError, match=r"`len\(tokens\)`"):
        sliding_window.log_prob(lambda *_: None, jnp.zeros(0, jnp.int32), context=4, start=3, overlap=0, batch_size=1)
