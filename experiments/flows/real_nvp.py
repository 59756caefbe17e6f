"""F1: RealNVP.

    python -m experiments.flows.real_nvp                          # 8×8 digits with 17 levels, bits/dim
    python -m experiments.flows.real_nvp two_moons                # an exact density in the plane
    python -m experiments.flows.real_nvp mnist --data DIR         # the four idx files, or tfds:mnist

Measured (seed 0, two shared CPU cores): digits at most 2.19 bits/dim with one noise, 2.07 with 16, 51 s; two_moons 1.01
nats, exact, 21 s; mnist at most 1.864 bits/dim with one noise, 1.828 with 16, after 1,500 steps in 682 s (the paper of
Kobyzev and others quotes 1.06 for RealNVP trained to the end).

Paper: Dinh, Sohl-Dickstein, Bengio, "Density estimation using Real NVP", 2017.
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
from jgen.data import load, transforms
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.flows import coupling, real_nvp
from jgen.math import dequantization
from jgen.math.bijectors import inverse_logit, logit
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Images with levels (bits/dim by dequantization), or rows of real numbers (nats; standardized, but not toys)."""
    num_levels: int = 1
    """Scales of an image flow."""
    channels: int = 32
    """Of the residual networks at the first scale; for rows, the width of two hidden layers."""
    growth: int = 1
    """By how much the channels grow at each further scale; 2 in the paper."""
    num_blocks: int = 2
    num_layers: int = 8
    """Couplings of a flow on rows."""
    bound: float = 2.0
    """The largest |log-scale| of a coupling."""
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 64
    num_steps: int = 2_000
    eval_every: int = 250
    num_noises: int = 16
    """K of the reported importance-weighted bound."""


PRESETS = {
    "digits": Config(),
    "two_moons": Config(data="toy:two_moons", channels=64, batch_size=256, num_steps=4_000, eval_every=500, bound=1.0),
    "smoke": Config(channels=4, num_blocks=1, num_steps=2, eval_every=2, num_noises=2),
    "mnist": Config(data="tfds:mnist", num_levels=3, channels=32, num_steps=1_500, eval_every=500),
    "cifar10": Config(
        data="tfds:cifar10", num_levels=2, channels=64, growth=2, num_blocks=8, num_steps=200_000, eval_every=5_000
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    is_image = len(dataset.shape) == 3
    if is_image:
        flow = real_nvp.image_flow(
            dataset.shape,
            num_levels=config.num_levels,
            channels=config.channels,
            growth=config.growth,
            num_blocks=config.num_blocks,
            bound=config.bound,
        )
    else:
        hidden = (config.channels, config.channels)
        flow = real_nvp.table_flow(
            dataset.shape[0], num_layers=config.num_layers, hidden_sizes=hidden, bound=config.bound
        )
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=config.weight_decay))
    levels = dataset.levels if is_image else None
    model = real_nvp.model(flow, optimizer=optimizer, levels=levels)
    transform = transforms.only("x")
    if levels is None and not dataset.synthetic:
        transform = transforms.chain(transform, transforms.standardize(*transforms.moments(dataset)))
    data = in_memory(dataset, config.batch_size, seed, transform=transform)
    measure = functools.partial(_measure, config, dataset, flow, levels, data)
    draw = functools.partial(_draw_rows if levels is None else _draw_images, flow, levels, model, data)
    return Experiment(model, data, config.num_steps, measure, draw, eval_every=config.eval_every, select="loss")


def _measure(
    config: Config, dataset: Dataset, flow: coupling.Flow, levels: int | None, data: Data, key: Key, state: Any
) -> dict[str, Measurement]:
    def mean_nll(key: Key, num_noises: int) -> float:
        how = functools.partial(real_nvp.nll, flow=flow, levels=levels, num_samples=num_noises)
        nll, values = jax.jit(lambda key, batch: how(key, params=state.params, batch=batch)["loss"]), []
        for i, (batch, num) in enumerate(data.batches("test")):
            values.append(np.asarray(nll(jax.random.fold_in(key, i), batch))[:num])
        return float(np.concatenate(values).mean(dtype=np.float64))

    if levels is None:
        units = "" if dataset.synthetic else ", columns standardized by the training split"
        return {"nll": Measurement(mean_nll(key, 1), "nats", "exact", "test", f"{dataset.name}{units}")}
    found = {}
    for suffix, num in (("", 1), ("_importance_weighted", config.num_noises)):
        nats = mean_nll(key, num)
        bits = float(dequantization.bits_per_dim(jnp.asarray([-nats]), int(np.prod(dataset.shape)))[0])
        protocol = f"{dataset.name}, {levels} levels, uniform dequantization, noises per image: {num}"
        found[f"bits_per_dim{suffix}"] = Measurement(bits, "bits/dim", "bound", "test", protocol)
        found[f"nll{suffix}"] = Measurement(nats, "nats", "bound", "test", protocol)
    return found


def _draw_images(
    flow: coupling.Flow, levels: int, model: Any, data: Data, key: Key, state: Any, directory: pathlib.Path
) -> None:
    """Samples, and straight lines in the latent space between pairs of test images."""
    sample_key, noise_key = jax.random.split(key)
    samples = jax.jit(model.sample, static_argnums=2)(sample_key, state, 64)["x"]
    pictures.grid(directory / "samples.png", samples / (levels - 1))
    batch, num = next(data.batches("test"))
    keys = jax.random.split(noise_key, 16)
    pairs = dequantization.dequantize(keys, batch["x"][np.arange(16) % num], levels)
    z = jax.jit(lambda x: real_nvp.forward(flow, state.params, logit(x, 0.05)[0])[0])(pairs)
    share = jnp.linspace(0, 1, 8)[None, :, None]
    # On the sphere that latents live near: a straight line passes through its inside, where no data is.
    path = jnp.sqrt(1 - share) * z[:8, None] + jnp.sqrt(share) * z[8:, None]
    back = jax.jit(lambda z: inverse_logit(real_nvp.inverse(flow, state.params, z)[0], 0.05)[0])
    pictures.grid(directory / "interpolations.png", back(path.reshape(64, -1)))


def _draw_rows(
    flow: coupling.Flow, levels: None, model: Any, data: Data, key: Key, state: Any, directory: pathlib.Path
) -> None:
    """Samples beside data, and in the plane the density."""
    del flow, levels
    test = np.concatenate([np.asarray(batch["x"])[:num] for batch, num in data.batches("test")])
    samples = np.asarray(jax.jit(model.sample, static_argnums=2)(key, state, len(test))["x"])
    limit = float(np.abs(test[:, :2]).max()) * 1.2
    pictures.scatter(directory / "samples.png", {"test": test[:, :2], "samples": samples[:, :2]}, limit=limit)
    if test.shape[1] != 2:
        return
    side = jnp.linspace(-limit, limit, 200)
    points = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density = np.exp(jax.jit(model.log_prob)(state, {"x": points})).reshape(200, 200)
    pictures.heatmap(directory / "density.png", {"density": density}, (-limit, limit, -limit, limit))


SYSTEM = System(
    id="F1",
    module="flows.real_nvp",
    title="RealNVP",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "mnist": {
            "bits_per_dim": {
                "value": 1.06,
                "source": "Kobyzev et al. 2020, table 5",
                "protocol": "MNIST, 256 levels, uniform dequantization",
            }
        },
        "cifar10": {
            "bits_per_dim": {
                "value": 3.49,
                "source": "Dinh et al. 2017, table 1",
                "protocol": "CIFAR-10, 256 levels, uniform dequantization",
            }
        },
    },
)

if __name__ == "__main__":
    main(SYSTEM)
