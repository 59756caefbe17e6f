"""Pictures of models that know classes: every class with every style, and samples of each class."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import pictures
from experiments.latent import pixels

NUM_STYLES = 10
NUM_SAMPLES = 10


def chosen(batch: Any, num: int) -> Any:
    """The first rows of a batch of which the first `num` count."""
    return {name: value[: min(num, NUM_STYLES)] for name, value in batch.items()}


def names(dataset: Any, num_classes: int) -> list[str]:
    """What the classes are called."""
    return [str(name) for name in dataset.label_names or range(num_classes)]


def draw_grid(path: pathlib.Path, x: Any, means: Any, rows: list[str], levels: int) -> None:
    """Test images, and below a row for each class with the styles of all of them.

    Args:
        path: of the picture.
        x: (styles, *shape), where the styles are from.
        means: (classes, styles, *shape).
        rows: names of the classes.
        levels: of the images.
    """
    named = {"style of": x, **dict(zip(rows, means, strict=True))}
    scaled = {name: pixels.images(jnp.asarray(image)) / (levels - 1) for name, image in named.items()}
    pictures.rows(path, scaled, "rows share the class, columns the style of the test image above")


def draw_samples(path: pathlib.Path, sample: Callable[[Any], Any], rows: list[str], levels: int) -> None:
    """Samples, a row for each class; `sample` is (labels) -> x."""
    label = jnp.repeat(jnp.arange(len(rows)), NUM_SAMPLES)
    drawn = np.asarray(pixels.images(sample(label))) / (levels - 1)
    drawn = drawn.reshape(len(rows), NUM_SAMPLES, *drawn.shape[1:])
    pictures.rows(path, dict(zip(rows, drawn, strict=True)), "samples of each class")
