"""C2: the full joint table of a few binary variables, and how soon it has more entries than there are data.

    python -m experiments.classical.tabular                              # digits, 4×4, cut at the mean
    python -m experiments.classical.tabular nltcs --data FOLDER/nltcs.npz    # 16 binary answers, 16,181 people

Measured with seed 0, a second: digits 9.499 nats on test data, 6.875 on the data counted; 16 independent bits 10.453.

The picture `variables.png` adds one variable after another: what the table's 2^n − 1 parameters gain on the data that
they count, from ten variables on they lose on others.
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
from jgen.classical import tabular
from jgen.data import load
from jgen.data.pipeline import Data, Dataset
from jgen.math import discrete
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Images, averaged to `side` × `side` and cut at the training mean, or a table of binary columns."""
    side: int = 4
    """Of the averaged images."""
    num_variables: int = 16
    """The first ones; the table has 2^n entries."""
    smoothing: float = 0.1
    """Added to every count of every conditional."""
    num_steps: int = 4
    """Each counts an equal part of the training data."""


PRESETS = {
    "digits": Config(),
    "smoke": Config(num_steps=2, num_variables=4),
    "nltcs": Config(data="nltcs"),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`; counting needs no randomness."""
    dataset = load(config.data, seed=seed)
    splits = _bits(dataset, config)
    length = len(splits["train"]) // config.num_steps

    def train(step: int) -> dict[str, Any]:
        return {"x": splits["train"][step % config.num_steps * length :][:length]}

    return Experiment(
        tabular.model((2,) * splits["train"].shape[1], smoothing=config.smoothing),
        Data(train, lambda split: iter([({"x": splits[split]}, len(splits[split]))])),
        config.num_steps,
        functools.partial(_measure, config, dataset, splits),
        functools.partial(_draw, config, dataset, splits),
        log_every=1,
        eval_every=1,
    )


def _bits(dataset: Dataset, config: Config) -> dict[str, np.ndarray]:
    """The first variables of each example of each split, float32 in {0, 1}."""
    if dataset.levels is None:
        raise ValueError(f"`--data` must have levels (images, or a binary table), got {dataset.name}.")
    splits = {name: np.asarray(split["x"], np.float32) for name, split in dataset.splits.items()}
    if len(dataset.shape) == 3:
        step = dataset.shape[0] // config.side
        cells = (config.side, step, config.side, step)
        means = {n: x.reshape(len(x), *cells, -1).mean(axis=(2, 4)).reshape(len(x), -1) for n, x in splits.items()}
        splits = {name: (x > means["train"].mean(axis=0)).astype(np.float32) for name, x in means.items()}
    return {name: x[:, : config.num_variables] for name, x in splits.items()}


def _learn(x: Any, smoothing: float) -> tabular.Tables:
    return tabular.solve(tabular.count(jnp.asarray(x), (2,) * x.shape[1]), smoothing)


def _independent(train: Any, test: Any, smoothing: float) -> float:
    """−log p of one table per variable, nats."""
    train = jnp.asarray(train)
    p = discrete.frequencies(jnp.stack([jnp.sum(1 - train, axis=0), jnp.sum(train, axis=0)], axis=1), smoothing)
    return -float(jnp.mean(jnp.sum(jnp.log(p)[jnp.arange(len(p))[None], test.astype(np.int32)], axis=1)))


def _measure(config: Config, dataset: Dataset, splits: Any, key: Key, state: Any) -> dict[str, Measurement]:
    del key
    num = splits["train"].shape[1]
    images = (
        f", averaged to {config.side}×{config.side} and cut at the training means" if len(dataset.shape) == 3 else ""
    )
    protocol = f"{dataset.name}{images}, {num} binary variables, counts + {config.smoothing}"
    nll = {split: -float(jnp.mean(tabular.log_prob(state.params, jnp.asarray(splits[split])))) for split in splits}
    alone = _independent(splits["train"], splits["test"], config.smoothing)
    return {
        "nll": Measurement(nll["test"], "nats", "exact", "test", protocol),
        "nll_train": Measurement(nll["train"], "nats", "exact", "train", protocol),
        "nll_independent": Measurement(alone, "nats", "exact", "test", f"{protocol}, independent variables"),
        "free_parameters": Measurement(
            float(tabular.num_parameters((2,) * num)), "parameters", "none", "-", f"{num} binary variables"
        ),
    }


def _draw(config: Config, dataset: Dataset, splits: Any, key: Key, state: Any, directory: pathlib.Path) -> None:
    drawn = np.asarray(jax.jit(tabular.sample, static_argnums=2)(key, state.params, 64))
    images, columns = pictures.images(drawn)
    pictures.grid(directory / "samples.png", images, columns)
    train, valid = (jnp.asarray(splits[name]) for name in ("train", "valid"))
    sizes = list(range(1, train.shape[1] + 1))
    tables = [_learn(train[:, :num], config.smoothing) for num in sizes]
    nats = {
        "table, training data": [-float(jnp.mean(tabular.log_prob(t, train[:, : len(t)]))) for t in tables],
        "table, validation data": [-float(jnp.mean(tabular.log_prob(t, valid[:, : len(t)]))) for t in tables],
        "independent, validation data": [
            _independent(train[:, :num], valid[:, :num], config.smoothing) for num in sizes
        ],
    }
    named = {
        name: (sizes, [value / num for value, num in zip(values, sizes, strict=True)]) for name, values in nats.items()
    }
    pictures.line_panels(directory / "variables.png", {"-log p per variable, nats": named}, "variables")


SYSTEM = System(
    id="C2",
    module="classical.tabular",
    title="Full joint table",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
