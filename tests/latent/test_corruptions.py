"""What is seen of images: laws of the noise, Pillow's bicubic interpolation, what a restoration has to keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jgen.data import embedded
from jgen.latent import corruptions

KEY = jax.random.key(0)


def _photos(num=4):
    return jnp.asarray(embedded.photos(16).splits["test"]["x"][:num], jnp.float32) / 255


CASES = {
    "gaussian": corruptions.gaussian(0.2),
    "salt_and_pepper": corruptions.salt_and_pepper(0.3),
    "masked": corruptions.masked(0.3),
    "hidden_rectangle": corruptions.hidden_rectangle(5, 6),
    "box": corruptions.fewer_pixels(2),
    "bicubic": corruptions.fewer_pixels(4, kind="bicubic"),
    "grey": corruptions.grey(),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_seen_of_an_example_depends_on_key_and_place_alone(name):
    x = _photos()
    many, few = (CASES[name].observe(KEY, {"x": part}) for part in (x, x[:2]))
    np.testing.assert_array_equal(many.image[:2], few.image)
    shard = CASES[name].observe(KEY, {"x": x[2:], "index": jnp.array([2, 3])})
    np.testing.assert_array_equal(many.image[2:], shard.image)


def test_bicubic_is_pillows_both_ways():
    from PIL import Image

    x = np.asarray(_photos(1)[..., :1])
    for scale in (2.0, 0.5, 0.25):
        size = int(16 * scale)
        theirs = np.asarray(Image.fromarray(x[0, ..., 0], "F").resize((size, size), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(corruptions.bicubic(jnp.asarray(x), scale)[0, ..., 0], theirs, atol=1e-5)


def test_box_pixels_are_means_of_blocks():
    x = _photos()
    seen = corruptions.fewer_pixels(4).observe(KEY, {"x": x}).image
    np.testing.assert_allclose(seen[1, 2, 3], x[1, 8:12, 12:16].mean((0, 1)), atol=1e-6)


def test_bits_flip_with_half_the_rate():
    x = jnp.zeros((64, 16, 16, 1)).at[:, :8].set(1.0)
    flips = corruptions.salt_and_pepper(0.4).observe(KEY, {"x": x}).image != x
    assert abs(float(flips.mean()) - 0.2) < 0.02
    assert abs(float(flips[:, :8].mean()) - 0.2) < 0.02


def test_rectangles_have_their_size_and_lie_anywhere():
    corruption = corruptions.hidden_rectangle(2, 3)
    x = jnp.ones((2000, 4, 5, 1))
    seen = corruption.observe(KEY, {"x": x})
    np.testing.assert_array_equal(jnp.sum(1 - seen.mask, axis=(1, 2, 3)), 6.0)
    tops = np.argmax(np.asarray(seen.mask).min(axis=(2, 3)) == 0, axis=1)
    lefts = np.argmax(np.asarray(seen.mask).min(axis=(1, 3)) == 0, axis=1)
    counts = np.histogram2d(tops, lefts, bins=(np.arange(4), np.arange(4)))[0].ravel()
    assert counts.sum() == 2000
    assert scipy.stats.chisquare(counts).pvalue > 1e-5


def _disagreement(corruption, agree=None):
    """How far what was seen is from what is seen of a wild restoration."""
    x = _photos()
    seen = corruption.observe(KEY, {"x": x})
    restored = (agree or corruption.agree)(jax.random.uniform(KEY, x.shape), seen)
    if seen.mask is not None:
        return float(jnp.abs(restored * seen.mask - seen.image).max())
    return float(jnp.abs(corruptions.luma(restored) - seen.image).max())


def test_what_was_seen_is_kept():
    assert _disagreement(CASES["hidden_rectangle"]) == 0
    assert _disagreement(CASES["grey"]) < 1e-6


def test_a_turned_mask_or_no_luma_would_be_seen():
    def turned(restored, seen):
        return seen.image + seen.mask * restored

    assert _disagreement(CASES["hidden_rectangle"], turned) > 0.1
    assert _disagreement(CASES["grey"], lambda restored, seen: restored) > 0.1


def test_hidden_pixels_are_filled_with_the_mean_of_the_seen_ones():
    x = _photos()
    seen = CASES["hidden_rectangle"].observe(KEY, {"x": x})
    filled = corruptions.fill_with_mean(seen)
    hidden = np.asarray(seen.mask[1, ..., 0]) == 0
    np.testing.assert_allclose(filled[1][hidden], np.tile(x[1][~hidden].mean(0), (30, 1)), atol=1e-5)
