"""Sequence to sequence: a normalized mass over targets, what each part may see, sampling, greedy and beam search."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stat_checks import check_counts

from jgen import linen, random
from jgen.autoregressive import beam, decoding, seq2seq
from jgen.autoregressive.tokens import counted
from jgen.nets import memory, recurrent

EOS, SIZE, LENGTH = seq2seq.EOS, 3, 4
SOURCES = jnp.array([[1, 2, 2, 0, 0], [2, 1, 0, 1, 2], [1, 1, 1, 1, 1], [0, 2, 1, 2, 1]])
"""Lengths 4, 3, 5 and 1, EOS included; what stands after EOS must not matter."""
IMAGES = jax.random.randint(jax.random.key(9), (4, 5, 6, 1), 0, 4)


@functools.cache
def build(kind="text", cell="gru", scale=1.0):
    """A network with random weights of size `scale` everywhere."""
    sizes = {"cell": cell, "num_units": 5, "embedding_size": 4}
    network = seq2seq.text(SIZE, SIZE, **sizes) if kind == "text" else seq2seq.image(4, SIZE, **sizes, features=3)
    batch = {"source": SOURCES if kind == "text" else IMAGES, "target": jnp.zeros((4, LENGTH), jnp.int32)}
    params = jax.jit(seq2seq.model(network, optax.sgd(0.1)).init)(jax.random.key(0), batch).params
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return network, jax.tree.unflatten(tree, drawn), batch["source"]


def outputs(length=LENGTH):
    """Every finished target, padded with EOS, and every prefix of full length."""
    rows = set()
    for row in itertools.product(range(SIZE), repeat=length):
        end = row.index(EOS) if EOS in row else length
        rows.add(row[:end] + (EOS,) * (length - end))
    return jnp.array(sorted(rows))


def log_masses(network, params, sources, targets):
    """log p(y | x) of every target for each source, (sources, targets)."""
    pairs = (jnp.repeat(sources, len(targets), axis=0), jnp.tile(targets, (len(sources), 1)))
    return jax.jit(functools.partial(seq2seq.log_prob, network))(params, *pairs).reshape(len(sources), -1)


def check_sum(network, params, sources):
    total = jnp.sum(jnp.exp(log_masses(network, params, sources, outputs())), axis=1)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("cell", list(recurrent.CELLS))
def test_finished_targets_and_unfinished_prefixes_sum_to_one(kind, cell):
    network, params, sources = build(kind, cell)
    assert len(outputs()) == 1 + 2 + 4 + 8 + 16
    check_sum(network, params, sources)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("counted", lambda tokens, eos: jnp.ones(tokens.shape)),
        ("counted", lambda tokens, eos: counted(tokens, eos) * (tokens != eos)),
        ("_picked", lambda log_probs, target: jnp.max(log_probs, axis=-1)),
    ],
)
def test_padding_in_the_mass_a_masked_eos_and_the_wrong_token_are_caught(monkeypatch, name, broken):
    network, params, sources = build()
    monkeypatch.setattr(seq2seq, name, broken)
    with pytest.raises(AssertionError):
        check_sum(network, params, sources)


def teach(network, params, sources, targets):
    return jax.jit(functools.partial(seq2seq.teach, network))(params, sources, targets)


def check_padding(network, params):
    """What stands after EOS changes nothing, in the source or in the target; to the last bit."""
    ended = jnp.cumsum(SOURCES == EOS, axis=1) - (SOURCES == EOS) > 0
    targets = jnp.array([[1, 0, 2, 1], [2, 2, 0, 1], [0, 1, 1, 2], [1, 2, 1, 0]])
    log_prob = jax.jit(functools.partial(seq2seq.log_prob, network))
    for token in range(SIZE):
        sources = jnp.where(ended, token, SOURCES)
        for one, other in zip(
            teach(network, params, sources, targets), teach(network, params, SOURCES, targets), strict=True
        ):
            np.testing.assert_array_equal(one, other)
        after = jnp.cumsum(targets == EOS, axis=1) - (targets == EOS) > 0
        padded = jnp.where(after, token, targets)
        np.testing.assert_array_equal(log_prob(params, SOURCES, padded), log_prob(params, SOURCES, targets))


@pytest.mark.parametrize("cell", list(recurrent.CELLS))
def test_padding_is_never_read(cell):
    network, params, _ = build(cell=cell)
    check_padding(network, params)
    longer = jnp.pad(SOURCES, ((0, 0), (0, 3)), constant_values=1).at[2, 5].set(EOS)
    with_eos = jnp.pad(SOURCES, ((0, 0), (0, 1))).at[2, 5].set(EOS)
    targets = outputs()[:4]
    np.testing.assert_allclose(
        teach(network, params, longer, targets)[0], teach(network, params, with_eos, targets)[0], atol=1e-5
    )


def _unmasked(query, keys, values, mask, *, real=memory.attend):
    return real(query, keys, values, jnp.ones_like(mask))


def test_attention_to_padding_and_backwards_reading_of_it_are_caught(monkeypatch):
    network, params, _ = build()

    def reversed_with_padding(x, index):
        return x[:, ::-1] if index.shape[1] > 1 else x[:, -1:]

    for name, broken in (("attend", _unmasked), ("_at", reversed_with_padding)):
        with monkeypatch.context() as patch:
            patch.setattr(memory, name, broken)
            with pytest.raises(AssertionError):
                check_padding(network, params)


def reach(network, params, source, target):
    """|d logits_t / d embedding of y_s| and |d logits_t / d embedding of x_s|, each (T, S)."""
    assert len(target) == SIZE + 1, "as many positions as the decoder's table has rows"
    tables = {part: next(v["embedding"] for k, v in params[part].items() if "Embed" in k) for part in params}
    start = jnp.array([network.decoder.vocabulary_size, *target[:-1]])

    def logits(moved):
        """Each position has an embedding row of its own: the Jacobian shows which positions matter."""
        shifts = {"encoder": moved["source"], "decoder": moved["target"]}
        own = {
            part: {**params[part], "Embed_0": {"embedding": tables[part][i] + shifts[part]}}
            for part, i in (("encoder", source), ("decoder", start))
        }
        mask = counted(source[None], EOS) > 0
        encoder = network.encoder.clone(vocabulary_size=len(source))
        found = linen.apply(encoder, own["encoder"], {}, jnp.arange(len(source))[None], mask)
        places = jnp.arange(len(start))[None, None]
        return linen.apply(network.decoder, own["decoder"], {}, places, found.state, found)[0][0, 0]

    zeros = {"source": jnp.zeros((len(source), 4)), "target": jnp.zeros((len(target), 4))}
    direct = teach(network, params, source[None], target[None])[0][0]
    np.testing.assert_allclose(jax.nn.log_softmax(logits(zeros)), direct, atol=1e-5)
    jacobian = jax.jit(jax.jacrev(logits))(zeros)
    return {name: np.abs(value).sum(axis=(1, 3)) for name, value in jacobian.items()}


@pytest.mark.parametrize("cell", list(recurrent.CELLS))
def test_logits_see_all_earlier_targets_none_later_and_every_source_token(cell):
    network, params, _ = build(cell=cell)
    source = jnp.array([1, 2, 2, 0, 1, 2])
    found = reach(network, params, source, jnp.array([1, 2, 2, 1]))
    assert np.all(np.triu(found["target"], 1) == 0.0)
    assert np.all(found["target"][np.tril_indices(LENGTH)] > 0)
    assert np.all(found["source"][:, :4] > 0)
    assert np.all(found["source"][:, 4:] == 0.0)


def test_attention_is_a_distribution_over_the_source():
    network, params, _ = build()
    weights = teach(network, params, SOURCES, outputs()[:4])[1]
    np.testing.assert_allclose(jnp.sum(weights, axis=-1), 1.0, atol=1e-6)
    assert np.all((np.asarray(weights) > 0).any(axis=1) == (np.asarray(counted(SOURCES, EOS)) > 0))
    weights = teach(*build("image")[:2], IMAGES, outputs()[:4])[1]
    assert weights.shape == (4, LENGTH, 3 * 3)


def naive(network, params, key, sources, length):
    """Each token from a full pass over the source and all tokens before it, the same noise."""
    num = len(sources)
    keys, rows = random.example_keys(key, num), jnp.zeros((num, length), jnp.int32)
    for t in range(length):
        log_probs = teach(network, params, sources, rows)[0][:, t]
        rows = rows.at[:, t].set(jnp.argmax(log_probs + decoding.token_noise(keys, t, SIZE), axis=-1))
    return jnp.where(counted(rows, EOS) > 0, rows, EOS)


def check_cache(network, params, sources):
    draw = jax.jit(lambda key: seq2seq.sample(network, key, params, sources, LENGTH))
    for seed in range(3):
        key = jax.random.key(seed)
        np.testing.assert_array_equal(draw(key), naive(network, params, key, sources, LENGTH))


@pytest.mark.parametrize(("kind", "cell"), [("text", "vanilla"), ("text", "gru"), ("image", "lstm")])
def test_samples_with_the_state_as_cache_are_those_of_full_passes(kind, cell):
    network, params, sources = build(kind, cell)
    check_cache(network, params, jnp.tile(sources, (4,) + (1,) * (sources.ndim - 1)))


def test_a_state_that_stays_behind_is_caught(monkeypatch):
    network, params, sources = build()
    real = seq2seq.stepper

    def broken(*arguments):
        step = real(*arguments)
        return lambda tokens, state: (step(tokens, state)[0], state)

    monkeypatch.setattr(seq2seq, "stepper", broken)
    with pytest.raises(AssertionError):
        check_cache(network, params, sources)


def test_samples_follow_the_mass_and_do_not_depend_on_their_batch():
    network, params, sources = build()
    num, space = 20_000, outputs(3)
    many = jnp.broadcast_to(sources[:1], (num, 5))
    drawn = jax.jit(lambda key: seq2seq.sample(network, key, params, many, 3))(jax.random.key(0))
    place = np.array([9, 3, 1])
    counts = np.bincount(np.asarray(drawn) @ place, minlength=27)[np.asarray(space) @ place]
    assert counts.sum() == num
    check_counts(counts, jnp.exp(log_masses(network, params, sources[:1], space)[0]))
    few = jax.jit(lambda key: seq2seq.sample(network, key, params, sources[:1], 3))(jax.random.key(0))
    np.testing.assert_array_equal(few, drawn[:1])


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_beam_as_wide_as_the_space_is_exhaustive_and_never_loses_to_greedy(kind, alpha):
    network, params, sources = build(kind)
    space = outputs()
    size = np.minimum((np.asarray(space) != EOS).sum(axis=1) + 1, LENGTH)
    width = SIZE ** (LENGTH - 1)
    found = jax.jit(lambda: seq2seq.decode(network, params, sources, LENGTH, width=width, alpha=alpha))()
    first = jax.jit(lambda: seq2seq.greedy(network, params, sources, LENGTH))()
    for i, log_prob in enumerate(np.asarray(log_masses(network, params, sources, space))):
        score = log_prob / ((5 + size) / 6) ** alpha
        np.testing.assert_array_equal(found.tokens[i, 0], space[np.argmax(score)])
        np.testing.assert_allclose(found.score[i, 0], score.max(), atol=1e-4)
        own = log_prob[np.all(np.asarray(space) == np.asarray(first.tokens[i, 0])[None], axis=1)]
        np.testing.assert_allclose(first.log_prob[i, 0], own[0], atol=1e-4)


def check_beam(network, params, sources):
    """A beam's log-probabilities are those of its outputs: each lane has the state of its own prefix."""
    memory_of = seq2seq.encode(network, params, sources)
    step, start = seq2seq.stepper(network, params, memory_of), jnp.full((len(sources),), SIZE)
    found = jax.jit(lambda: beam.search(step, memory_of.state, start, LENGTH, width=27, eos=EOS))()
    many, targets = jnp.repeat(sources, 27, axis=0), found.tokens.reshape(-1, LENGTH)
    each = jax.jit(functools.partial(seq2seq.log_prob, network))(params, many, targets)
    np.testing.assert_allclose(found.log_prob.ravel(), each, atol=1e-4)


def test_beams_gather_the_state_of_their_parents(monkeypatch):
    network, params, sources = build("text", "lstm")
    check_beam(network, params, sources)
    real = beam._take
    monkeypatch.setattr(
        beam, "_take", lambda leaf, index: leaf if leaf.dtype == jnp.float32 and leaf.ndim == 3 else real(leaf, index)
    )
    with pytest.raises(AssertionError):
        check_beam(network, params, sources)


def test_exact_match_is_what_greedy_writes():
    network, params, _ = build(scale=2.0)
    targets = jax.jit(lambda: seq2seq.greedy(network, params, SOURCES, LENGTH))().tokens[:, 0]
    targets = targets.at[0, 0].set((targets[0, 0] + 1) % SIZE)
    state = (params, {}, None)
    metrics = seq2seq.loss(
        jax.random.key(0), *state[:2], {"source": SOURCES, "target": targets}, train=False, network=network
    )
    np.testing.assert_array_equal(metrics[1][1]["exact_match"], [0.0, 1.0, 1.0, 1.0])
    weight = counted(targets, EOS)
    nll = -seq2seq.log_prob(network, params, SOURCES, targets)
    np.testing.assert_allclose(metrics[1][1]["nll"], nll, rtol=1e-5)
    np.testing.assert_allclose(metrics[0], jnp.sum(nll) / jnp.sum(weight), rtol=1e-5)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_huge_weights_and_length_one_stay_finite(kind):
    network, params, sources = build(kind, "lstm", scale=100.0)
    for length in (1, LENGTH):
        value = log_masses(network, params, sources[-1:], outputs(length))
        np.testing.assert_allclose(jnp.sum(jnp.exp(value)), 1.0, atol=1e-4)
    batch = {"source": sources, "target": outputs()[:4]}

    def loss(params):
        return seq2seq.loss(jax.random.key(0), params, {}, batch, train=True, network=network)[0]

    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params)))


def test_init_gives_the_tokens_frequencies():
    network = seq2seq.text(SIZE, SIZE, num_units=4)
    batch = {"source": SOURCES, "target": jnp.array([[1, 1, 0, 2], [1, 2, 0, 2], [1, 0, 0, 0], [1, 1, 1, 0]])}
    bias = seq2seq.model(network, optax.sgd(0.1)).init(jax.random.key(0), batch).params["decoder"]["logits"]["bias"]
    np.testing.assert_allclose(jnp.exp(bias), np.array([4.5, 7.5, 1.5]) / 13.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: seq2seq.text(3, 3, cell="elman"), "`cell`"),
        (lambda: seq2seq.text(0, 3), "`source_size`"),
        (lambda: seq2seq.text(3, 0), "`target_size`"),
        (lambda: seq2seq.image(1, 3), "`levels`"),
        (lambda: seq2seq.image(2, 3, features=0), "`features`"),
        (lambda: seq2seq.sample(*_four(), temperature=-1.0), "`temperature`"),
        (lambda: seq2seq.sample(*_four()[:-1], 0), "`length`"),
        (lambda: seq2seq.decode(*_four()[:1], *_four()[2:], width=0), "`width`"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def _four():
    network, params, sources = build()
    return network, jax.random.key(0), params, sources, LENGTH


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("text", {"source": SOURCES + 1}, "`source` must lie"),
        ("text", {"source": IMAGES}, "`source` must have 2 axes"),
        ("image", {"source": SOURCES}, "`source` must have 4 axes"),
        ("image", {"source": IMAGES / 2}, "`source` must be whole"),
        ("text", {"target": jnp.full((4, 2), 3)}, "`target` must lie"),
        ("text", {"target": jnp.zeros(4, jnp.int32)}, "`target` must have 2 axes"),
    ],
)
def test_bad_data_is_refused(kind, wrong, message):
    network, _, sources = build(kind)
    model = seq2seq.model(network, optax.sgd(0.1))
    with pytest.raises(ValueError, match=message):
        model.init(jax.random.key(0), {"source": sources, "target": jnp.zeros((4, 2), jnp.int32), **wrong})
    with pytest.raises(ValueError, match="`batch` must hold 'source' and 'target'"):
        model.init(jax.random.key(0), {"source": sources})
