"""Tokenizer files: built here, read back, used for texts and lines; what cannot be used is refused."""

import builtins
import json

import numpy as np
import pytest

from jgen.data import load, text, tokenization
from jgen.data.pipeline import SPLITS

CONTENT = "".join(f"the cat {i} and the hat, naïve Ω\n" for i in range(40))


@pytest.fixture(scope="module", name="file")
def _file(tmp_path_factory):
    """A byte-level tokenizer of 300 tokens, with truncation, padding and special tokens that must not matter."""
    tokenizers = pytest.importorskip("tokenizers")
    built = tokenizers.Tokenizer(tokenizers.models.BPE())
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    built.train_from_iterator([CONTENT], trainer)
    built.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    built.enable_truncation(5)
    built.enable_padding(length=64)
    path = tmp_path_factory.mktemp("tokenizer") / "small.json"
    built.save(str(path))
    return str(path)


def test_a_file_gives_the_text_back(file):
    own = tokenization.from_file(file)
    tokens = own.encode(CONTENT)
    assert tokens.dtype == np.int32
    assert own.decode(tokens) == CONTENT
    assert len(tokens) < len(CONTENT) / 2
    assert 0 not in tokens
    assert len(own.vocabulary) == 300
    assert tokens.max() < 300
    assert own.vocabulary[0] == "<s>"


def test_splits_are_those_of_the_characters(file):
    ours, theirs = text.from_text("cats", CONTENT), text.from_text("cats", CONTENT, unit=file)
    for split in SPLITS:
        assert theirs.tokenizer.decode(theirs.stream(split)) == ours.tokenizer.decode(ours.stream(split))
    assert theirs.windows(4).shape == (4,)


def test_a_file_through_the_loader(file, tmp_path):
    (tmp_path / "cats.txt").write_text(CONTENT, "utf-8")
    data = load(str(tmp_path / "cats.txt"), unit=file, length=5)
    assert data.vocabulary == tokenization.from_file(file).vocabulary


def test_lines_of_a_file_end_with_a_token_of_their_own(file, tmp_path):
    (tmp_path / "cats.txt").write_text(CONTENT, "utf-8")
    data, own = text.lines(tmp_path / "cats.txt", unit=file), tokenization.from_file(file)
    assert data.vocabulary == (*own.vocabulary, "\n")
    assert text.eos(data.vocabulary) == 300
    read = [own.decode(row[row < 300]) for split in SPLITS for row in data.splits[split]["tokens"]]
    assert sorted(read) == sorted(CONTENT.splitlines())


def test_unused_numbers_have_a_name(tmp_path):
    pytest.importorskip("tokenizers")
    words = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 2}, "unk_token": "a"}}
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    (tmp_path / "gap.json").write_text(json.dumps({**words, **empty, "added_tokens": []}))
    assert tokenization.from_file(tmp_path / "gap.json").vocabulary == ("a", "<unused 1>", "b")


def test_what_is_no_tokenizer_is_refused(tmp_path):
    pytest.importorskip("tokenizers")
    path = tmp_path / "broken.json"
    for content, found in ((b"{}", "found .*"), (b"\xff", "not UTF-8"), (b"", "an empty file")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"broken.json: expected .*{found}"):
            text.tokenizer(str(path), "")
    with pytest.raises(ValueError, match="`unit` must be the path of a tokenizer file that exists"):
        text.tokenizer(str(tmp_path / "none.json"), "")
    with pytest.raises(ValueError, match=r"`unit` must be one of .*'FILE\.json', got 'words'"):
        text.tokenizer("words", "")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r"`unit` 'gpt.json' needs the extra: pip install 'jgen\[tokenizers\]'"):
        text.from_text("cats", CONTENT, unit="gpt.json")
