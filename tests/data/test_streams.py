"""Windows of one long text, and lines: what stands before a window, which tokens are seen, who is in which split."""

import numpy as np
import pytest

from jgen.data import streams, text
from jgen.data.pipeline import SPLITS

TEXT = np.arange(97, dtype=np.int32) % 7
PARTS = {"train": TEXT, "valid": TEXT[:30], "test": TEXT[:20]}


def test_random_windows_are_windows_and_follow_from_the_step():
    data = streams.windows(PARTS, 7, 64, 5, seed=0)
    batch, begins = data.train(3), 0
    assert batch["tokens"].shape == (64, 5)
    for row, previous in zip(batch["tokens"], batch["previous"], strict=True):
        np.testing.assert_array_equal(np.diff(row) % 7, np.ones(4))
        assert previous in ((row[0] - 1) % 7, 7)
        begins += previous == 7
    assert 1 <= begins <= 20
    again = streams.windows(PARTS, 7, 64, 5, seed=0).train(3)
    assert all(np.array_equal(batch[name], again[name]) for name in batch)
    assert not np.array_equal(batch["tokens"], data.train(4)["tokens"])


def test_random_windows_reach_both_ends():
    parts = {"train": np.arange(8), "valid": TEXT, "test": TEXT}
    seen = streams.windows(parts, 8, 200, 5, seed=0).train(0)
    assert set(seen["tokens"][:, 0].tolist()) == {0, 1, 2, 3}
    assert np.all(seen["previous"][seen["tokens"][:, 0] == 0] == 8)


def test_evaluation_windows_are_the_text():
    data = streams.windows(PARTS, 7, 4, 5, seed=0, eval_batch_size=4)
    found = list(data.batches("valid"))
    assert [num for _, num in found] == [4, 2]
    assert all(batch["tokens"].shape == (4, 5) for batch, _ in found)
    rows = np.concatenate([batch["tokens"][:num] for batch, num in found])
    np.testing.assert_array_equal(rows.ravel(), TEXT[:30])
    previous = np.concatenate([batch["previous"][:num] for batch, num in found])
    np.testing.assert_array_equal(previous, [7, *TEXT[4:25:5]])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 5), "`batch_size`"),
        ((4, 0), "`length` must be at least 1"),
        ((4, 21), "`length` must be at most the 20 tokens in test, got 21"),
    ],
)
def test_bad_windows_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        streams.windows(PARTS, 7, *sizes, seed=0)


NAMES = [f"name {i % 70}" for i in range(100)] + ["", "x"]


@pytest.mark.parametrize("unit", text.UNITS)
def test_lines_are_different_and_end_with_eos(unit, tmp_path):
    (tmp_path / "names.txt").write_bytes("\r\n".join(NAMES).encode())
    data = text.lines(tmp_path / "names.txt", unit=unit)
    end = text.eos(data.vocabulary)
    assert data.vocabulary[end] == ("\n" if unit == "characters" else "<0x0A>")
    read = {}
    for split in SPLITS:
        tokens = data.splits[split]["tokens"]
        assert tokens.shape[1] == 1 + len("name 69")
        for row in tokens:
            first = int(np.argmax(row == end))
            assert np.all(row[first:] == end)
            assert end not in row[:first]
        read[split] = [text.decode(row, data.vocabulary).rstrip("\n") for row in tokens]
    assert sorted(name for names in read.values() for name in names) == sorted({name for name in NAMES if name})
    assert [len(read[split]) for split in SPLITS] == [63, 4, 4]


def test_splits_of_lines_follow_from_the_seed(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    one, same, other = (text.lines(tmp_path / "names.txt", seed=seed).splits["test"]["tokens"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_bad_lines_are_refused(tmp_path):
    (tmp_path / "names.txt").write_text("a\n\na\n")
    with pytest.raises(ValueError, match=r"names.txt: expected more than 2 examples"):
        text.lines(tmp_path / "names.txt")
    with pytest.raises(ValueError, match="`source` must be 'text' or the path"):
        text.lines(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="`vocabulary` must hold the line feed"):
        text.eos(("a", "b"))
