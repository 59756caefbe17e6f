"""D1: denoising diffusion probabilistic model.

    python -m experiments.diffusion.ddpm                                 # 8×8 digits with 17 levels
    python -m experiments.diffusion.ddpm two_moons
    python -m experiments.diffusion.ddpm mnist --data DIR                # the four .gz files, or tfds:mnist
    python -m experiments.diffusion.ddpm cifar10                         # the paper's setting, for an accelerator

Measured (seed 0, two CPU cores shared with other trainings, test data, all terms of the bound): digits 2.376 bits/dim
(105.4 nats, s.e. 1.1), 236 s; two_moons 1.065 nats (s.e. 0.036), 104 s; mnist 1.464 bits/dim (796 nats, s.e. 32; 10 of
1,000 terms drawn for each image), 7,000 steps in 6,900 s on about one core; 1,000 steps gave 4.5 and noise.

Paper: Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", 2020.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np
import optax

from experiments import pictures
from experiments.runner import main
from experiments.system import System
from jgen._types import Batch, Key
from jgen.data import load, transforms
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.diffusion import ddpm, samplers, schedules
from jgen.diffusion.denoiser import Denoiser
from jgen.learners import average
from jgen.metrics.measurement import Measurement
from jgen.nets.time_mlp import TimeMLP
from jgen.nets.unet import UNet
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Any source of images, or a toy; levels and size come from the data."""
    channels: tuple[int, ...] = ()
    """Of every level of the U-Net; () takes an MLP instead."""
    num_blocks: int = 1
    attention_levels: tuple[int, ...] = ()
    hidden_size: int = 256
    """Of the MLP."""
    num_layers: int = 3
    """Residual blocks of the MLP."""
    dropout_rate: float = 0.0
    schedule: str = "linear"
    """linear or cosine."""
    diffusion_steps: int = 500
    first_rate: float = 5.0
    """Of the linear schedule: the first step's variance is this over `diffusion_steps`. A first noise far below the
    distance of two levels (1/8 for 17 of them) spends bits on what rounding would tell."""
    prediction: str = "noise"
    """noise, start, velocity or score."""
    variance: str = "learned"
    """posterior, forward or learned."""
    objective: str | None = None
    """simple, hybrid or bound; by default hybrid where the variance is learned, else simple."""
    learning_rate: float = 1e-3
    warm_up_steps: int = 100
    decay: bool = True
    """Let the learning rate fall to zero along a cosine."""
    average_decay: float = 0.999
    batch_size: int = 128
    num_steps: int = 15_000
    eval_every: int = 2_500
    eval_terms: int = 4
    """Terms of the bound that are drawn for each validation example."""
    bound_terms: int | None = None
    """Terms of the bound that are drawn for each test example; by default all of them are summed."""
    num_test: int | None = None
    """Test examples that are measured; by default all."""
    ddim_steps: int = 50
    """Steps of the second picture."""


PRESETS = {
    "digits": Config(),
    "two_moons": Config(
        data="toy:two_moons",
        hidden_size=128,
        diffusion_steps=200,
        first_rate=0.1,
        prediction="velocity",
        batch_size=256,
        num_steps=10_000,
    ),
    "smoke": Config(
        num_steps=2,
        eval_every=2,
        hidden_size=16,
        num_layers=1,
        diffusion_steps=10,
        batch_size=32,
        num_test=64,
        ddim_steps=5,
    ),
    "mnist": Config(
        data="tfds:mnist",
        channels=(16, 32, 64),
        attention_levels=(2,),
        schedule="cosine",
        diffusion_steps=1_000,
        batch_size=64,
        num_steps=7_000,
        eval_every=1_000,
        eval_terms=1,
        bound_terms=10,
    ),
    "cifar10": Config(
        data="tfds:cifar10",
        channels=(128, 256, 256, 256),
        num_blocks=2,
        attention_levels=(1,),
        dropout_rate=0.1,
        diffusion_steps=1_000,
        first_rate=0.1,
        variance="posterior",
        learning_rate=2e-4,
        warm_up_steps=5_000,
        decay=False,
        average_decay=0.9999,
        batch_size=128,
        num_steps=800_000,
        eval_every=10_000,
        eval_terms=1,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    denoiser = _denoiser(config, dataset)
    model = ddpm.model(
        denoiser, dataset.shape, _optimizer(config), objective=config.objective, eval_terms=config.eval_terms
    )
    model = average(model, config.average_decay)
    data = in_memory(dataset, config.batch_size, seed, transform=transforms.only("x"))
    measure = functools.partial(_measure, config, denoiser, data, dataset)
    draw = functools.partial(_draw, config, denoiser, data, dataset.shape)
    return Experiment(model, data, config.num_steps, measure, draw, eval_every=config.eval_every)


def _denoiser(config: Config, dataset: Dataset) -> Denoiser:
    outputs = 2 if config.variance == "learned" else 1
    if config.channels:
        module: Any = UNet(
            config.channels,
            config.num_blocks,
            config.attention_levels,
            outputs_per_input=outputs,
            dropout_rate=config.dropout_rate,
        )
    else:
        module = TimeMLP(config.hidden_size, config.num_layers, outputs, config.dropout_rate)
    linear = functools.partial(schedules.linear, first_rate=config.first_rate)
    kinds = {"linear": linear, "cosine": schedules.cosine}
    if config.schedule not in kinds:
        raise ValueError(f"`schedule` must be one of {', '.join(kinds)}, got {config.schedule!r}.")
    schedule = kinds[config.schedule](config.diffusion_steps)
    return Denoiser(module, schedule, dataset.levels, config.prediction, config.variance)


def _optimizer(config: Config) -> optax.GradientTransformation:
    rate = config.learning_rate
    warm_up = min(config.warm_up_steps, config.num_steps // 2)
    after = optax.cosine_decay_schedule(rate, config.num_steps - warm_up) if config.decay else lambda step: rate
    schedule = optax.join_schedules([optax.linear_schedule(0.0, rate, warm_up), after], [warm_up])
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def _measure(
    config: Config, denoiser: Denoiser, data: Data, dataset: Dataset, key: Key, state: Any
) -> dict[str, Measurement]:
    @jax.jit
    def bound(key: Key, batch: Batch) -> Any:
        args = (key, state.params, state.inner.stats, batch["x"])
        return ddpm.elbo(*args, denoiser=denoiser, num_terms=config.bound_terms)

    found, left = [], config.num_test or dataset.size("test")
    for i, (batch, count) in enumerate(data.batches("test")):
        found.append(np.asarray(bound(jax.random.fold_in(key, i), batch))[: min(count, left)])
        left -= len(found[-1])
        if left <= 0:
            break
    nats = -np.concatenate(found)
    dims, error = int(np.prod(dataset.shape)), float(nats.std() / len(nats) ** 0.5)
    terms = f"{config.bound_terms} drawn" if config.bound_terms else "all"
    protocol = f"{dataset.name}, {len(nats)} examples, {terms} of {config.diffusion_steps} terms"
    value = functools.partial(Measurement, kind="bound", split="test", protocol=f"{protocol}, s.e. {error:.2g} nats")
    if denoiser.levels is None:
        return {"negative_elbo": value(float(nats.mean()), "nats")}
    return {
        "negative_elbo": value(float(nats.mean()), "nats"),
        "bits_per_dim": value(float(nats.mean()) / dims / np.log(2), "bits/dim"),
    }


def _draw(
    config: Config,
    denoiser: Denoiser,
    data: Data,
    shape: tuple[int, ...],
    key: Key,
    state: Any,
    directory: pathlib.Path,
) -> None:
    args = (key, state.params, state.inner.stats)
    draw = jax.jit(
        functools.partial(ddpm.sample, denoiser=denoiser, shape=shape),
        static_argnums=3,
        static_argnames=("eta", "num_steps"),
    )
    num = 64 if denoiser.levels else 2_000
    fewer = min(config.ddim_steps, config.diffusion_steps)
    sheets = {
        "samples": np.asarray(draw(*args, num)),
        "ddim": np.asarray(draw(*args, num, eta=0.0, num_steps=fewer)),
    }
    if denoiser.levels is None:
        test = np.concatenate([np.asarray(batch["x"])[:count] for batch, count in data.batches("test")])
        named = {"test": test, "ancestral": sheets["samples"], f"DDIM, {fewer} steps": sheets["ddim"]}
        pictures.scatter(directory / "samples.png", named, limit=1.2 * float(np.abs(test).max()))
        return
    for name, images in sheets.items():
        pictures.grid(directory / f"{name}.png", images / (denoiser.levels - 1))
    _draw_strip(denoiser, shape, args, directory)


def _draw_strip(denoiser: Denoiser, shape: tuple[int, ...], args: Any, directory: pathlib.Path) -> None:
    """Four examples on their way from noise, each above what the network took them for at that step."""
    key, params, stats = args
    kernel = ddpm.sampler(params, stats, denoiser=denoiser)
    num_steps = denoiser.schedule.num_steps

    @jax.jit
    def path(key: Key) -> Any:
        return samplers.sample(
            key,
            kernel,
            4,
            shape=shape,
            num_steps=num_steps,
            keep=lambda state, info: (state.position, info.start),
        )[1]

    shown = np.unique(np.linspace(0, num_steps - 1, 10).round().astype(int))
    rows = [np.clip(np.asarray(x)[shown] * 0.5 + 0.5, 0, 1) for x in path(key)]
    strips = [row[:, i] for i in range(4) for row in rows]
    pictures.grid(directory / "denoising.png", np.concatenate(strips), columns=len(shown))


SYSTEM = System(
    id="D1",
    module="diffusion.ddpm",
    title="Denoising diffusion",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "cifar10": {
            "bits_per_dim": {"value": 3.75, "source": "Ho et al. (2020), Table 1, about", "protocol": "L_simple, test"}
        }
    },
)

if __name__ == "__main__":
    main(SYSTEM)
