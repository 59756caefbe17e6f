"""E9: noise-contrastive estimation of a density in the plane, its normalizer learned with it.

    python -m experiments.energy.noise_contrastive
    python -m experiments.energy.noise_contrastive eight_gaussians
    python -m experiments.energy.noise_contrastive diabetes          # ten columns of a table; no exact normalizer

The noise is a Gaussian with the mean of the training rows and 1.5 times their spread.

Measured with seed 0 on two shared CPU cores, 42 s, two_moons: 0.983 nats on test data with the learned normalizer,
0.997 with the exact one, from which the learned log Z is 0.014 away; total variation 0.037 from the target.

Paper: Gutmann and Hyvärinen, "Noise-contrastive estimation of unnormalized statistical models", 2012.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from experiments.energy import densities
from experiments.evaluation import averages
from experiments.runner import main
from experiments.system import System
from jgen._types import Batch, Key
from jgen.data import Data, Dataset
from jgen.energy import noise_contrastive as nce
from jgen.metrics.measurement import Measurement
from jgen.nets.mlp import MLP
from jgen.nets.scalar import Tilted
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "toy:two_moons"
    """Rows of real numbers."""
    hidden_sizes: tuple[int, ...] = (128, 128, 128)
    tilt: float = 2.0
    """Standard deviation of the Gaussian by which exp(−network) is multiplied."""
    ratio: int = 4
    """ν, draws of the noise for each example."""
    widening: float = 1.5
    """Spread of the noise over the data's."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    batch_size: int = 256
    num_steps: int = 3_000
    eval_every: int = 500


PRESETS = {
    "two_moons": Config(),
    "eight_gaussians": Config(data="toy:eight_gaussians"),
    "diabetes": Config(
        data="table:diabetes", hidden_sizes=(32,), weight_decay=1e-2, batch_size=100, num_steps=2_000, eval_every=100
    ),
    "smoke": Config(hidden_sizes=(8,), num_steps=2, eval_every=2),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset, data = densities.real_data(config.data, config.batch_size, seed)
    if len(dataset.shape) != 1:
        raise ValueError(f"`data` must be rows of real numbers, got {dataset.name!r} of shape {dataset.shape}.")
    noise = nce.gaussian(jnp.asarray(densities.rows(data, "train")), widening=config.widening)
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)
    model = nce.model(network(config), optimizer, noise=noise, ratio=config.ratio)
    measure = functools.partial(_measure, config, dataset, data, model)
    draw = functools.partial(_draw, config, dataset, data, model)
    return Experiment(model, data, config.num_steps, measure, draw, eval_every=config.eval_every, select="loss")


def network(config: Config) -> nn.Module:
    """The energy of `config`."""
    return Tilted(MLP((*config.hidden_sizes, 1), nn.silu), config.tilt)


def _energy(config: Config, state: Any, x: Any) -> Any:
    """−log p̂(x), its normalizer the learned one."""
    return -nce.log_density(state.params, x, module=network(config))


def _measure(config: Config, dataset: Dataset, data: Data, model: Any, key: Key, state: Any) -> dict[str, Measurement]:
    def estimate(key: Key, batch: Batch) -> dict[str, Any]:
        del key
        return {"nll_estimate": _energy(config, state, batch["x"])}

    mean = averages(key, data, "test", estimate)["nll_estimate"]
    units = "" if dataset.synthetic else ", columns standardized by the training split"
    protocol = f"{dataset.name}{units}, the learned normalizer"
    found = {"nll_estimate": Measurement(mean, "nats", "estimate", "test", protocol)}
    samples = np.asarray(jax.jit(model.sample, static_argnums=2)(key, state, min(dataset.size("test"), 1_000))["x"])
    found |= densities.sample_distance(dataset.name, data, samples)
    if dataset.synthetic:
        # The energy above has its normalizer in it, so that the exact one says how far the learned one is off.
        exact = densities.plane(dataset.name, data, functools.partial(_energy, config, state))
        found |= {"nll": exact["nll"], "total_variation": exact["total_variation"]}
        error = -exact["log_z"].value
        found["log_z_error"] = Measurement(
            error, "nats", "exact", "-", f"learned minus exact; {exact['log_z'].protocol}"
        )
    return found


def _draw(
    config: Config, dataset: Dataset, data: Data, model: Any, key: Key, state: Any, directory: pathlib.Path
) -> None:
    samples = jax.jit(model.sample, static_argnums=2)(key, state, dataset.size("test"))["x"]
    densities.draw_samples(directory, data, dataset.shape, samples)
    if dataset.synthetic:
        densities.draw_plane(directory, dataset.name, {"learned": functools.partial(_energy, config, state)})


SYSTEM = System(
    id="E9",
    module="energy.noise_contrastive",
    title="Noise-contrastive estimation",
    kind="estimate",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
