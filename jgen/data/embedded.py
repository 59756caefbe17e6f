"""Data sets that come with the installed packages: real, small, and there without a network."""

import functools

import numpy as np
from sklearn import datasets

from jgen.data.pipeline import SPLITS, Dataset

_SPLIT_SEED = 0  # the splits of embedded sets are part of their protocol, so no user's seed moves them


@functools.cache
def digits() -> Dataset:
    """1,797 handwritten digits, x uint8 (n, 8, 8, 1) in 0..16, label 0..9.

    The splits of 1,200 / 297 / 300 come from one permutation that a constant fixes, whatever the seed of a run.
    Origin: UCI Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), CC BY 4.0; scikit-learn ships its
    test part.
    """
    images, label = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))
    arrays = {"x": images.astype(np.uint8).reshape(-1, 8, 8, 1)[order], "label": label.astype(np.int32)[order]}
    bounds = (0, 1_200, 1_497, 1_797)
    splits = {s: {k: v[bounds[i] : bounds[i + 1]] for k, v in arrays.items()} for i, s in enumerate(SPLITS)}
    return Dataset("digits", splits, levels=17)
