"""Two-dimensional densities drawn from formulas: synthetic, for pictures and for exact tests.

Each function here is (generator, num) -> (x (num, 2), label (num,)); `SETS` lists them. They are about two units wide
to each side and have the shapes that the flow literature draws (FFJORD, Grathwohl et al. 2019).
"""

import zlib
from collections.abc import Callable

import numpy as np

from jgen.data.pipeline import Dataset

SIZES = {"train": 10_000, "valid": 2_000, "test": 2_000}
Generator = np.random.Generator


def dataset(name: str, seed: int = 0) -> Dataset:
    """x float32 (n, 2) and label int32 (n,) of `SETS[name]`, drawn from (seed, name, split); synthetic.

    Raises:
        ValueError: there is no such set.
    """
    if name not in SETS:
        raise ValueError(f"`source` must be one of {', '.join(f'toy:{known}' for known in SETS)}, got 'toy:{name}'.")
    splits = {}
    for split, num in SIZES.items():
        generator = np.random.default_rng((seed, zlib.crc32(name.encode()), zlib.crc32(split.encode())))
        x, label = SETS[name](generator, num)
        splits[split] = {"x": x.astype(np.float32), "label": label.astype(np.int32)}
    return Dataset(f"toy:{name}", splits, synthetic=True)


def two_moons(generator: Generator, num: int, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved half circles of radius 1, with Gaussian noise; label = which."""
    label, angle = generator.integers(2, size=num), generator.uniform(0, np.pi, num)
    sign = 1 - 2 * label
    x = np.stack([sign * np.cos(angle) + label - 0.5, sign * np.sin(angle) + 0.5 * label - 0.25], axis=1)
    return x + noise * generator.standard_normal((num, 2)), label


def eight_gaussians(
    generator: Generator, num: int, radius: float = 2.0, std: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Eight equal Gaussians on a ring, (radius cos 2πk/8, radius sin 2πk/8); label = k."""
    label = generator.integers(8, size=num)
    angle = 2 * np.pi * label / 8
    means = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return means + std * generator.standard_normal((num, 2)), label


def grid_gaussians(generator: Generator, num: int, std: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Twenty-five equal Gaussians on {-2, -1, 0, 1, 2}²; label = which."""
    label = generator.integers(25, size=num)
    return np.stack([label // 5 - 2, label % 5 - 2], axis=1) + std * generator.standard_normal((num, 2)), label


def circles(generator: Generator, num: int, noise: float = 0.08) -> tuple[np.ndarray, np.ndarray]:
    """Four concentric circles of radius 0.5, 1, 1.5, 2, with Gaussian noise; label = which."""
    label, angle = generator.integers(4, size=num), generator.uniform(0, 2 * np.pi, num)
    x = 0.5 * (label + 1)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return x + noise * generator.standard_normal((num, 2)), label


def swiss_roll(generator: Generator, num: int, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """One spiral, radius = angle / 7 for angles in [1.5π, 4.5π]; label = its quarter, from the middle outwards."""
    position = generator.uniform(0, 1, num)
    angle = 1.5 * np.pi * (1 + 2 * position)
    x = angle[:, None] / 7 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return x + noise * generator.standard_normal((num, 2)), np.minimum(4 * position, 3).astype(int)


def spirals(generator: Generator, num: int, noise: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Two opposite spiral arms of one and a half turns and radius 2; label = which."""
    label, turn = generator.integers(2, size=num), np.sqrt(generator.uniform(0, 1, num))
    angle = 3 * np.pi * turn + np.pi * label
    x = 2 * turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return x + noise * generator.standard_normal((num, 2)), label


def pinwheel(generator: Generator, num: int, arms: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Five bent arms: Gaussians along rays, turned by an angle that grows with the radius; label = which."""
    label = generator.integers(arms, size=num)
    flat = generator.standard_normal((num, 2)) * np.array([0.3, 0.05]) + np.array([1.0, 0.0])
    angle = 2 * np.pi * label / arms + 0.25 * np.exp(flat[:, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    x = 2 * np.stack([cos * flat[:, 0] - sin * flat[:, 1], sin * flat[:, 0] + cos * flat[:, 1]], axis=1)
    return x / 1.5, label


def checkerboard(generator: Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Uniform on the eight dark squares of a 4 × 4 board over [-2, 2]², density 1/8 on them; label = square."""
    label = generator.integers(8, size=num)
    row, column = label // 2, 2 * (label % 2) + (label // 2) % 2
    return np.stack([column, row], axis=1) - 2 + generator.uniform(0, 1, (num, 2)), label


SETS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    f.__name__: f
    for f in (two_moons, eight_gaussians, grid_gaussians, circles, swiss_roll, spirals, pinwheel, checkerboard)
}
