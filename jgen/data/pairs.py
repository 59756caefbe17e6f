"""Pairs of texts, {"source": int32 (n, S), "target": int32 (n, T)}: token 0 ends a text and fills up its row.

One vocabulary serves both sides; its entry 0 is the empty string, so `text.decode` gives the text back. `SETS` are
drawn from rules and named synthetic: strings to reverse, sums to work out; no source is in two splits. `file` reads
pairs of the user's own, in the same way, and `captions` makes them of images and the names of their labels.
"""

import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jgen.data.arrays import Path, contents, hold_out, wrong
from jgen.data.pipeline import Dataset

SIZES = {"train": 20_000, "valid": 1_000, "test": 1_000}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Texts = Sequence[tuple[str, str]]


def dataset(name: str, seed: int = 0) -> Dataset:
    """`SETS[name]`, drawn from (seed, name); synthetic.

    Raises:
        ValueError: there is no such set.
    """
    if name not in SETS:
        raise ValueError(
            f"`source` must be one of {', '.join(f'pairs:{known}' for known in SETS)}, got 'pairs:{name}'."
        )
    generator = np.random.default_rng((seed, zlib.crc32(name.encode())))
    found, parts, first = SETS[name](generator, sum(SIZES.values())), {}, 0
    for split, num in SIZES.items():
        parts[split] = found[first : first + num]
        first += num
    return encoded(f"pairs:{name}", parts, synthetic=True)


def reverse(generator: np.random.Generator, num: int, low: int = 4, high: int = 12) -> Texts:
    """Different strings of `low` to `high` small letters, and each of them backwards."""
    found: dict[str, None] = {}
    while len(found) < num:
        length = int(generator.integers(low, high + 1))
        found["".join(LETTERS[i] for i in generator.integers(len(LETTERS), size=length))] = None
    return [(word, word[::-1]) for word in found]


def addition(generator: np.random.Generator, num: int, digits: int = 3) -> Texts:
    """Different sums of two numbers of at most `digits` digits: "27+915" and "942"."""
    size = 10**digits
    chosen = generator.choice(size * size, num, replace=False)
    return [(f"{i // size}+{i % size}", str(i // size + i % size)) for i in chosen]


SETS: dict[str, Callable[[np.random.Generator, int], Texts]] = {"reverse": reverse, "addition": addition}
"""name -> (generator, num) -> pairs, no source twice."""


def encoded(name: str, parts: Mapping[str, Texts], synthetic: bool = False) -> Dataset:
    """The data set of given pairs, its vocabulary the characters of all of them in the order of their code points."""
    texts = [text for found in parts.values() for pair in found for text in pair]
    vocabulary = ("", *sorted(set("".join(texts))))
    splits = {}
    for split, found in parts.items():
        sides = zip(("source", "target"), zip(*found, strict=True), strict=True)
        splits[split] = {side: rows(column, vocabulary) for side, column in sides}
    longest = {side: max(arrays[side].shape[1] for arrays in splits.values()) for side in ("source", "target")}
    for arrays in splits.values():
        for side, length in longest.items():
            arrays[side] = np.pad(arrays[side], ((0, 0), (0, length - arrays[side].shape[1])))
    return Dataset(name, splits, vocabulary=vocabulary, synthetic=synthetic)


def rows(texts: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray:
    """Tokens int32 (n, longest text + 1): each text, then 0 to the end."""
    token = {character: i for i, character in enumerate(vocabulary) if character}
    found = np.zeros((len(texts), max(map(len, texts)) + 1), np.int32)
    for i, text in enumerate(texts):
        found[i, : len(text)] = [token[character] for character in text]
    return found


def file(path: Path, seed: int = 0, holdout: tuple[float, float] | None = None) -> Dataset:
    """A text file with one pair per line, separated by a tab; what stands after a second tab is left out.

    Of several lines with one source the first counts. valid and test are split off by a permutation of `seed`.

    Args:
        path: of the file, in UTF-8.
        seed: of the splits.
        holdout: (valid, test) shares; by default 10 % each.

    Raises:
        ValueError: no tab in a line, an empty source, not UTF-8, or too few lines to split.
    """
    try:
        lines = contents(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise wrong(path, "UTF-8 text", f"byte {error.object[error.start]:#x} at {error.start}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        source, *rest = line.split("\t")
        if not source or not rest:
            raise wrong(path, "a source, a tab and a target in each line", f"{line[:40]!r} in line {number}")
        found.setdefault(source, rest[0])
    texts = list(found.items())
    index = hold_out(path, {"train": {"x": np.arange(len(texts))}}, seed, holdout)
    return encoded(pathlib.Path(path).stem, {split: [texts[i] for i in arrays["x"]] for split, arrays in index.items()})


def captions(images: Dataset) -> Dataset:
    """Images and the names of their labels: `label_names`, or words where these are digits or absent.

    Raises:
        ValueError: the images have no levels, no labels, or labels without a name.
    """
    if images.levels is None or len(images.shape) != 3 or "label" not in images.splits["train"]:
        raise ValueError(f"`images` must be labelled images with levels, got {images.name!r} of shape {images.shape}.")
    names = images.label_names
    names = DIGITS if names is None or names == tuple("0123456789") else names
    largest = max(int(np.max(arrays["label"])) for arrays in images.splits.values())
    if largest >= len(names):
        raise ValueError(f"`images` must have labels in 0..{len(names) - 1}, got {largest} in {images.name!r}.")
    vocabulary = ("", *sorted(set("".join(names))))
    words = rows(names, vocabulary)
    splits = {
        split: {"source": np.asarray(arrays["x"]), "target": words[np.asarray(arrays["label"])]}
        for split, arrays in images.splits.items()
    }
    return Dataset(f"{images.name}, labels in words", splits, images.levels, vocabulary)
