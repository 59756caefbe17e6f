"""Pen strokes, {"x": float32 (n, T, 3), "mask": uint8 (n, T)}: moves (dx, dy, pen) of a pen, one drawing per row.

pen is 0 where the line goes on after this move, 1 where the pen is lifted, and 2 at the end of the drawing. Offsets are
divided by their standard deviation over the training moves. Where they are whole numbers of a grid, noise that is
uniform over a cell of it makes them real, so that a density of them bounds the log-probability of the cells.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jgen._checks import at_least
from jgen.data.archives import read_npz
from jgen.data.arrays import Path, finite, hold_out, wrong
from jgen.data.letters import FONTS, LETTERS, polygons
from jgen.data.pipeline import SPLITS, Dataset
from jgen.data.rolls import padded

DRAWS, LIFTS, ENDS = 0, 1, 2
"""The states of the pen after a move."""
CANVAS = 64
"""The height of an outlined letter, in cells."""
_TOLERANCE = 1.5


class Strokes(NamedTuple):
    """Drawings, and what their numbers mean.

    Attributes:
        dataset: with "x", "mask" and, where they are known, "label" (what is drawn) and "style" (who draws).
        scale: units of the source in 1.0 of x.
        noise: the width of the uniform noise, in units of the source; 0 for none.
    """

    dataset: Dataset
    scale: float
    noise: float


def stroke_3(path: Path, seed: int = 0, *, noise: float = 1.0) -> Strokes:
    """An .npz file with {split}_points (N, 3) = dx, dy, pen-up and {split}_length (n,), whose sum is N.

    {split}_label and {split}_style, whole numbers (n,), may be there: what is drawn, and by whom. The last move of a
    drawing gets the pen's state 2. Missing splits are drawn from train.

    Args:
        path: of the file.
        seed: of the splits that are not given, and of the noise, which is drawn once.
        noise: the width of the uniform noise on dx and dy, in their units; 0 adds none.

    Raises:
        ValueError: `noise` is negative, or the file is broken, or its arrays do not fit each other.
    """
    at_least("noise", noise, 0.0)
    arrays = read_npz(path)
    given = [split for split in SPLITS if f"{split}_points" in arrays]
    if "train" not in given:
        raise wrong(path, "arrays train_points and train_length", f"{sorted(arrays) or 'none'}")
    parts, moves = {}, {split: _moves(path, arrays, split) for split in given}
    for split in given:
        parts[split] = {"row": np.arange(len(moves[split])), **_classes(path, arrays, split, len(moves[split]))}
    if len({frozenset(part) for part in parts.values()}) != 1:
        raise wrong(path, "the same classes in all splits", f"{ {s: sorted(p)[:-1] for s, p in parts.items()} }")
    whole = hold_out(path, parts, seed)
    chosen = {split: [moves[split if split in given else "train"][i] for i in whole[split]["row"]] for split in SPLITS}
    beside = {split: {k: v for k, v in whole[split].items() if k != "row"} for split in SPLITS}
    return _scaled(pathlib.Path(path).stem, chosen, beside, seed, noise)


def _moves(path: Path, arrays: Mapping[str, np.ndarray], split: str) -> list[np.ndarray]:
    points, length = arrays[f"{split}_points"], arrays.get(f"{split}_length")
    if length is None or length.ndim != 1 or length.dtype.kind not in "iu" or not length.size or length.min() < 1:
        found = "none" if length is None else f"{length.dtype} {length.shape}"
        raise wrong(path, f"lengths of at least 1, whole numbers (n,), in {split}_length", found)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "iuf":
        raise wrong(path, f"moves (N, 3) in {split}_points", f"{points.dtype} {points.shape}")
    if length.sum() != len(points):
        raise wrong(path, f"{int(length.sum()):,} moves in {split}, as the lengths say", f"{len(points):,}")
    points = finite(path, split, points)
    if not np.all((points[:, 2] == DRAWS) | (points[:, 2] == LIFTS)):
        raise wrong(path, f"0 or 1 in the third column of {split}_points", "others")
    return np.split(points, np.cumsum(length)[:-1])


def _classes(path: Path, arrays: Mapping[str, np.ndarray], split: str, num: int) -> dict[str, np.ndarray]:
    found = {}
    for name in ("label", "style"):
        if (values := arrays.get(f"{split}_{name}")) is None:
            continue
        if values.shape != (num,) or values.dtype.kind not in "iu" or values.min() < 0:
            raise wrong(path, f"whole numbers ({num},) from 0 in {split}_{name}", f"{values.dtype} {values.shape}")
        found[name] = values.astype(np.int32)
    return found


@functools.cache
def outlines() -> Strokes:
    """The 884 letters of `letters` as the lines around them: label 0..51, A–Z then a–z, and style = which typeface.

    On a grid 64 cells high; corners closer than 1.5 cells to the line that remains are left out. Each closed
    curve is a stroke. Computed from outlines, not measured in the world; split 80 / 10 / 10 %, noise of one cell.
    """
    each = [(_outline(font, letter), i, s) for s, font in enumerate(FONTS) for i, letter in enumerate(_BOTH)]
    order = np.random.default_rng(0).permutation(len(each))
    cuts = np.split(order, [round(0.8 * len(each)), round(0.9 * len(each))])
    moves = {split: [each[i][0] for i in rows] for split, rows in zip(SPLITS, cuts, strict=True)}
    beside = {
        split: {name: np.array([each[i][at] for i in rows], np.int32) for at, name in ((1, "label"), (2, "style"))}
        for split, rows in zip(SPLITS, cuts, strict=True)
    }
    found = _scaled("outlines", moves, beside, 0, 1.0)
    dataset = found.dataset
    return found._replace(dataset=Dataset(dataset.name, dataset.splits, synthetic=True, label_names=tuple(_BOTH)))


_BOTH = LETTERS + LETTERS.lower()


def _outline(font: str, letter: str) -> np.ndarray:
    """Moves (T, 3) along the letter's closed curves, the first from the beginning of the first curve."""
    curves = polygons(font, letter)
    corners = np.concatenate(curves)
    low, high = corners.min(axis=0), corners.max(axis=0)
    whole = [np.round((curve - low) * (CANVAS / (high - low)[1])) for curve in curves]
    # Letters are written downwards from the top, as a screen counts.
    closed = [np.concatenate([c, c[:1]]) if np.any(c[0] != c[-1]) else c for c in (w * [1, -1] for w in whole)]
    kept = [c[simplified(c, _TOLERANCE)] for c in closed]
    places, pen = np.concatenate(kept), np.concatenate([np.arange(len(c)) == len(c) - 1 for c in kept])
    return np.column_stack([np.diff(places, axis=0, prepend=places[:1]), pen]).astype(np.float32)


def simplified(line: np.ndarray, tolerance: float) -> np.ndarray:
    """Which corners (n,) of a line (n, 2) stay so that none is farther than `tolerance` from it (Douglas, Peucker)."""
    keep = np.zeros(len(line), bool)
    keep[[0, -1]] = True
    waiting = [(0, len(line) - 1)]
    while waiting:
        first, last = waiting.pop()
        between, along = line[first + 1 : last] - line[first], line[last] - line[first]
        share = np.clip(between @ along / max(along @ along, 1e-12), 0.0, 1.0)
        distance = np.linalg.norm(between - share[:, None] * along, axis=1)
        if distance.size and distance.max() > tolerance:
            farthest = first + 1 + int(distance.argmax())
            keep[farthest] = True
            waiting += [(first, farthest), (farthest, last)]
    return keep


def _scaled(
    name: str,
    moves: Mapping[str, Sequence[np.ndarray]],
    beside: Mapping[str, Mapping[str, np.ndarray]],
    seed: int,
    noise: float,
) -> Strokes:
    scale = float(np.std(np.concatenate(moves["train"])[:, :2], dtype=np.float64)) or 1.0
    splits = {}
    for i, split in enumerate(SPLITS):
        arrays = padded([move.astype(np.float32) for move in moves[split]])
        x, mask = arrays["x"], arrays["mask"]
        cell = np.random.default_rng((seed, i)).uniform(-0.5, 0.5, (*x.shape[:2], 2))
        x[..., :2] = (x[..., :2] + noise * cell) / scale * mask[..., None]
        x[np.arange(len(x)), mask.sum(axis=1, dtype=np.int64) - 1, 2] = ENDS
        splits[split] = {"x": x, "mask": mask, **beside[split]}
    return Strokes(Dataset(name, splits), scale, noise)
