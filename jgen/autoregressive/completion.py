"""Completion: what is known stays, the rest is drawn given it; exact where no known variable follows a missing one.

A sampler that goes through the variables in an order draws x_d given everything before it. Known values *after* a
missing one would have to act backwards, which takes p(missing | known) for any subset: order-agnostic models (A8, A9)
have it.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np


def prefix(
    known: Any, mask: Any, num: int, shape: tuple[int, ...], *, order: Any = None, dtype: Any = jnp.float32
) -> tuple[Any, np.ndarray]:
    """(known (num, *shape), mask (*shape) of NumPy booleans), zeros and False where both are None.

    Args:
        known: (num, *shape) or (*shape), the same for all rows.
        mask: concrete booleans, True where a variable is known, that broadcast to `shape`; needed with `known`.
        order: (D,) or (C, D) positions in the order in which they are drawn, by default the row-major one.
        dtype: of the samples.

    Raises:
        ValueError: one of the two is missing, a shape is wrong, or a known variable comes after a missing one.
    """
    if (known is None) != (mask is None):
        raise ValueError("`known` and `mask` must be given together, got only one of them.")
    if known is None:
        return jnp.zeros((num, *shape), dtype), np.zeros(shape, bool)
    if np.shape(known) not in ((num, *shape), shape):
        raise ValueError(f"`known` must have shape {(num, *shape)} or {shape}, got {np.shape(known)}.")
    if np.shape(mask) != shape[len(shape) - np.ndim(mask) :]:
        raise ValueError(f"`mask` must have shape {shape}, got {np.shape(mask)}.")
    given = np.broadcast_to(np.asarray(mask, bool), shape)
    ordered = given.ravel()[np.arange(given.size) if order is None else np.asarray(order)]
    if np.any(ordered[..., 1:] & ~ordered[..., :-1]):
        raise ValueError(
            "`mask` must mark a prefix of the order in which variables are drawn, got a known one after a missing one: "
            "reorder them, or use an order-agnostic model (A8, A9), which takes any subset."
        )
    return jnp.broadcast_to(jnp.asarray(known, dtype), (num, *shape)), given
