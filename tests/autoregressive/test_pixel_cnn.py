"""PixelCNN: exactly what its masks let through, the blind spot included; the samplers agree; completion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from raster_checks import check_completion, check_samplers_agree, dependence, params_of

from jgen.autoregressive import pixel_cnn, raster
from jgen.nets import masked_conv, pixelwise

SMALL = {"features": 6, "num_blocks": 1, "first_size": 3, "head_features": 6, "activation": jnp.tanh}


def build(shape, levels=2, **sizes):
    """A network with smooth activations (a dead ReLU looks like a mask), and random weights everywhere."""
    network = pixel_cnn.network(shape, levels, **{**SMALL, **sizes})
    return network, params_of(network, 0.7)


def seen_by(shape, **sizes):
    sizes = {**SMALL, **sizes}
    return pixel_cnn.receptive_field(shape, **{name: sizes[name] for name in ("num_blocks", "first_size")})


def earlier(size):
    return np.tri(size, k=-1, dtype=bool)


@pytest.mark.parametrize(
    ("shape", "levels", "sizes"),
    [
        ((5, 5, 1), 2, {}),
        ((3, 4, 2), 5, {"features": 8, "first_size": 5}),
        ((1, 2, 3), 2, {}),
        ((2, 2, 3), 2, {}),
        ((2, 2, 1), 40, {}),
    ],
)
def test_each_position_sees_exactly_what_the_masks_let_through(shape, levels, sizes):
    network, params = build(shape, levels, **sizes)
    found = dependence(network, params)
    np.testing.assert_array_equal(found, seen_by(shape, **sizes))
    assert not np.any(found & ~earlier(len(found)))


def test_a_channel_sees_the_channels_before_it_of_its_own_pixel():
    network, params = build((1, 2, 3))
    found = dependence(network, params)
    np.testing.assert_array_equal(found[:3, :3], earlier(3))
    np.testing.assert_array_equal(found[3:, 3:], earlier(3))
    assert np.all(found[3:, :3])
    assert not np.any(found[:3, 3:])


def test_the_blind_spot_is_the_wedge_to_the_upper_right_at_any_depth():
    """k rows above, columns from c + k + 1 on stay unseen: each row up lets a kernel of 3 see one column further."""
    height = width = 6
    network, params = build((height, width, 1), num_blocks=5, features=4)
    i, j = (axis.ravel() for axis in np.indices((height, width)))
    up, right = i[:, None] - i[None], j[None] - j[:, None]
    wedge = (up > 0) & (right > up)
    assert wedge.any()
    np.testing.assert_array_equal(seen_by((height, width, 1), num_blocks=5), earlier(height * width) & ~wedge)
    np.testing.assert_array_equal(dependence(network, params), earlier(height * width) & ~wedge)
    for depth in (10, 20):
        np.testing.assert_array_equal(seen_by((height, width, 1), num_blocks=depth), earlier(36) & ~wedge)


def kinds(**changed):
    """`PixelCNN.layers` with other masks: one for the first layer, one for all others."""
    right = pixel_cnn.PixelCNN.layers

    def layers(self, channels):
        found = right(self, channels)
        first = {"input": {**found["input"], "kind": changed.get("first", "A")}}
        return {**{name: {**each, "kind": changed.get("others", "B")} for name, each in found.items()}, **first}

    return layers


def total(network, params):
    size = int(np.prod(network.shape))
    space = np.stack(np.meshgrid(*[range(network.levels)] * size, indexing="ij"), axis=-1).reshape(-1, *network.shape)
    log_prob = jax.jit(lambda x: raster.log_prob(network, params, x))(jnp.asarray(space, jnp.float32))
    return float(jnp.sum(jnp.exp(log_prob)))


def test_mask_b_first_leaks_and_is_caught(monkeypatch):
    network, params = build((2, 2, 1))
    assert abs(total(network, params) - 1.0) < 1e-5
    monkeypatch.setattr(pixel_cnn.PixelCNN, "layers", kinds(first="B"))
    assert np.all(np.diag(dependence(network, params)))
    assert abs(total(network, params) - 1.0) > 1e-2


@pytest.mark.parametrize("shape", [(3, 3, 1), (1, 2, 3)])
def test_mask_a_everywhere_is_blind_and_is_caught(shape, monkeypatch):
    network, params = build(shape)
    monkeypatch.setattr(pixel_cnn.PixelCNN, "layers", kinds(others="A"))
    found = dependence(network, params)
    assert not np.any(found & ~earlier(len(found)))
    assert not np.array_equal(found, seen_by(shape))


def test_groups_in_the_wrong_order_are_caught(monkeypatch):
    network, params = build((1, 2, 3))
    right = masked_conv.mask
    monkeypatch.setattr(masked_conv, "mask", lambda *args: right(*args)[:, :, ::-1])
    assert not np.array_equal(dependence(network, params), seen_by((1, 2, 3)))


@pytest.mark.parametrize(("shape", "levels"), [((2, 3, 1), 2), ((2, 2, 3), 2)])
def test_sums_to_one_by_enumeration(shape, levels):
    network, params = build(shape, levels, features=12)
    np.testing.assert_allclose(total(network, params), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "levels", "sizes"),
    [
        ((5, 4, 1), 2, {"num_blocks": 2}),
        ((4, 4, 1), 5, {"first_size": 5}),
        ((2, 3, 3), 40, {"features": 12}),
    ],
)
def test_cached_fixed_point_and_naive_samples_are_the_same(shape, levels, sizes):
    check_samplers_agree(*build(shape, levels, **sizes))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("next_row", lambda cache: cache),
        ("put", lambda cache, x, column, left, first: cache),
        ("window", lambda cache, column, layer: RIGHT_WINDOW(cache, column + 1, layer)),
    ],
)
def test_wrong_caches_are_caught(name, wrong, monkeypatch):
    network, params = build((4, 4, 1))
    monkeypatch.setattr(pixelwise, name, wrong)
    with pytest.raises(AssertionError, match="cached"):
        check_samplers_agree(network, params)


RIGHT_WINDOW = pixelwise.window


def test_the_cache_gives_the_logits_of_a_pass():
    network, params = build((4, 5, 1), num_blocks=2)
    x = jax.random.bernoulli(jax.random.key(0), 0.5, (3, 4, 5, 1)).astype(jnp.float32)
    logits = jax.jit(lambda x: network.logits(params, x, None, None))(x)
    # With all values known but the last, noise on either side of its logit tells where that logit lies.
    mask = np.arange(20).reshape(4, 5, 1) < 19
    for shift, expected in ((-1e-4, 1.0), (1e-4, 0.0)):
        drawn = jax.jit(lambda noise: network.draw(params, noise, x, mask, None))(logits + shift)
        np.testing.assert_array_equal(drawn[:, -1, -1, 0], expected)


@pytest.mark.parametrize(("shape", "levels"), [((2, 2, 1), 2), ((1, 2, 3), 2)])
def test_completion(shape, levels):
    check_completion(*build(shape, levels))


def test_training_starts_from_independent_pixels():
    network = pixel_cnn.network((3, 3, 1), 4, features=4)
    x = jax.random.randint(jax.random.key(0), (50, 3, 3, 1), 0, 4)
    params = jax.jit(lambda key: network.init(key, x, None))(jax.random.key(1))
    frequency = jnp.stack([(x == level).sum(0) + 0.5 for level in range(4)], axis=-1) / 52.0
    each = jnp.take_along_axis(jnp.broadcast_to(jnp.log(frequency)[None], (50, 3, 3, 1, 4)), x[..., None], axis=-1)
    found = jax.jit(lambda params: raster.log_prob(network, params, x))(params)
    np.testing.assert_allclose(found, each.sum((1, 2, 3, 4)), rtol=1e-5)


def test_extreme_weights_stay_finite():
    network = pixel_cnn.network((3, 3, 1), 5, **{**SMALL, "activation": jax.nn.relu})
    params = params_of(network, 30.0)
    x = jax.random.randint(jax.random.key(0), (4, 3, 3, 1), 0, 5)
    value, slope = jax.jit(jax.value_and_grad(lambda params: jnp.sum(raster.log_prob(network, params, x))))(params)
    assert value < -1e4
    assert jnp.isfinite(value)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def test_masked_weights_have_no_gradient():
    network, params = build((3, 3, 3))
    x = jnp.ones((2, 3, 3, 3))
    slope = jax.jit(jax.grad(lambda params: jnp.sum(raster.log_prob(network, params, x))))(params)
    free = masked_conv.mask((3, 3), 3, 6, "A", 3)
    assert np.all(np.asarray(slope["input"]["kernel"])[~free] == 0.0)
    assert np.all(np.asarray(slope["input"]["kernel"])[free] != 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, "`levels`"),
        ({"levels": 2, "features": 7}, "`features` must be a positive multiple of 6"),
        ({"levels": 2, "head_features": 4}, "`head_features` must be a positive multiple of 3"),
        ({"levels": 2, "first_size": 4}, "`first_size` must be odd"),
        ({"levels": 2, "size": 0}, "`size` must be odd"),
        ({"levels": 2, "num_blocks": -1}, "`num_blocks`"),
        ({"levels": 2, "dropout_rate": 1.0}, "`dropout_rate`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pixel_cnn.network((2, 2, 3), **{"features": 6, "head_features": 6, **arguments})


def test_bad_data_is_refused():
    model = raster.model(pixel_cnn.network((2, 2, 1), 2, **SMALL), optax.sgd(0.1))
    for x in (jnp.full((2, 2, 2, 1), 0.5), jnp.full((2, 2, 2, 1), 2.0), jnp.zeros((2, 2, 3, 1))):
        with pytest.raises(ValueError, match="`x` must"):
            model.init(jax.random.key(0), {"x": x})
