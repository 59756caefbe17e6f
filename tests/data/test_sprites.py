"""The rendered sprites: every combination once, and each factor moves what it says."""

import numpy as np
import pytest

from jgen.data import load, sprites
from jgen.data.pipeline import SPLITS


def _all(name, source="sprites"):
    return np.concatenate([load(source).splits[split][name] for split in SPLITS])


def _one(**values):
    chosen = [values.get(name, 0) for name in sprites.FACTORS]
    return _all("x")[np.all(_all("factors") == chosen, axis=1)][0, ..., 0].astype(float)


def test_every_combination_is_there_once_and_looks_different():
    data, factors = load("sprites"), _all("factors")
    assert (data.shape, data.levels, data.synthetic) == ((16, 16, 1), 17, True)
    assert [data.size(split) for split in SPLITS] == [2765, 345, 346]
    assert len(np.unique(factors, axis=0)) == np.prod(list(sprites.FACTORS.values())) == len(factors)
    np.testing.assert_array_equal(factors.max(axis=0) + 1, list(sprites.FACTORS.values()))
    assert len(np.unique(_all("x").reshape(len(factors), -1), axis=0)) == len(factors)
    np.testing.assert_array_equal(_all("label"), factors[:, 0])
    assert _all("x").dtype == np.uint8


def _centre(image):
    rows, columns = np.indices(image.shape) + 0.5
    return np.array([(columns * image).sum(), (rows * image).sum()]) / image.sum()


def test_positions_scales_and_rotations_are_what_they_say():
    step = 6 / 7
    np.testing.assert_allclose(_centre(_one(shape=1, x=3)) - _centre(_one(shape=1)), [3 * step, 0], atol=0.1)
    np.testing.assert_allclose(_centre(_one(shape=1, y=5)) - _centre(_one(shape=1)), [0, 5 * step], atol=0.1)
    area = [_one(shape=1, scale=k).sum() / 16 for k in range(3)]
    np.testing.assert_allclose(area, [np.pi * r * r / 2 for r in (3, 4, 5)], rtol=0.05)
    flat, upright = _one(shape=0, scale=2), _one(shape=0, scale=2, rotation=3)
    np.testing.assert_allclose(flat, upright.T, atol=1)
    assert flat.any(axis=0).sum() > 1.5 * flat.any(axis=1).sum()
    tip = _one(shape=2, scale=2, x=4, y=4)
    assert (tip > 0).sum(axis=0)[:8].max() > (tip > 0).sum(axis=0)[11:].max()


def test_other_sizes_are_the_same_pictures():
    large = _all("x", "sprites:32").astype(float)
    assert large.shape == (3456, 32, 32, 1)
    means = large.reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4))
    assert np.abs(means - _all("x")[..., 0]).mean() < 0.1


@pytest.mark.parametrize("size", [7, 129])
def test_sizes_out_of_range_are_refused(size):
    with pytest.raises(ValueError, match=r"`size` of sprites must be in 8..128"):
        sprites.sprites(size)
