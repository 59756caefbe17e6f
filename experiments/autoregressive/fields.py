"""What a trained network over pixels looks at: every input is changed, and the logits of one position are watched."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from jgen.autoregressive import raster

CHUNK = 64


def centre(network: raster.Network) -> tuple[int, int, int]:
    """The position that is watched: the last channel of the pixel in the middle."""
    height, width, channels = network.shape
    return height // 2, width // 2, channels - 1


def influence(network: raster.Network, params: Any, x: Any, label: Any) -> np.ndarray:
    """|Δ logits of the centre| as each input in turn moves by half of the levels, the mean over `x`, (h, w, c).

    0 means: no bit of the logits changed in any image. Compared is always the same place of a batch, where equal
    numbers are added in equal order.
    """
    size = int(np.prod(network.shape))
    logits = jax.jit(lambda x, label: network.logits(params, x, label, None)[(slice(None), *centre(network))])
    found = np.zeros(-(-size // CHUNK) * CHUNK)
    for i, image in enumerate(np.asarray(x)):
        label_i = None if label is None else jnp.repeat(label[i : i + 1], CHUNK)
        same = np.repeat(image.reshape(1, -1), CHUNK, axis=0)
        before = np.asarray(logits(jnp.asarray(same.reshape(-1, *network.shape)), label_i))
        for first in range(0, size, CHUNK):
            moved, inputs = same.copy(), np.arange(first, min(first + CHUNK, size))
            places = inputs - first, inputs
            moved[places] = (moved[places] + network.levels // 2) % network.levels
            after = np.asarray(logits(jnp.asarray(moved.reshape(-1, *network.shape)), label_i))
            found[first : first + CHUNK] += np.abs(after - before).sum(axis=-1) / len(x)
    return found[:size].reshape(network.shape)


def earlier(network: raster.Network) -> np.ndarray:
    """Which inputs come before the centre, (h, w, c)."""
    size = int(np.prod(network.shape))
    return (np.arange(size) < np.ravel_multi_index(centre(network), network.shape)).reshape(network.shape)


def draw(path: pathlib.Path, network: raster.Network, params: Any, x: Any, label: Any) -> None:
    """The influence of every pixel on the centre, on a logarithmic scale of six decades; red where there is none."""
    import matplotlib

    strength = influence(network, params, x, label)
    before = earlier(network)
    seen, allowed = strength.sum(axis=-1), before.any(axis=-1)
    scale = 1 + np.log10(np.maximum(seen / max(seen.max(), 1e-30), 1e-6)) / 6
    image = np.asarray(matplotlib.colormaps["viridis"](scale), np.float32)[..., :3]
    image[(seen == 0) & allowed] = (0.85, 0.1, 0.1)
    image[(seen == 0) & ~allowed] = (0.88, 0.88, 0.88)
    image[centre(network)[:2]] = (0.0, 0.0, 0.0)
    title = f"the black pixel sees {int(np.sum((strength > 0) & before))} of {int(before.sum())} inputs (red: none)"
    pictures.grid(path, image[None], columns=1, title=title)
