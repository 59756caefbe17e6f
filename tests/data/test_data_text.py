"""Text: tokens and back, contiguous splits, windows."""

import numpy as np
import pytest

from jgen.data import load, text
from jgen.data.pipeline import SPLITS

CONTENT = "".join(f"{i}, naïve Ω…\n" for i in range(100))


@pytest.mark.parametrize("unit", text.UNITS)
def test_streams_are_the_text_in_order(unit):
    corpus = text.from_text("numbers", CONTENT, unit=unit)
    streams = [corpus.stream(split) for split in SPLITS]
    assert text.decode(np.concatenate(streams), corpus.vocabulary) == CONTENT
    total = sum(map(len, streams))
    np.testing.assert_allclose([len(stream) / total for stream in streams], [0.9, 0.05, 0.05], atol=1e-3)
    assert all(stream.dtype == np.int32 for stream in streams)
    assert len(corpus.vocabulary) == (256 if unit == "bytes" else len(set(CONTENT)))


def test_holdout_shares():
    corpus = text.from_text("numbers", CONTENT, holdout=(0.1, 0.3))
    assert text.decode(corpus.stream("test"), corpus.vocabulary) == CONTENT[round(0.7 * len(CONTENT)) :]


def test_windows_do_not_overlap_and_drop_the_rest_alone():
    corpus = text.from_text("numbers", CONTENT)
    data = corpus.windows(7)
    for split in SPLITS:
        stream, tokens = corpus.stream(split), data.splits[split]["tokens"]
        np.testing.assert_array_equal(tokens.ravel(), stream[: len(stream) // 7 * 7])
    assert data.vocabulary == corpus.vocabulary
    assert data.shape == (7,)


def test_given_parts_are_kept():
    corpus = text.from_parts("two", {"train": "abcdefghij", "test": "xyz"}, holdout=(0.2, 0.2))
    read = {split: text.decode(corpus.stream(split), corpus.vocabulary) for split in SPLITS}
    assert read == {"train": "abcdefgh", "valid": "ij", "test": "xyz"}


def test_encode_and_decode():
    vocabulary = text.characters("banana")
    assert vocabulary == ("a", "b", "n")
    np.testing.assert_array_equal(text.encode("nab", vocabulary), [2, 0, 1])
    assert text.decode([2, 0, 1], vocabulary) == "nab"
    assert text.decode([], vocabulary) == ""
    assert text.decode(text.encode("Ω\x00", text.BYTES), text.BYTES) == "Ω\x00"
    assert text.decode([0xCE], text.BYTES) == "\ufffd"
    with pytest.raises(ValueError, match="the 3 symbols of `vocabulary`, got 'd'"):
        text.encode("band", vocabulary)
    with pytest.raises(ValueError, match=r"`tokens` must lie in 0..2, got \[0, 3\]"):
        text.decode([0, 3], vocabulary)


def test_a_file(tmp_path):
    file = tmp_path / "book.txt"
    file.write_bytes(b"\xef\xbb\xbf" + CONTENT.encode())
    data, corpus = load(str(file), length=10), text.corpus(file)
    assert data.name == "book"
    assert data.shape == (10,)
    assert text.decode(corpus.stream("train"), corpus.vocabulary) == CONTENT[: round(0.9 * len(CONTENT))]


def test_broken_text(tmp_path):
    file = tmp_path / "book.txt"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"book.txt: expected data, found an empty file"):
        load(str(file))
    file.write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match=r"book.txt: expected UTF-8 text, found byte 0xff at 3"):
        load(str(file))
    file.write_text("ab")
    with pytest.raises(ValueError, match=r"book.txt: expected a text long enough for three splits, found 2 tokens"):
        load(str(file))
    file.write_text("ab" * 50)
    with pytest.raises(ValueError, match=r"`length` must be at most the 5 tokens in test of 'book', got 100"):
        load(str(file))
    with pytest.raises(ValueError, match="`split` must be one of"):
        text.from_text("numbers", CONTENT).stream("dev")
