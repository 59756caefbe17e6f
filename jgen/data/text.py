"""Text as tokens: one long stream per split, windows of it, or lines. Tokens are characters, bytes, or a file's.

`load("text")` and `load("book.txt")` give windows, {"tokens": int32 (num, length)}, in the order of the text and
without overlap; what is left after the last whole window is dropped. Who carries a recurrent state across windows, or
scores every character of the test split, takes the contiguous stream instead:

    corpus = text.corpus("text")              # or the path of a .txt file
    tokens = corpus.stream("test")            # int32 (n,)
    dataset = corpus.windows(100)             # what load(..., length=100) gives
    corpus.tokenizer.decode(tokens[:80])

`streams.streams` makes batches of corpus.streams whose rows go on where they ended, `streams.windows` random windows.
`lines("names.txt")` takes each line for a text of its own, which ends with EOS, the line feed.
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jgen._checks import at_least, one_of
from jgen.data import tokenization
from jgen.data.arrays import Path, check_holdout, contents, hold_out, wrong
from jgen.data.pipeline import SPLITS, Dataset

BYTES = tuple(f"<0x{i:02X}>" for i in range(256))
"""The vocabulary of byte tokens; no entry is one character long, so it is never taken for a set of characters."""
UNITS = ("characters", "bytes")
EOS = "\n"
LENGTH = 100
HOLDOUT = (0.05, 0.05)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text in three contiguous parts: train first, then valid, test last.

    Attributes:
        name: how protocols call it.
        vocabulary: what each token stands for: the characters of the whole text in the order of their code points, or
            `BYTES`, or the tokens of a file.
        streams: {split: tokens int32 (n,)}.
        tokenizer: from text to tokens and back.
    """

    name: str
    vocabulary: tuple[str, ...]
    streams: Mapping[str, np.ndarray]
    tokenizer: tokenization.Tokenizer

    def stream(self, split: str) -> np.ndarray:
        """All tokens of a split in their order, int32 (n,)."""
        one_of("split", split, SPLITS)
        return self.streams[split]

    def windows(self, length: int = LENGTH) -> Dataset:
        """The data set of windows: {"tokens": int32 (n // length, length)} per split.

        Raises:
            ValueError: `length` < 1, or a split is shorter than one window.
        """
        at_least("length", length, 1)
        for split, stream in sorted(self.streams.items(), key=lambda item: len(item[1])):
            if len(stream) < length:
                raise ValueError(
                    f"`length` must be at most the {len(stream)} tokens in {split} of {self.name!r}, got {length}."
                )
        cut = {s: t[: len(t) // length * length].reshape(-1, length) for s, t in self.streams.items()}
        return Dataset(self.name, {s: {"tokens": t} for s, t in cut.items()}, vocabulary=self.vocabulary)


def corpus(source: Path, *, unit: str = "characters", holdout: tuple[float, float] | None = None) -> Corpus:
    """The text that `source` names, "text" (embedded) or a file in UTF-8, as tokens.

    Args:
        source: "text", or the path of a text file.
        unit: "characters", "bytes" (of UTF-8), or the path NAME.json of a file of the package tokenizers.
        holdout: (valid, test) shares of the text, contiguous and at its end; by default 5 % each.

    Raises:
        ValueError: there is no such file, it is empty, not UTF-8, or too short to split; another unit.
    """
    name, content = read(source)
    if str(source) == "text":
        return from_text(name, content, unit=unit, holdout=holdout)
    try:
        return from_text(name, content, unit=unit, holdout=holdout)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def read(source: Path) -> tuple[str, str]:
    """(name, text) of what `source` names, "text" (embedded) or a file in UTF-8.

    Raises:
        ValueError: there is no such file, it is empty, or not UTF-8.
    """
    if str(source) == "text":
        return f"text (Python {sys.version_info.major}.{sys.version_info.minor})", english()
    if not pathlib.Path(source).is_file():
        raise ValueError(f"`source` must be 'text' or the path of a text file that exists, got {str(source)!r}.")
    try:
        return pathlib.Path(source).stem, contents(source).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong(source, "UTF-8 text", f"byte {error.object[error.start]:#x} at {error.start}") from error


def from_text(
    name: str, content: str, *, unit: str = "characters", holdout: tuple[float, float] | None = None
) -> Corpus:
    """A corpus of `content`; arguments and errors as in `corpus`."""
    return from_parts(name, {"train": content}, unit=unit, holdout=holdout)


def from_parts(
    name: str, parts: Mapping[str, str], *, unit: str = "characters", holdout: tuple[float, float] | None = None
) -> Corpus:
    """A corpus of given splits; what is missing of valid and test is the end of train, contiguous, in this order.

    Raises:
        ValueError: another unit, or too short a text.
    """
    own = tokenizer(unit, "".join(parts.values()))
    shares = dict(zip(SPLITS[1:], check_holdout(holdout or HOLDOUT), strict=True))
    # A file's tokens are made after the split: the test text is then the same for all of them.
    streams: dict[str, Any] = {split: own.encode(t) if unit in UNITS else t for split, t in parts.items()}
    num, end = len(streams["train"]), 1.0
    for split in reversed([split for split in SPLITS[1:] if split not in parts]):
        first, end = round((end - shares[split]) * num), end - shares[split]
        streams["train"], streams[split] = streams["train"][:first], streams["train"][first:]
    if any(not len(stream) for stream in streams.values()):
        raise ValueError(f"expected a text long enough for three splits, found {num} tokens to split.")
    streams = {split: s if unit in UNITS else own.encode(s) for split, s in streams.items()}
    return Corpus(name, own.vocabulary, streams, own)


def lines(
    source: Path, *, unit: str = "characters", seed: int = 0, holdout: tuple[float, float] | None = None
) -> Dataset:
    """The different lines of a text, each a row of tokens that ends with EOS and is filled up with it.

    A line that occurs several times is kept once, before the splits are drawn: no test line was trained on. EOS is the
    line feed, `eos(vocabulary)`. Empty lines are dropped.

    Args:
        source: "text", or the path of a text file.
        unit: as in `corpus`; a file's vocabulary is extended by EOS.
        seed: of the permutation by which the splits are drawn.
        holdout: (valid, test) shares of the lines; by default 5 % each.

    Raises:
        ValueError: as in `corpus`.
    """
    name, content = read(source)
    different = dict.fromkeys(line.removesuffix("\r") for line in content.split(EOS))
    kept = [line for line in different if line]
    own = tokenizer(unit, EOS.join([*kept, ""]))
    vocabulary = own.vocabulary if unit in UNITS or EOS in own.vocabulary else (*own.vocabulary, EOS)
    rows = [own.encode(line) for line in kept]
    tokens = np.full((len(rows), 1 + max(map(len, rows), default=0)), eos(vocabulary), np.int32)
    for row, line in zip(tokens, rows, strict=True):
        row[: len(line)] = line
    splits = hold_out(source, {"train": {"tokens": tokens}}, seed, holdout or HOLDOUT)
    return Dataset(f"{name}, different lines", splits, vocabulary=vocabulary)


def eos(vocabulary: Sequence[str]) -> int:
    """The token that ends a line: the line feed. ValueError where there is none."""
    if tuple(vocabulary) == BYTES:
        return ord(EOS)
    if EOS not in vocabulary:
        raise ValueError(f"`vocabulary` must hold the line feed, got {len(vocabulary)} symbols without.")
    return vocabulary.index(EOS)


def tokenizer(unit: str, content: str) -> tokenization.Tokenizer:
    """The tokenizer that `unit` names: of the characters of `content`, of bytes, or of a file NAME.json.

    Raises:
        ValueError: another unit, or the file cannot be used.
    """
    if str(unit).endswith(".json"):
        return tokenization.from_file(unit)
    one_of("unit", unit, (*UNITS, "FILE.json"))
    vocabulary = BYTES if unit == "bytes" else characters(content)
    return tokenization.Tokenizer(
        vocabulary,
        functools.partial(encode, vocabulary=vocabulary),
        functools.partial(decode, vocabulary=vocabulary),
    )


def english() -> str:
    """English prose and code of about 0.5 MB: the reference topics of Python's own `help()`, pydoc_data.topics.

    Its wording is that of the running Python version, so numbers are comparable under one minor version alone.
    Origin: the Python documentation, PSF License Version 2.
    """
    from pydoc_data import topics

    return "\n\n".join(topics.topics[name] for name in sorted(topics.topics))


def characters(content: str) -> tuple[str, ...]:
    """The different characters of a text, in the order of their code points."""
    return tuple(sorted(set(content)))


def encode(content: str, vocabulary: Sequence[str]) -> np.ndarray:
    """Tokens int32 (n,) of a text; ValueError for a character that is not in `vocabulary`."""
    if tuple(vocabulary) == BYTES:
        return np.frombuffer(content.encode(), np.uint8).astype(np.int32)
    points = np.frombuffer(content.encode("utf-32-le", "surrogatepass"), np.uint32)
    table = np.full(max([ord(c) for c in vocabulary] + [int(points.max(initial=0))]) + 1, -1, np.int32)
    table[[ord(c) for c in vocabulary]] = np.arange(len(vocabulary))
    tokens = table[points]
    if (tokens < 0).any():
        unknown = chr(points[np.argmin(tokens)])
        raise ValueError(
            f"`content` must be written with the {len(vocabulary)} symbols of `vocabulary`, got {unknown!r}."
        )
    return tokens


def decode(tokens: Any, vocabulary: Sequence[str]) -> str:
    """The text of tokens (n,); bytes that are not UTF-8 become U+FFFD. ValueError for tokens out of range."""
    tokens = np.asarray(tokens).ravel()
    if tokens.size and not (tokens.min() >= 0 and tokens.max() < len(vocabulary)):
        raise ValueError(f"`tokens` must lie in 0..{len(vocabulary) - 1}, got [{tokens.min()}, {tokens.max()}].")
    if tuple(vocabulary) == BYTES:
        return tokens.astype(np.uint8).tobytes().decode("utf-8", "replace")
    return "".join(str(vocabulary[token]) for token in tokens)
