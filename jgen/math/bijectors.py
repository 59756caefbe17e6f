"""Elementwise and shape bijections that several flows are built of, each with its log-determinant where it has one."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jgen._checks import within


def bounded(x: Float[Array, "*shape"], bound: float) -> Float[Array, "*shape"]:
    """c·tanh(x/c) for c = `bound`: the identity near 0, never beyond ±c."""
    return bound * jnp.tanh(x / bound)


def checkerboard(height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """True where row + column is even."""
    return (np.arange(height)[:, None] + np.arange(width)[None]) % 2 == 0


def squeeze(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height2 width2 channels4"]:
    """Trades space for channels: each 2×2 block becomes one pixel with its four pixels' channels, row by row.

    Raises:
        ValueError: height or width is odd.
    """
    batch, height, width, channels = x.shape
    if height % 2 or width % 2:
        raise ValueError(f"`x` must have even height and width to be squeezed, got {height}×{width}.")
    blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def unsqueeze(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height2 width2 channels4"]:
    """The inverse of `squeeze`.

    Raises:
        ValueError: the number of channels is not a multiple of 4.
    """
    batch, height, width, channels = x.shape
    if channels % 4:
        raise ValueError(f"`x` must have a multiple of 4 channels to be unsqueezed, got {channels}.")
    blocks = x.reshape(batch, height, width, 2, 2, channels // 4)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)


def logit(
    x: Float[Array, "batch *event"], margin: float
) -> tuple[Float[Array, "batch *event"], Float[Array, " batch"]]:
    """(y, log |det dy/dx|) of y = logit(m + (1 - 2m)·x) for x in [0, 1]: pixels to the real line.

    Args:
        margin: m in (0, 1/2), which keeps the logit finite at 0 and 1.

    Raises:
        ValueError: `margin` is not in (0, 1/2).
    """
    _check_margin(margin)
    p = margin + (1 - 2 * margin) * x
    y = jnp.log(p) - jnp.log1p(-p)
    return y, _logit_log_det(y, margin)


def inverse_logit(
    y: Float[Array, "batch *event"], margin: float
) -> tuple[Float[Array, "batch *event"], Float[Array, " batch"]]:
    """(x, log |det dx/dy|) of the inverse of `logit`; x lies in [0, 1] only where y lies in the logit's range."""
    _check_margin(margin)
    return (jax.nn.sigmoid(y) - margin) / (1 - 2 * margin), -_logit_log_det(y, margin)


def _logit_log_det(y: Array, margin: float) -> Array:
    # dy/dp = 1 / (p (1 - p)) with p = sigmoid(y): through softplus it is finite for every y.
    each = np.log1p(-2 * margin) + jax.nn.softplus(y) + jax.nn.softplus(-y)
    return jnp.sum(each, axis=tuple(range(1, y.ndim)))


def _check_margin(margin: float) -> None:
    within("margin", margin, 0.0, 0.5)
    if margin in (0.0, 0.5):
        raise ValueError(f"`margin` must lie strictly between 0 and 0.5, got {margin}.")
