"""Data sets that come with the installed packages: real, small, and there without a network.

Their splits are part of their protocol: a constant fixes them, and no user's seed moves them.
"""

import functools
import importlib.metadata
import pathlib
from typing import Any

import numpy as np

from jgen._checks import one_of
from jgen.data.pipeline import SPLITS, Dataset

TABLES = ("iris", "wine", "breast_cancer", "diabetes")
_SPLIT_SEED = 0
_DIGITS = "sklearn/datasets/data/digits.csv.gz"


@functools.cache
def digits() -> Dataset:
    """1,797 handwritten digits, x uint8 (n, 8, 8, 1) in 0..16, label 0..9; 1,200 / 297 / 300 examples.

    Origin: UCI Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), CC BY 4.0; scikit-learn ships its
    test part.
    """
    path = pathlib.Path(str(importlib.metadata.distribution("scikit-learn").locate_file(_DIGITS)))
    if path.exists():
        # scikit-learn's own file, read in milliseconds: its import is a quarter of the time to a first update.
        rows = np.loadtxt(path, np.uint8, delimiter=",")
    else:
        rows = np.column_stack(_sklearn().load_digits(return_X_y=True))
    arrays = {"x": rows[:, :-1].astype(np.uint8).reshape(-1, 8, 8, 1), "label": rows[:, -1].astype(np.int32)}
    return Dataset("digits", _split(arrays, 1_200, 297), levels=17, label_names=tuple("0123456789"))


def patches(size: int = 8) -> Dataset:
    """Grey patches of two photographs, x uint8 (n, size, size, 1) in 0..255, label = which photograph.

    Luma is 0.299 R + 0.587 G + 0.114 B, rounded. The patches tile the photographs without overlap (8,480 for size 8)
    and are split 80 / 10 / 10 %, so a test patch has neighbours in train.
    Origin: china.jpg by danielbuechele and flower.jpg by vultilion (Flickr), both CC BY 2.0, 427 × 640 pixels, as
    scikit-learn ships them.

    Raises:
        ValueError: `size` is not in 2..128.
    """
    return _tiles("patches", size, grey=True)


def photos(size: int = 32) -> Dataset:
    """The same photographs in colour: x uint8 (n, size, size, 3), 520 tiles for size 32; else as `patches`."""
    return _tiles("photos", size, grey=False)


@functools.cache
def _tiles(name: str, size: int, *, grey: bool) -> Dataset:
    if not 2 <= size <= 128:
        raise ValueError(f"`size` of {name} must be in 2..128, got {size}.")
    x, label = [], []
    for i, image in enumerate(_sklearn().load_sample_images().images):
        pixels = np.asarray(image, np.float64) @ np.array([[0.299], [0.587], [0.114]]) if grey else image
        rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
        cut = np.round(pixels[: rows * size, : columns * size]).astype(np.uint8)
        tiles = cut.reshape(rows, size, columns, size, -1).swapaxes(1, 2).reshape(rows * columns, size, size, -1)
        x.append(tiles)
        label.append(np.full(len(tiles), i, np.int32))
    arrays = {"x": np.concatenate(x), "label": np.concatenate(label)}
    num = len(arrays["x"])
    splits = _split(arrays, num - 2 * (num // 10), num // 10)
    return Dataset(f"{name}:{size}", splits, levels=256, label_names=("china", "flower"))


@functools.cache
def table(name: str) -> Dataset:
    """A small table: x float32 (n, d), not standardized; 80 / 10 / 10 %.

    | name | n, d | beside x | origin |
    |---|---|---|---|
    | iris | 150, 4 | label, 3 species | Fisher 1936; UCI, CC BY 4.0 |
    | wine | 178, 13 | label, 3 cultivars | Aeberhard & Forina 1991; UCI, CC BY 4.0 |
    | breast_cancer | 569, 30 | label, malignant or benign | Wolberg et al. 1995; UCI, CC BY 4.0 |
    | diabetes | 442, 10 | target, float32: progression after a year | Efron et al. 2004; no stated licence |

    Raises:
        ValueError: there is no such table.
    """
    one_of("table", name, TABLES)
    raw = getattr(_sklearn(), f"load_{name}")()
    arrays, names = {"x": raw.data.astype(np.float32)}, None
    if name == "diabetes":
        arrays["target"] = raw.target.astype(np.float32)
    else:
        arrays["label"], names = raw.target.astype(np.int32), tuple(str(c) for c in raw.target_names)
    num = len(raw.data)
    return Dataset(f"table:{name}", _split(arrays, num - 2 * (num // 10), num // 10), label_names=names)


@functools.cache
def eeg() -> Dataset:
    """Four channels of an electroencephalogram, x float32 (4, time): values 0-479 train, 480-639 valid, 640-799 test.

    The splits follow each other in time, row i of each is channel i. Each channel has mean 0 and variance 1 over all
    800 values, as it comes. The sample rate is not known.
    Origin: eeg.dat, by John D. Hunter, an example file of Matplotlib, under Matplotlib's licence.
    """
    from matplotlib import cbook  # as scikit-learn: other data sets need not wait for it

    path = str(cbook.get_sample_data("eeg.dat", asfileobj=False))
    x = np.fromfile(path, "<f8").reshape(800, 4).T.astype(np.float32)
    bounds = (0, 480, 640, 800)
    return Dataset("eeg", {s: {"x": x[:, bounds[i] : bounds[i + 1]]} for i, s in enumerate(SPLITS)})


def _sklearn() -> Any:
    from sklearn import datasets  # 0.7 s, which the import of other data sets need not wait for

    return datasets


def _split(arrays: dict[str, np.ndarray], num_train: int, num_valid: int) -> dict[str, dict[str, np.ndarray]]:
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(arrays["x"]))
    bounds = (0, num_train, num_train + num_valid, len(order))
    return {s: {k: v[order[bounds[i] : bounds[i + 1]]] for k, v in arrays.items()} for i, s in enumerate(SPLITS)}
