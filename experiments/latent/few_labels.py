"""Data of which few examples keep their labels, and what plain classifiers make of those few."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen._types import Batch
from jgen.data.pipeline import Data, Dataset, Transform, in_memory


def rows(label: Any, num: int, seed: int) -> np.ndarray:
    """Which examples keep their labels: num/classes of each class, by a permutation that depends on the seed.

    Raises:
        ValueError: `num` is no multiple of the number of classes, or a class has too few examples.
    """
    label, classes = np.asarray(label), np.unique(label)
    each = num // len(classes)
    if num < 1 or num % len(classes):
        raise ValueError(f"`num_labels` must be a positive multiple of the {len(classes)} classes, got {num}.")
    order = np.random.default_rng((seed, num)).permutation(len(label))
    found = [order[label[order] == c][:each] for c in classes]
    if min(map(len, found)) < each:
        raise ValueError(f"`num_labels` must be at most what every class has, got {num}.")
    return np.concatenate(found)


def split(dataset: Dataset, chosen: np.ndarray) -> tuple[Dataset, Dataset]:
    """(the examples that keep their labels, the others with the label −1); other splits stay as they are."""
    train = {name: np.asarray(value) for name, value in dataset.splits["train"].items()}
    others = np.setdiff1d(np.arange(dataset.size("train")), chosen)
    labelled = {name: value[chosen] for name, value in train.items()}
    unlabelled = {name: value[others] for name, value in train.items()}
    unlabelled["label"] = np.full(len(others), -1, np.int32)
    few, rest = (dataclasses.replace(dataset, splits={**dataset.splits, "train": p}) for p in (labelled, unlabelled))
    return few, rest


def mixed(labelled: Dataset, unlabelled: Dataset, sizes: tuple[int, int], seed: int, transform: Transform) -> Data:
    """Batches of both, the labelled examples first; `sizes` are how many of each. Other splits are as they were."""
    first = in_memory(labelled, sizes[0], seed, transform=transform)
    second = in_memory(unlabelled, sizes[1], seed, transform=transform)

    @jax.jit
    def together(one: Batch, other: Batch) -> Batch:
        return {name: jnp.concatenate([one[name], other[name]]) for name in one}

    return Data(lambda step: together(first.train(step), second.train(step)), second.batches)


def floors(labelled: Dataset, test_x: Any, test_label: Any) -> dict[str, float]:
    """Accuracies on test pixels of 1-nearest-neighbour and logistic regression, learned from the labelled examples."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from threadpoolctl import threadpool_limits

    train, scale = labelled.splits["train"], (labelled.levels or 2) - 1
    x, test_x = (np.asarray(part, np.float64).reshape(len(part), -1) / scale for part in (train["x"], test_x))
    classifiers = {"nearest_neighbour": KNeighborsClassifier(1), "logistic": LogisticRegression(max_iter=2_000)}
    with threadpool_limits(1):
        return {n: float(c.fit(x, train["label"]).score(test_x, test_label)) for n, c in classifiers.items()}
