"""The printed letters: their shapes, their outlines with holes, and their splits."""

import numpy as np

from jgen.data import letters, load
from jgen.data.pipeline import SPLITS


def _all(name):
    return np.concatenate([load("letters").splits[split][name] for split in SPLITS])


def test_all_letters_are_there_in_every_typeface():
    data = load("letters")
    assert (data.shape, data.levels, data.synthetic) == ((8, 8, 1), 17, True)
    assert [data.size(split) for split in SPLITS] == [707, 89, 88]
    np.testing.assert_array_equal(np.bincount(_all("label")), 2 * len(letters.FONTS))
    assert data.splits["test"]["x"].dtype == np.uint8
    assert load("letters", seed=3) is data


def test_ink_fills_the_frame_and_leaves_holes_open():
    x = _all("x")
    assert x.max() == 16
    assert np.all(np.any(x[:, [0, 7]] > 0, axis=(2, 3)))
    assert np.all(x[:, :, [0, 7]] == 0)
    assert np.any(x[:, :, [1, 6]] > 0)
    ring = letters._draw("DejaVuSans", "O")
    assert ring[3:5, 3:5].sum() == 0
    assert np.all(ring[3:5, 1:3].sum(axis=1) > 0)
    bar = letters._draw("DejaVuSans", "l")
    assert np.all(bar == bar[:1])
    # A letter is drawn upright: the bar of L lies below.
    assert letters._draw("DejaVuSans", "L")[7].sum() > 3 * letters._draw("DejaVuSans", "L")[0].sum()
