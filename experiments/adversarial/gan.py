"""G1: generative adversarial network.

    python -m experiments.adversarial.gan                         # a ring of eight Gaussians
    python -m experiments.adversarial.gan no_noise                # the same without instance noise: watch it collapse

Measured (ring, seed 0, two shared CPU cores): 8 of 8 modes, 94 % of samples within three standard deviations of one,
17 s.

Paper: Goodfellow et al., "Generative adversarial nets", 2014.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import pictures
from experiments.runner import main
from experiments.system import System
from jgen._types import Key
from jgen.adversarial import gan
from jgen.data import load, transforms
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.metrics import two_sample
from jgen.metrics.measurement import Measurement
from jgen.nets.mlp import MLP
from jgen.train import Experiment

WITH_MODES = ("toy:eight_gaussians", "toy:grid_gaussians")


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "toy:eight_gaussians"
    """Any source of rows of real numbers."""
    loss: str = "non_saturating"
    """non_saturating or minimax."""
    latent_size: int = 2
    hidden_size: int = 128
    num_layers: int = 3
    learning_rate: float = 1e-3
    num_critic_steps: int = 1
    label_smoothing: float = 0.0
    instance_noise: float = 0.75
    """Standard deviation at the first step, in the data's units; about half the distance between modes or more."""
    noise_share: float = 0.7
    """Of the steps, after which there is no noise."""
    batch_size: int = 256
    num_steps: int = 6_000
    eval_every: int = 1_000


PRESETS = {
    "ring": Config(),
    "no_noise": Config(instance_noise=0.0, latent_size=16),
    "minimax": Config(loss="minimax"),
    "grid": Config(data="toy:grid_gaussians", instance_noise=1.0, learning_rate=2e-3, num_steps=10_000),
    "smoke": Config(hidden_size=8, num_steps=2, eval_every=2),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    if len(dataset.shape) != 1 or dataset.levels is not None:
        raise ValueError(f"`data` must be rows of real numbers, got {dataset.name!r} of shape {dataset.shape}.")
    hidden = (config.hidden_size,) * config.num_layers
    critic_steps = config.num_steps * config.num_critic_steps
    noisy_steps = max(1, int(config.noise_share * critic_steps))
    rate, critic_rate = (
        optax.cosine_decay_schedule(config.learning_rate, num) for num in (config.num_steps, critic_steps)
    )
    model = gan.model(
        MLP((*hidden, *dataset.shape)),
        MLP((*hidden, 1)),
        latent_size=config.latent_size,
        # β1 of at most 0.5: with 0.9 the two players swing around each other.
        generator_optimizer=optax.adam(rate, 0.5, 0.9),
        critic_optimizer=optax.adam(critic_rate, 0.5, 0.9),
        num_critic_steps=config.num_critic_steps,
        loss=config.loss,
        label_smoothing=config.label_smoothing,
        instance_noise=optax.linear_schedule(config.instance_noise, 0.0, noisy_steps),
    )
    transform = transforms.only("x")
    if not dataset.synthetic:
        transform = transforms.chain(transform, transforms.standardize(*transforms.moments(dataset)))
    data = in_memory(dataset, config.batch_size * config.num_critic_steps, seed, transform=transform)
    measure, draw = functools.partial(_measure, dataset, model, data), functools.partial(_draw, model, data)
    return Experiment(model, data, config.num_steps, measure, draw, eval_every=config.eval_every)


def _rows(data: Data, split: str) -> np.ndarray:
    return np.concatenate([np.asarray(batch["x"])[:num] for batch, num in data.batches(split)])


def _measure(dataset: Dataset, model: Any, data: Data, key: Key, state: Any) -> dict[str, Measurement]:
    test, valid = _rows(data, "test"), _rows(data, "valid")
    size = min(len(test), len(valid), 2_000)
    samples = np.asarray(jax.jit(model.sample, static_argnums=2)(key, state, size)["x"])
    unit = two_sample.median_distance(jnp.asarray(test[:size]))
    widths = (unit / 8, unit / 2, 2 * unit)
    distance = jax.jit(lambda x: two_sample.mmd2(x, jnp.asarray(test[:size]), widths))
    kernel = f"{dataset.name}, {size} against {size}, Gaussian kernels of ⅛, ½ and 2 median distances"
    found = {
        "mmd2": Measurement(float(distance(samples)), "-", "none", "test", f"samples: {kernel}"),
        "mmd2_floor": Measurement(float(distance(valid[:size])), "-", "none", "test", f"validation data: {kernel}"),
    }
    if dataset.name in WITH_MODES:
        found |= _modes(dataset, samples)
    return found


def _modes(dataset: Dataset, samples: np.ndarray) -> dict[str, Measurement]:
    """How many modes have at least a fifth of their share of samples within three standard deviations."""
    x, label = np.asarray(dataset.splits["train"]["x"]), np.asarray(dataset.splits["train"]["label"])
    num = int(label.max()) + 1
    means = np.stack([x[label == k].mean(axis=0) for k in range(num)])
    std = np.mean([x[label == k].std(axis=0).mean() for k in range(num)])
    distance = np.linalg.norm(samples[:, None] - means[None], axis=-1)
    near = distance.min(axis=1) < 3 * std
    counts = np.bincount(distance.argmin(axis=1)[near], minlength=num)
    covered = float(np.sum(counts >= 0.2 * len(samples) / num))
    protocol = f"{dataset.name}, {len(samples)} samples, within 3 standard deviations of a mode's mean"
    return {
        "covered_modes": Measurement(covered, f"of {num}", "none", "-", f"{protocol}, at least 20 % of its share"),
        "high_quality": Measurement(float(near.mean()), "share", "none", "-", protocol),
    }


def _draw(model: Any, data: Data, key: Key, state: Any, directory: pathlib.Path) -> None:
    test = _rows(data, "test")
    samples = np.asarray(jax.jit(model.sample, static_argnums=2)(key, state, len(test))["x"])
    limit = 1.2 * float(np.abs(test[:, :2]).max())
    pictures.scatter(directory / "samples.png", {"test": test[:, :2], "samples": samples[:, :2]}, limit=limit)


SYSTEM = System(
    id="G1",
    module="adversarial.gan",
    title="Generative adversarial network",
    kind="none",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
