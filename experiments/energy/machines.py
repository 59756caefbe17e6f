"""What the experiments with binary units share: rows from any source, the optimizer, log Z from two sides, pictures."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import evaluation, pictures
from jgen import random
from jgen._types import Batch, Key
from jgen.data import Data, Dataset, in_memory, load, transforms
from jgen.metrics.measurement import Measurement
from jgen.sampler import Sampler, run
from jgen.samplers import annealed_importance

SHOWN = 64
"""Samples and filters in a picture."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs of every machine of binary units; a system adds its own."""

    data: str = "digits"
    """Any source of images or rows in whole-number levels."""
    threshold: int = 8
    """A unit is on where its level is at least this; 1 keeps binary data as they are."""
    num_train: int | None = None
    """Train on this many rows, counted through the splits in their order, and test on the rest; nothing validates."""
    batch_size: int = 100
    num_steps: int = 4_200
    eval_every: int = 1_400


@dataclasses.dataclass(frozen=True)
class AnnealedConfig(Config):
    """The knobs of a machine whose log Z is estimated from both sides."""

    num_temperatures: int = 125
    """Of the first annealing, in the proportions of Salakhutdinov and Murray; doubled until the gap is small."""
    max_doublings: int = 8
    tolerance: float = 0.1
    """Nats between the two sides of log Z, and of their standard errors, at which doubling stops."""
    num_annealed: int = 100
    """Chains of each annealing."""
    num_equilibration: int = 5_000
    """Sweeps of the persistent chains before the annealing that starts from them."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Binary rows.

    Attributes:
        data: batches {"x": (batch, size)} of 0 and 1.
        size: units of a row.
        shape: of the image that a row was, or (size,).
        protocol: the data's name and how they were made binary.
    """

    data: Data
    size: int
    shape: tuple[int, ...]
    protocol: str

    def all(self, split: str) -> np.ndarray:
        """Every row of a split."""
        return np.concatenate([np.asarray(batch["x"])[:num] for batch, num in self.data.batches(split)])

    @property
    def columns(self) -> int:
        """Of a sheet of images: 8, or 1 where rows are drawn as lines."""
        return 8 if len(self.shape) == 3 else pictures.images(np.zeros((1, self.size)))[1]

    def images(self, rows: Any) -> np.ndarray:
        """(n, h, w, c) images of rows with `size` values; square rows as squares, others as lines."""
        rows = np.asarray(rows)
        if len(self.shape) == 3:
            return rows.reshape(-1, *self.shape)
        return pictures.images(rows)[0]


def load_rows(config: Config, seed: int) -> Rows:
    """The rows of `config.data`, on where the level is at least the threshold.

    Raises:
        ValueError: the data have no levels, the threshold is none of them, or `num_train` leaves nothing to test.
    """
    dataset = load(config.data, seed=seed)
    if dataset.levels is None or not 1 <= config.threshold < dataset.levels:
        raise ValueError(
            f"`threshold` must be a level in 1..levels-1 of whole-number data, got {config.threshold} for "
            f"{dataset.name!r} with levels={dataset.levels}."
        )
    protocol = f"{dataset.name}, static binarization"
    protocol += f" at level {config.threshold}" if dataset.levels > 2 else ""
    if config.num_train is not None:
        dataset = _cut(dataset, config.num_train)
        protocol += f", {dataset.size('train')} rows to train and {dataset.size('test')} to test"
    transform = transforms.chain(transforms.only("x"), transforms.flatten, functools.partial(_on, config.threshold))
    data = in_memory(dataset, config.batch_size, seed, transform=transform)
    return Rows(data, math.prod(dataset.shape), dataset.shape, protocol)


def falling_sgd(learning_rate: float, momentum: float, num_steps: int) -> optax.GradientTransformation:
    """Gradient descent with momentum whose rate falls linearly to 0."""
    return optax.sgd(optax.linear_schedule(learning_rate, 0.0, num_steps), momentum or None)


def annealed(
    config: AnnealedConfig,
    seed: int,
    particles: Callable[[Key, Any], Any],
    walk: Callable[[Key, Any, Any, Any], annealed_importance.Sandwich],
) -> Callable[[Any], annealed_importance.Doubling]:
    """(state) -> log Z from both sides, with twice as many temperatures until they agree.

    Args:
        config: how many temperatures, and when to stop.
        seed: of the chains.
        particles: (key, state) -> draws of the model, one for each annealed chain, and whatever else `walk` needs.
        walk: (key, state, particles, betas) -> both sides of log Z; compiled.
    """
    last: dict[str, Any] = {}  # measuring and drawing ask for the same state
    counts = [max(1, round(config.num_temperatures * share / 29)) for share in (1, 8, 20)]
    betas = annealed_importance.temperatures(counts)
    limits = {"tolerance": config.tolerance, "max_doublings": config.max_doublings}

    def found(state: Any) -> annealed_importance.Doubling:
        if last.get("state") is not state:
            draw_key, key = jax.random.split(random.stream(seed, "anneal"))
            drawn = particles(draw_key, state)
            both = annealed_importance.double(key, lambda key, t: walk(key, state, drawn, t), betas, **limits)
            last.update(state=state, found=both)
        return last["found"]

    return found


def annealed_rbm(
    config: AnnealedConfig, seed: int, machine: Any, base: Any, chains: Callable[[Any], Any]
) -> Callable[[Any], annealed_importance.Doubling]:
    """`annealed` of a restricted machine.

    Args:
        config: as there.
        seed: as there.
        machine: the module `rbm` or `gaussian_rbm`.
        base: where its annealing starts.
        chains: (state) -> the persistent chains that stand for the model.
    """

    def particles(key: Key, state: Any) -> Any:
        return equilibrate(config, key, machine.gibbs, state.params, chains(state))

    def walk(key: Key, state: Any, drawn: Any, betas: Any) -> Any:
        return machine.annealed_log_partition(key, state.params, base, drawn, betas)

    return annealed(config, seed, particles, walk)


def measure_rbm(
    machine: Any, config: Any, rows: Rows, model: Any, found: Any, key: Key, state: Any
) -> dict[str, Measurement]:
    """Test results of a restricted machine with log Z from two sides, and exact ones where log Z can be listed."""

    def energy(key: Key, batch: Batch) -> dict[str, Any]:
        del key
        return {"free": machine.free_energy(state.params, batch["x"])}

    free = evaluation.averages(key, rows.data, "test", energy)["free"]
    protocol = f"{rows.protocol}, {config.hidden_size} hidden units"
    exact = {}
    if model.log_prob:
        log_z = float(jax.jit(machine.log_partition)(state.params))
        exact["nll"] = Measurement(free + log_z, "nats", "exact", "test", f"{protocol}, log Z by enumeration")
    return {**exact, **sandwiched("nll", free, found(state), config, protocol)}


def draw_free_energies(path: pathlib.Path, rows: Rows, free_energy: Callable[[Any], Any], samples: Any) -> None:
    """Histograms over training rows, test rows and samples."""
    named = {"training": rows.all("train")[:500], "test": rows.all("test")[:500], "samples": samples}
    values = {name: np.asarray(free_energy(jnp.asarray(v))) for name, v in named.items()}
    pictures.histograms(path, values, "free energy, nats")


def equilibrate(
    config: AnnealedConfig, key: Key, kernel: Callable[[Any], Sampler[Any]], params: Any, chains: Any
) -> Any:
    """As many of the chains (again and again where there are fewer) as are annealed, after their equilibration."""

    def walk(key: Key, params: Any, chains: Any) -> Any:
        init_key, run_key = jax.random.split(key)
        start = jax.tree.map(lambda leaf: leaf[jnp.arange(config.num_annealed) % len(leaf)], chains)
        sampler = kernel(params)
        return run(run_key, sampler, sampler.init(init_key, start), config.num_equilibration)[0].position

    return jax.jit(walk)(key, params, chains)


def sandwiched(
    name: str, offset: float, found: annealed_importance.Doubling, config: AnnealedConfig, protocol: str
) -> dict[str, Measurement]:
    """Test results `offset` + log Z, with log Z from below and from above, and how far these are from each other."""
    num, result = found.counts[-1], found.sandwich
    protocol = f"{protocol}, AIS with {num} temperatures and {config.num_annealed} chains"
    backward = f"{protocol}, in reverse from chains after {config.num_equilibration} sweeps"
    nats = functools.partial(Measurement, unit="nats", kind="estimate", split="test")
    general = functools.partial(Measurement, kind="estimate", split="-", protocol=protocol)
    return {
        f"{name}_forward": nats(offset + float(result.forward), protocol=protocol),
        f"{name}_reverse": nats(offset + float(result.reverse), protocol=backward),
        "log_z_gap": general(float(result.gap), "nats"),
        "log_z_forward": general(float(result.forward), "nats"),
        "log_z_standard_error": general(float(result.standard_error[0]), "nats"),
        "ais_ess": general(float(result.ess[0]), "chains"),
    }


def draw_annealing(path: pathlib.Path, found: annealed_importance.Doubling) -> None:
    """How the two sides of log Z come together: their gap against the number of temperatures."""
    named = {"log Z from above − from below": (np.log2(found.counts), found.gaps)}
    pictures.lines(path, named, "log2 of the number of temperatures; nats")


def draw_filters(path: pathlib.Path, rows: Rows, weights: Any) -> None:
    """The weights (size, hidden) of the first hidden units as images, grey where they are 0, each to its own scale."""
    weights = np.asarray(weights).T[:SHOWN]
    scale = np.abs(weights).max(axis=1, keepdims=True) + 1e-12
    pictures.grid(path, rows.images(0.5 + 0.5 * weights / scale), rows.columns)


def _on(threshold: int, key: Key, batch: Batch) -> Batch:
    del key
    return {**batch, "x": (batch["x"] >= threshold).astype(jnp.float32)}


def _cut(dataset: Dataset, num_train: int) -> Dataset:
    names = tuple(dataset.splits["train"])
    joined = {name: np.concatenate([part[name] for part in dataset.splits.values()]) for name in names}
    total = len(joined[names[0]])
    if not 1 <= num_train < total:
        raise ValueError(f"`num_train` must lie in 1..{total - 1}, got {num_train}.")
    train = {name: values[:num_train] for name, values in joined.items()}
    # A run looks at validation data; these are training rows, and nothing is chosen by them.
    valid = {name: values[-min(num_train, total - num_train) :] for name, values in train.items()}
    test = {name: values[num_train:] for name, values in joined.items()}
    return dataclasses.replace(dataset, splits={"train": train, "valid": valid, "test": test})
