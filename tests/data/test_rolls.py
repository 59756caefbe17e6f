"""Sequences of frames: piano rolls of a file, images row by row, and batches of sequences of one length."""

import json

import numpy as np
import pytest

from jgen.data import load, rolls
from jgen.data.pipeline import SPLITS, Dataset


def written(tmp_path, content):
    path = tmp_path / "pieces.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


PIECES = {"train": [[[21, 60], [], [108]], [[60]]], "valid": [[[61], [61]]], "test": [[[21]]]}


def test_pieces_become_frames_of_88_bits(tmp_path):
    data = rolls.piano_rolls(written(tmp_path, PIECES))
    assert (data.name, data.levels, data.shape) == ("pieces", 2, (3, 88))
    np.testing.assert_array_equal(data.splits["train"]["mask"], [[1, 1, 1], [1, 0, 0]])
    x = data.splits["train"]["x"]
    assert [sorted(np.flatnonzero(frame) + 21) for frame in x[0]] == [[21, 60], [], [108]]
    assert x[1, 1:].sum() == 0
    assert data.splits["valid"]["mask"].sum() == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "a JSON file of pieces"),
        ([1], "the splits"),
        ({"train": [], "test": []}, "the splits"),
        ({**PIECES, "valid": []}, "is empty in its valid split"),
        ({**PIECES, "valid": [[]]}, "at least one frame in valid"),
        ({**PIECES, "test": [[[20]]]}, "MIDI notes in 21..108, found 20 in test"),
        ({**PIECES, "test": [[["C"]]]}, "MIDI notes"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        rolls.piano_rolls(written(tmp_path, content))


def test_images_row_by_row():
    digits = load("digits")
    data = rolls.scanned(digits)
    assert (data.shape, data.levels) == ((8, 8), 2)
    for split in SPLITS:
        np.testing.assert_array_equal(data.splits[split]["x"], digits.splits[split]["x"][..., 0] > 8)
        assert data.splits[split]["mask"].all()
    with pytest.raises(ValueError, match="`images` must be grey"):
        rolls.scanned(load("photos"))


def numbered(num=23):
    """Sequence i has i % 10 + 1 frames of the single value i + 1."""
    found = [np.full((i % 10 + 1, 1), i + 1, np.uint8) for i in range(num)]
    return Dataset("numbers", {split: rolls.padded(found) for split in SPLITS}, 256)


def test_an_epoch_has_every_sequence_at_most_once_in_batches_of_about_one_length():
    data, same = (rolls.bucketed(numbered(), 5, seed=0, step=4) for _ in range(2))
    orders = []
    for epoch in range(3):
        seen = []
        for i in range(4):
            batch = data.train(4 * epoch + i)
            x, mask = np.asarray(batch["x"]), np.asarray(batch["mask"])
            lengths = mask.sum(axis=1, dtype=np.int64)
            assert x.shape[1] == min(-(-lengths.max() // 4) * 4, 10)
            assert np.all((x[..., 0] > 0) == (mask > 0))
            assert np.all(x.max(axis=(1, 2)) % 10 == lengths % 10)
            seen += list(x[:, 0, 0])
            again = same.train(4 * epoch + i)
            np.testing.assert_array_equal(batch["x"], again["x"])
        assert len(set(seen)) == 20
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2]
    assert len(set(np.concatenate(orders))) == 23
    assert len({data.train(i)["x"].shape[1] for i in range(4)}) > 1


def test_every_sequence_of_a_split_is_evaluated_once():
    found = []
    for batch, num in rolls.bucketed(numbered(), 5, seed=0, step=4).batches("test"):
        assert batch["x"].shape[0] == 5
        found += list(np.asarray(batch["x"])[:num, 0, 0])
    assert sorted(found) == list(range(1, 24))


def test_bad_arguments_are_refused():
    for arguments, message in (((24,), "23 training sequences, got 24"), ((0,), "`batch_size`")):
        with pytest.raises(ValueError, match=message):
            rolls.bucketed(numbered(), *arguments, seed=0)
    with pytest.raises(ValueError, match="`step`"):
        rolls.bucketed(numbered(), 5, 0, step=0)
