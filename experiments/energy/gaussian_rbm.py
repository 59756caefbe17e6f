"""E10: restricted Boltzmann machine with Gaussian visible units.

    python -m experiments.energy.gaussian_rbm                # 8×8 patches of two photographs, 64 hidden units
    python -m experiments.energy.gaussian_rbm exact          # 16 hidden units: a mixture of 65,536 Gaussians
    python -m experiments.energy.gaussian_rbm ring           # a 2-D density beside the points that it learned from

Columns are standardized by the training data, and likelihoods are densities in these units; a Gaussian for each column
has 1.419 nats a column.

Measured with seed 0 on two shared CPU cores, test data:
    patches    AIS forward 41.85, reverse 41.94 nats (90.8 with independent Gaussians)    14 s
    exact      44.47 nats by enumeration; AIS forward 44.48, reverse 44.34                16 s
    ring       2.839 nats by enumeration, forward and reverse alike                       15 s

Paper: Cho, Ilin and Raiko, "Improved learning of Gaussian-Bernoulli restricted Boltzmann machines", 2011.
"""

import dataclasses
import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import pictures
from experiments.energy import machines
from experiments.runner import main
from experiments.system import System
from jgen._types import Key
from jgen.data import in_memory, load, transforms
from jgen.energy import gaussian_rbm as grbm
from jgen.train import Experiment

LIMIT, SIDE = 3.0, 200
"""Of the picture of a 2-D density: in standard deviations, and its points along each axis."""


@dataclasses.dataclass(frozen=True)
class Config(machines.AnnealedConfig):
    """The knobs worth turning; `threshold` is for binary units."""

    data: str = "patches"
    """Any source of images or of real rows."""
    hidden_size: int = 64
    persistent: bool = True
    cd_steps: int = 5
    num_chains: int = 100
    learning_rate: float = 3e-3
    """Of Adam; falls linearly to 0."""
    weight_decay: float = 1e-4
    num_steps: int = 6_000
    eval_every: int = 2_000


PRESETS = {
    "patches": Config(),
    "smoke": Config(
        num_steps=2, eval_every=2, hidden_size=17, num_temperatures=29, max_doublings=1, num_annealed=10,
        num_equilibration=10,
    ),
    "exact": Config(hidden_size=16),
    "ring": Config(data="toy:eight_gaussians", hidden_size=16, learning_rate=1e-2, weight_decay=0.0, num_chains=500),
}  # fmt: skip


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    rows = standardized(config, seed)
    model = grbm.model(
        rows.size,
        config.hidden_size,
        optax.adam(optax.linear_schedule(config.learning_rate, 0.0, config.num_steps)),
        num_chains=config.num_chains,
        num_steps=config.cd_steps,
        persistent=config.persistent,
        weight_decay=config.weight_decay,
    )
    base = grbm.fit_base(jnp.asarray(rows.all("train")))
    found = machines.annealed_rbm(config, seed, grbm, base, lambda state: state.chains)
    return Experiment(
        model,
        rows.data,
        config.num_steps,
        functools.partial(machines.measure_rbm, grbm, config, rows, model, found),
        functools.partial(_draw, rows, model, found),
        eval_every=config.eval_every,
        select="nll" if model.log_prob else None,
    )


def standardized(config: Config, seed: int) -> machines.Rows:
    """Rows of mean 0 and standard deviation 1 in every column of the training data."""
    dataset = load(config.data, seed=seed)
    parts = transforms.only("x"), transforms.standardize(*transforms.moments(dataset)), transforms.flatten
    data = in_memory(dataset, config.batch_size, seed, transform=transforms.chain(*parts))
    return machines.Rows(data, math.prod(dataset.shape), dataset.shape, f"{dataset.name}, standardized")


def _draw(rows: machines.Rows, model: Any, found: Any, key: Key, state: Any, directory: pathlib.Path) -> None:
    samples = jax.jit(model.sample, static_argnums=2)(key, state, 2_000 if rows.size == 2 else 500)["x"]
    test = rows.all("test")
    if rows.size == 2:
        _draw_plane(model, state, test, samples, directory)
    else:
        hidden = jax.nn.sigmoid(grbm.hidden_logits(state.params, samples))
        means = np.asarray(grbm.visible_mean(state.params, hidden))
        shown = {"test": test, "samples": samples, "their means given the hidden units": means}
        sheets = {name: 0.5 + rows.images(x[: machines.SHOWN]) / 5 for name, x in shown.items()}
        pictures.panels(directory / "samples.png", sheets, rows.columns)
        machines.draw_filters(directory / "filters.png", rows, state.params.weights)
    machines.draw_annealing(directory / "annealing.png", found(state))
    free_energy = functools.partial(grbm.free_energy, state.params)
    machines.draw_free_energies(directory / "energies.png", rows, free_energy, samples)


def _draw_plane(model: Any, state: Any, test: Any, samples: Any, directory: pathlib.Path) -> None:
    pictures.scatter(directory / "samples.png", {"test": test, "samples": samples}, limit=LIMIT)
    side = np.linspace(-LIMIT, LIMIT, SIDE, dtype=np.float32)
    points = jnp.asarray(np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2))
    free = jax.jit(grbm.free_energy)(state.params, points)
    density = np.exp(-np.asarray(free - jnp.min(free))).reshape(SIDE, SIDE)
    counts, _, _ = np.histogram2d(test[:, 1], test[:, 0], bins=50, range=[[-LIMIT, LIMIT]] * 2)
    pictures.heatmap(directory / "density.png", {"test": counts, "model": density}, (-LIMIT, LIMIT, -LIMIT, LIMIT))


SYSTEM = System(
    id="E10",
    module="energy.gaussian_rbm",
    title="RBM with Gaussian visible units",
    kind="estimate",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
