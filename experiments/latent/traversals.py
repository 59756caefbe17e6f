"""What one latent dimension does, the others at rest, and what it knows of known factors."""

import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments import pictures
from experiments.latent import pixels
from jgen.latent import representation
from jgen.latent.networks import Networks

NUM_VALUES = 11
MAX_UNITS = 12


def draw_traversals(
    path: pathlib.Path, state: Any, x: Any, rates: np.ndarray, levels: int, *, networks: Networks
) -> None:
    """A row per unit, the dearest first: E[x|z] with that unit at quantiles of N(0, 1), around the code of one image.

    Args:
        path: of the picture.
        state: of the model.
        x: one example.
        rates: mean rate of each unit, nats.
        levels: of the likelihood's means.
        networks: of the model.
    """
    z = representation.code(state.params, state.stats, x[None], networks=networks)[0]
    values = scipy.stats.norm.ppf(np.linspace(0.02, 0.98, NUM_VALUES)).astype(np.float32)
    named = {}
    for unit in np.argsort(-rates)[:MAX_UNITS]:
        shown = representation.traverse(state.params, state.stats, z, int(unit), values, networks=networks)
        named[f"unit {unit}, {rates[unit]:.2f} nats"] = pixels.images(shown) / (levels - 1)
    pictures.rows(path, named, "each unit at the 2 % to 98 % quantiles of N(0, 1)")


def draw_information(path: pathlib.Path, shares: Any, names: Any, rates: np.ndarray) -> None:
    """I(z_j; v)/H(v) of every factor (rows) and unit (columns, the dearest first)."""
    order = np.argsort(-rates)
    columns = [str(unit) for unit in order]
    pictures.alignments(path, {"I(unit; factor)/H(factor)": (np.asarray(shares)[:, order], list(names), columns)})


def draw_reconstructions(
    path: pathlib.Path, state: Any, x: Any, levels: int, *, networks: Networks, label: Any = None
) -> None:
    """Examples, and E[x|z] at their codes."""
    again = representation.reconstruct(state.params, state.stats, x, networks=networks, label=label)
    unit = 1 / (levels - 1)
    pictures.panels(path, {"test": pixels.images(jnp.asarray(x)) * unit, "again": pixels.images(again) * unit})
