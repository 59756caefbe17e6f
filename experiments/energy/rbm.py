"""E2: restricted Boltzmann machine.

    python -m experiments.energy.rbm                                    # 8×8 digits at threshold 8, 64 hidden units
    python -m experiments.energy.rbm exact                              # 12 hidden units: log Z by enumeration
    python -m experiments.energy.rbm binarized_mnist --data DIR         # the .amat files, or tfds:binarized_mnist

Measured with seed 0 on two shared CPU cores, test data:
    digits            AIS forward 16.57, reverse 16.56 nats                                13 s
    exact             18.56 nats by enumeration; AIS forward and reverse 18.55             19 s
    binarized_mnist   AIS forward 87.24 ± 0.16, reverse 87.37 nats, a gap of 0.13          478 s of training
The paper of Salakhutdinov and Murray has about 86.34 with CD-25.

Paper: Tieleman, "Training restricted Boltzmann machines using approximations to the likelihood gradient", 2008.
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
from jgen._types import Batch, Key
from jgen.data import Data, Dataset, in_memory, load, transforms
from jgen.energy import rbm
from jgen.metrics.measurement import Measurement
from jgen.sampler import run
from jgen.samplers import annealed_importance
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Any source of images or rows in whole-number levels."""
    threshold: int = 8
    """A unit is on where its level is at least this; 1 keeps binary data as they are."""
    hidden_size: int = 64
    persistent: bool = True
    """Chains go on from update to update (PCD), or start anew at the data (CD)."""
    cd_steps: int = 5
    """Sweeps of the chains per update."""
    num_chains: int = 100
    learning_rate: float = 0.05
    """Falls linearly to 0."""
    momentum: float = 0.9
    """0.5 for 500 hidden units: with 0.9 their persistent chains explode at this learning rate."""
    weight_decay: float = 2e-4
    batch_size: int = 100
    num_steps: int = 4_200
    eval_every: int = 1_400
    num_temperatures: int = 14_500
    """Of each annealing, in the proportions of Salakhutdinov and Murray."""
    num_annealed: int = 100
    """Chains of each annealing."""
    num_equilibration: int = 5_000
    """Sweeps of the persistent chains before the annealing that starts from them."""


PRESETS = {
    "digits": Config(),
    "smoke": Config(
        num_steps=2, eval_every=2, hidden_size=16, num_temperatures=29, num_annealed=10, num_equilibration=10
    ),
    "exact": Config(hidden_size=12),
    "binarized_mnist": Config(
        data="tfds:binarized_mnist",
        threshold=1,
        hidden_size=500,
        momentum=0.5,
        num_steps=50_000,
        eval_every=5_000,
    ),
    "binarized_mnist_cd1": Config(
        data="tfds:binarized_mnist",
        threshold=1,
        hidden_size=500,
        persistent=False,
        cd_steps=1,
        learning_rate=0.1,
        momentum=0.5,
        num_steps=30_000,
        eval_every=5_000,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    if dataset.levels is None or not 1 <= config.threshold < dataset.levels:
        raise ValueError(
            f"`threshold` must be a level in 1..levels-1 of whole-number data, got {config.threshold} for "
            f"{dataset.name!r} with levels={dataset.levels}."
        )
    transform = transforms.chain(transforms.only("x"), transforms.flatten, functools.partial(_on, config.threshold))
    data = in_memory(dataset, config.batch_size, seed, transform=transform)
    size = int(np.prod(dataset.shape))
    model = rbm.model(
        size,
        config.hidden_size,
        _optimizer(config),
        num_chains=config.num_chains,
        num_steps=config.cd_steps,
        persistent=config.persistent,
        weight_decay=config.weight_decay,
    )
    return Experiment(
        model,
        data,
        config.num_steps,
        functools.partial(_measure, config, dataset, data, model),
        functools.partial(_draw, model, data, dataset.shape),
        eval_every=config.eval_every,
        select="nll" if model.log_prob else None,
    )


def _on(threshold: int, key: Key, batch: Batch) -> Batch:
    del key
    return {**batch, "x": (batch["x"] >= threshold).astype(jnp.float32)}


def _optimizer(config: Config) -> optax.GradientTransformation:
    return optax.sgd(optax.linear_schedule(config.learning_rate, 0.0, config.num_steps), config.momentum)


def _measure(config: Config, dataset: Dataset, data: Data, model: Any, key: Key, state: Any) -> dict[str, Measurement]:
    params, free = state.params, _mean_free_energy(data, state.params)
    level = f" at level {config.threshold}" if (dataset.levels or 2) > 2 else ""
    protocol = f"{dataset.name}, static binarization{level}, {config.hidden_size} hidden units"
    nats = functools.partial(Measurement, unit="nats", split="test")
    found = {}
    if model.log_prob:
        log_z = float(jax.jit(rbm.log_partition)(params))
        found["nll"] = nats(free + log_z, kind="exact", protocol=f"{protocol}, log Z by enumeration")
    chain_key, anneal_key = jax.random.split(key)
    particles = _equilibrate(config, chain_key, params, state.chains)
    counts = [max(1, round(config.num_temperatures * share / 29)) for share in (1, 8, 20)]
    betas = annealed_importance.temperatures(counts)
    base = rbm.base_bias(_rows(data, "train"))
    both = jax.jit(lambda key, params: rbm.annealed_log_partition(key, params, base, particles, betas))
    result = jax.device_get(both(anneal_key, params))
    protocol = f"{protocol}, AIS with {sum(counts)} temperatures and {config.num_annealed} chains"
    backward = f"{protocol}, in reverse from chains after {config.num_equilibration} sweeps"
    found["nll_forward"] = nats(free + float(result.forward), kind="estimate", protocol=protocol)
    found["nll_reverse"] = nats(free + float(result.reverse), kind="estimate", protocol=backward)
    general = functools.partial(Measurement, kind="estimate", split="-", protocol=protocol)
    found["log_z_gap"] = general(float(result.gap), "nats")
    found["log_z_forward"] = general(float(result.forward), "nats")
    found["log_z_standard_error"] = general(float(result.standard_error[0]), "nats")
    found["ais_ess"] = general(float(result.ess[0]), "chains")
    return found


def _mean_free_energy(data: Data, params: rbm.RBM) -> float:
    free = jax.jit(rbm.free_energy)
    values = np.concatenate([np.asarray(free(params, batch["x"]))[:num] for batch, num in data.batches("test")])
    return float(values.mean(dtype=np.float64))


def _rows(data: Data, split: str) -> np.ndarray:
    return np.concatenate([np.asarray(batch["x"])[:num] for batch, num in data.batches(split)])


def _equilibrate(config: Config, key: Key, params: rbm.RBM, chains: Any) -> Any:
    starts = chains[jnp.arange(config.num_annealed) % len(chains)]
    walk = jax.jit(lambda key, start: run(key, rbm.gibbs(params), rbm.GibbsState(start), config.num_equilibration)[0])
    return walk(key, starts).position


def _draw(model: Any, data: Data, shape: tuple[int, ...], key: Key, state: Any, directory: pathlib.Path) -> None:
    def image(rows: Any) -> Any:
        side = int(np.sqrt(np.prod(shape)))
        return np.reshape(np.asarray(rows), (len(rows), *(shape if len(shape) == 3 else (side, -1, 1))))

    samples = jax.jit(model.sample, static_argnums=2)(key, state, 64)["x"]
    pictures.grid(directory / "samples.png", 1 - image(samples))
    weights = np.asarray(state.params.weights.T[:64])
    scale = np.abs(weights).max(axis=1, keepdims=True) + 1e-12
    pictures.grid(directory / "filters.png", image(0.5 + 0.5 * weights / scale))
    x = next(data.batches("test"))[0]["x"][:32]
    again = rbm.reconstruct(state.params, x)
    pictures.panels(directory / "reconstructions.png", {"test": 1 - image(x), "again": 1 - image(again)})


SYSTEM = System(
    id="E2",
    module="energy.rbm",
    title="Restricted Boltzmann machine",
    kind="estimate",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "exact": {
            "nll": {
                "value": 19.25,
                "source": "exact maximum likelihood, measured with NumPy on another split",
                "protocol": "digits at threshold 8, 12 hidden units, 300 epochs, log Z by enumeration",
            }
        },
        "binarized_mnist": {
            "nll_forward": {
                "value": 86.34,
                "source": "Salakhutdinov and Murray 2008, CD-25, about",
                "protocol": "static binarization, 500 hidden units, AIS with 14,500 temperatures and 100 chains",
            }
        },
    },
)

if __name__ == "__main__":
    main(SYSTEM)
