"""Undirected graphs between the units of a Boltzmann machine: who is visible, who is joined, who may move together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jgen import _checks


class Graph(NamedTuple):
    """Units 0..num_visible-1 are visible, the rest hidden.

    Attributes:
        num_visible: V.
        num_units: N, visible and hidden.
        edges: (edges, 2), the joined pairs (i, j), i < j, each once.
    """

    num_visible: int
    num_units: int
    edges: np.ndarray


def graph(adjacency: Any, num_visible: int) -> Graph:
    """The graph with an edge wherever the symmetric `adjacency` is not zero.

    Raises:
        ValueError: `adjacency` is no square, is not symmetric or joins a unit to itself; or `num_visible` is not in
            1..units.
    """
    joined = np.asarray(adjacency) != 0
    if joined.ndim != 2 or joined.shape[0] != joined.shape[1]:
        raise ValueError(f"`adjacency` must be a square matrix, got shape {joined.shape}.")
    if np.any(joined != joined.T):
        raise ValueError(f"`adjacency` must be symmetric, got a difference at {np.argwhere(joined != joined.T)[0]}.")
    if np.any(np.diagonal(joined)):
        raise ValueError(f"`adjacency` must join no unit to itself, got {np.flatnonzero(np.diagonal(joined))}.")
    if not 1 <= num_visible <= len(joined):
        raise ValueError(f"`num_visible` must lie in 1..{len(joined)}, got {num_visible}.")
    return Graph(num_visible, len(joined), np.argwhere(np.triu(joined)))


def complete(num_visible: int, num_hidden: int = 0) -> Graph:
    """Every unit joined to every other."""
    _checks.at_least("num_visible", num_visible, 1)
    _checks.at_least("num_hidden", num_hidden, 0)
    return graph(1 - np.eye(num_visible + num_hidden), num_visible)


def layered(sizes: Sequence[int]) -> Graph:
    """Layers joined to their neighbours, the first one visible: two are an RBM, more a deep Boltzmann machine."""
    for size in sizes:
        _checks.at_least("sizes", size, 1)
    layer = np.repeat(np.arange(len(sizes)), sizes)
    return graph(np.abs(layer[:, None] - layer[None]) == 1, sizes[0])


def torus(height: int, width: int) -> Graph:
    """A height × width lattice without borders, all of it visible, row by row; sides of at least 3."""
    for name, side in {"height": height, "width": width}.items():
        _checks.at_least(name, side, 3)
    site = np.arange(height * width).reshape(height, width)
    adjacency = np.zeros((height * width, height * width))
    for axis in (0, 1):
        adjacency[site.ravel(), np.roll(site, 1, axis).ravel()] = 1
    return graph(adjacency + adjacency.T, height * width)


def neighbours(graph: Graph) -> np.ndarray:
    """The adjacency matrix, (units, units) of bool."""
    joined = np.zeros((graph.num_units, graph.num_units), bool)
    joined[graph.edges[:, 0], graph.edges[:, 1]] = True
    return joined | joined.T


def colours(graph: Graph, units: Any = None) -> list[np.ndarray]:
    """`units` (by default all) in groups without an edge inside: each takes the first group that has no neighbour.

    Two groups for layers and even lattices, one unit in each for a complete graph.
    """
    joined = neighbours(graph)
    groups: list[list[int]] = []
    for unit in range(graph.num_units) if units is None else units:
        free = (group for group in groups if not joined[unit, group].any())
        group = next(free, None)
        if group is None:
            groups.append([unit])
        else:
            group.append(unit)
    return [np.asarray(group) for group in groups]


def split(graph: Graph, units: Any) -> tuple[np.ndarray, np.ndarray]:
    """(units without an edge between them, the rest): the sum over the first is a product, whatever the rest is."""
    units = np.asarray(units, int)
    groups = colours(graph, units)
    free = max(groups, key=len) if groups else units
    return free, np.setdiff1d(units, free)
