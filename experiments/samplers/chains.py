"""Markov chains as a Model, so that the trainer drives a sampler: progress, resuming and a hash come for free.

An "update" moves all chains by some steps and adds to running sums of statistics; nothing else is stored.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments import pictures
from jgen import Model, Sampler, random, run
from jgen._types import Batch, Key, Metrics
from jgen.data import Data
from jgen.metrics import chains
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment


class ChainsState(NamedTuple):
    """Where the chains stand and what they have seen.

    Attributes:
        params: their positions, leading axis `chains`.
        rest: the sampler's states without the positions.
        num: steps counted so far; negative during warm-up.
        mean: of every statistic in every chain, (chains, statistics).
        squares: sums of squared deviations from it, (chains, statistics).
    """

    params: Any
    rest: Any
    num: jax.Array
    mean: jax.Array
    squares: jax.Array


def model(
    sampler: Sampler[Any], statistics: Callable[[Any], Any], *, num_steps: int, warm_up: int = 0
) -> Model[ChainsState]:
    """Chains that start at `batch["x"]` and move by `num_steps` in each update.

    Args:
        sampler: the kernel of one chain.
        statistics: (position) -> (statistics,), what is averaged.
        num_steps: steps per update.
        warm_up: updates that the sums leave out.
    """

    def init(key: Key, batch: Batch) -> ChainsState:
        state = jax.vmap(sampler.init)(random.batch_keys(key, batch), batch["x"])
        zeros = jnp.zeros_like(jax.vmap(statistics)(state.position))
        count = jnp.full((), -warm_up * num_steps, jnp.int32)
        return ChainsState(state.position, state._replace(position=None), count, zeros, jnp.copy(zeros))

    def update(key: Key, state: ChainsState, batch: Batch) -> tuple[ChainsState, Metrics]:
        del batch

        def keep(state: Any, info: Any) -> Any:
            return statistics(state.position), getattr(info, "accept_prob", None)

        def chain(key: Key, start: Any) -> Any:
            return run(key, sampler, start, num_steps, keep=keep)

        starts = state.rest._replace(position=state.params)
        ends, (values, accept_prob) = jax.vmap(chain)(random.example_keys(key, state.mean.shape[0]), starts)
        new = _add(state, values)._replace(params=ends.position, rest=ends._replace(position=None))
        metrics = {"r_hat": _largest_r_hat(new)}
        return new, metrics if accept_prob is None else {**metrics, "accept_prob": jnp.mean(accept_prob)}

    return Model(init, update, lambda key, state, batch: {"r_hat": _largest_r_hat(state)})


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
        draw: (positions (n, ...), directory) -> None, of the last 500 steps of every chain.
        num_updates: updates of the trainer.
        steps_per_update: steps of each chain in one of them.
        protocol: what the target and the sampler are.
    """
    batch = {"x": jnp.asarray(starts)}

    def batches(split: str) -> Iterator[tuple[Batch, int]]:
        del split
        yield batch, len(starts)

    def picture(key: Key, state: ChainsState, directory: Any) -> None:
        def chain(key: Key, start: Any) -> Any:
            return run(key, sampler, start, 500, keep=lambda state, info: state.position)[1]

        states = state.rest._replace(position=state.params)
        kept = jax.jit(jax.vmap(chain))(random.example_keys(key, len(starts)), states)
        draw(np.asarray(kept), directory)

    chains_model = model(sampler, statistics, num_steps=steps_per_update, warm_up=num_updates // 10)
    text = f"{protocol}, {len(starts)} chains of {num_updates * steps_per_update} steps, a tenth of them warm-up"
    measure = functools.partial(_measure, exact, text)
    return Experiment(
        chains_model, Data(lambda step: batch, batches), num_updates, measure, picture, log_every=10, eval_every=200
    )


def _measure(exact: Mapping[str, float], protocol: str, key: Key, state: ChainsState) -> dict[str, Measurement]:
    """Every mean, and its distance from the exact one in standard errors of the chains' means (Student's t)."""
    del key
    means, squares, num = (np.asarray(x, np.float64) for x in (state.mean, state.squares, state.num))
    errors = means.std(axis=0, ddof=1) / np.sqrt(len(means))
    general = functools.partial(Measurement, kind="estimate", split="-", protocol=protocol)
    found = {name: general(float(value), "-") for name, value in zip(exact, means.mean(axis=0), strict=True)}
    distances = (means.mean(axis=0) - np.array(list(exact.values()))) / np.maximum(errors, 1e-300)
    for name, distance in zip(exact, distances, strict=True):
        found[f"{name}_error"] = general(float(distance), "standard errors")
    threshold = float(scipy.stats.t.isf(0.005 / len(exact), len(means) - 1))
    found["largest_error_at_1_percent"] = general(threshold, "standard errors")
    within = np.mean(squares / max(float(num) - 1, 1), axis=0)
    found["ess"] = general(float(np.min(within / np.maximum(errors, 1e-300) ** 2)), "draws")
    found["r_hat"] = general(float(_largest_r_hat(state)), "-")
    return found


def _add(state: ChainsState, values: Any) -> ChainsState:
    """Welford's sums with a block of values, (chains, steps, statistics) (Chan's rule); in warm-up they stay 0."""
    steps = values.shape[1]
    num = state.num + steps
    block = jnp.mean(values, axis=1)
    moved, counted = block - state.mean, jnp.maximum(num, 1)
    inside = jnp.sum(jnp.square(values - block[:, None]), axis=1)
    between = jnp.square(moved) * (jnp.maximum(state.num, 0) * (steps / counted))
    mean = jnp.where(num > 0, state.mean + moved * (steps / counted), state.mean)
    squares = jnp.where(num > 0, state.squares + inside + between, state.squares)
    return state._replace(num=num, mean=mean, squares=squares)


def _largest_r_hat(state: ChainsState) -> Any:
    num = jnp.maximum(state.num, 2)
    ratios = chains.r_hat(state.mean, state.squares / (num - 1), num)
    return jnp.where(state.num > 1, jnp.max(jnp.nan_to_num(ratios, nan=jnp.inf)), 1.0)


def draw_plane(log_density: Any, box: tuple[float, float, float, float], points: np.ndarray, directory: Any) -> None:
    """Writes samples.png: the histogram of the chains' positions in the plane beside the density, over `box`."""
    points, bins = points.reshape(-1, 2), 80
    histogram, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=bins, range=[box[2:], box[:2]], density=True)
    x, y = (np.linspace(low, high, bins) for low, high in (box[:2], box[2:]))
    grid = jnp.stack([jnp.asarray(a) for a in np.meshgrid(x, y)], axis=-1)
    exact = np.exp(np.asarray(jax.vmap(jax.vmap(log_density))(grid)))
    pictures.heatmap(directory / "samples.png", {"chains": histogram, "density": exact}, box)
