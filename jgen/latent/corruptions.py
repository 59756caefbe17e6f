"""What is seen of an image, and the trivial restoration of each: noise, hidden pixels, fewer pixels, no colour.

    gaussian(σ)            y = x + σε                                            trivial: y
    salt_and_pepper(p)     each pixel with probability p a fair coin, 0 or 1      trivial: y
    masked(p)              each pixel with probability p to 0, not rescaled       trivial: y
    hidden_rectangle       y = x·m, m = 0 in a rectangle at a random place        trivial: the mean of what is seen
    fewer_pixels(s)        means of s×s blocks, or bicubic with antialiasing      trivial: bicubic interpolation
    grey()                 the luma 0.299 R + 0.587 G + 0.114 B                   trivial: grey in three channels

A `Corruption` is what one of these functions gives; `observe` is a pure function of (key, batch), example i of which
depends on (key, i) alone. Pixels lie in [0, 1]. What was seen stays as it was seen: a hidden rectangle's restoration
has the known pixels, and that of a grey image its luma.

Bicubic interpolation is Keys' with A = −½, as `jax.image.resize` and Pillow do it; the filter that took the pixels away
belongs to the protocol of every number.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen import random
from jgen._checks import at_least, one_of, rank, within
from jgen._types import Batch, Key
from jgen.data import augmentation, transforms
from jgen.data.pipeline import Transform

Images = Float[Array, "batch _ _ _"]  # what is seen may have another height, width and number of channels
LUMA = (0.299, 0.587, 0.114)
FILTERS = ("box", "bicubic")


class Observation(NamedTuple):
    """What is seen.

    Attributes:
        image: (batch, height', width', channels').
        mask: (batch, height, width, 1), 1 where a pixel is seen and 0 where it is hidden; None where that is not told.
    """

    image: Any
    mask: Any = None


def as_seen(seen: Observation) -> Any:
    """What is seen, unchanged: the trivial restoration of noise."""
    return seen.image


def _keep_restored(restored: Any, seen: Observation) -> Any:
    del seen
    return restored


@dataclasses.dataclass(frozen=True)
class Corruption:
    """How images are seen.

    Attributes:
        name: how protocols call it.
        observe: (key, batch) -> Observation.
        trivial: (Observation) -> (batch, height, width, channels), the restoration that learns nothing.
        agree: (restored, Observation) -> the restoration with what was seen put back into it.
        scale: pixels of the image for each seen pixel, along each axis.
    """

    name: str
    observe: Callable[[Key, Batch], Observation]
    trivial: Callable[[Observation], Any] = as_seen
    agree: Callable[[Any, Observation], Any] = _keep_restored
    scale: int = 1

    def features(self, seen: Observation) -> Any:
        """What a network reads: (batch, height', width', channels' + 1 where there is a mask)."""
        return seen.image if seen.mask is None else jnp.concatenate([seen.image, seen.mask], axis=-1)


def gaussian(std: float) -> Corruption:
    """y = x + σε; for arrays of any shape."""
    noise = transforms.gaussian_noise(std)
    return Corruption(f"Gaussian noise of std {std:g}", lambda key, batch: Observation(noise(key, batch)["x"]))


def salt_and_pepper(rate: float) -> Corruption:
    """Each pixel, in all of its channels, becomes 0 or 1 with probability rate/2 each: a bit flips with rate/2."""
    sprinkle = augmentation.salt_and_pepper(rate)

    def observe(key: Key, batch: Batch) -> Observation:
        return Observation(sprinkle(key, {**batch, "x": _images(batch)})["x"])

    return Corruption(f"salt and pepper of rate {rate:g}", observe)


def masked(rate: float) -> Corruption:
    """Each value becomes 0 with probability `rate`, and nobody tells which; for arrays of any shape."""
    hide = masking(rate)
    return Corruption(f"masking of rate {rate:g}", lambda key, batch: Observation(hide(key, batch)["x"]))


def masking(rate: float) -> Transform:
    """x -> x with each value 0 with probability `rate`, the others as they are.

    Raises:
        ValueError: `rate` is not in [0, 1].
    """
    within("rate", rate, 0.0, 1.0)

    def apply(key: Key, batch: Batch) -> Batch:
        x = jnp.asarray(batch["x"], jnp.float32)
        keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1.0 - rate, x.shape[1:]))(random.batch_keys(key, batch))
        return {**batch, "x": jnp.where(keep, x, 0.0)}

    return apply


def hidden_rectangle(height: int, width: int) -> Corruption:
    """y = x·m; m hides a rectangle of `height` × `width` pixels, anywhere in the image with equal probability.

    Raises:
        ValueError: a side is less than 1, or (at the first image) leaves nothing to be seen.
    """
    at_least("height", height, 1)
    at_least("width", width, 1)

    def observe(key: Key, batch: Batch) -> Observation:
        x = _images(batch)
        if height > x.shape[1] or width > x.shape[2] or height * width == x.shape[1] * x.shape[2]:
            raise ValueError(f"`height` and `width` must leave some pixels of {x.shape[1:]}, got {height} and {width}.")
        keys = random.batch_keys(key, batch)
        mask = jax.vmap(lambda k: _rectangle(k, x.shape[1:3], (height, width)))(keys)
        return Observation(x * mask, mask)

    return Corruption(f"a hidden rectangle of {height}×{width} pixels", observe, fill_with_mean, paste)


def fewer_pixels(scale: int, *, kind: str = "box") -> Corruption:
    """One pixel for `scale` × `scale` of the image.

    Args:
        scale: a power of two.
        kind: "box", means of blocks, or "bicubic", with antialiasing.

    Raises:
        ValueError: another scale or kind, or (at the first image) sides that it does not divide.
    """
    if scale < 2 or scale & (scale - 1):
        raise ValueError(f"`scale` must be a power of two from 2 on, got {scale}.")
    one_of("kind", kind, FILTERS)

    def observe(key: Key, batch: Batch) -> Observation:
        del key
        x = _images(batch)
        return Observation(block_means(x, scale) if kind == "box" else bicubic(x, 1 / scale))

    return Corruption(
        f"{scale}× fewer pixels a side, {kind} filter", observe, lambda seen: bicubic(seen.image, scale), scale=scale
    )


def grey() -> Corruption:
    """The luma of colour images, (batch, height, width, 1); a restoration keeps it and adds chroma alone."""

    def observe(key: Key, batch: Batch) -> Observation:
        del key
        return Observation(luma(_images(batch)))

    return Corruption("luma alone", observe, lambda seen: jnp.repeat(seen.image, 3, axis=-1), with_luma)


def luma(x: Images) -> Images:
    """0.299 R + 0.587 G + 0.114 B, (batch, height, width, 1).

    Raises:
        ValueError: `x` has not three channels.
    """
    if x.shape[-1] != 3:
        raise ValueError(f"`x` must have three channels, red, green and blue, got shape {x.shape}.")
    return jnp.sum(x * np.asarray(LUMA, np.float32)[None, None, None], axis=-1, keepdims=True)


def with_luma(restored: Images, seen: Observation) -> Images:
    """`restored` moved along the grey axis to the luma that was seen."""
    return restored + (seen.image - luma(restored))


def fill_with_mean(seen: Observation) -> Images:
    """The hidden pixels filled with the mean of the seen ones, image by image and channel by channel."""
    mean = jnp.sum(seen.image, axis=(1, 2), keepdims=True) / jnp.sum(seen.mask, axis=(1, 2), keepdims=True)
    return seen.image + (1 - seen.mask) * mean


def paste(restored: Images, seen: Observation) -> Images:
    """x·m + x̂·(1 − m): what was seen, and the restoration where nothing was."""
    return seen.image + (1 - seen.mask) * restored


def block_means(x: Images, scale: int) -> Images:
    """Means of blocks of `scale` × `scale` pixels.

    Raises:
        ValueError: `scale` does not divide the sides.
    """
    batch, height, width, channels = x.shape
    if height % scale or width % scale:
        raise ValueError(f"`x` must have sides that {scale} divides, got shape {x.shape}.")
    blocks = jnp.reshape(x, (batch, height // scale, scale, width // scale, scale, channels))
    return jnp.mean(blocks, axis=(2, 4))


def bicubic(x: Images, scale: float) -> Images:
    """Keys' cubic interpolation (A = −½) to `scale` times as many pixels a side; antialiased where they get fewer."""
    batch, height, width, channels = x.shape
    if (height * scale) % 1 or (width * scale) % 1:
        raise ValueError(f"`x` must have sides that {1 / scale:g} divides, got shape {x.shape}.")
    return jax.image.resize(x, (batch, int(height * scale), int(width * scale), channels), "cubic")


def _rectangle(key: Key, sides: tuple[int, ...], hidden: tuple[int, int]) -> Any:
    """(height, width, 1) of ones with zeros in a rectangle at a uniform place."""
    keys = jax.random.split(key)
    inside = []
    for k, side, size in zip(keys, sides, hidden, strict=True):
        place = jnp.arange(side) - jax.random.randint(k, (), 0, side - size + 1)
        inside.append((place >= 0) & (place < size))
    return 1.0 - (inside[0][:, None] & inside[1][None, :])[..., None].astype(jnp.float32)


def _images(batch: Batch) -> Any:
    rank("x", batch["x"], 4, "(batch, height, width, channels)")
    within("x", batch["x"], 0.0, 1.0)
    return jnp.asarray(batch["x"], jnp.float32)
