"""PixelCNN++: every earlier pixel and no other, on any size; the samplers agree and land on levels; completion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from raster_checks import check_completion, check_samplers_agree, dependence, params_of

from jgen import linen
from jgen.autoregressive import pixel_cnn_pp, raster, two_stream_sampling
from jgen.math import logistic
from jgen.nets import two_streams, weight_norm

SMALL = {"features": 3, "num_blocks": 1, "num_resolutions": 2, "num_components": 2}


@functools.cache
def build(shape, levels=2, **sizes):
    """A network with random weights everywhere, and outputs small enough for means on the levels, not beyond them."""
    network = pixel_cnn_pp.network(shape, levels, **{**SMALL, **sizes})
    params = params_of(network, 0.7)
    small = {name: leaf if name == "kernel" else 0.2 * leaf for name, leaf in params["h_outputs"].items()}
    return network, {**params, "h_outputs": small}


def earlier(size):
    return np.tri(size, k=-1, dtype=bool)


@pytest.mark.parametrize(
    ("shape", "levels", "sizes"),
    [((5, 6, 1), 2, {"num_blocks": 2}), ((3, 3, 1), 5, {"num_resolutions": 3}), ((2, 3, 3), 4, {"num_resolutions": 1})],
)
def test_every_earlier_position_is_seen_and_no_other(shape, levels, sizes):
    found = dependence(*build(shape, levels, **sizes))
    np.testing.assert_array_equal(found, earlier(len(found)))


STEMS = {"v_stem": ((2, 3), ((1, 0), (1, 1))), "h_stem_left": ((2, 1), ((1, 0), (0, 0)))}
RIGHT_KERNELS = dict(two_streams.KERNELS)


@pytest.mark.parametrize("name", STEMS)
def test_a_stem_that_sees_its_own_pixel_is_caught(name, monkeypatch):
    network, params = build((4, 4, 1))
    monkeypatch.setitem(two_streams.KERNELS, name, STEMS[name])
    found = dependence(network, params)
    assert np.any(found & ~earlier(16))


def test_a_resolution_that_serves_pixels_too_early_is_caught(monkeypatch):
    network, params = build((4, 4, 1))
    monkeypatch.setitem(two_streams.KERNELS, "v_up", ((2, 3), ((0, 2), (1, 2))))
    found = dependence(network, params)
    assert np.any(found & ~earlier(16))


def total(network, params):
    size = int(np.prod(network.shape))
    space = np.stack(np.meshgrid(*[range(network.levels)] * size, indexing="ij"), axis=-1).reshape(-1, *network.shape)
    log_prob = jax.jit(lambda x: raster.log_prob(network, params, x))(jnp.asarray(space, jnp.float32))
    return float(jnp.sum(jnp.exp(log_prob)))


@pytest.mark.parametrize(("shape", "levels"), [((2, 3, 1), 2), ((1, 2, 3), 2), ((2, 2, 1), 4), ((1, 2, 2), 5)])
def test_sums_to_one_by_enumeration(shape, levels):
    np.testing.assert_allclose(total(*build(shape, levels)), 1.0, atol=1e-5)


def end_bins_as_interior(x, mean, log_scale, levels):
    inverse = jnp.exp(-log_scale) * (2 / (levels - 1))
    edge = x.astype(jnp.float32) - 0.5 - (mean + 1) * ((levels - 1) / 2)
    inside = jax.nn.log_sigmoid((edge + 1) * inverse) + jax.nn.log_sigmoid(-edge * inverse)
    return inside + jnp.log(-jnp.expm1(-inverse))


def test_end_bins_treated_as_interior_are_caught(monkeypatch):
    network, params = build((2, 2, 1), 4)
    monkeypatch.setattr(logistic, "log_mass", end_bins_as_interior)
    assert abs(total(network, params) - 1.0) > 0.1


@pytest.mark.parametrize(("shape", "levels"), [((3, 3, 1), 2), ((2, 2, 3), 256)])
def test_the_values_own_masses_are_those_of_all_levels(shape, levels):
    network, params = build(shape, levels)
    x = jax.random.randint(jax.random.key(0), (4, *shape), 0, levels)
    own = jax.jit(lambda x: raster.conditional_log_prob(network, params, x))(x)
    table = jax.jit(lambda x: network.logits(params, x, None, None))(x)
    np.testing.assert_allclose(own, raster.discrete.log_prob(table, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "levels", "sizes"),
    [
        ((5, 6, 1), 2, {}),
        ((5, 5, 1), 5, {"num_resolutions": 3}),
        ((3, 2, 3), 7, {"num_resolutions": 1, "num_blocks": 2}),
        ((2, 3, 3), 2, {}),
    ],
)
def test_cached_fixed_point_and_naive_samples_are_the_same(shape, levels, sizes):
    check_samplers_agree(*build(shape, levels, **sizes))


RIGHT_NEXT = two_stream_sampling._next_row


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("_next_row", lambda name, cache, i: cache),
        ("_next_row", lambda name, cache, i: RIGHT_NEXT("x" if name.startswith("h_1") else name, cache, i)),
        ("_resolution", lambda name: 0),
    ],
)
def test_wrong_caches_are_caught(name, wrong, monkeypatch):
    network, params = build((4, 4, 1), 64)
    monkeypatch.setattr(two_stream_sampling, name, wrong)
    with pytest.raises((AssertionError, TypeError, ValueError)):
        check_samplers_agree(network, params, num=128)


@pytest.mark.parametrize(("shape", "levels"), [((2, 2, 1), 2), ((1, 2, 3), 2)])
def test_completion(shape, levels):
    check_completion(*build(shape, levels))


def test_the_first_batch_sets_mean_and_scale_of_every_layer():
    module = weight_norm.NormConv(3, (2, 3), ((1, 0), (1, 1)), first_scale=0.5)
    x = 5.0 + 2.0 * jax.random.normal(jax.random.key(0), (8, 6, 6, 2))
    params, _ = linen.init(module, jax.random.key(1), x)
    out = linen.apply(module, params, {}, x)
    np.testing.assert_allclose(jnp.mean(out, axis=(0, 1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(jnp.std(out, axis=(0, 1, 2)), 0.5, rtol=1e-4)
    kernel, bias = weight_norm.weights(params)
    plain = weight_norm.convolve(x, kernel, ((1, 0), (1, 1))) + bias[None, None, None]
    np.testing.assert_allclose(plain, out, atol=1e-5)
    longer = {**params, "kernel": 7.0 * params["kernel"]}
    np.testing.assert_allclose(linen.apply(module, longer, {}, x), out, atol=1e-5)


def test_extreme_weights_stay_finite():
    network, params = build((3, 3, 1), 5)
    params = jax.tree.map(lambda leaf: 10.0 * leaf, params)
    x = jax.random.randint(jax.random.key(0), (4, 3, 3, 1), 0, 5)
    value, slope = jax.jit(jax.value_and_grad(lambda params: jnp.sum(raster.log_prob(network, params, x))))(params)
    assert jnp.isfinite(value)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, "`levels`"),
        ({"features": 0}, "`features`"),
        ({"num_blocks": 0}, "`num_blocks`"),
        ({"num_resolutions": 0}, "`num_resolutions`"),
        ({"num_components": 0}, "`num_components`"),
        ({"dropout_rate": 1.0}, "`dropout_rate`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pixel_cnn_pp.network((2, 2, 3), **{"levels": 2, **arguments})


def test_bad_data_is_refused():
    model = raster.model(pixel_cnn_pp.network((2, 2, 1), 2, **SMALL), optax.sgd(0.1))
    for x in (jnp.full((2, 2, 2, 1), 0.5), jnp.full((2, 2, 2, 1), 2.0), jnp.zeros((2, 2, 3, 1))):
        with pytest.raises(ValueError, match="`x` must"):
            model.init(jax.random.key(0), {"x": x})
