"""Transforms: values by hand, frequencies of the random ones, keys per example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import random
from jgen.data import load, transforms

KEY = jax.random.key(0)
X = jnp.asarray([[0, 1], [2, 3], [4, 4]], jnp.uint8)


def test_scale():
    np.testing.assert_allclose(transforms.scale(5)(KEY, {"x": X})["x"], np.asarray(X) / 4)
    out = transforms.scale(5, -1.0, 1.0)(KEY, {"x": X, "label": jnp.arange(3)})
    np.testing.assert_allclose(out["x"], np.asarray(X) / 2 - 1)
    assert out["x"].dtype == jnp.float32
    assert "label" in out


def test_binarize_at_one_half():
    np.testing.assert_array_equal(transforms.binarize(5)(KEY, {"x": X})["x"], [[0, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(transforms.binarize(2)(KEY, {"x": X % 2})["x"], np.asarray(X % 2))
    np.testing.assert_array_equal(transforms.binarize(256)(KEY, {"x": jnp.asarray([127, 128])})["x"], [0, 1])


def test_dynamic_binarization_has_the_right_frequencies():
    x = jnp.tile(jnp.asarray([[0, 4, 8, 16]], jnp.uint8), (4_000, 1))
    out = transforms.dynamic_binarize(17)(KEY, {"x": x})["x"]
    assert set(np.unique(out)) == {0.0, 1.0}
    assert out.dtype == jnp.float32
    mean = np.asarray(out.mean(axis=0))
    assert mean[0] == 0
    assert mean[3] == 1
    np.testing.assert_allclose(mean[1:3], [0.25, 0.5], atol=4 * 0.5 / 4_000**0.5)


@pytest.mark.parametrize("transform", [
    transforms.dynamic_binarize(5), transforms.gaussian_noise(0.1), transforms.uniform_noise(),
])  # fmt: skip
def test_noise_of_an_example_depends_on_key_and_index(transform):
    assert _is_per_example(transform)
    x = jnp.full((8, 50), 2, jnp.uint8)
    assert not np.array_equal(transform(jax.random.key(1), {"x": x})["x"], transform(KEY, {"x": x})["x"])


def _is_per_example(transform):
    x = jnp.full((8, 50), 2, jnp.uint8)
    whole, part = transform(KEY, {"x": x})["x"], transform(KEY, {"x": x[:3]})["x"]
    shard = transform(KEY, {"x": x[:3], "index": jnp.arange(3, 6)})["x"]
    prefix, shifted = np.array_equal(part, whole[:3]), np.array_equal(shard, whole[3:6])
    return prefix and shifted and not np.array_equal(whole[0], whole[1])


@pytest.mark.parametrize("keys", [
    lambda key, batch: jnp.broadcast_to(key, (len(batch["x"]),)),  # the same noise for all
    lambda key, batch: jax.random.split(key, len(batch["x"]) + 1)[1:][::-1],  # another one in another batch
    lambda key, batch: random.example_keys(key, len(batch["x"])),  # blind to shards
])  # fmt: skip
def test_shared_or_batch_dependent_keys_are_caught(keys, monkeypatch):
    monkeypatch.setattr(random, "batch_keys", keys)
    assert not _is_per_example(transforms.dynamic_binarize(5))


def test_noise_moments():
    x = jnp.ones((100, 400))
    gaussian = np.asarray(transforms.gaussian_noise(0.5)(KEY, {"x": x})["x"]) - 1
    assert abs(gaussian.mean()) < 0.01
    assert abs(gaussian.std() - 0.5) < 0.01
    uniform = np.asarray(transforms.uniform_noise(-0.5, 0.5)(KEY, {"x": x})["x"]) - 1
    assert uniform.min() >= -0.5
    assert uniform.max() < 0.5
    assert abs(uniform.std() - 12**-0.5) < 0.01


def test_flatten_only_chain():
    batch = {"x": jnp.zeros((3, 2, 2, 1)), "label": jnp.arange(3)}
    assert transforms.flatten(KEY, batch)["x"].shape == (3, 4)
    assert list(transforms.only("x")(KEY, batch)) == ["x"]
    out = transforms.chain(transforms.flatten, transforms.only("label", "x"))(KEY, batch)
    assert list(out) == ["label", "x"]
    assert out["x"].shape == (3, 4)
    with pytest.raises(ValueError, match=r"`batch` must hold \['tokens'\], got only \['label', 'x'\]"):
        transforms.only("tokens")(KEY, batch)


def test_chain_gives_each_its_own_key():
    noise = transforms.uniform_noise()
    twice = transforms.chain(noise, noise)(KEY, {"x": jnp.zeros((2, 3))})["x"]
    once = transforms.chain(noise)(KEY, {"x": jnp.zeros((2, 3))})["x"]
    assert not np.allclose(twice, 2 * once)


def test_standardize_with_the_training_moments():
    data = load("table:wine")
    mean, std = transforms.moments(data)
    out = np.asarray(transforms.standardize(mean, std)(KEY, {"x": jnp.asarray(data.splits["train"]["x"])})["x"])
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=0), 1, atol=1e-5)
    constant = transforms.moments(load("digits"))[1]
    assert (constant > 0).all()  # the corners of the digits never change


@pytest.mark.parametrize("build", [transforms.scale, transforms.binarize, transforms.dynamic_binarize])
def test_levels(build):
    with pytest.raises(ValueError, match="`levels` must be at least 2, got 1"):
        build(1)


def test_bad_ranges():
    with pytest.raises(ValueError, match=r"`low` must be below `high`, got 1.0 and 1.0"):
        transforms.scale(2, 1.0, 1.0)
    with pytest.raises(ValueError, match="`low` must be below `high`"):
        transforms.uniform_noise(1.0, 0.0)
    with pytest.raises(ValueError, match=r"`std` must be positive, got 0.0"):
        transforms.standardize(0.0, 0.0)
    with pytest.raises(ValueError, match="`std` must be at least 0, got -1"):
        transforms.gaussian_noise(-1.0)
