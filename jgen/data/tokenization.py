"""Tokenizers: how a text becomes tokens and back. Characters and bytes are in `text`; here is what a file says.

A file of the package `tokenizers` (byte-pair encoding, WordPiece, Unigram, …, one JSON file) is read with that package,
the extra jgen[tokenizers]. Nothing is ever downloaded.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jgen.data.arrays import Path, contents, wrong


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A vocabulary, and the way between texts and tokens.

    Attributes:
        vocabulary: what each token stands for.
        encode: text -> tokens int32 (n,).
        decode: tokens (n,) -> text.
    """

    vocabulary: tuple[str, ...]
    encode: Callable[[str], np.ndarray]
    decode: Callable[[Any], str]


def from_file(path: Path) -> Tokenizer:
    """The tokenizer of a file, without truncation, padding or the special tokens that it would add around a text.

    Raises:
        ValueError: the package is not installed, or the file is missing, empty or no tokenizer.
    """
    try:
        import tokenizers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(f"`unit` {str(path)!r} needs the extra: pip install 'jgen[tokenizers]'.") from error
    try:
        content = contents(path).decode()
    except OSError as error:
        raise ValueError(f"`unit` must be the path of a tokenizer file that exists, got {str(path)!r}.") from error
    except UnicodeDecodeError as error:
        raise wrong(path, "a file of the package tokenizers", "bytes that are not UTF-8") from error
    try:
        read = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the package raises no class of its own
        raise wrong(path, "a file of the package tokenizers", str(error)) from error
    read.no_truncation()
    read.no_padding()
    names = {index: name for name, index in read.get_vocab(with_added_tokens=True).items()}
    vocabulary = tuple(names.get(index, f"<unused {index}>") for index in range(max(names, default=-1) + 1))

    def encode(content: str) -> np.ndarray:
        return np.asarray(read.encode(content, add_special_tokens=False).ids, np.int32)

    def decode(tokens: Any) -> str:
        return read.decode(np.asarray(tokens).ravel().tolist(), skip_special_tokens=False)

    return Tokenizer(vocabulary, encode, decode)
