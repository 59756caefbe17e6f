"""The sets that come with the packages: shapes, levels, splits, and that they are what they say."""

import numpy as np
import pytest
from sklearn import datasets

from jgen.data import embedded, load, text, toys
from jgen.data.pipeline import SPLITS


def _all(data, name="x"):
    return np.concatenate([data.splits[split][name] for split in SPLITS])


def test_digits_are_all_there_once_whatever_the_seed():
    data = load("digits")
    assert (data.shape, data.levels, data.synthetic) == ((8, 8, 1), 17, False)
    assert [data.size(split) for split in SPLITS] == [1_200, 297, 300]
    raw, label = datasets.load_digits(return_X_y=True)

    def key(x, y):
        return np.sort([hash((row.astype(np.uint8).tobytes(), int(n))) for row, n in zip(x, y, strict=True)])

    np.testing.assert_array_equal(key(_all(data), _all(data, "label")), key(raw, label))
    for split in SPLITS:
        np.testing.assert_array_equal(load("digits", seed=7).splits[split]["x"], data.splits[split]["x"])
        assert set(data.splits[split]["label"]) == set(range(10))


def test_digits_are_the_same_wherever_scikit_learn_keeps_them(monkeypatch):
    monkeypatch.setattr(embedded, "_DIGITS", "sklearn/nowhere.csv.gz")
    for split, arrays in embedded.digits.__wrapped__().splits.items():
        for name, values in arrays.items():
            expected = load("digits").splits[split][name]
            assert values.dtype == expected.dtype
            np.testing.assert_array_equal(values, expected)


def test_patches_tile_the_photographs():
    data, coarse, colour = load("patches"), load("patches:16"), load("photos")
    assert (data.shape, coarse.shape, colour.shape) == ((8, 8, 1), (16, 16, 1), (32, 32, 3))
    assert len(_all(data)) == 2 * 53 * 80
    assert len(_all(coarse)) == 2 * 26 * 40
    assert len(_all(colour)) == 2 * 13 * 20
    assert _all(data).dtype == np.uint8
    assert data.levels == 256
    china = datasets.load_sample_images().images[0]
    tiles = {x.tobytes() for x in _all(colour)}
    assert china[32:64, 64:96].tobytes() in tiles
    assert china[1:33, 64:96].tobytes() not in tiles
    assert abs(float(_all(coarse).mean()) - float(_all(data).mean())) < 2


@pytest.mark.parametrize(("name", "shape", "classes"), [
    ("iris", (150, 4), 3), ("wine", (178, 13), 3), ("breast_cancer", (569, 30), 2), ("diabetes", (442, 10), None),
])  # fmt: skip
def test_tables(name, shape, classes):
    data = load(f"table:{name}")
    assert _all(data).shape == shape
    assert _all(data).dtype == np.float32
    assert data.levels is None
    if classes:
        assert set(_all(data, "label")) == set(range(classes))
        assert len(data.label_names or ()) == classes
    else:
        assert _all(data, "target").dtype == np.float32


def test_eeg_is_one_recording_in_three_parts():
    data = load("eeg")
    assert [data.splits[split]["x"].shape for split in SPLITS] == [(4, 480), (4, 160), (4, 160)]
    whole = np.concatenate([data.splits[split]["x"] for split in SPLITS], axis=1)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.mean(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(whole.std(axis=1), 1, atol=3e-3)
    neighbours = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in whole]
    assert min(neighbours) > 0.8, "a series, not noise: the file is read in its order"


@pytest.mark.parametrize("name", toys.SETS)
def test_toys_are_functions_of_the_seed(name):
    data, same, other = load(f"toy:{name}", seed=1), load(f"toy:{name}", seed=1), load(f"toy:{name}", seed=2)
    x = data.splits["train"]["x"]
    assert data.synthetic
    assert data.shape == (2,)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, same.splits["train"]["x"])
    # Not all different: two draws of float32 may agree by chance.
    assert np.isin(x[:, 0], other.splits["train"]["x"][:, 0]).mean() < 0.01
    assert np.isin(data.splits["valid"]["x"][:, 0], data.splits["test"]["x"][:, 0]).mean() < 0.01
    assert np.isfinite(x).all()
    assert 1 < np.abs(x).max() < 4.5
    assert abs(x.mean()) < 0.3


def test_toys_have_their_shapes():
    generator = np.random.default_rng(0)
    x, label = toys.eight_gaussians(generator, 4_000)
    means = np.stack([x[label == k].mean(axis=0) for k in range(8)])
    np.testing.assert_allclose(np.hypot(*means.T), 2, atol=0.03)
    np.testing.assert_allclose(np.std(x - means[label], axis=0), 0.1, atol=0.01)
    x, _ = toys.checkerboard(generator, 4_000)
    cell = np.floor(x + 2).astype(int)
    assert cell.min() == 0
    assert cell.max() == 3
    assert (cell.sum(axis=1) % 2 == 0).all()
    assert len(np.unique(cell @ [4, 1])) == 8
    x, label = toys.circles(generator, 4_000, noise=0.0)
    np.testing.assert_allclose(np.hypot(*x.T), (label + 1) / 2)
    x, label = toys.two_moons(generator, 4_000, noise=0.0)
    np.testing.assert_allclose(np.hypot(x[:, 0] + 0.5 - label, x[:, 1] + 0.25 - 0.5 * label), 1)


def test_english():
    data = load("text")
    assert data.vocabulary is not None
    tokens = [data.splits[split]["tokens"] for split in SPLITS]
    assert {t.shape[1] for t in tokens} == {100}
    assert all(t.dtype == np.int32 for t in tokens)
    assert "The " in text.decode(tokens[0], data.vocabulary)
    assert max(t.max() for t in tokens) < len(data.vocabulary)
    assert sum(map(len, tokens)) > 4_000
    assert data.name.startswith("text (Python 3.")
    assert load("text", length=7).shape == (7,)
    assert load("text", unit="bytes").vocabulary == text.BYTES


@pytest.mark.parametrize(("source", "match"), [
    ("mnist", r"`source` must be one of digits, letters, patches, .*table:iris.*toy:two_moons.*tfds:NAME, or a path"),
    ("toy:moon", r"must be one of toy:two_moons, .*got 'toy:moon'"),
    ("table:mtcars", r"`table` must be one of 'iris', .*got 'mtcars'"),
    ("patches:x", "`source` must be one of"),
    ("patches:1", "`size` of patches must be in 2..128, got 1"),
    ("", "`source` must be one of"),
])  # fmt: skip
def test_unknown_sources(source, match):
    with pytest.raises(ValueError, match=match):
        load(source)


def test_arguments_that_do_not_belong():
    with pytest.raises(ValueError, match="`length` must be left out"):
        load("digits", length=3)
    with pytest.raises(ValueError, match="`length` must be at least 1, got 0"):
        load("text", length=0)
    with pytest.raises(ValueError, match="`seed` must be at least 0, got -1"):
        load("digits", seed=-1)
    with pytest.raises(ValueError, match="`holdout` must be two positive shares"):
        load("text", holdout=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"`unit` must be one of 'characters', 'bytes', 'FILE\.json', got 'words'"):
        load("text", unit="words")


def test_the_caches_hold_one_copy():
    assert embedded.digits() is embedded.digits()
