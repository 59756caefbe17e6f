"""Sprites: a grey shape on black, rendered from five factors that are known: synthetic, to measure disentanglement on.

    x = render(shape, scale, rotation, x, y),  every combination of them once

Like dSprites (Matthey et al., 2017), but small enough to be learned in a minute, and with factors that can be told
apart: every shape turns into itself after half a turn at the earliest, and rotations stay below that.
"""

import functools
import itertools

import numpy as np

from jgen.data.pipeline import SPLITS, Dataset

FACTORS = {"shape": 3, "scale": 3, "rotation": 6, "x": 8, "y": 8}
"""How many values each factor has, in the order of the columns of `factors`."""
SHAPES = ("rectangle", "ellipse", "triangle")
_CELLS = 4
_RADII = (3 / 16, 4 / 16, 5 / 16)
_CENTRES = np.linspace(5 / 16, 11 / 16, FACTORS["x"])
_SHARES = (0.8, 0.9)


@functools.cache
def sprites(size: int = 16) -> Dataset:
    """All 3,456 sprites: x uint8 (n, size, size, 1) in 0..16, label = shape, factors int32 (n, 5) as in `FACTORS`.

    A value counts how many points of a 4×4 block lie in the shape. Rotations are of 30°, the radius is 3, 4 or 5
    sixteenths of the frame, centres lie on an 8×8 grid, y downwards. Split 80 / 10 / 10 % by a fixed permutation, so
    combinations in test are foreign to train, and values are not.

    Raises:
        ValueError: `size` is not in 8..128.
    """
    if not 8 <= size <= 128:
        raise ValueError(f"`size` of sprites must be in 8..128, got {size}.")
    sizes = tuple(FACTORS.values())
    factors = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1).astype(np.int32)
    x = np.concatenate([_moved(size, *values) for values in itertools.product(*map(range, sizes[:3]))])
    arrays = {"x": x, "label": factors[:, 0], "factors": factors}
    order = np.random.default_rng(0).permutation(len(x))
    cuts = np.split(order, [round(share * len(x)) for share in _SHARES])
    splits = {
        split: {name: array[rows] for name, array in arrays.items()} for split, rows in zip(SPLITS, cuts, strict=True)
    }
    return Dataset(f"sprites:{size}", splits, levels=_CELLS**2 + 1, synthetic=True, label_names=SHAPES)


def inside(shape: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether points lie in a shape of radius 1, whose axis is u."""
    if shape == 0:
        return (np.abs(u) <= 0.9) & (np.abs(v) <= 0.45)
    if shape == 1:
        return u**2 + (2 * v) ** 2 <= 1
    return (u >= -0.8) & (np.abs(v) <= 0.6 * (1 - u) / 1.8)


def _moved(size: int, shape: int, scale: int, rotation: int) -> np.ndarray:
    """(64, size, size, 1): one shape at every centre, x slower than y."""
    points = (np.arange(size * _CELLS) + 0.5) / (size * _CELLS)
    across = (points[None] - _CENTRES[:, None]) / _RADII[scale]
    dx, dy = across[:, None, None, :], across[None, :, :, None]
    angle = np.pi * rotation / FACTORS["rotation"]
    u, v = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    blocks = inside(shape, u, v).reshape(-1, size, _CELLS, size, _CELLS)
    return blocks.sum(axis=(2, 4)).astype(np.uint8)[..., None]
