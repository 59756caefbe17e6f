"""Augmentation: random changes of images that leave what they show; each builds a transform (key, batch) -> batch.

They work on `batch["x"]`, images (batch, height, width, channels) as floats, and give example i a key that depends on
(key, i) alone. Gaussian noise is `transforms.gaussian_noise`. Put them into `in_memory(transform=...)`, and leave them
out of its `eval_transform`: test data stay as they are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from jgen import random
from jgen._checks import rank, within
from jgen._types import Batch, Key
from jgen.data.pipeline import Transform


def warp(
    image: Float[Array, "height width channels"], angle: Float[Array, ""], zoom: Float[Array, ""], fill: float = 0.0
) -> Float[Array, "height width channels"]:
    """The image turned counter-clockwise by `angle` (radians) and enlarged `zoom` times around its centre, bilinear.

    Args:
        fill: the value of what comes in from outside.
    """
    height, width, _ = image.shape
    rows, columns = jnp.meshgrid(
        jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2, indexing="ij"
    )
    cos, sin = jnp.cos(angle) / zoom, jnp.sin(angle) / zoom
    source = [cos * rows + sin * columns + (height - 1) / 2, cos * columns - sin * rows + (width - 1) / 2]

    def channel(plane: Array) -> Array:
        return map_coordinates(plane, source, order=1, mode="constant", cval=fill)

    return jax.vmap(channel, 2, 2)(image)


def rotation(degrees: float, fill: float = 0.0) -> Transform:
    """Turns each image by an angle uniform on [−degrees, degrees].

    Raises:
        ValueError: `degrees` is not in [0, 180].
    """
    within("degrees", degrees, 0.0, 180.0)
    most = float(np.deg2rad(degrees))

    def turn(key: Key, image: Array) -> Array:
        return warp(image, jax.random.uniform(key, minval=-most, maxval=most), jnp.ones(()), fill)

    return _each(turn)


def rescaling(low: float, high: float, fill: float = 0.0) -> Transform:
    """Enlarges each image by a factor uniform on [low, high]; below 1 it shrinks.

    Raises:
        ValueError: `low` is not positive, or above `high`.
    """
    if not 0 < low <= high:
        raise ValueError(f"`low` must be positive and at most `high`, got {low} and {high}.")

    def enlarge(key: Key, image: Array) -> Array:
        return warp(image, jnp.zeros(()), jax.random.uniform(key, minval=low, maxval=high), fill)

    return _each(enlarge)


def salt_and_pepper(rate: float, low: float = 0.0, high: float = 1.0) -> Transform:
    """Sets each pixel, in all its channels, to `low` or `high` with probability rate/2 each.

    Raises:
        ValueError: `rate` is not in [0, 1].
    """
    within("rate", rate, 0.0, 1.0)

    def sprinkle(key: Key, image: Array) -> Array:
        u = jax.random.uniform(key, (*image.shape[:2], 1))
        return jnp.where(u < rate / 2, low, jnp.where(u < rate, high, image))

    return _each(sprinkle)


def channel_dropout(rate: float) -> Transform:
    """Sets each channel of each image to 0 with probability `rate`.

    Raises:
        ValueError: `rate` is not in [0, 1].
    """
    within("rate", rate, 0.0, 1.0)

    def drop(key: Key, image: Array) -> Array:
        return image * jax.random.bernoulli(key, 1.0 - rate, (1, 1, image.shape[2])).astype(image.dtype)

    return _each(drop)


def _each(change: Callable[[Key, Array], Array]) -> Transform:
    def apply(key: Key, batch: Batch) -> Batch:
        rank("x", batch["x"], 4, "(batch, height, width, channels)")
        x = jnp.asarray(batch["x"], jnp.float32)
        return {**batch, "x": jax.vmap(change)(random.batch_keys(key, batch), x)}

    return apply
