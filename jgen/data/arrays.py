"""From raw arrays to a data set: shapes, levels, and the splits that a source does not give itself."""

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from jgen.data.pipeline import SPLITS, Dataset

MAX_BYTES = 4 * 2**30
"""The most that a file may unpack to, in bytes: a small archive cannot fill the memory."""
MAX_LEVELS = 2**16
"""Whole numbers beyond 0..MAX_LEVELS-1 are measurements, not levels: they become real."""

Path: TypeAlias = str | os.PathLike[str]
Arrays: TypeAlias = Mapping[str, np.ndarray]


def wrong(path: Path, expected: str, found: str) -> ValueError:
    """The error of a file that cannot be used: which, what was expected, what was found."""
    return ValueError(f"{os.fspath(path)}: expected {expected}, found {found}.")


def bounded(path: Path, num_bytes: int) -> None:
    """Raises ValueError when `num_bytes` exceeds `MAX_BYTES`."""
    if num_bytes > MAX_BYTES:
        raise wrong(path, f"at most {MAX_BYTES:,} bytes of data", f"{num_bytes:,}")


def contents(path: Path) -> bytes:
    """The bytes of a file; ValueError when it is empty or larger than `MAX_BYTES`."""
    size = os.path.getsize(path)
    bounded(path, size)
    if not size:
        raise wrong(path, "data", "an empty file")
    with open(path, "rb") as file:
        return file.read()


def build(name: str, path: Path, parts: Mapping[str, Arrays], seed: int, holdout: Any = None, **fields: Any) -> Dataset:
    """The data set of given splits; what is missing of valid and test is split off from train.

    Args:
        name: how protocols call it.
        path: what errors name.
        parts: {"train": {"x": ..., "label": ...}, "valid": ..., "test": ...}; the last two may be missing. All x must
            have one shape; images without a channel axis (n, h, w) get one.
        seed: of the permutation by which missing splits are drawn from train.
        holdout: (valid, test) shares of the given training examples, for those splits that are missing.
        **fields: of `Dataset`; `levels` is found by `quantize` when it is not among them.

    Raises:
        ValueError: empty, wrongly shaped or not finite arrays, or too few to split.
    """
    parts = {split: dict(arrays) for split, arrays in parts.items()}
    for split, arrays in parts.items():
        arrays["x"] = as_examples(path, split, arrays["x"])
        _check_lengths(path, split, arrays)
    _check_shapes(path, parts)
    if "levels" not in fields:
        xs, fields["levels"] = quantize(path, {split: arrays["x"] for split, arrays in parts.items()})
        for split, x in xs.items():
            parts[split]["x"] = x
    return Dataset(name, hold_out(path, parts, seed, holdout), **fields)


def as_examples(path: Path, split: str, x: np.ndarray) -> np.ndarray:
    """x as rows (n, d), images (n, h, w, c) or anything of higher rank; (n, h, w) becomes (n, h, w, 1)."""
    if x.ndim < 2 or 0 in x.shape:
        raise wrong(path, "rows (n, d) or images (n, h, w) or (n, h, w, c), none of them empty", f"{split} {x.shape}")
    return x[..., None] if x.ndim == 3 else x


def quantize(path: Path, parts: Arrays) -> tuple[dict[str, np.ndarray], int | None]:
    """The splits' x in the type they are kept in, and the number of levels they share (None: real).

    uint8 has 256 levels, or 2 where no value exceeds 1; bool has 2; other whole numbers from 0 have as many as the
    largest value says; whole numbers below 0 or from `MAX_LEVELS`, and floats, are real (float32).

    Raises:
        ValueError: not numbers, or not finite in float32.
    """
    for split, x in parts.items():
        if x.dtype.kind not in "buif":
            raise wrong(path, "bool, whole or floating numbers", f"{split} of type {x.dtype}")
    if all(x.dtype.kind in "bui" for x in parts.values()):
        low, high = min(int(x.min()) for x in parts.values()), max(int(x.max()) for x in parts.values())
        if low >= 0 and high < MAX_LEVELS:
            bytes_alone = all(x.dtype == np.uint8 for x in parts.values())
            levels = 2 if high <= 1 else 256 if bytes_alone else high + 1
            return {s: x.astype(np.uint8 if levels <= 256 else np.int32, copy=False) for s, x in parts.items()}, levels
    return {split: finite(path, split, x) for split, x in parts.items()}, None


def finite(path: Path, split: str, x: np.ndarray) -> np.ndarray:
    """x in float32; ValueError where it is not finite (there)."""
    with np.errstate(over="ignore"):
        x = x.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
    if bad.size:
        raise wrong(path, "finite numbers (in float32)", f"{len(bad)} examples of {split} with others, first {bad[0]}")
    return x


def hold_out(
    path: Path, parts: Mapping[str, Arrays], seed: int, holdout: tuple[float, float] | None = None
) -> dict[str, Arrays]:
    """`parts` with the missing of valid and test drawn from train, without replacement, by a permutation of `seed`.

    Raises:
        ValueError: `holdout` is not two shares of less than one in all, or train has too few examples.
    """
    shares = dict(zip(SPLITS[1:], check_holdout(holdout or (0.1, 0.1)), strict=True))
    missing = [split for split in SPLITS[1:] if split not in parts]
    if not missing:
        return dict(parts)
    train = parts["train"]
    num = len(next(iter(train.values())))
    counts = [max(1, round(shares[split] * num)) for split in missing]
    if sum(counts) >= num:
        raise wrong(path, f"more than {sum(counts)} examples, to split off {' and '.join(missing)}", f"{num}")
    order, result, first = np.random.default_rng((seed, 0)).permutation(num), dict(parts), 0
    for split, count in zip(missing, counts, strict=True):
        rows = np.sort(order[first : first + count])
        result[split] = {k: v[rows] for k, v in train.items()}
        first += count
    rest = np.sort(order[first:])
    result["train"] = {k: v[rest] for k, v in train.items()}
    return result


def check_holdout(holdout: tuple[float, float]) -> tuple[float, float]:
    """(valid, test) shares; ValueError unless both are positive and their sum is below one."""
    if len(holdout) != 2 or not (min(holdout) > 0 and sum(holdout) < 1):
        raise ValueError(f"`holdout` must be two positive shares (valid, test) whose sum is below 1, got {holdout}.")
    return holdout


def classes(labels: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class names -> (label (n,) int32, the sorted names)."""
    names, label = np.unique(np.asarray(labels), return_inverse=True)
    return label.astype(np.int32), tuple(str(name) for name in names)


def whole_labels(path: Path, name: str, label: np.ndarray) -> np.ndarray:
    """Labels as int32, or float32 where they are fractions (a regression target); ValueError for other types."""
    if label.dtype.kind in "bui":
        return label.astype(np.int32)
    if label.dtype.kind == "f" and np.isfinite(label).all():
        return label.astype(np.float32)
    raise wrong(path, f"finite numbers in {name}", f"type {label.dtype}" if label.dtype.kind != "f" else "others")


def _check_lengths(path: Path, split: str, arrays: Arrays) -> None:
    sizes = {key: len(value) for key, value in arrays.items()}
    if len(set(sizes.values())) != 1:
        raise wrong(path, f"arrays of one length in {split}", f"{sizes}")


def _check_shapes(path: Path, parts: Mapping[str, Arrays]) -> None:
    shapes = {split: arrays["x"].shape[1:] for split, arrays in parts.items()}
    if len(set(shapes.values())) != 1:
        raise wrong(path, "examples of one shape in all splits", f"{shapes}")
