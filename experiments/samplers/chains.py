"""Markov chains as a Model, so that the trainer drives a sampler: progress, resuming and a hash come for free.

An "update" moves all chains by some steps and adds to their streaming statistics; nothing else is stored.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments import pictures
from experiments.samplers.planes import Plane
from jgen import Model, Sampler, random, run
from jgen._types import Batch, Key, Metrics
from jgen.data import Data
from jgen.math import trees
from jgen.metrics import chains, streaming
from jgen.metrics.measurement import Measurement
from jgen.sampler import parallel
from jgen.train import Experiment

DRAWN = 500
"""Steps of every chain that the pictures show."""


class ChainsState(NamedTuple):
    """Where the chains stand and what they have seen.

    Attributes:
        params: their positions, leading axis `chains`.
        rest: the sampler's states without the positions.
        num_updates: made so far.
        seen: the statistics and acceptance probabilities since warm-up.
    """

    params: Any
    rest: Any
    num_updates: jax.Array
    seen: streaming.Batches


def model(
    sampler: Sampler[Any], statistics: Callable[[Any], Any], *, num_steps: int, warm_up: int = 0
) -> Model[ChainsState]:
    """Chains that start at `batch["x"]` and move by `num_steps` in each update.

    Args:
        sampler: the kernel of one chain.
        statistics: (position) -> (statistics,), what is averaged.
        num_steps: steps per update.
        warm_up: updates that the statistics leave out.
    """
    kernel = parallel(sampler)

    def value(state: Any, info: Any) -> Any:
        found = {"statistics": jax.vmap(statistics)(state.position)}
        return {**found, "accept_prob": info.accept_prob} if hasattr(info, "accept_prob") else found

    reducer = streaming.batches(value)

    def init(key: Key, batch: Batch) -> ChainsState:
        random.batch_size(batch)  # raises where this is no batch
        state = kernel.init(key, batch["x"])
        seen = reducer.empty(*jax.eval_shape(kernel.step, key, state))
        return ChainsState(state.position, state._replace(position=None), jnp.zeros((), jnp.int32), seen)

    def update(key: Key, state: ChainsState, batch: Batch) -> tuple[ChainsState, Metrics]:
        del batch
        start = state.rest._replace(position=state.params)
        end, seen = run(key, kernel, start, num_steps, keep=reducer, kept=state.seen)
        seen = trees.select(state.num_updates >= warm_up, seen, state.seen)
        new = ChainsState(end.position, end._replace(position=None), state.num_updates + 1, seen)
        return new, _metrics(seen)

    return Model(init, update, lambda key, state, batch: _metrics(state.seen))


def experiment(
    sampler: Sampler[Any],
    statistics: Callable[[Any], Any],
    exact: Mapping[str, float],
    starts: Any,
    draw: Callable[[Any, Any], None],
    *,
    num_updates: int,
    steps_per_update: int,
    protocol: str,
) -> Experiment:
    """The run of chains from `starts`, with its means beside the exact ones; a tenth of the updates is warm-up.

    Args:
        sampler: the kernel of one chain.
        statistics: (position) -> (statistics,).
        exact: {name: mean under the target}, in the order of the statistics.
        starts: (chains, ...) positions.
        draw: (positions (chains, DRAWN, ...), directory) -> None.
        num_updates: updates of the trainer.
        steps_per_update: steps of each chain in one of them.
        protocol: what the target and the sampler are.
    """
    batch = {"x": jnp.asarray(starts)}

    def batches(split: str) -> Iterator[tuple[Batch, int]]:
        del split
        yield batch, len(starts)

    def picture(key: Key, state: ChainsState, directory: Any) -> None:
        start = state.rest._replace(position=state.params)
        walk = jax.jit(lambda key: run(key, parallel(sampler), start, DRAWN, keep=streaming.position)[1])
        draw(np.swapaxes(np.asarray(walk(key)), 0, 1), directory)

    chains_model = model(sampler, statistics, num_steps=steps_per_update, warm_up=num_updates // 10)
    text = f"{protocol}, {len(starts)} chains of {num_updates * steps_per_update} steps, a tenth of them warm-up"
    measure = functools.partial(_measure, exact, text)
    return Experiment(
        chains_model, Data(lambda step: batch, batches), num_updates, measure, picture, log_every=10, eval_every=200
    )


def on_plane(
    plane: Plane, sampler: Sampler[Any], num_chains: int, num_updates: int, steps_per_update: int, protocol: str
) -> Experiment:
    """`experiment` on a density of the plane, with the pictures of `draw_plane`."""
    return experiment(
        sampler,
        plane.statistics,
        plane.exact,
        plane.starts(num_chains),
        functools.partial(draw_plane, plane),
        num_updates=num_updates,
        steps_per_update=steps_per_update,
        protocol=protocol,
    )


def draw_plane(plane: Plane, points: np.ndarray, directory: Any) -> None:
    """Writes pictures of (chains, steps, 2) positions.

    samples.png: their histogram beside the density; trajectory.png: the first 30 and all steps of one chain;
    autocorrelation.png: of both coordinates, over all chains.
    """
    box, bins = plane.box, 80
    flat = points.reshape(-1, 2)
    histogram, _, _ = np.histogram2d(flat[:, 1], flat[:, 0], bins=bins, range=[box[2:], box[:2]], density=True)
    x, y = (np.linspace(low, high, bins) for low, high in (box[:2], box[2:]))
    grid = jnp.stack([jnp.asarray(a) for a in np.meshgrid(x, y)], axis=-1)
    exact = np.exp(np.asarray(jax.vmap(jax.vmap(plane.log_density))(grid)))
    pictures.heatmap(directory / "samples.png", {"chains": histogram, "density": exact}, box)
    walks = {f"{num} steps of one chain": points[0, :num] for num in (30, points.shape[1])}
    pictures.paths(directory / "trajectory.png", walks, exact, box)
    num_lags = min(100, points.shape[1])
    named = {
        name: (np.arange(num_lags), chains.autocorrelation(jnp.asarray(points[..., i]), num_lags))
        for i, name in enumerate("xy")
    }
    pictures.lines(directory / "autocorrelation.png", named, "steps between two draws")


def _metrics(seen: streaming.Batches) -> Metrics:
    """The largest R̂ (1 while it is unknown), and the mean acceptance probability where the kernel tells it."""
    found = streaming.summary(seen)
    known = seen.num >= 2 * seen.size
    largest = jnp.max(jnp.nan_to_num(found.r_hat["statistics"], nan=jnp.inf))
    metrics = {"r_hat": jnp.where(known, largest, 1.0)}
    return {**metrics, "accept_prob": found.mean["accept_prob"]} if "accept_prob" in found.mean else metrics


def _measure(exact: Mapping[str, float], protocol: str, key: Key, state: ChainsState) -> dict[str, Measurement]:
    """Every mean, and its distance from the exact one in Monte-Carlo standard errors."""
    del key
    seen = jax.jit(streaming.summary)(state.seen)
    means, errors = (np.asarray(x["statistics"], np.float64) for x in (seen.mean, seen.monte_carlo_error))
    general = functools.partial(Measurement, kind="estimate", split="-", protocol=protocol)
    found = {name: general(float(value), "-") for name, value in zip(exact, means, strict=True)}
    distances = (means - np.array(list(exact.values()))) / np.maximum(errors, 1e-300)
    for name, distance in zip(exact, distances, strict=True):
        found[f"{name}_error"] = general(float(distance), "standard errors")
    threshold = float(scipy.stats.norm.isf(0.005 / len(exact)))
    found["largest_error_at_1_percent"] = general(threshold, "standard errors")
    found["ess"] = general(float(np.min(seen.ess["statistics"])), "draws")
    return {**found, **{name: general(float(value), "-") for name, value in _metrics(state.seen).items()}}
