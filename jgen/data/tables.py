"""Numbers written as text: .csv tables and the binary .amat files of the NADE literature."""

import csv as csv_module
import math
import pathlib

import numpy as np

from jgen.data.arrays import Path, build, classes, contents, whole_labels, wrong
from jgen.data.pipeline import SPLITS, Dataset

LABEL_COLUMNS = ("label", "class", "target", "species")
_DELIMITERS = ",;\t"


def csv(path: Path, seed: int = 0, holdout: tuple[float, float] | None = None) -> Dataset:
    """A table of numbers: x (n, d), one column per number, with or without a line of names.

    The delimiter is the one of comma, semicolon and tab that the first line has most of. A column whose name is in
    `LABEL_COLUMNS` becomes `label` (classes may be words there). Only 0 and 1 make a binary table, anything else a real
    one. valid and test are split off.

    Raises:
        ValueError: not UTF-8, rows of unequal length, a cell that is not a finite number; line and column are named.
    """
    header, rows, lines = _cells(path)
    labels = [i for i, name in enumerate(header) if name.strip().lower() in LABEL_COLUMNS]
    if len(labels) > 1:
        raise wrong(path, f"one column of {LABEL_COLUMNS}", f"{[header[i] for i in labels]}")
    arrays, label_names = {}, None
    if labels:
        label, label_names = _label_column([row[labels[0]].strip() for row in rows])
        arrays["label"] = whole_labels(path, "labels", label)
    kept = [i for i in range(len(rows[0])) if i not in labels]
    if not kept:
        raise wrong(path, "columns of numbers beside the label", "none")
    x = _numbers(path, [[row[i] for i in kept] for row in rows], lines, kept)
    arrays["x"] = x.astype(np.uint8) if np.isin(x, (0.0, 1.0)).all() else x
    return build(pathlib.Path(path).stem, path, {"train": arrays}, seed, holdout, label_names=label_names)


def _cells(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """(names or [], rows of cells, the line of each)."""
    try:
        text = contents(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong(path, "UTF-8 text", f"byte {error.object[error.start]:#x} at {error.start}") from error
    lines = text.splitlines()
    delimiter = max(_DELIMITERS, key=lambda d: lines[0].count(d)) if lines else ","
    try:
        rows = list(csv_module.reader(lines, delimiter=delimiter))
    except csv_module.Error as error:
        raise wrong(path, "comma-separated values", f"what cannot be read as such ({error})") from error
    numbered = [(i + 1, row) for i, row in enumerate(rows) if any(cell.strip() for cell in row)]
    header = [] if not numbered or all(_is_number(cell) for cell in numbered[0][1]) else numbered.pop(0)[1]
    if not numbered:
        raise wrong(path, "rows of numbers", "no row")
    width = len(header or numbered[0][1])
    for line, row in numbered:
        if len(row) != width:
            raise wrong(path, f"{width} columns", f"{len(row)} in line {line}")
    return header, [row for _, row in numbered], [line for line, _ in numbered]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, rows: list[list[str]], lines: list[int], columns: list[int]) -> np.ndarray:
    try:
        x = np.array(rows, dtype=np.float64)
    except ValueError:
        x = np.full((1, 1), math.nan)
    if not np.isfinite(x).all():
        for line, row in zip(lines, rows, strict=True):
            for column, cell in zip(columns, row, strict=True):
                if not _is_number(cell) or not math.isfinite(float(cell)):
                    raise wrong(path, "finite numbers", f"{cell!r} in line {line}, column {column + 1}")
    return x


def _label_column(cells: list[str]) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if not all(_is_number(cell) for cell in cells):
        return classes(cells)
    values = np.array(cells, np.float64)
    return (values.astype(np.int64) if np.isfinite(values).all() and (values % 1 == 0).all() else values), None


def amat(path: Path, seed: int = 0, holdout: tuple[float, float] | None = None) -> Dataset:
    """Binary rows as text, "0 1 1 0" in a line: a folder of *_train.amat, *_valid.amat, *_test.amat, or one file.

    Square rows become images: d = side² gives x (n, side, side, 1), any other d rows (n, d); levels = 2. The published
    test split of binarized MNIST is sorted by class: shuffle before taking a part of it.

    Raises:
        ValueError: train is missing, something other than 0 and 1, or lines of unequal length.
    """
    path = pathlib.Path(path)
    files = amat_files(path) if path.is_dir() else {"train": path}
    if "train" not in files:
        raise wrong(path, "a file *_train.amat", f"{[file.name for file in files.values()]}")
    parts = {split: {"x": _as_square(read_amat(file))} for split, file in files.items()}
    name = files["train"].stem.removesuffix("_train")
    return build(name, path, parts, seed, holdout, levels=2)


def amat_files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """{split: file} of the .amat files in `folder`; ValueError where a split has two."""
    result: dict[str, pathlib.Path] = {}
    for file in sorted(folder.glob("*.amat")):
        for split in SPLITS:
            if file.stem == split or file.stem.endswith(f"_{split}"):
                if split in result:
                    raise wrong(folder, f"one file of {split}", f"{result[split].name} and {file.name}")
                result[split] = file
    return result


def read_amat(path: Path) -> np.ndarray:
    """The rows of a binary .amat file, uint8 (n, d).

    A file whose lines all have the length of the first, one separator after each digit, is read as an array of bytes
    (a fraction of a second for 39 million digits); any other goes through a slower parser.
    """
    data = contents(path)
    text = np.frombuffer(data, np.uint8)
    width = data.find(b"\n") + 1
    if width > 1 and text.size % width == 0 and width % 2 == 0:
        cells = text.reshape(-1, width)
        digits, gaps = cells[:, 0::2] - np.uint8(ord("0")), cells[:, 1:-1:2]
        if (digits <= 1).all() and (gaps == ord(" ")).all() and (cells[:, -1] == ord("\n")).all():
            return digits
    return _read_irregular(path, data)


def _read_irregular(path: Path, data: bytes) -> np.ndarray:
    rows: list[bytes] = []
    for i, line in enumerate(data.splitlines()):
        cells = line.split()
        if any(cell not in (b"0", b"1") for cell in cells):
            bad = next(cell for cell in cells if cell not in (b"0", b"1"))
            raise wrong(path, "0 and 1 alone", f"{bad[:20].decode('ascii', 'replace')!r} in line {i + 1}")
        if cells and rows and len(cells) != len(rows[0]):
            raise wrong(path, f"{len(rows[0])} numbers a line", f"{len(cells)} in line {i + 1}")
        if cells:
            rows.append(b"".join(cells))
    if not rows:
        raise wrong(path, "lines of 0 and 1", "no digit")
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1) - np.uint8(ord("0"))


def _as_square(rows: np.ndarray) -> np.ndarray:
    side = math.isqrt(rows.shape[1])
    return rows.reshape(-1, side, side, 1) if side * side == rows.shape[1] else rows
