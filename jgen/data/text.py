"""Text as tokens: characters or bytes, one long stream per split, or windows of it.

`load("text")` and `load("book.txt")` give windows, {"tokens": int32 (num, length)}, in the order of the text and
without overlap; what is left after the last whole window is dropped. Who carries a recurrent state across windows, or
scores every character of the test split, takes the contiguous stream instead:

    corpus = text.corpus("text")              # or the path of a .txt file
    tokens = corpus.stream("test")            # int32 (n,)
    dataset = corpus.windows(100)             # what load(..., length=100) gives
    text.decode(tokens[:80], corpus.vocabulary)

`streams.streams` makes batches of corpus.streams whose rows go on where they ended.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jgen._checks import at_least, one_of
from jgen.data.arrays import Path, check_holdout, contents, wrong
from jgen.data.pipeline import SPLITS, Dataset

BYTES = tuple(f"<0x{i:02X}>" for i in range(256))
"""The vocabulary of byte tokens; no entry is one character long, so it is never taken for a set of characters."""
UNITS = ("characters", "bytes")
LENGTH = 100
HOLDOUT = (0.05, 0.05)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text in three contiguous parts: train first, then valid, test last.

    Attributes:
        name: how protocols call it.
        vocabulary: what each token stands for: the characters of the whole text in the order of their code points, or
            `BYTES`.
        streams: {split: tokens int32 (n,)}.
    """

    name: str
    vocabulary: tuple[str, ...]
    streams: Mapping[str, np.ndarray]

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
        unit: "characters" or "bytes" (of UTF-8).
        holdout: (valid, test) shares of the text, contiguous and at its end; by default 5 % each.

    Raises:
        ValueError: there is no such file, it is empty, not UTF-8, or too short to split; another unit.
    """
    if str(source) == "text":
        return from_text(
            f"text (Python {sys.version_info.major}.{sys.version_info.minor})", english(), unit=unit, holdout=holdout
        )
    if not pathlib.Path(source).is_file():
        raise ValueError(f"`source` must be 'text' or the path of a text file that exists, got {str(source)!r}.")
    try:
        content = contents(source).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong(source, "UTF-8 text", f"byte {error.object[error.start]:#x} at {error.start}") from error
    try:
        return from_text(pathlib.Path(source).stem, content, unit=unit, holdout=holdout)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


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
    one_of("unit", unit, UNITS)
    shares = dict(zip(SPLITS[1:], check_holdout(holdout or HOLDOUT), strict=True))
    vocabulary = BYTES if unit == "bytes" else characters("".join(parts.values()))
    streams = {split: encode(content, vocabulary) for split, content in parts.items()}
    num, end = len(streams["train"]), 1.0
    for split in reversed([split for split in SPLITS[1:] if split not in parts]):
        first, end = round((end - shares[split]) * num), end - shares[split]
        streams["train"], streams[split] = np.split(streams["train"], [first])
    if any(not len(stream) for stream in streams.values()):
        raise ValueError(f"expected a text long enough for three splits, found {num} tokens to split.")
    return Corpus(name, vocabulary, streams)


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
