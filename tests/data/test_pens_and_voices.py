"""Pen strokes from files and from letters, and speech in frames."""

import itertools

import numpy as np
import pytest

from jgen.data import media, rolls, speech, strokes
from jgen.data.pipeline import SPLITS
from jgen.math import companding

POINTS = np.array([[0, 0, 0], [3, 4, 1], [0, 0, 0], [-5, 0, 0], [1, -1, 1]], np.int16)
WHOLE = {
    f"{split}_{name}": value
    for split in SPLITS
    for name, value in {"points": POINTS, "length": [2, 3], "label": [1, 0], "style": [0, 4]}.items()
}


def written(tmp_path, **arrays):
    path = tmp_path / "moves.npz"
    np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})
    return path


def test_moves_become_drawings(tmp_path):
    found = strokes.stroke_3(written(tmp_path, **WHOLE), noise=0.0)
    assert found.dataset.name == "moves"
    assert found.scale == pytest.approx(POINTS[:, :2].std())
    for split in SPLITS:
        arrays = found.dataset.splits[split]
        np.testing.assert_array_equal(arrays["mask"], [[1, 1, 0], [1, 1, 1]])
        np.testing.assert_allclose(arrays["x"][1, :, :2] * found.scale, POINTS[2:, :2], atol=1e-5)
        np.testing.assert_array_equal(arrays["x"][..., 2], [[0, 2, 0], [0, 0, 2]])
        np.testing.assert_array_equal(arrays["label"], [1, 0])
        np.testing.assert_array_equal(arrays["style"], [0, 4])


def test_noise_fills_the_cells_and_is_the_same_every_time(tmp_path):
    path = written(tmp_path, train_points=np.tile(POINTS, (200, 1)), train_length=np.tile([2, 3], 200))
    one, same, other = (strokes.stroke_3(path, seed, noise=2.0) for seed in (0, 0, 1))
    x, mask = (one.dataset.splits["train"][name] for name in ("x", "mask"))
    np.testing.assert_array_equal(x, same.dataset.splits["train"]["x"])
    assert np.any(x != other.dataset.splits["train"]["x"])
    assert not x[mask == 0].any()
    first = x[:, 0, :2] * one.scale
    assert np.abs(first).max() <= 1.0
    assert first.std() == pytest.approx(2 / np.sqrt(12), rel=0.1)
    assert [one.dataset.size(split) for split in SPLITS] == [320, 40, 40]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_points": None}, "arrays train_points and train_length"),
        ({"valid_length": None}, "lengths of at least 1, whole numbers .* in valid_length, found none"),
        ({"valid_length": [5, 0]}, "lengths of at least 1"),
        ({"train_length": [2, 2]}, "4 moves in train, as the lengths say, found 5"),
        ({"test_points": POINTS[:, :2]}, r"moves \(N, 3\) in test_points"),
        ({"train_points": POINTS + np.array([0, 0, 1])}, "0 or 1 in the third column"),
        ({"train_points": np.full((5, 3), np.nan)}, "finite numbers"),
        ({"train_label": [1]}, r"whole numbers \(2,\) from 0 in train_label"),
        ({"train_style": [0.5, 1.0]}, "in train_style"),
        ({"test_label": None}, "the same classes in all splits"),
    ],
)
def test_broken_files_are_refused(tmp_path, change, message):
    arrays = {name: value for name, value in {**WHOLE, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message) as error:
        strokes.stroke_3(written(tmp_path, **arrays))
    assert "moves.npz" in str(error.value)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "moves.npz"
    path.write_text("moves")
    with pytest.raises(ValueError, match=r"NumPy \.npz archive"):
        strokes.stroke_3(path)
    with pytest.raises(ValueError, match="`noise` must be at least 0"):
        strokes.stroke_3(path, noise=-1.0)


def test_letters_are_closed_curves_of_one_height():
    found = strokes.outlines()
    assert found.dataset.synthetic
    assert sum(found.dataset.size(split) for split in SPLITS) == 884
    arrays = found.dataset.splits["train"]
    lengths = arrays["mask"].sum(axis=1, dtype=int)
    for x, length in zip(arrays["x"][:40], lengths, strict=False):
        moves = x[:length]
        ends = np.flatnonzero(moves[:, 2])
        places = np.cumsum(moves[:, :2] * found.scale, axis=0)
        # Noise of a cell in every move adds up to a few cells.
        assert np.ptp(places[:, 1]) == pytest.approx(strokes.CANVAS, abs=12)
        assert np.linalg.norm(places[ends[0]] - places[0]) < 12
        assert moves[-1, 2] == strokes.ENDS
        assert np.all(moves[:-1, 2] != strokes.ENDS)
    assert set(np.unique(arrays["label"])) == set(range(52))
    assert arrays["style"].max() == 16


def test_simplified_lines_stay_near():
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = 30 * np.column_stack([np.cos(angle), np.sin(angle)])
    keep = strokes.simplified(circle, 1.0)
    assert 8 <= keep.sum() < 30
    corners = circle[keep]
    between = np.concatenate([np.linspace(a, b, 50) for a, b in itertools.pairwise(corners)])
    assert np.abs(np.linalg.norm(between, axis=1) - 30).max() <= 1.0
    straight = np.column_stack([np.arange(5), np.zeros(5)])
    np.testing.assert_array_equal(strokes.simplified(straight, 0.1), [True, False, False, False, True])


def test_labels_go_with_their_sequences_into_batches(tmp_path):
    data = rolls.bucketed(strokes.stroke_3(written(tmp_path, **WHOLE), noise=0.0).dataset, 2, 0, step=2)
    batch = data.train(0)
    assert batch["x"].shape == (2, 3, 3)
    np.testing.assert_array_equal(np.asarray(batch["label"]), 3 - np.asarray(batch["mask"]).sum(axis=1))


def spoken(*lengths):
    values = [np.linspace(-0.9, 0.9, length).astype(np.float32) for length in lengths]
    labels = {split: np.arange(len(lengths), dtype=np.int32) for split in SPLITS}
    return media.Recordings("voices", dict.fromkeys(SPLITS, values), labels, ("a", "b"), 8_000)


def test_sound_becomes_frames():
    data = speech.framed(spoken(7, 13), 3, 256)
    assert (data.shape, data.levels, data.sample_rate) == ((4, 3), 256, 8_000)
    arrays = data.splits["test"]
    np.testing.assert_array_equal(arrays["mask"], [[1, 1, 0, 0], [1, 1, 1, 1]])
    again = companding.decode(arrays["x"][1].reshape(-1).astype(np.int32))
    np.testing.assert_allclose(again, np.linspace(-0.9, 0.9, 13)[:12], atol=0.03)
    np.testing.assert_array_equal(arrays["label"], [0, 1])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"frame_size": 0}, "`frame_size` must be at least 1"), ({"frame_size": 8}, "the shortest recording, 7, got 8"),
     ({"levels": 300}, "`levels` must be in 2..256")],
)  # fmt: skip
def test_frames_that_cannot_be_cut_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        speech.framed(spoken(7, 13), **keywords)
