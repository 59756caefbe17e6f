"""Histograms: piecewise constant densities learned by counting, sampled by the inverse of their CDF.

    p(x) = n_b / (n Δ_b) for x in bin b of width Δ_b,        x = F⁻¹(u), u ~ U(0, 1)

In several dimensions either a product, p(x) = Π_d p_d(x_d), or a joint grid of bins^D cells, whose inverse CDFs are
those of the conditionals p(x_d | cells of x_1 … x_{d−1}). Pearson, "Contributions to the mathematical theory of
evolution II", 1895; the conditional CDFs are Rosenblatt's, 1952. Differs from them: counts may be smoothed,
(n_b + α) / (n + α B), and bins may have any widths.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics
from jgen.learners import CountingState, counting
from jgen.math import discrete
from jgen.model import Model

LARGEST_GRID = 2**26


class Histogram(NamedTuple):
    """The parameters; a product has one factor per dimension, a joint grid has one in all.

    Attributes:
        edges: (dims, bins + 1), increasing; bins are [e_b, e_{b+1}), the last one closed.
        mass: (factors, cells), the probability of each cell; cells = bins for a product, bins^dims for a joint grid,
            the first dimension the most significant digit.
    """

    edges: Any
    mass: Any


def equal_widths(low: float, high: float, num_bins: int) -> np.ndarray:
    """Edges of `num_bins` bins of equal widths on [low, high].

    Raises:
        ValueError: there is no bin, or `low` is not below `high`.
    """
    _checks.at_least("num_bins", num_bins, 1)
    if not low < high:
        raise ValueError(f"`low` must be below `high`, got {low} and {high}.")
    return np.linspace(low, high, num_bins + 1)


def equal_masses(x: ArrayLike, num_bins: int) -> np.ndarray:
    """Edges between which one-dimensional data lie in equal numbers: their quantiles, outermost the extremes.

    Raises:
        ValueError: there is no bin, or repeated values would make a bin of width zero.
    """
    _checks.at_least("num_bins", num_bins, 1)
    edges = np.quantile(np.asarray(x, np.float64), np.linspace(0, 1, num_bins + 1))
    if not np.all(np.diff(edges.astype(np.float32)) > 0):
        raise ValueError(f"`num_bins` must leave every bin a width, got {num_bins} for data with repeated values.")
    return edges


def cells(edges: Float[Array, "dims edges"], x: Float[Array, "batch dims"]) -> Int[Array, "batch dims"]:
    """The number of the bin that holds each coordinate; the nearest one for those outside."""
    found = jax.vmap(lambda edge, x: jnp.searchsorted(edge, x, side="right"), (0, 1), 1)(edges, x)
    return jnp.clip(found - 1, 0, edges.shape[1] - 2)


def inside(edges: Float[Array, "dims edges"], x: Float[Array, "batch dims"]) -> Bool[Array, " batch"]:
    """Whether all coordinates lie within the outermost edges."""
    return jnp.all((x >= edges[None, :, 0]) & (x <= edges[None, :, -1]), axis=1)


def count(
    edges: Float[Array, "dims edges"], x: Float[Array, "batch dims"], *, joint: bool = False
) -> Float[Array, "factors cells"]:
    """How many examples lie in each cell; those outside the edges in none."""
    dims, bins = edges.shape[0], edges.shape[1] - 1
    own = _numbered(edges, cells(edges, x), joint)
    weight = jnp.broadcast_to(inside(edges, x)[:, None], own.shape).astype(jnp.float32)
    counts = jnp.zeros((1, bins**dims) if joint else (dims, bins))
    return counts.at[jnp.arange(len(counts))[None], own].add(weight)


def _numbered(edges: Any, bins: Any, joint: bool) -> Any:
    """(batch, factors), the number of each factor's cell."""
    return discrete.row(bins, (edges.shape[1] - 1,) * len(edges))[:, None] if joint else bins


def log_prob(params: Histogram, x: Float[Array, "batch dims"]) -> Float[Array, " batch"]:
    """log p(x) in nats: the log-mass of its cells less their log-volume; −inf in empty cells and outside the edges."""
    edges, mass = params
    bins = cells(edges, x)
    own = _numbered(edges, bins, len(mass) < len(edges))
    log_mass = jnp.sum(jnp.log(mass)[jnp.arange(len(mass))[None], own], axis=1)
    log_volume = jnp.sum(jnp.log(jnp.diff(edges, axis=1))[jnp.arange(len(edges))[None], bins], axis=1)
    return jnp.where(inside(edges, x), log_mass - log_volume, -jnp.inf)


def cdf(params: Histogram, x: Float[Array, "batch dims"]) -> Float[Array, "batch dims"]:
    """u_d = F(x_d | cells of the earlier coordinates of its factor): uniform on the cube where x follows p."""
    clipped = jnp.clip(x, params.edges[None, :, 0], params.edges[None, :, -1])
    bins = cells(params.edges, clipped)

    def walk(mass: Any, edges: Any, x: Any, own: Any) -> Any:
        u = []
        for d in range(len(edges)):
            cumulative = _cumulative(mass)
            share = (x[d] - edges[d, own[d]]) / (edges[d, own[d] + 1] - edges[d, own[d]])
            below, above = cumulative[own[d]], cumulative[own[d] + 1]
            u.append((below + share * (above - below)) / jnp.where(cumulative[-1] > 0, cumulative[-1], 1.0))
            mass = mass[own[d]]
        return jnp.stack(u)

    return _by_factor(walk, params, clipped, bins)


def quantile(params: Histogram, u: Float[Array, "batch dims"]) -> Float[Array, "batch dims"]:
    """The inverse of `cdf`: u in [0, 1]^dims to points; bins without mass are never reached."""

    def walk(mass: Any, edges: Any, u: Any) -> Any:
        x = []
        for d in range(len(edges)):
            cumulative = _cumulative(mass)
            # Below the total even where u or a product with it rounds to 1: the bin found has mass.
            target = jnp.minimum(u[d] * cumulative[-1], jnp.nextafter(cumulative[-1], 0.0))
            b = jnp.minimum(jnp.searchsorted(cumulative[1:], target, side="right"), len(mass) - 1)
            share = (target - cumulative[b]) / (cumulative[b + 1] - cumulative[b])
            low, high = edges[d, b], edges[d, b + 1]
            x.append(jnp.minimum(low + share * (high - low), jnp.nextafter(high, low)))
            mass = mass[b]
        return jnp.stack(x)

    return _by_factor(walk, params, u)


def _cumulative(mass: Any) -> Any:
    """0 and the cumulated mass of the first axis, the others summed."""
    return jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.sum(mass, axis=tuple(range(1, mass.ndim))))])


def _by_factor(walk: Any, params: Histogram, *rows: Any) -> Any:
    """`walk` over (mass, edges) of each factor and its coordinates of each row (batch, dims)."""
    (factors, _), (dims, num_edges) = params.mass.shape, params.edges.shape
    size = dims // factors
    mass = params.mass.reshape(factors, *(num_edges - 1,) * size)
    split = [x.reshape(len(x), factors, size) for x in rows]
    each = jax.vmap(jax.vmap(walk), (None, None, *(0,) * len(rows)))
    return each(mass, params.edges.reshape(factors, size, num_edges), *split).reshape(rows[0].shape)


def sample(key: Key, params: Histogram, num: int) -> Float[Array, "num dims"]:
    """F⁻¹(u) of uniform u, example i with its own key."""
    dims = len(params.edges)
    return quantile(params, jax.vmap(lambda key: jax.random.uniform(key, (dims,)))(random.example_keys(key, num)))


def model(
    edges: Any, *, joint: bool = False, smoothing: float = 0.0, axis_name: str | None = None
) -> Model[CountingState]:
    """A histogram over batches {"x": (batch, dims)}; an update adds the batch's counts.

    Args:
        edges: numbers, (bins + 1,) for one dimension, (dims, bins + 1) for several.
        joint: one grid of bins^dims cells in place of a product of one-dimensional histograms.
        smoothing: α, what every cell's count starts with.
        axis_name: the mapped axis over which the counts are added.

    Raises:
        ValueError: `edges` do not increase, `smoothing` is negative, the grid has more than 2^26 cells, or data that
            are not traced lie outside the edges (traced ones have density 0 there, and are not counted).
    """
    bounds = np.atleast_2d(np.asarray(edges, np.float32))
    if bounds.ndim != 2 or bounds.shape[1] < 2 or not np.all(np.diff(bounds, axis=1) > 0):
        raise ValueError(f"`edges` must be (dims, bins + 1) and increase, got {np.asarray(edges)}.")
    _checks.at_least("smoothing", smoothing, 0.0)
    dims, bins = bounds.shape[0], bounds.shape[1] - 1
    if joint and dims * math.log2(bins) > math.log2(LARGEST_GRID):
        raise ValueError(f"`joint` grids must have at most 2^26 cells, got {bins}^{dims}.")
    fixed = jnp.asarray(bounds)
    shape = (1, bins**dims) if joint else (dims, bins)

    def empty(batch: Batch) -> Any:
        _examples(batch, bounds)  # raises where it does not fit the edges
        return jnp.zeros(shape)

    def evaluate(key: Key, state: CountingState, batch: Batch) -> Metrics:
        del key
        return {"nll": -log_prob(state.params, _examples(batch, bounds))}

    return counting(
        empty,
        lambda batch: count(fixed, _examples(batch, bounds), joint=joint),
        lambda counts: Histogram(fixed, discrete.frequencies(counts, smoothing)),
        evaluate=evaluate,
        sample=lambda key, state, num: {"x": sample(key, state.params, num)},
        log_prob=lambda state, batch: log_prob(state.params, _examples(batch, bounds)),
        axis_name=axis_name,
    )


def _examples(batch: Batch, edges: np.ndarray) -> Any:
    random.batch_size(batch)
    _checks.rank("x", batch["x"], 2, "(batch, dims)")
    x = jnp.asarray(batch["x"]).astype(jnp.float32)
    if x.shape[1] != len(edges):
        raise ValueError(f"`x` must have {len(edges)} columns, one for each row of `edges`, got shape {x.shape}.")
    for d in range(len(edges)):
        _checks.within("x", x[:, d], float(edges[d, 0]), float(edges[d, -1]))
    return x
