"""Gated PixelCNN: no blind spot, no leak, labels; the samplers agree; completion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from raster_checks import check_completion, check_samplers_agree, dependence, params_of

from jgen.autoregressive import gated_pixel_cnn, pixel_cnn, raster
from jgen.nets import masked_conv, pixelwise

SMALL = {"features": 6, "num_layers": 2, "first_size": 3, "head_features": 6, "activation": jnp.tanh}
RIGHT = {"layers": gated_pixel_cnn.GatedPixelCNN.layers, "rows": masked_conv.rows, "row": gated_pixel_cnn._row}


@functools.cache
def build(shape, levels=2, num_classes=None, **sizes):
    """A network with smooth activations (a dead ReLU looks like a mask), and random weights everywhere."""
    network = gated_pixel_cnn.network(shape, levels, num_classes=num_classes, **{**SMALL, **sizes})
    return network, params_of(network, 0.7)


def seen_by(shape, **sizes):
    sizes = {**SMALL, **sizes}
    return gated_pixel_cnn.receptive_field(shape, **{name: sizes[name] for name in ("num_layers", "first_size")})


def earlier(size):
    return np.tri(size, k=-1, dtype=bool)


def test_at_a_size_that_the_depth_covers_every_earlier_pixel_is_seen():
    """3//2 + 5 rows and columns, on 6×6: all. PixelCNN of the same kernels and depth must fail this."""
    network, params = build((6, 6, 1), num_layers=5 + 1, features=3)
    np.testing.assert_array_equal(dependence(network, params), earlier(36))
    np.testing.assert_array_equal(seen_by((6, 6, 1), num_layers=6), earlier(36))
    assert not np.array_equal(pixel_cnn.receptive_field((6, 6, 1), num_blocks=6, first_size=3), earlier(36))


@pytest.mark.parametrize(
    ("shape", "levels", "sizes"), [((5, 4, 1), 2, {}), ((3, 4, 2), 5, {"first_size": 5}), ((1, 2, 3), 2, {})]
)
def test_each_position_sees_exactly_what_the_construction_lets_through(shape, levels, sizes):
    network, params = build(shape, levels, **sizes)
    found = dependence(network, params)
    np.testing.assert_array_equal(found, seen_by(shape, **sizes))
    assert not np.any(found & ~earlier(len(found)))


def test_three_channels_see_the_ones_before_them():
    network, params = build((2, 2, 3))
    np.testing.assert_array_equal(dependence(network, params), earlier(12))


def test_levels_that_are_names_enter_one_hot_however_many_they_are():
    for most, inputs in ((masked_conv.MOST_ONE_HOT, 2), (40, 40)):
        network, params = build((2, 2, 1), 40, most_one_hot=most)
        assert params["layer_0_left"]["kernel"].shape[2] == inputs
        check_samplers_agree(network, params)


def shifted(by):
    """The first layer's rows moved down: by 1 they come too late, by −1 too early."""
    right = RIGHT["rows"]

    def rows(params, x, padding=(0, 0)):
        return right(params, x, (padding[0] + by, padding[1] - by) if padding[1] == -1 else padding)

    return rows


def residual_around_the_first_layer(self, convolve, h, links, groups):
    for i, link in enumerate(links):
        pre = convolve(f"layer_{i}_left_label", convolve(f"layer_{i}_left", h) + link)
        h = h + convolve(f"layer_{i}_residual", gated_pixel_cnn.gate(pre, groups))
    return convolve("output", self.activation(convolve("head", self.activation(h))))


def kinds(first, others):
    def layers(self, channels):
        found = RIGHT["layers"](self, channels)
        return {name: {**each, "kind": first if name == "layer_0_left" else others} for name, each in found.items()}

    return layers


MUTANTS = {
    "vertical stack a row early": ((masked_conv, "rows", shifted(-1)), "leak"),
    "vertical stack a row late": ((masked_conv, "rows", shifted(1)), "blind"),
    "residual around layer 1": (
        (gated_pixel_cnn.GatedPixelCNN, "horizontal", residual_around_the_first_layer),
        "leak",
    ),
    "mask B first": ((gated_pixel_cnn.GatedPixelCNN, "layers", kinds("B", "B")), "leak"),
    "mask A everywhere": ((gated_pixel_cnn.GatedPixelCNN, "layers", kinds("A", "A")), "blind"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, monkeypatch):
    patch, kind = MUTANTS[name]
    network, params = build((4, 4, 1))
    assert np.array_equal(dependence(network, params), seen_by((4, 4, 1)))
    monkeypatch.setattr(*patch)
    found = dependence(network, params)
    assert np.any(found & ~earlier(16)) == (kind == "leak")
    assert not np.array_equal(found, seen_by((4, 4, 1)))


def totals(network, params):
    """Σ p(x | label) of every label."""
    size = int(np.prod(network.shape))
    space = np.stack(np.meshgrid(*[range(network.levels)] * size, indexing="ij"), axis=-1).reshape(-1, *network.shape)
    mass = jax.jit(lambda x, label: jnp.sum(jnp.exp(raster.log_prob(network, params, x, label))))
    labels = [None] if network.num_classes is None else range(network.num_classes)
    x = jnp.asarray(space, jnp.float32)
    return [float(mass(x, None if y is None else jnp.full(len(space), y))) for y in labels]


@pytest.mark.parametrize(
    ("shape", "levels", "num_classes"), [((2, 3, 1), 2, None), ((2, 2, 3), 2, None), ((2, 2, 1), 3, 3)]
)
def test_sums_to_one_by_enumeration_for_each_label(shape, levels, num_classes):
    np.testing.assert_allclose(totals(*build(shape, levels, num_classes)), 1.0, atol=1e-5)


def test_every_logit_depends_on_the_label():
    network, params = build((3, 3, 1), 2, 3)
    x = jnp.repeat(jax.random.bernoulli(jax.random.key(0), 0.5, (1, 3, 3, 1)).astype(jnp.float32), 3, axis=0)
    logits = np.asarray(jax.jit(lambda label: network.logits(params, x, label, None))(jnp.arange(3)))
    same = np.asarray(jax.jit(lambda label: network.logits(params, x, label, None))(jnp.zeros(3, jnp.int32)))
    assert np.all(logits[1:] != same[1:])
    np.testing.assert_array_equal(logits[0], same[0])


@pytest.mark.parametrize("name", ["rows_label", "left_label"])
def test_each_stack_has_labels_of_its_own(name):
    network, params = build((3, 3, 1), 2, 2)
    without = {key: 0 * leaf if key.endswith(name) else leaf for key, leaf in params.items()}
    x, label = jnp.ones((1, 3, 3, 1)), jnp.array([1])
    logits = jax.jit(lambda params: network.logits(params, x, label, None))
    changed = np.asarray(logits(params) != logits(without)).reshape(9)
    # At pixel (0, 0) nothing lies above: the features of the vertical stack have not reached it yet, its biases have.
    assert np.all(changed)


def test_without_classes_no_label_is_taken_and_with_them_one_is_asked_for():
    for num_classes, label, message in ((None, jnp.zeros(1, jnp.int32), "absent"), (2, None, r"classes in 0\.\.1")):
        network, params = build((2, 2, 1), 2, num_classes)
        with pytest.raises(ValueError, match=f"`label` must be {message}"):
            raster.sample(network, jax.random.key(0), params, 1, label=label)
    model = raster.model(build((2, 2, 1), 2, 2)[0], optax.sgd(0.1))
    with pytest.raises(ValueError, match="`batch` must hold 'label'"):
        model.init(jax.random.key(0), {"x": jnp.zeros((2, 2, 2, 1))})
    with pytest.raises(ValueError, match="`label` must"):
        model.init(jax.random.key(0), {"x": jnp.zeros((2, 2, 2, 1)), "label": jnp.array([0, 2])})


@pytest.mark.parametrize(
    ("shape", "levels", "num_classes", "sizes"),
    [((5, 4, 1), 2, None, {"num_layers": 3}), ((3, 3, 1), 5, 3, {"first_size": 5}), ((2, 3, 3), 40, None, {})],
)
def test_cached_fixed_point_and_naive_samples_are_the_same(shape, levels, num_classes, sizes):
    check_samplers_agree(*build(shape, levels, num_classes, **sizes))


def without_label(params, label, above, name, x):
    return x if name.endswith("_label") else RIGHT["row"](params, label, above, name, x)


def forgetful(params, label, above, name, x):
    return RIGHT["row"](params, label, dict(above), name, x)


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        (pixelwise, "next_row", lambda cache: cache + 1.0),
        (pixelwise, "put", lambda cache, x, column, left, first: cache),
        (gated_pixel_cnn, "_row", without_label),
        (gated_pixel_cnn, "_row", forgetful),
    ],
)
def test_wrong_caches_are_caught(module, name, wrong, monkeypatch):
    network, params = build((4, 4, 1), 2, 3)
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(AssertionError, match="cached"):
        check_samplers_agree(network, params)


@pytest.mark.parametrize(("shape", "num_classes"), [((2, 2, 1), 3), ((1, 2, 3), None)])
def test_completion(shape, num_classes):
    check_completion(*build(shape, 2, num_classes))


def test_training_starts_from_independent_pixels():
    network = gated_pixel_cnn.network((3, 3, 1), 2, num_layers=2, features=4)
    x = jax.random.bernoulli(jax.random.key(0), 0.3, (50, 3, 3, 1)).astype(jnp.float32)
    params = jax.jit(lambda key: network.init(key, x, None))(jax.random.key(1))
    rate = (x.sum(0) + 0.5) / 51.0
    expected = jnp.sum(x * jnp.log(rate)[None] + (1 - x) * jnp.log1p(-rate)[None], axis=(1, 2, 3))
    np.testing.assert_allclose(jax.jit(lambda x: raster.log_prob(network, params, x))(x), expected, rtol=1e-5)


def test_extreme_weights_stay_finite():
    network, params = build((3, 3, 1), 5)
    params = jax.tree.map(lambda leaf: 100.0 * leaf, params)
    x = jax.random.randint(jax.random.key(0), (4, 3, 3, 1), 0, 5)
    value, slope = jax.jit(jax.value_and_grad(lambda params: jnp.sum(raster.log_prob(network, params, x))))(params)
    assert value < -1e3
    assert jnp.isfinite(value)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, "`levels`"),
        ({"features": 7}, "`features` must be a positive multiple of 3"),
        ({"head_features": 4}, "`head_features` must be a positive multiple of 3"),
        ({"first_size": 1}, "`first_size` must be odd and at least 3"),
        ({"size": 2}, "`size` must be odd"),
        ({"num_layers": 0}, "`num_layers`"),
        ({"num_classes": 0}, "`num_classes`"),
        ({"dropout_rate": -0.1}, "`dropout_rate`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gated_pixel_cnn.network((2, 2, 3), **{"levels": 2, "features": 6, "head_features": 6, **arguments})
