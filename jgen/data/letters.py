"""Printed letters in the format of the digits: what a model of digits should find foreign, without a download."""

import functools
import pathlib

import numpy as np

from jgen.data.pipeline import SPLITS, Dataset

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"),
)
_SIZE, _CELLS = 8, 4
_WIDEST = 0.75
_SHARES = (0.8, 0.9)


@functools.cache
def letters() -> Dataset:
    """884 drawings of A–Z and a–z in 17 typefaces: x uint8 (n, 8, 8, 1) in 0..16, label 0..25 whatever the case.

    Like the digits they are counts of ink in 4×4 blocks of a 32×32 bitmap, are as high as the frame, and at most 24 of
    32 wide (the digits' outer columns are all but empty). Letters that look like a digit (O, I, l, S, Z, ...) are among
    them. Drawn from outlines, not measured in the world; split 80 / 10 / 10 % by a fixed permutation.
    Origin: the typefaces DejaVu, STIX and Computer Modern, which Matplotlib ships.
    """
    drawn = [(_draw(font, letter), i % 26) for font in FONTS for i, letter in enumerate(LETTERS + LETTERS.lower())]
    x, label = (np.array(column) for column in zip(*drawn, strict=True))
    order = np.random.default_rng(0).permutation(len(x))
    cuts = np.split(order, [round(share * len(x)) for share in _SHARES])
    splits = {
        split: {"x": x[rows, ..., None], "label": label[rows].astype(np.int32)}
        for split, rows in zip(SPLITS, cuts, strict=True)
    }
    return Dataset("letters", splits, levels=_CELLS**2 + 1, synthetic=True, label_names=tuple(LETTERS))


def polygons(font: str, letter: str) -> list[np.ndarray]:
    """The closed curves around a letter, each (corners, 2); the second coordinate grows upwards.

    Args:
        font: one of `FONTS`.
        letter: a character of the typeface.
    """
    # Imported here, as scikit-learn is: other data sets need not wait for it.
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    file = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    outline = TextPath((0, 0), letter, size=100, prop=FontProperties(fname=str(file)))
    return [np.asarray(curve) for curve in outline.to_polygons()]


def _draw(font: str, letter: str) -> np.ndarray:
    """(8, 8) counts of ink: a point is inside where it lies in an odd number of the outline's closed curves."""
    from matplotlib.path import Path

    curves = polygons(font, letter)
    corners = np.concatenate(curves)
    low, high = corners.min(axis=0), corners.max(axis=0)
    across = (np.arange(_SIZE * _CELLS) + 0.5) / (_SIZE * _CELLS) - 0.5
    points = np.stack(np.meshgrid(across, -across), axis=-1).reshape(-1, 2)
    width, height = high - low
    points = points * [max(height, width / _WIDEST), height] + (low + high) / 2
    inside = [Path(curve).contains_points(points) for curve in curves]
    ink = np.logical_xor.reduce(inside).reshape(_SIZE, _CELLS, _SIZE, _CELLS)
    return ink.sum(axis=(1, 3)).astype(np.uint8)
