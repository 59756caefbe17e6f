"""PixelRNN: receptive fields exactly those of the construction, blind spots included; samplers agree; completion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from raster_checks import check_completion, check_samplers_agree, dependence, params_of

from jgen.autoregressive import pixel_rnn, raster
from jgen.nets import pixel_lstm

KINDS = ("row", "diagonal")
SMALL = {"features": 6, "num_layers": 2, "first_size": 3, "activation": jnp.tanh}


def build(kind, shape, levels=2, **sizes):
    """A network with smooth activations (a dead ReLU looks like a mask), and random weights everywhere."""
    network = pixel_rnn.network(shape, levels, kind, **{**SMALL, **sizes})
    return network, params_of(network)


def seen_by(kind, shape, **sizes):
    sizes = {**SMALL, **sizes}
    return pixel_rnn.receptive_field(shape, kind, sizes["num_layers"], sizes["first_size"])


def earlier(size):
    return np.tri(size, k=-1, dtype=bool)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "levels", "sizes"),
    [
        ((5, 7, 1), 2, {"num_layers": 1}),
        ((4, 6, 1), 5, {}),
        ((2, 5, 3), 2, {}),
        ((3, 1, 2), 2, {}),
        ((1, 4, 1), 40, {}),
    ],
)
def test_each_position_sees_exactly_what_the_construction_looks_at(kind, shape, levels, sizes):
    network, params = build(kind, shape, levels, **sizes)
    found = dependence(network, params)
    np.testing.assert_array_equal(found, seen_by(kind, shape, **sizes))
    assert not np.any(found & ~earlier(len(found)))


def test_row_lstm_sees_a_cone():
    """Pixel (3, 4) of 5×9 with two layers after a 3×3: one more on each side with every row above the first."""
    network, params = build("row", (5, 9, 1))
    found = dependence(network, params)[3 * 9 + 4].reshape(5, 9)
    cone = ["x" * 8 + ".", "x" * 7 + "..", "x" * 6 + "...", ".xxx.....", "." * 9]
    np.testing.assert_array_equal(found, [[letter == "x" for letter in row] for row in cone])


def test_diagonal_bilstm_misses_exactly_the_last_pixel_of_the_row_above():
    """As published, at any depth; a first convolution of 7×7 reaches it from all columns but the first of five."""
    for first_size, blind in ((3, 3), (7, 1)):
        network, params = build("diagonal", (4, 5, 1), first_size=first_size, num_layers=3)
        missed = earlier(20) & ~dependence(network, params)
        pairs = {(d // 5, d % 5, j // 5, j % 5) for d, j in np.argwhere(missed)}
        assert pairs == {(r, c, r - 1, 4) for r in (1, 2, 3) for c in range(blind)}


def test_fields_of_the_presets():
    share = [np.mean(pixel_rnn.receptive_field((28, 28, 1), kind, 7)[earlier(784)]) for kind in KINDS]
    np.testing.assert_allclose(share, [0.7442, 0.9979], atol=5e-4)
    assert np.array_equal(
        pixel_rnn.receptive_field((28, 28, 1), "diagonal", 1), seen_by("diagonal", (28, 28, 1), first_size=7)
    )


def test_a_mirrored_lstm_without_its_shift_leaks_and_is_caught(monkeypatch):
    network, params = build("diagonal", (3, 4, 1))
    monkeypatch.setattr(pixel_lstm, "down", lambda x: x)
    found = dependence(network, params)
    assert np.any(found & ~earlier(12))
    assert abs(total(*build("diagonal", (2, 2, 1))) - 1.0) > 1e-2


def test_a_mirrored_lstm_moved_twice_is_blind_and_is_caught(monkeypatch):
    network, params = build("diagonal", (4, 6, 1))
    right = pixel_lstm.down
    monkeypatch.setattr(pixel_lstm, "down", lambda x: right(right(x)))
    assert not np.array_equal(dependence(network, params), seen_by("diagonal", (4, 6, 1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", ["A", "B"])
def test_wrong_masks_are_caught(kind, wrong, monkeypatch):
    """Mask B first leaks; mask A everywhere is blind."""
    network, params = build(kind, (3, 5, 1))
    right = pixel_rnn.masked_conv.mask
    monkeypatch.setattr(
        pixel_rnn.masked_conv, "mask", lambda size, n, m, kind, groups=1: right(size, n, m, wrong, groups)
    )
    found = dependence(network, params)
    assert not np.array_equal(found, seen_by(kind, (3, 5, 1)))
    assert np.any(found & ~earlier(15)) == (wrong == "B")


def test_row_states_from_the_wrong_columns_are_caught(monkeypatch):
    network, params = build("row", (4, 7, 1))
    monkeypatch.setattr(pixel_lstm, "above", lambda h: jnp.concatenate([h, h, h], axis=-1))
    assert not np.array_equal(dependence(network, params), seen_by("row", (4, 7, 1)))


def total(network, params):
    size = int(np.prod(network.shape))
    space = np.stack(np.meshgrid(*[range(network.levels)] * size, indexing="ij"), axis=-1).reshape(-1, *network.shape)
    log_prob = jax.jit(lambda x: raster.log_prob(network, params, x))(jnp.asarray(space, jnp.float32))
    return float(jnp.sum(jnp.exp(log_prob)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "levels"), [((2, 2, 1), 3), ((2, 3, 1), 2), ((1, 2, 3), 2)])
def test_sums_to_one_by_enumeration(kind, shape, levels):
    np.testing.assert_allclose(total(*build(kind, shape, levels)), 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "levels", "num_layers"), [((4, 5, 1), 2, 2), ((3, 2, 3), 3, 1)])
def test_cached_fixed_point_and_naive_samples_are_the_same(kind, shape, levels, num_layers):
    network, params = build(kind, shape, levels, num_layers=num_layers)
    check_samplers_agree(network, params)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_logits_are_those_of_a_full_pass(kind):
    """Noise so that x_d = 1 iff its logit is above a threshold: draws around the true logits tell them to 1e-4."""
    network, params = build(kind, (3, 4, 1))
    x = (jax.random.uniform(jax.random.key(0), (1, 3, 4, 1)) < 0.5).astype(jnp.float32)
    logits = jax.jit(lambda x: network.logits(params, x, None, None))(x)
    draw = jax.jit(lambda noise: network.draw(params, noise, x, np.zeros((3, 4, 1), bool), None))
    sign = jnp.where(x[..., None] > 0, -1.0, 1.0)
    np.testing.assert_array_equal(draw(logits + 1e-4 * sign), x)
    np.testing.assert_array_equal(draw(logits - 1e-4 * sign)[0, 0, 0, 0], 1 - x[0, 0, 0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_without_the_states_above_is_caught(kind, monkeypatch):
    network, params = build(kind, (4, 5, 1))
    steps = pixel_lstm.STEPS[kind]
    forgotten = steps._replace(after=lambda params, state, row, groups: state)
    monkeypatch.setitem(pixel_lstm.STEPS, kind, forgotten)
    with pytest.raises(AssertionError, match="cached"):
        check_samplers_agree(network, params)


@pytest.mark.parametrize("kind", KINDS)
def test_completion(kind):
    check_completion(*build(kind, (2, 2, 1)))


def test_completion_of_colours_keeps_what_is_known():
    network, params = build("diagonal", (2, 2, 3), 5, num_layers=1)
    known = jax.random.randint(jax.random.key(0), (4, 2, 2, 3), 0, 5)
    mask = (np.arange(12) < 8).reshape(2, 2, 3)
    draw = jax.jit(lambda key, known: raster.sample(network, key, params, 4, known=known, mask=mask))
    drawn = draw(jax.random.key(1), known)
    np.testing.assert_array_equal(drawn[:, mask], known[:, mask])
    np.testing.assert_array_equal(draw(jax.random.key(1), known * mask[None]), drawn)


def test_skewing_is_the_definition_and_goes_back():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    skewed = np.asarray(pixel_lstm.skew(x))
    assert skewed.shape == (6, 2, 3, 5)
    for t in range(6):
        for r in range(3):
            inside = 0 <= t - r < 4
            np.testing.assert_array_equal(skewed[t, :, r], x[:, r, t - r] if inside else 0.0)
    np.testing.assert_array_equal(pixel_lstm.unskew(jnp.asarray(skewed)), x)


def row_reference(params, x):
    """Pixel by pixel, from the formulas: K_is ∗ x with the pixel on the right masked, three states above."""
    height, width, size = x.shape[0], x.shape[1], params["start"].shape[1]
    h = np.zeros((height + 1, width + 2, size))
    c = np.zeros((height + 1, width + 2, size))
    h[0, 1:-1], c[0, 1:-1] = params["start"]
    padded = np.pad(x, ((0, 0), (1, 0), (0, 0)))
    for r in range(height):
        for j in range(width):
            gates = params["input"]["bias"] + padded[r, j] @ params["input"]["kernel"][0, 0]
            gates = gates + padded[r, j + 1] @ params["input"]["kernel"][0, 1]
            gates = gates + np.concatenate([h[r, j], h[r, j + 1], h[r, j + 2]]) @ params["recurrent"]
            h[r + 1, j + 1], c[r + 1, j + 1] = lstm(gates, c[r, j + 1])
    return h[1:, 1:-1]


def diagonal_reference(params, x):
    """Pixel by pixel, from the formulas: forward cells, mirrored cells of the flipped image one row down."""
    out = np.zeros((*x.shape[:2], params["start"].shape[-1]))
    kernels, biases = np.split(params["input"]["kernel"][0, 0], 2, 1), np.split(params["input"]["bias"], 2)
    for way in range(2):
        flipped = x[:, ::-1] if way else x
        h, c = np.zeros((2, x.shape[0] + 1, x.shape[1] + 1, out.shape[-1]))
        h[0, 1:], h[1:, 0], c[1:, 0] = params["start_above"][way], *params["start"][way]
        for r in range(x.shape[0]):
            for j in range(x.shape[1]):
                gates = flipped[r, j] @ kernels[way] + biases[way]
                gates = gates + np.concatenate([h[r + 1, j], h[r, j + 1]]) @ params["recurrent"][way]
                h[r + 1, j + 1], c[r + 1, j + 1] = lstm(gates, c[r + 1, j])
        if way:
            out[1:] += h[1:-1, 1:][:, ::-1]
        else:
            out += h[1:, 1:]
    return out


def lstm(gates, c):
    i, f, g, o = np.split(gates, 4)
    c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
    return np.tanh(c) / (1 + np.exp(-o)), c


@pytest.mark.parametrize(
    ("kind", "reference"), [("row", row_reference), ("diagonal", diagonal_reference)], ids=["row", "diagonal"]
)
def test_layers_are_their_formulas_pixel_by_pixel(kind, reference):
    """Learned initial states included: random ones."""
    module = pixel_lstm.LAYERS[kind](3)
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 2))
    shapes = jax.eval_shape(module.init, jax.random.key(1), x)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    params = jax.tree.unflatten(tree, drawn)
    expected = reference(jax.tree.map(np.asarray, params), np.asarray(x[0]))
    np.testing.assert_allclose(jax.jit(module.apply)({"params": params}, x)[0], expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_learning_starts_at_independent_pixels_with_open_forget_gates(kind):
    network = pixel_rnn.network((3, 3, 1), 2, kind, **SMALL)
    x = (jax.random.uniform(jax.random.key(0), (20, 3, 3, 1)) < 0.3).astype(jnp.float32)
    params = jax.jit(network.init, static_argnums=2)(jax.random.key(1), x, None)
    p = (x.sum(0) + 0.5) / 21
    expected = jnp.sum(jnp.where(x > 0, jnp.log(p)[None], jnp.log1p(-p)[None]), axis=(1, 2, 3))
    np.testing.assert_allclose(raster.log_prob(network, params, x), expected, rtol=1e-5)
    bias = params["layer_0"]["input"]["bias"].reshape(-1, 4, 6)
    np.testing.assert_array_equal(bias, np.broadcast_to([[[0.0], [1.0], [0.0], [0.0]]], bias.shape))


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_weights_stay_finite(kind):
    network, _ = build(kind, (2, 3, 1))
    params = params_of(network, 100.0)
    x = jnp.concatenate([jnp.zeros((1, 2, 3, 1)), jnp.ones((1, 2, 3, 1))])
    mass = jax.jit(jax.value_and_grad(lambda params: jnp.sum(raster.log_prob(network, params, x))))
    value, slope = mass(params)
    assert jnp.isfinite(value)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, "`levels`"),
        ({"kind": "column"}, "`kind`"),
        ({"features": 4}, "`features`"),
        ({"num_layers": 0}, "`num_layers`"),
        ({"first_size": 1}, "`first_size`"),
        ({"first_size": 4}, "`first_size`"),
        ({"dropout_rate": 1.0}, "`dropout_rate`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pixel_rnn.network((2, 2, 3), **{"levels": 2, "features": 6, **arguments})


@pytest.mark.parametrize("x", [jnp.full((2, 2, 2, 1), 0.5), jnp.full((2, 2, 2, 1), 2.0), jnp.zeros((2, 2, 3, 1))])
def test_bad_data_is_refused(x):
    model = raster.model(pixel_rnn.network((2, 2, 1), 2, **SMALL), optax.sgd(0.1))
    with pytest.raises(ValueError, match="`x` must"):
        model.init(jax.random.key(0), {"x": x})
