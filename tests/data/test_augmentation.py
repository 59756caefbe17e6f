"""Augmentation: warps against SciPy, shares of changed pixels, keys per example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from stat_checks import check_mean

from jgen.data import augmentation, transforms

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGE = RNG.random((7, 6, 2)).astype(np.float32)
WARP = jax.jit(augmentation.warp)


@pytest.mark.parametrize("angle", [0.3, -1.2])
@pytest.mark.parametrize("zoom", [1.0, 0.7, 1.6])
def test_warp_equals_scipy(angle, zoom):
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / zoom
    center = (np.array(IMAGE.shape[:2]) - 1) / 2
    # Outside of the image SciPy fills with the constant at once, JAX interpolates towards it: a frame makes both 0.
    framed = np.pad(IMAGE, ((1, 1), (1, 1), (0, 0)))
    found = WARP(jnp.asarray(framed), jnp.asarray(angle), jnp.asarray(zoom))
    offset = center + 1 - turn @ (center + 1)
    for channel in range(2):
        exact = scipy.ndimage.affine_transform(framed[..., channel], turn, offset, order=1, mode="constant")
        np.testing.assert_allclose(found[..., channel], exact, atol=1e-5)


def test_quarter_turns_are_exact_and_counter_clockwise():
    square = jnp.asarray(IMAGE[:6])
    for quarters in range(4):
        found = WARP(square, jnp.asarray(quarters * np.pi / 2, jnp.float32), jnp.ones(()))
        np.testing.assert_allclose(found, np.rot90(square, quarters), atol=1e-5)


def test_a_turn_the_wrong_way_is_caught():
    square = jnp.asarray(IMAGE[:6])
    found = WARP(square, jnp.asarray(-np.pi / 2, jnp.float32), jnp.ones(()))
    assert not np.allclose(found, np.rot90(square), atol=1e-5)


BUILDERS = [
    augmentation.rotation(30),
    augmentation.rescaling(0.8, 1.2),
    augmentation.salt_and_pepper(0.3),
    augmentation.channel_dropout(0.5),
    transforms.gaussian_noise(0.1),
]


@pytest.mark.parametrize("transform", BUILDERS)
def test_each_example_has_its_own_key(transform):
    batch = {"x": jnp.asarray(np.tile(IMAGE[None] + 1, (8, 1, 1, 1))), "label": jnp.arange(8)}
    whole = jax.jit(transform)(KEY, batch)
    assert whole["x"].shape == batch["x"].shape
    np.testing.assert_array_equal(whole["label"], batch["label"])
    part = transform(KEY, {"x": batch["x"][:3]})["x"]
    shard = transform(KEY, {"x": batch["x"][:3], "index": jnp.arange(3, 6)})["x"]
    np.testing.assert_allclose(part, whole["x"][:3], atol=1e-6)
    np.testing.assert_allclose(shard, whole["x"][3:6], atol=1e-6)
    assert len(np.unique(np.asarray(whole["x"]).reshape(8, -1), axis=0)) > 2


def test_shares_of_what_changes():
    x = jnp.full((4_000, 2, 3, 2), 0.5)
    out = np.asarray(augmentation.salt_and_pepper(0.3, -1.0, 2.0)(KEY, {"x": x})["x"])
    assert set(np.unique(out)) == {-1.0, 0.5, 2.0}
    np.testing.assert_array_equal(out[..., 0], out[..., 1])
    check_mean(out[..., 0] == -1.0, 0.15, sees=0.1)
    check_mean(out[..., 0] == 2.0, 0.15, sees=0.1)
    out = np.asarray(augmentation.channel_dropout(0.25)(KEY, {"x": x})["x"])
    assert np.all((out == out[:, :1, :1]) & ((out == 0) | (out == 0.5)))
    check_mean(out[:, 0, 0] == 0, 0.25, sees=0.1)


def test_no_change_at_zero():
    batch = {"x": jnp.asarray(IMAGE[None])}
    nothing = (
        augmentation.rotation(0),
        augmentation.rescaling(1, 1),
        augmentation.salt_and_pepper(0),
        augmentation.channel_dropout(0),
    )
    for transform in nothing:
        np.testing.assert_allclose(transform(KEY, batch)["x"], batch["x"], atol=1e-6)
    np.testing.assert_array_equal(augmentation.channel_dropout(1)(KEY, batch)["x"], 0)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"`degrees` must lie in \[0.0, 180.0\]"):
        augmentation.rotation(200)
    with pytest.raises(ValueError, match="`low` must be positive and at most `high`, got 2 and 1"):
        augmentation.rescaling(2, 1)
    with pytest.raises(ValueError, match=r"`rate` must lie in \[0.0, 1.0\]"):
        augmentation.salt_and_pepper(1.5)
    with pytest.raises(ValueError, match=r"`rate` must lie in \[0.0, 1.0\]"):
        augmentation.channel_dropout(-0.1)
    with pytest.raises(ValueError, match="`x` must have 4 axes"):
        augmentation.rotation(5)(KEY, {"x": jnp.zeros((2, 3))})
