"""C1: histograms, of pixels, of images, and of points in the plane.

    python -m experiments.classical.histogram                    # two moons: a grid beside a product
    python -m experiments.classical.histogram grey               # grey values of two photographs, in one dimension
    python -m experiments.classical.histogram digits             # 64 independent pixels of 17 levels

Measured with seed 0, a second: 1.098 nats on test data of the moons with a grid of 32×32.

Pearson, "Contributions to the mathematical theory of evolution II", 1895.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from experiments.runner import main
from experiments.system import System
from jgen._types import Key
from jgen.classical import histogram
from jgen.data import load
from jgen.data.pipeline import Data, Dataset
from jgen.math import discrete
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment

SCAN = (2, 4, 8, 16, 32, 64, 128, 256)
MARGIN = 0.25  # of the training data's range, added on both sides


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "toy:two_moons"
    """Points, a table, or images (their pixels as rows)."""
    num_bins: int = 32
    """In each dimension; for data with levels, one bin per level."""
    joint: bool = True
    """One grid of bins^dims cells; else a product of histograms."""
    pooled: bool = False
    """All values of an example as draws of one variable."""
    smoothing: float = 0.1
    """Added to every count."""
    num_steps: int = 4
    """Each counts an equal part of the training data."""


PRESETS = {
    "two_moons": Config(),
    "smoke": Config(num_steps=2, num_bins=8),
    "product": Config(joint=False),
    "grey": Config(data="patches", joint=False, pooled=True),
    "digits": Config(data="digits", joint=False),
    "iris": Config(data="table:iris", num_bins=8, joint=False),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`; counting needs no randomness."""
    dataset = load(config.data, seed=seed)
    splits = {name: _rows(split["x"], config.pooled) for name, split in dataset.splits.items()}
    length = len(splits["train"]) // config.num_steps

    def train(step: int) -> dict[str, Any]:
        return {"x": splits["train"][step % config.num_steps * length :][:length]}

    return Experiment(
        _model(config, dataset, splits["train"], config.num_bins, joint=config.joint),
        Data(train, lambda split: iter([({"x": splits[split]}, len(splits[split]))])),
        config.num_steps,
        functools.partial(_measure, config, dataset, splits["test"]),
        functools.partial(_draw, config, dataset, splits),
        log_every=1,
        eval_every=1,
    )


def _rows(x: Any, pooled: bool) -> np.ndarray:
    return np.asarray(x, np.float32).reshape(-1, 1) if pooled else np.asarray(x, np.float32).reshape(len(x), -1)


def _model(config: Config, dataset: Dataset, train: np.ndarray, num_bins: int, *, joint: bool) -> Any:
    if dataset.levels is not None:
        edges = [histogram.equal_widths(-0.5, dataset.levels - 0.5, dataset.levels)] * train.shape[1]
    else:
        low, high = train.min(axis=0), train.max(axis=0)
        space = MARGIN * (high - low)
        ends = zip((low - space).tolist(), (high + space).tolist(), strict=True)
        edges = [histogram.equal_widths(*pair, num_bins) for pair in ends]
    return histogram.model(edges, joint=joint, smoothing=config.smoothing)


def _measure(config: Config, dataset: Dataset, test: Any, key: Key, state: Any) -> dict[str, Measurement]:
    del key
    nll = -float(jnp.mean(jax.jit(histogram.log_prob)(state.params, jnp.asarray(test))))
    num_bins = dataset.levels or config.num_bins
    how = "all values pooled" if config.pooled else "joint grid" if config.joint else "product over dimensions"
    protocol = f"{dataset.name}, {num_bins} bins per dimension, counts + {config.smoothing}, {how}"
    return {
        "nll": Measurement(nll, "nats", "exact", "test", protocol),
        "filled": Measurement(float(np.mean(_filled(state))), "share of cells", "exact", "train", protocol),
    }


def _filled(state: Any) -> np.ndarray:
    return np.asarray(state.moments) > 0


def _draw(config: Config, dataset: Dataset, splits: Any, key: Key, state: Any, directory: pathlib.Path) -> None:
    num = 64 if len(dataset.shape) == 3 and not config.pooled else 2_000
    drawn = jax.jit(histogram.sample, static_argnums=2)(key, state.params, num)
    if dataset.levels is None:
        _draw_bins(config, dataset, splits, directory)
    if drawn.shape[1] == 1:
        edges, mass = np.asarray(state.params.edges)[0], np.asarray(state.params.mass)[0]
        x = (edges[1:] + edges[:-1]) / 2
        below = np.mean(np.asarray(drawn)[:, 0][None] <= edges[1:, None], axis=1)
        panels = {
            "density": {"histogram": (x, mass / np.diff(edges))},
            "share below": {"histogram": (edges[1:], np.cumsum(mass)), f"{num} samples": (edges[1:], below)},
        }
        pictures.line_panels(directory / "samples.png", panels, "value")
    elif len(dataset.shape) == 3:
        levels = np.round(np.asarray(drawn)).clip(0, (dataset.levels or 2) - 1)
        pictures.grid(directory / "samples.png", levels.reshape(-1, *dataset.shape) / ((dataset.levels or 2) - 1))
    else:
        named = {"data": splits["train"][:num, :2], "samples": drawn[:, :2]}
        # Toys are centered, and drawn on one scale; a table's columns have each their own.
        limit = float(np.abs(drawn).max()) if dataset.synthetic else None
        pictures.scatter(directory / "samples.png", named, limit=limit)
        _draw_densities(config, dataset, splits["train"], directory)


def _draw_bins(config: Config, dataset: Dataset, splits: Any, directory: pathlib.Path) -> None:
    """What validation data say of every number of bins, for one grid and for a product."""
    dims, named = splits["train"].shape[1], {}
    for name, joint in {"product": False, "joint grid": True}.items():
        scan = [num for num in SCAN if not joint or num**dims <= 2**16]
        values = []
        for num in scan:
            model = _model(config, dataset, splits["train"], num, joint=joint)
            state = model.init(jax.random.key(0), {"x": splits["train"]})
            state, _ = model.update(jax.random.key(0), state, {"x": splits["train"]})
            values.append(float(model.evaluate(jax.random.key(0), state, {"x": splits["valid"]})["nll"].mean()))
        named[name] = (scan, values)
    pictures.line_panels(directory / "bins.png", {"-log p, validation, nats": named}, "bins per dimension", log_x=True)


def _draw_densities(config: Config, dataset: Dataset, train: np.ndarray, directory: pathlib.Path) -> None:
    """The first two dimensions: one grid, and the product of two histograms."""
    plane, edges, named = train[:, :2], np.zeros((2, 1)), {}
    for name, joint in {"product": False, "joint grid": True}.items():
        model = _model(config, dataset, plane, config.num_bins, joint=joint)
        state = model.init(jax.random.key(0), {"x": plane})
        params = model.update(jax.random.key(0), state, {"x": plane})[0].params
        cells = discrete.points((config.num_bins,) * 2)
        middles = (params.edges[:, 1:] + params.edges[:, :-1]) / 2
        x = jnp.stack([middles[d][cells[:, d]] for d in range(2)], axis=1)
        named[name] = np.exp(histogram.log_prob(params, x)).reshape(config.num_bins, config.num_bins).T
        edges = np.asarray(params.edges)
    pictures.heatmap(directory / "densities.png", named, (*edges[0, [0, -1]], *edges[1, [0, -1]]))


SYSTEM = System(
    id="C1",
    module="classical.histogram",
    title="Histogram",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
