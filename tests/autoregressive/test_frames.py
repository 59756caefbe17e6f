"""Recurrent networks over frames: normalized masses, what a frame sees, padding, cached sampling, the two heads."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen import random
from jgen.autoregressive import frames, nade
from jgen.math import discrete

DIMS, LENGTH = 3, 2
EVERY = jnp.array(list(itertools.product((0, 1), repeat=DIMS * LENGTH))).reshape(-1, LENGTH, DIMS)


@functools.cache
def build(head="nade", cell="lstm", scale=1.0):
    """A network with random weights of size `scale` everywhere."""
    network = frames.Network(DIMS, head, cell, num_units=4, hidden_size=5)
    params = jax.jit(lambda key: frames.init(network, key, EVERY[:4], jnp.ones((4, LENGTH))))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return network, jax.tree.unflatten(tree, drawn)


def mass(network, params, x, mask=None):
    mask = jnp.ones(x.shape[:2]) if mask is None else mask
    return jax.jit(functools.partial(frames.log_prob, network))(params, x, mask)


def check_sum(network, params):
    np.testing.assert_allclose(jnp.sum(jnp.exp(mass(network, params, EVERY))), 1.0, atol=1e-5)


@pytest.mark.parametrize("head", frames.HEADS)
@pytest.mark.parametrize("cell", ["vanilla", "gru", "lstm"])
def test_masses_of_all_sequences_sum_to_one(head, cell):
    check_sum(*build(head, cell))


def test_a_frame_that_sees_itself_is_caught(monkeypatch):
    network, params = build()
    real = frames.states

    def leaking(network, params, x):
        u, last = real(network, params, x)
        return jnp.concatenate([u[:, 1:], last[0][:, None]], axis=1), last

    monkeypatch.setattr(frames, "states", leaking)
    with pytest.raises(AssertionError):
        check_sum(network, params)


def direct(network, params, x):
    """log p of one sequence by Python loops: the recurrent state by its cell, the NADE by its O(D²H) definition."""
    cell, _, _ = frames.recurrent.CELLS[network.cell]
    state, total, p = [s[None] for s in params["start"]], 0.0, params
    for v in np.asarray(x, np.float32):
        u = state[0][0]
        bias = p["bias"] + u @ p["kernel"]
        for d in range(network.num_dims):
            logit = bias[d]
            if network.head == "nade":
                a = p["hidden_bias"] + u @ p["hidden_kernel"] + sum(p["encoder"][j, 0] * v[j] for j in range(d))
                logit = logit + p["decoder"][d, 0] @ jax.nn.sigmoid(a)
            total += float(jax.nn.log_sigmoid(logit if v[d] else -logit))
        layer = p["layer"]
        state = cell(v[None] @ layer["input"] + layer["bias"][None], state[0] @ layer["recurrent"], tuple(state))
    return total


@pytest.mark.parametrize("head", frames.HEADS)
def test_log_prob_is_its_definition(head):
    network, params = build(head)
    x = EVERY[jnp.array([5, 43])]
    np.testing.assert_allclose(mass(network, params, x), [direct(network, params, row) for row in x], rtol=1e-4)


@pytest.mark.parametrize("head", frames.HEADS)
def test_dependence_on_earlier_frames_and_within_a_frame(head):
    """Bits flipped one by one: log p of bit (t, d) changes only with what comes before it, and with all of that."""
    network, params = build(head)
    x = jnp.array([[[1, 0, 1], [0, 1, 1], [1, 1, 0]]])

    def each(x):
        """Bit by bit: p(v_d | v_<d) as differences of log-sums over what follows, by all 8 frames."""
        u = frames.states(network, params, x)[0][0]
        space = jnp.array(list(itertools.product((0, 1), repeat=DIMS)))
        logs = jax.vmap(lambda u: frames.frame_log_prob(network, params, jnp.tile(u[None], (8, 1)), space))(u)
        found = [jnp.zeros(3)]
        for d in range(DIMS):
            same = jnp.all(space[None, :, : d + 1] == x[0][:, None, : d + 1], axis=2)
            found.append(jax.nn.logsumexp(jnp.where(same, logs, -jnp.inf), axis=1))
        return jnp.diff(jnp.stack(found, axis=1), axis=1)

    each = jax.jit(each)
    np.testing.assert_allclose(jnp.sum(each(x)), mass(network, params, x)[0], rtol=1e-4)
    base = each(x)
    for s, e in itertools.product(range(3), range(DIMS)):
        moved = np.abs(each(x.at[0, s, e].set(1 - x[0, s, e])) - base) > 1e-5
        for t, d in itertools.product(range(3), range(DIMS)):
            sees = t > s or (t == s and (d == e or (head == "nade" and d > e)))
            assert moved[t, d] == sees, (s, e, t, d)


def test_padding_counts_nothing_and_is_never_read():
    network, params = build()
    x = jax.random.bernoulli(jax.random.key(0), 0.5, (3, 4, DIMS)).astype(jnp.float32)
    mask = jnp.array([[1.0, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    one = mass(network, params, x, mask)
    np.testing.assert_array_equal(one, mass(network, params, jnp.where(mask[..., None] > 0, x, 1 - x), mask))
    np.testing.assert_allclose(one[0], mass(network, params, x[:1, :2])[0], rtol=1e-5)
    _, (_, metrics) = frames.loss(jax.random.key(0), params, {}, {"x": x, "mask": mask}, train=True, network=network)
    np.testing.assert_allclose(metrics["nats_per_frame"], -jnp.sum(one) / 7, rtol=1e-5)


def naive(network, params, key, num, length, prompt=None):
    """Every bit from log p of whole sequences that end with it, the same noise."""
    keys = random.example_keys(key, num)
    x = jnp.zeros((num, 0, DIMS)) if prompt is None else prompt
    for t in range(length):
        noise = jax.vmap(lambda key, t=t: discrete.noise(jax.random.fold_in(key, t), (DIMS,), 2))(keys)
        x = jnp.concatenate([x, jnp.zeros((num, 1, DIMS))], axis=1)
        u = frames.states(network, params, x)[0][:, -1]
        for d in range(DIMS):
            bias = params["bias"][None] + u @ params["kernel"]
            if network.head == "nade":
                bias = bias + nade.conditionals(frames._weights(params, u), x[:, -1], frames._hidden)[..., 0]
            x = x.at[:, -1, d].set(bias[:, d] > noise[:, d, 0])
    return x[:, x.shape[1] - length :]


def check_cache(network, params, prompt=None):
    key = jax.random.key(3)
    draw = jax.jit(lambda: frames.sample(network, key, params, 6, 4, prompt=prompt))
    np.testing.assert_array_equal(draw(), jax.jit(lambda: naive(network, params, key, 6, 4, prompt))())


@pytest.mark.parametrize("head", frames.HEADS)
def test_samples_with_caches_are_those_of_full_passes(head):
    network, params = build(head, "gru")
    check_cache(network, params)
    check_cache(network, params, jax.random.bernoulli(jax.random.key(1), 0.5, (6, 3, DIMS)).astype(jnp.float32))


def test_bias_of_the_wrong_sign_in_sampling_is_caught(monkeypatch):
    network, params = build()
    real = nade.draw
    monkeypatch.setattr(nade, "draw", lambda weights, noise, known, *rest: real(weights, -noise, known, *rest))
    with pytest.raises(AssertionError):
        check_cache(network, params)


@pytest.mark.parametrize("head", frames.HEADS)
def test_huge_weights_stay_finite(head):
    network, params = build(head, scale=100.0)
    value = mass(network, params, EVERY)
    assert np.all(np.isfinite(value))
    np.testing.assert_allclose(jnp.sum(jnp.exp(value)), 1.0, atol=1e-4)


def test_init_gives_the_frequencies_of_the_frames_that_count():
    network = frames.Network(DIMS, "independent", "gru", num_units=4)
    x = jnp.array([[[1, 1, 0], [1, 0, 0]], [[1, 0, 0], [1, 1, 1]]])
    params = frames.init(network, jax.random.key(0), x, jnp.array([[1.0, 1.0], [1.0, 0.0]]))
    p = (np.array([3, 1, 0]) + 0.5) / 4
    value = mass(network, params, x[:, :1])[1]
    np.testing.assert_allclose(value, np.log(p[0] * (1 - p[1]) * (1 - p[2])), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"head": "rbm"}, "`head`"),
        ({"cell": "elman"}, "`cell`"),
        ({"num_units": 0}, "`num_units`"),
        ({"hidden_size": 0}, "`hidden_size`"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        frames.Network(DIMS, **arguments)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": EVERY[:4, 0]}, "`x` must have shape"),
        ({"x": EVERY[:4, :, :2]}, "`x` must have shape"),
        ({"x": EVERY[:4] * 2}, "`x` must lie"),
        ({"mask": jnp.ones((4, 3))}, "`mask` must have shape"),
        ({"mask": jnp.array([[0, 1]] * 4)}, "`mask` must be ones"),
        ({"mask": jnp.array([[0, 0]] * 4)}, "`mask` must be ones"),
    ],
)
def test_bad_data_is_refused(wrong, message):
    model = frames.model(build()[0], optax.sgd(0.1))
    with pytest.raises(ValueError, match=message):
        model.init(jax.random.key(0), {"x": EVERY[:4], "mask": jnp.ones((4, LENGTH)), **wrong})


def test_bad_arguments_are_refused():
    network, params = build()
    with pytest.raises(ValueError, match="`length`"):
        frames.model(network, optax.sgd(0.1), length=0)
    with pytest.raises(ValueError, match="`dropout_rate`"):
        frames.model(network, optax.sgd(0.1), dropout_rate=1.0)
    with pytest.raises(ValueError, match="`prompt`"):
        frames.sample(network, jax.random.key(0), params, 2, 3, prompt=jnp.zeros((2, 3, 2)))
