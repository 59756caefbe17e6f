"""The two densities of the plane on which samplers are shown: their moments are known."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Plane(NamedTuple):
    """A density of two coordinates.

    Attributes:
        log_density: ((2,)) -> log π up to a constant.
        statistics: ((2,)) -> (statistics,), what is averaged.
        exact: {name: mean}, in their order.
        starts: (num) -> (num, 2) far apart.
        box: (left, right, bottom, top) of the pictures.
        source: where the exact means come from.
    """

    log_density: Callable[[Any], Any]
    statistics: Callable[[Any], Any]
    exact: Mapping[str, float]
    starts: Callable[[int], np.ndarray]
    box: tuple[float, float, float, float]
    source: str

    def references(self) -> dict[str, dict[str, Any]]:
        """The exact means as references of a system."""
        protocol = "exact moment of the target"
        return {
            name: {"value": value, "source": self.source, "protocol": protocol} for name, value in self.exact.items()
        }


def _along_the_banana(noise: np.ndarray) -> np.ndarray:
    """x one and a half times as wide as it should be. Far from the ridge the force is such that no step fits both."""
    x = 3 * noise[:, 0]
    return np.stack([x, (x**2 - 4) / 2 + noise[:, 1]], axis=1).astype(np.float32)


BANANA = Plane(
    lambda z: -jnp.square(z[0]) / 8 - 0.5 * jnp.square(z[1] - (jnp.square(z[0]) - 4) / 2),
    lambda z: jnp.concatenate([z, z**2]),
    {"mean_x": 0.0, "mean_y": 0.0, "mean_x2": 4.0, "mean_y2": 9.0},
    lambda num: _along_the_banana(np.random.default_rng(0).normal(size=(num, 2))),
    (-7.0, 7.0, -6.0, 18.0),
    "by construction",
)
"""x ~ N(0, 4),  y | x ~ N((x² − 4)/2, 1)."""

DOUBLE_WELL = Plane(
    lambda z: -4 * jnp.square(jnp.square(z[0]) - 1) - 0.5 * jnp.square(z[1]),
    lambda z: jnp.stack([z[0], z[0] ** 2, z[0] ** 4, z[1], z[1] ** 2]),
    {"mean_x": 0.0, "mean_x2": 0.917670861, "mean_x4": 0.980170861, "mean_y": 0.0, "mean_y2": 1.0},
    lambda num: np.random.default_rng(0).uniform(-1.5, 1.5, (num, 2)).astype(np.float32),
    (-2.0, 2.0, -3.0, 3.0),
    "quadrature in float64",
)
"""log π(x, y) = −4(x² − 1)² − y²/2."""

PLANES = {"banana": BANANA, "double_well": DOUBLE_WELL}
