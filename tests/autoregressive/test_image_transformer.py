"""Transformers over pixels: every value sees exactly what comes before it, the samplers agree, completion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from raster_checks import check_completion, check_samplers_agree, dependence, params_of

from jgen.autoregressive import image_transformer, raster
from jgen.nets import attention

SIZES = {"num_layers": 2, "num_heads": 2, "width": 6}


@pytest.mark.parametrize("neighbours", [True, False])
@pytest.mark.parametrize(("shape", "levels"), [((3, 4, 1), 2), ((2, 2, 2), 3)])
def test_each_position_sees_everything_before_it(shape, levels, neighbours):
    network = image_transformer.network(shape, levels, neighbours=neighbours, **SIZES)
    seen = dependence(network, params_of(network))
    np.testing.assert_array_equal(seen, np.tri(int(np.prod(shape)), k=-1, dtype=bool))


def test_taps_are_a_three_by_three_window_under_mask_a():
    where = image_transformer.taps((3, 4, 2), True)
    assert where.shape == (24, 9)
    assert np.all(where < np.arange(24)[:, None])
    pixel = 2 * (1 * 4 + 2)  # row 1, column 2: up-left, above, up-right, left, each with both channels
    np.testing.assert_array_equal(where[pixel], [11, 2, 3, 4, 5, 6, 7, 10, 11])
    np.testing.assert_array_equal(where[pixel + 1], [12, 2, 3, 4, 5, 6, 7, 10, 11])
    np.testing.assert_array_equal(where[0], [-1] * 9)
    np.testing.assert_array_equal(where[6], [5, -1, -1, -1, -1, -1, -1, 4, 5])


def test_without_the_value_before_it_the_end_of_a_row_is_unseen(monkeypatch):
    """The taps of pytorch-generative's ImageGPT: the first pixels of a row do not see the last of the row above."""
    network = image_transformer.network((3, 4, 1), 2, **SIZES)
    params = params_of(network)
    taps = image_transformer.taps
    monkeypatch.setattr(image_transformer, "taps", lambda *shape: np.where(np.arange(5)[None] == 0, -1, taps(*shape)))
    seen = dependence(network, params)
    np.testing.assert_array_equal(np.argwhere(np.tri(12, k=-1, dtype=bool) & ~seen), [[4, 3], [5, 3], [8, 7], [9, 7]])


def test_a_tap_at_the_position_itself_is_caught(monkeypatch):
    network = image_transformer.network((2, 3, 1), 2, neighbours=False, **SIZES)
    params = params_of(network)
    monkeypatch.setattr(image_transformer, "taps", lambda *shape: np.arange(6)[:, None])
    assert np.any(np.triu(dependence(network, params)))


@pytest.mark.parametrize(
    "arguments", [{"levels": 2}, {"levels": 5, "neighbours": False}, {"levels": 3, "num_classes": 2}]
)
def test_cached_fixed_point_and_naive_samples_are_the_same(arguments):
    network = image_transformer.network((3, 4, 1), **arguments, **SIZES)
    check_samplers_agree(network, params_of(network, 0.7))


def test_short_segments_of_the_cache_change_nothing(monkeypatch):
    network = image_transformer.network((3, 4, 1), 2, **SIZES)
    monkeypatch.setattr(attention.segments, "__defaults__", (2,))
    check_samplers_agree(network, params_of(network, 0.7))


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_cache_index_off_by_one_is_caught(shift, monkeypatch):
    network = image_transformer.network((4, 4, 1), 2, **SIZES)
    write = jax.lax.dynamic_update_slice_in_dim
    monkeypatch.setattr(
        jax.lax, "dynamic_update_slice_in_dim", lambda old, new, start, axis: write(old, new, start + shift, axis)
    )
    with pytest.raises(AssertionError, match="cached"):
        check_samplers_agree(network, params_of(network, 0.7))


@pytest.mark.parametrize("num_classes", [None, 2])
def test_completion(num_classes):
    network = image_transformer.network((2, 2, 1), 2, num_classes=num_classes, **SIZES)
    check_completion(network, params_of(network))


def test_a_whole_image_stays_as_it_is():
    network = image_transformer.network((2, 2, 1), 2, **SIZES)
    known = jnp.ones((3, 2, 2, 1))
    drawn = raster.sample(network, jax.random.key(0), params_of(network), 3, known=known, mask=np.ones((2, 2, 1)))
    np.testing.assert_array_equal(drawn, known)


def test_labels_matter():
    network = image_transformer.network((2, 2, 1), 2, num_classes=3, **SIZES)
    logits = network.logits(params_of(network), jnp.zeros((3, 2, 2, 1)), jnp.arange(3), None)
    assert len(np.unique(np.asarray(logits)[:, 0, 0, 0, 0])) == 3


def test_dropout_belongs_to_training():
    network = image_transformer.network((2, 2, 1), 2, num_classes=2, dropout_rate=0.5, **SIZES)
    params, x, label = params_of(network), jnp.zeros((2, 2, 2, 1)), jnp.zeros(2, jnp.int32)
    off = network.logits(params, x, label, None)
    on = network.logits(params, x, label, jax.random.key(0))
    assert on.shape == off.shape
    np.testing.assert_array_equal(off[0], off[1])
    assert not np.allclose(on[0], on[1])


def test_attention_maps():
    module = image_transformer.ImageTransformer((2, 2, 1), 2, **SIZES)
    params = params_of(image_transformer.network((2, 2, 1), 2, **SIZES))
    maps = image_transformer.attention_maps(module, params, jnp.ones((3, 2, 2, 1)))
    assert maps.shape == (2, 3, 2, 4, 4)
    np.testing.assert_allclose(maps.sum(-1), 1.0, rtol=1e-5)
    assert np.all(np.triu(maps, 1) == 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, "`levels`"),
        ({"levels": 2, "num_classes": 0}, "`num_classes`"),
        ({"levels": 2, "width": 5}, "`num_heads`"),
        ({"levels": 2, "num_layers": 0}, "`num_layers`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        image_transformer.network((2, 2, 1), **{**SIZES, **arguments})


@pytest.mark.parametrize("x", [jnp.full((2, 2, 2, 1), 0.5), jnp.full((2, 2, 2, 1), 2.0), jnp.zeros((2, 2, 3, 1))])
def test_bad_data_is_refused(x):
    model = raster.model(image_transformer.network((2, 2, 1), 2, **SIZES), optax.sgd(0.1))
    with pytest.raises(ValueError, match="`x` must"):
        model.init(jax.random.key(0), {"x": x})
