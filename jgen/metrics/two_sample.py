"""Distances between two samples: the squared maximum mean discrepancy.

MMD²(p, q) = E k(x, x') - 2 E k(x, y) + E k(y, y'), with k(x, y) = Σ_h exp(-‖x - y‖²/2h²) over bandwidths h (Gretton
et al. 2012). The unbiased estimate leaves out the pairs of a point with itself and may be negative; it is never
clamped. Compare values at equal kernels and equal sizes only.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen._checks import within

CHUNK = 1_000
_LARGEST = float(np.finfo(np.float32).max)


def median_distance(x: Float[Array, "num dim"]) -> float:
    """The median distance between two different rows of x: the unit in which bandwidths are usually given."""
    x = jnp.asarray(x)
    squared = np.asarray(_squared_distances(x, x))
    return float(np.sqrt(np.median(squared[np.triu_indices(len(x), 1)])))


def mmd2(
    x: Float[Array, "num_x dim_x"], y: Float[Array, "num_y dim_y"], bandwidths: Sequence[float]
) -> Float[Array, ""]:
    """The unbiased estimate of MMD² (U-statistic), by the sum of Gaussian kernels over `bandwidths`.

    Args:
        x: one sample, at least two rows.
        y: the other, at least two rows.
        bandwidths: h of each kernel, positive; fix them once, such as ½, 1 and 2 times the real data's
            `median_distance`.

    Raises:
        ValueError: fewer than two rows, different widths, no or a bandwidth that is not positive, or a value that is
            not finite.
    """
    for name, rows in (("x", x), ("y", y)):
        if rows.shape[0] < 2:
            raise ValueError(f"`{name}` must have at least 2 rows, got {rows.shape[0]}.")
        within(name, rows, -_LARGEST, _LARGEST)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"`x` and `y` must have the same number of columns, got {x.shape[1]} and {y.shape[1]}.")
    if not bandwidths or not all(h > 0 for h in bandwidths):
        raise ValueError(f"`bandwidths` must be positive and at least one, got {tuple(bandwidths)}.")
    # Centred, so that |a|² + |b|² - 2ab loses nothing to a large common mean.
    centre = jnp.mean(x, axis=0, keepdims=True)
    x, y, num_x, num_y = x - centre, y - centre, x.shape[0], y.shape[0]
    peak = len(bandwidths)  # the kernel of a point with itself
    within_x = (_kernel_sum(x, x, bandwidths) - num_x * peak) / (num_x * (num_x - 1))
    within_y = (_kernel_sum(y, y, bandwidths) - num_y * peak) / (num_y * (num_y - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y, bandwidths) / (num_x * num_y)


def _kernel_sum(x: Array, y: Array, bandwidths: Sequence[float]) -> Array:
    """Σ_ij k(x_i, y_j), a block of rows at a time."""
    total = jnp.zeros(())
    for first in range(0, x.shape[0], CHUNK):
        squared = _squared_distances(x[first : first + CHUNK], y)
        total += sum(jnp.sum(jnp.exp(-squared / (2 * h**2))) for h in bandwidths)
    return total


def _squared_distances(x: Array, y: Array) -> Array:
    products = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum(jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None] - 2 * products, 0)
