"""What the experiment with restoration autoencoders measures by: image data, views of them, classical baselines."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen import random
from jgen._checks import at_least
from jgen._types import Batch, Key
from jgen.data import load
from jgen.data.pipeline import Dataset, Transform
from jgen.latent import corruptions
from jgen.latent.corruptions import Observation
from jgen.metrics import image_quality
from jgen.metrics.measurement import Measurement

MOST = 60.0
"""dB; an image that is restored without any error would make the mean infinite. 8 bits round at 59 dB."""
WINDOWS = {"gaussian": "11×11 Gaussian window", "uniform": "7×7 uniform window"}
LARGEST_FILTER = 1_024
"""Dimensions up to which the linear filter of whole images is computed."""


def images(source: str, seed: int, multiple: int) -> Dataset:
    """A data set as (height, width, channels) images, sides cut at the ends to multiples of `multiple`."""
    dataset = load(source, seed=seed)
    shape = dataset.shape
    if len(shape) == 1:
        side = int(np.sqrt(shape[0]))
        shape = (side, side, 1)
    if len(shape) != 3 or int(np.prod(shape)) != int(np.prod(dataset.shape)):
        raise ValueError(f"`data` must be images, got shape {dataset.shape} in {dataset.name!r}.")
    height, width = (side - side % multiple for side in shape[:2])
    at_least(f"sides of the images of {dataset.name!r}", min(height, width), max(multiple, 7))
    splits = {
        split: {**arrays, "x": np.asarray(arrays["x"]).reshape(-1, *shape)[:, :height, :width]}
        for split, arrays in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=splits)


def levels(dataset: Dataset) -> int:
    """The number of levels; ValueError where the data are real."""
    if dataset.levels is None:
        raise ValueError(f"`data` must have levels, got the real data {dataset.name!r}.")
    return dataset.levels


def views(crop_size: int, *, mirror: bool) -> Transform:
    """Random square crops (0: whole images), half of them turned left to right where `mirror`."""
    at_least("crop_size", crop_size, 0)

    def view(key: Key, x: Any) -> Any:
        top_key, left_key, mirror_key = jax.random.split(key, 3)
        if crop_size:
            top = jax.random.randint(top_key, (), 0, x.shape[0] - crop_size + 1)
            left = jax.random.randint(left_key, (), 0, x.shape[1] - crop_size + 1)
            x = jax.lax.dynamic_slice(x, (top, left, 0), (crop_size, crop_size, x.shape[2]))
        return jnp.where(jax.random.bernoulli(mirror_key), x[:, ::-1], x) if mirror else x

    def apply(key: Key, batch: Batch) -> Batch:
        sides = batch["x"].shape[1:3]
        if crop_size > min(sides):
            raise ValueError(f"`crop_size` must be at most {min(sides)} for images of {sides} pixels, got {crop_size}.")
        return {**batch, "x": jax.vmap(view)(random.batch_keys(key, batch), batch["x"])}

    return apply


def baselines(task: str, dataset: Dataset, std: float) -> dict[str, Callable[[Observation], Any]]:
    """{name: restoration} of classical methods that are stronger than the trivial one, where there is one."""
    if task == "gaussian" and int(np.prod(dataset.shape)) <= LARGEST_FILTER:
        return {"wiener": wiener(dataset, std)}
    if task in ("salt_and_pepper", "masking"):
        return {"median": lambda seen: median(seen.image)}
    if task == "inpainting":
        mean = jnp.asarray(np.mean(_unit(dataset), axis=0))
        return {"mean_image": lambda seen: corruptions.paste(jnp.broadcast_to(mean[None], seen.image.shape), seen)}
    return {}


def wiener(dataset: Dataset, std: float) -> Callable[[Observation], Any]:
    """µ + C(C + σ²I)⁻¹(y − µ) with the training images' mean and covariance: the best linear denoiser."""
    rows = _unit(dataset).reshape(dataset.size("train"), -1)
    mean, covariance = rows.mean(0), np.cov(rows.T, bias=True)
    gain = np.linalg.solve(covariance + std**2 * np.eye(len(mean)), covariance).astype(np.float32)
    mean = mean.astype(np.float32)

    def restore(seen: Observation) -> Any:
        flat = jnp.reshape(seen.image, (len(seen.image), -1)) - mean[None]
        return jnp.reshape(mean[None] + flat @ gain, seen.image.shape)

    return restore


def median(x: Any) -> Any:
    """The median of each pixel's 3×3 neighbours, edges repeated."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = x.shape[1:3]
    near = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.median(jnp.stack(near), axis=0)


def quality(restored: Any, x: Any, seen: Observation, window: str) -> dict[str, Any]:
    """PSNR and squared error (of hidden pixels where some are hidden) and SSIM of each image, clipped to [0, 1]."""
    restored = jnp.clip(restored, 0.0, 1.0)
    psnr = image_quality.psnr(restored, x, where=None if seen.mask is None else 1 - seen.mask)
    ssim = image_quality.ssim(restored, x, window=window)
    return {"psnr": jnp.minimum(psnr, MOST), "ssim": ssim, "mse": 10 ** (-psnr / 10)}


def report(measured: dict[str, float], protocol: str, window: str, *, hidden: bool) -> dict[str, Measurement]:
    """The means of `quality`, {METHOD_psnr, METHOD_ssim, METHOD_mse}; the last as the PSNR of all images together.

    What the model itself reaches comes first.
    """
    pixels = f"{protocol}, of the hidden pixels" if hidden else protocol
    said = {
        "psnr": ("dB", f"{pixels}, mean over images, at most {MOST:g} dB each"),
        "ssim": ("-", f"{protocol}, {WINDOWS[window]}"),
        "mse": ("dB", f"{pixels}, of the mean squared error over all images"),
    }
    found = {}
    for name, value in sorted(measured.items(), key=lambda item: item[0] not in ("psnr", "ssim")):
        method, dash, kind = name.rpartition("_")
        if kind == "mse":
            name, value = f"{method}{dash}pooled_psnr", -10 * math.log10(value)
        found[name] = Measurement(value, said[kind][0], "none", "test", said[kind][1])
    return found


def shown(seen: Observation, scale: int) -> Any:
    """What is seen as an image of full size: hidden pixels in grey, fewer pixels as squares."""
    image = seen.image if seen.mask is None else seen.image + 0.5 * (1 - seen.mask)
    return jnp.repeat(jnp.repeat(image, scale, axis=1), scale, axis=2)


def _unit(dataset: Dataset) -> np.ndarray:
    """Training images in [0, 1]."""
    return np.asarray(dataset.splits["train"]["x"], np.float32) / (levels(dataset) - 1)
