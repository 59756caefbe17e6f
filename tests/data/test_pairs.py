"""Pairs of texts: right by their rules, apart in the splits, a function of the seed, and back to text."""

import numpy as np
import pytest

from jgen.data import load, pairs, text
from jgen.data.pipeline import SPLITS, Dataset


def texts(data, split):
    """(source, target) as strings; what stands after the first token 0 must be 0."""
    columns, vocabulary = [], data.vocabulary or ()
    for side in ("source", "target"):
        rows = np.asarray(data.splits[split][side])
        assert np.all(rows[np.cumsum(rows == 0, axis=1) > 0] == 0)
        assert np.all((rows == 0).any(axis=1)), "each text ends"
        columns.append([text.decode(row, vocabulary) for row in rows])
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("name", pairs.SETS)
def test_sets_follow_their_rules_and_no_source_is_in_two_splits(name):
    data = load(f"pairs:{name}")
    assert data.synthetic
    assert {split: data.size(split) for split in SPLITS} == pairs.SIZES
    found = {split: texts(data, split) for split in SPLITS}
    sources = [source for rows in found.values() for source, _ in rows]
    assert len(set(sources)) == len(sources)
    right = {"reverse": lambda s: s[::-1], "addition": lambda s: str(sum(map(int, s.split("+"))))}[name]
    assert all(target == right(source) for rows in found.values() for source, target in rows)
    assert data.shape == (13,) if name == "reverse" else (8,)


def test_sets_are_functions_of_the_seed():
    one, same, other = (pairs.dataset("reverse", seed).splits["test"]["source"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or not np.array_equal(one, other)


def test_reversed_strings_have_all_lengths():
    lengths = [len(source) for source, _ in texts(load("pairs:reverse"), "train")]
    assert set(lengths) == set(range(4, 13))


def test_pairs_of_a_file(tmp_path):
    path = tmp_path / "words.tsv"
    path.write_text("".join(f"{i}\t{i * i} ü\tnote\n" for i in range(40)) + "7\tagain\n", "utf-8")
    data = pairs.file(path, holdout=(0.1, 0.2))
    found = {split: texts(data, split) for split in SPLITS}
    assert {split: len(rows) for split, rows in found.items()} == {"train": 28, "valid": 4, "test": 8}
    assert sorted(pair for rows in found.values() for pair in rows) == sorted((str(i), f"{i * i} ü") for i in range(40))
    assert not data.synthetic
    assert data.name == "words"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\nno tab\n", "a source, a tab and a target in each line, found 'no tab' in line 2"),
        (b"\tb\n", "in line 1"),
        (b"\xff\t\n", "expected UTF-8 text"),
        (b"", "an empty file"),
        (b"a\tb\n", "more than"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    path = tmp_path / "broken.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        pairs.file(path)
    assert "broken.tsv" in str(error.value)


def words(data, split):
    return [text.decode(row, data.vocabulary or ()) for row in data.splits[split]["target"]]


def test_captions_are_the_names_of_the_labels():
    digits = load("digits")
    data = pairs.captions(digits)
    assert (data.levels, data.shape) == (17, (8, 8, 1))
    for split in SPLITS:
        np.testing.assert_array_equal(data.splits[split]["source"], digits.splits[split]["x"])
        assert words(data, split) == [pairs.DIGITS[i] for i in digits.splits[split]["label"]]
    assert set(words(pairs.captions(load("photos")), "test")) == {"china", "flower"}


def test_what_cannot_be_named_is_refused():
    images = {"x": np.zeros((2, 3, 3, 1), np.uint8), "label": np.array([0, 11])}
    for arrays, levels in ((images, 2), ({"x": images["x"]}, 2), (images, None)):
        with pytest.raises(ValueError, match="`images` must"):
            pairs.captions(Dataset("few", dict.fromkeys(SPLITS, arrays), levels))
    with pytest.raises(ValueError, match="pairs:addition, got 'pairs:nothing'"):
        load("pairs:nothing")
