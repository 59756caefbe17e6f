"""Checks at public boundaries: what came, what is allowed, and the argument's name."""

from typing import Any

import numpy as np
from jax.core import Tracer


def at_least(name: str, value: float, low: float) -> None:
    """Raises ValueError unless `value` >= `low`."""
    if not value >= low:
        raise ValueError(f"`{name}` must be at least {low}, got {value}.")


def positive(name: str, value: Any) -> None:
    """Raises ValueError unless all of `value` are above 0; traced values pass."""
    if not isinstance(value, Tracer) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"`{name}` must be positive, got {value}.")


def one_of(name: str, value: Any, allowed: Any) -> None:
    """Raises ValueError unless `value` is among `allowed`."""
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, got {value!r}.")


def rank(name: str, value: Any, ndim: int, axes: str) -> None:
    """Raises ValueError unless `value` has `ndim` axes; `axes` says which."""
    if np.ndim(value) != ndim:
        raise ValueError(f"`{name}` must have {ndim} axes {axes}, got shape {np.shape(value)}.")


def within(name: str, value: Any, low: float, high: float) -> None:
    """Raises ValueError unless all of `value` lies in [low, high]; traced values, which have none yet, pass."""
    if isinstance(value, Tracer):
        return
    array = np.asarray(value)
    if array.size and not (array.min() >= low and array.max() <= high):
        raise ValueError(f"`{name}` must lie in [{low}, {high}], got values in [{array.min()}, {array.max()}].")


def integers(name: str, value: Any, levels: int) -> None:
    """Raises ValueError unless all of `value` are whole numbers in 0..levels-1; traced values pass."""
    if isinstance(value, Tracer):
        return
    within(name, value, 0, levels - 1)
    array = np.asarray(value)
    if not np.all(array == np.round(array)):
        raise ValueError(
            f"`{name}` must be whole numbers in 0..{levels - 1}, got fractions such as {_fraction(array)}."
        )


def _fraction(array: Any) -> float:
    return float(array[array != np.round(array)].ravel()[0])


def columns(name: str, value: Any, levels: Any) -> None:
    """Raises ValueError unless `value` is (batch, variables) and column i whole numbers in 0..levels[i]-1."""
    rank(name, value, 2, "(batch, variables)")
    if np.shape(value)[1] != len(levels):
        raise ValueError(f"`{name}` must have {len(levels)} columns, one for each variable, got {np.shape(value)}.")
    if isinstance(value, Tracer):
        return
    for i, size in enumerate(levels):
        integers(f"{name}[:, {i}]", np.asarray(value)[:, i], size)
