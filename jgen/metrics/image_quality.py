"""How near an image is to another: peak signal-to-noise ratio and structural similarity.

    PSNR(x, y) = 10 log10(R² / mean (x − y)²)  in dB,  R the range of the data
    SSIM(x, y) = mean over windows of (2µ_x µ_y + C₁)(2σ_xy + C₂) / ((µ_x² + µ_y² + C₁)(σ_x² + σ_y² + C₂))

with C₁ = (0.01 R)², C₂ = (0.03 R)² and the moments of a window weighted, divided by n and not by n − 1. Only windows
that lie inside of the image count, each channel by itself. Averages over images are means of these values per image.

Paper: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity",
2004 (equation 13, with its 11×11 Gaussian window of σ = 1.5). Differs from the paper: nothing; the "uniform" window,
7×7 of equal weights, is for images of less than 11 pixels, and its values are no more than comparable to each other.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen._checks import one_of, positive

Images = Float[Array, "batch _ _ _"]
SIZES = {"gaussian": 11, "uniform": 7}
"""Pixels along the side of a window."""


def psnr(x: Images, y: Images, *, data_range: float = 1.0, where: Images | None = None) -> Float[Array, " batch"]:
    """10 log10(R²/MSE) of each image in decibels; infinite where the two are equal.

    Args:
        x: images.
        y: others.
        data_range: R.
        where: 1 for the pixels that count, 0 for the others, such as those that in-painting was shown.

    Raises:
        ValueError: different shapes, or a range that is not positive.
    """
    _check(x, y, data_range)
    weight = jnp.ones_like(x) if where is None else jnp.broadcast_to(where, x.shape)
    error = jnp.sum(weight * jnp.square(x - y), axis=(1, 2, 3)) / jnp.sum(weight, axis=(1, 2, 3))
    return 10 * jnp.log10(data_range**2 / error)


def ssim(x: Images, y: Images, *, data_range: float = 1.0, window: str = "gaussian") -> Float[Array, " batch"]:
    """The mean structural similarity of each image, 1 where the two are equal.

    Equal to scikit-image's `structural_similarity` with use_sample_covariance=False, and with gaussian_weights=True,
    sigma=1.5 for the Gaussian window.

    Args:
        x: images.
        y: others.
        data_range: R.
        window: "gaussian", 11×11 of σ = 1.5, or "uniform", 7×7.

    Raises:
        ValueError: different shapes, a range that is not positive, another window, or images smaller than the window.
    """
    _check(x, y, data_range)
    one_of("window", window, SIZES)
    if min(x.shape[1:3]) < SIZES[window]:
        raise ValueError(f"`x` must have at least {SIZES[window]} pixels a side for this `window`, got {x.shape}.")
    weights = _weights(window)
    # About a common grey: the moments of a bright, flat window would cancel in float32.
    grey = jnp.mean(x, axis=(1, 2), keepdims=True)
    x, y = x - grey, y - grey
    mean_x, mean_y = _blur(x, weights), _blur(y, weights)
    spread = _blur(x * x, weights) - mean_x**2 + _blur(y * y, weights) - mean_y**2
    together = _blur(x * y, weights) - mean_x * mean_y
    mean_x, mean_y = mean_x + grey, mean_y + grey
    luminance, contrast = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    ratio = (2 * mean_x * mean_y + luminance) / (mean_x**2 + mean_y**2 + luminance)
    return jnp.mean(ratio * (2 * together + contrast) / (spread + contrast), axis=(1, 2, 3))


def window_for(shape: tuple[int, ...]) -> str:
    """The window for images (height, width, channels): "gaussian" where it fits, else "uniform"."""
    return "gaussian" if min(shape[:2]) >= SIZES["gaussian"] else "uniform"


def _weights(window: str) -> np.ndarray:
    size = SIZES[window]
    offsets = np.arange(size) - size // 2
    weights = np.exp(-0.5 * (offsets / 1.5) ** 2) if window == "gaussian" else np.ones(size)
    return weights / weights.sum()


def _blur(x: Any, weights: np.ndarray) -> Any:
    """Weighted means over all windows inside of the image, along the rows and then along the columns."""
    for axis in (1, 2):
        num = x.shape[axis] - len(weights) + 1
        index: list[Any] = [slice(None)] * 4
        total = jnp.zeros(())
        for i, weight in enumerate(weights):
            index[axis] = slice(i, i + num)
            total = total + float(weight) * x[tuple(index)]
        x = total
    return x


def _check(x: Any, y: Any, data_range: float) -> None:
    if x.shape != y.shape:
        raise ValueError(f"`x` and `y` must have the same shape, got {x.shape} and {y.shape}.")
    positive("data_range", data_range)
