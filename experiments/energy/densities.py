"""What the experiments with real-valued energies share: their data, and measures and pictures of what was learned."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from jgen.data import Data, Dataset, in_memory, load, toys, transforms
from jgen.math import quadrature
from jgen.metrics import anomaly, two_sample
from jgen.metrics.measurement import Measurement

BOX, NODES = 4.0, 401
"""Normalizers of densities in the plane are trapezoid sums over [-BOX, BOX]² with NODES² nodes."""
FRAME, CELLS, FINER = 3.0, 64, 3
"""Masses are compared on CELLS² cells of [-FRAME, FRAME]², each with FINER² midpoints."""
DRAWS = 2_000_000


def real_data(
    source: str,
    batch_size: int,
    seed: int,
    *,
    names: tuple[str, ...] = ("x",),
    flat: bool = True,
    noise_std: float = 0.0,
) -> tuple[Dataset, Data]:
    """Levels scaled to [-1, 1], blurred by Gaussian noise; toys as they are; other rows standardized."""
    dataset = load(source, seed=seed)
    parts = [transforms.only(*names)]
    if dataset.levels is not None:
        parts += [transforms.flatten] if flat else []
        parts += [transforms.scale(dataset.levels, -1.0, 1.0)]
        parts += [transforms.gaussian_noise(noise_std)] if noise_std else []
    elif not dataset.synthetic:
        parts.append(transforms.standardize(*transforms.moments(dataset)))
    return dataset, in_memory(dataset, batch_size, seed, transform=transforms.chain(*parts))


def rows(data: Data, split: str, name: str = "x") -> np.ndarray:
    """All examples of a split."""
    return np.concatenate([np.asarray(batch[name])[:num] for batch, num in data.batches(split)])


def sample_distance(name: str, data: Data, samples: Any) -> dict[str, Measurement]:
    """MMD² of samples and, as its floor, of validation data from test data."""
    test, valid = (rows(data, split).reshape(-1, int(np.prod(samples.shape[1:]))) for split in ("test", "valid"))
    size = min(len(test), len(valid), len(samples))
    unit = two_sample.median_distance(jnp.asarray(test[:size]))
    widths = (unit / 4, unit / 2, unit)
    distance = jax.jit(lambda x: two_sample.mmd2(x, jnp.asarray(test[:size]), widths))
    kernel = f"{name}, {size} against {size}, Gaussian kernels of ¼, ½ and 1 median distance"
    found = {"mmd2": ("samples", np.reshape(samples[:size], (size, -1))), "mmd2_floor": ("validation data", valid)}
    return {
        key: Measurement(float(distance(jnp.asarray(x[:size]))), "-", "none", "test", f"{what}: {kernel}")
        for key, (what, x) in found.items()
    }


def foreign_data(source: str, dataset: Dataset, batch_size: int, seed: int, *, noise_std: float) -> Data:
    """The data of `source`, prepared as those of `dataset` are.

    Raises:
        ValueError: its examples have another shape.
    """
    other, data = real_data(source, batch_size, seed, noise_std=noise_std)
    if other.shape != dataset.shape:
        raise ValueError(f"`foreign` must have examples of shape {dataset.shape}, got {other.shape} of {source!r}.")
    return data


def foreign(
    name: str, source: str, energy: Callable[[Any], Any], data: Data, other: Data
) -> tuple[Measurement, dict[str, np.ndarray]]:
    """AUROC of the energy between test data and the test part of another source, and both sets of energies."""
    measured = jax.jit(energy)
    found = {
        split: np.concatenate([np.asarray(measured(batch["x"]))[:num] for batch, num in origin.batches("test")])
        for split, origin in ((name, data), (source, other))
    }
    value = anomaly.auroc(found[name], found[source])
    protocol = f"energies of {len(found[name])} {name} (known) and {len(found[source])} {source} (foreign)"
    return Measurement(value, "AUROC", "none", "test", protocol), found


def mahalanobis(data: Data) -> Callable[[Any], Any]:
    """½ squared Mahalanobis distance from the training rows: the energy of their Gaussian, to compare with."""
    x = rows(data, "train")
    mean, covariance = jnp.asarray(x.mean(axis=0)), np.cov(x.T)
    precision = jnp.asarray(np.linalg.inv(covariance), jnp.float32)
    return lambda x: 0.5 * jnp.sum(((x - mean[None]) @ precision) * (x - mean[None]), axis=1)


def plane(name: str, data: Data, energy: Callable[[Any], Any]) -> dict[str, Measurement]:
    """The exact negative log-likelihood of a density in the plane, and its total variation from the target's."""
    log_z = log_normalizer(energy)
    values = jax.jit(energy)(jnp.asarray(rows(data, "test")))
    nll = float(np.mean(np.asarray(values, np.float64)) + log_z)
    protocol = f"{name}, log Z by quadrature with {NODES}² nodes of [-{BOX:g}, {BOX:g}]²"
    apart = 0.5 * float(np.abs(cell_masses(energy) - target_masses(name)).sum())
    against = f"{CELLS}² cells against {DRAWS:,} draws of {name}"
    return {
        "nll": Measurement(nll, "nats", "exact", "test", protocol),
        "total_variation": Measurement(apart, "-", "estimate", "-", against),
        "log_z": Measurement(log_z, "nats", "exact", "-", protocol),
    }


def log_normalizer(energy: Callable[[Any], Any]) -> float:
    """log ∫ exp(−E) over the box."""
    nodes = quadrature.box(-BOX, BOX, NODES, 2)
    return float(jax.jit(lambda: quadrature.log_integral(lambda x: -energy(x), nodes))())


def cell_masses(energy: Callable[[Any], Any]) -> np.ndarray:
    """(CELLS, CELLS) masses of exp(−E)/Z, [row = second coordinate, column = first]; their sum is 1."""
    num = CELLS * FINER
    side = (np.arange(num) + 0.5) * (2 * FRAME / num) - FRAME
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    log_mass = -np.asarray(jax.jit(energy)(jnp.asarray(points, jnp.float32)), np.float64)
    mass = np.exp(log_mass - log_mass.max()).reshape(CELLS, FINER, CELLS, FINER).sum(axis=(1, 3))
    return mass / mass.sum()


@functools.cache
def target_masses(name: str) -> np.ndarray:
    """The same of a toy, counted over fresh draws."""
    x, _ = toys.SETS[name.removeprefix("toy:")](np.random.default_rng(0), DRAWS)
    counts, _, _ = np.histogram2d(x[:, 1], x[:, 0], bins=CELLS, range=[(-FRAME, FRAME)] * 2)
    return counts / counts.sum()


def draw_plane(directory: pathlib.Path, name: str, energies: Mapping[str, Callable[[Any], Any]]) -> None:
    """Writes densities.png: the target's masses beside those of each energy, on one scale of colours."""
    shown = {"target": target_masses(name), **{title: cell_masses(energy) for title, energy in energies.items()}}
    top = np.quantile(shown["target"], 0.999)
    clipped = {title: np.minimum(mass, top) for title, mass in shown.items()}
    pictures.heatmap(directory / "densities.png", clipped, (-FRAME, FRAME, -FRAME, FRAME))


def draw_samples(directory: pathlib.Path, data: Data, shape: tuple[int, ...], samples: Any) -> None:
    """Writes samples.png: test data and samples, as points where they are in the plane, else as images."""
    test, samples = rows(data, "test"), np.asarray(samples)
    if len(shape) == 1:
        pictures.scatter(directory / "samples.png", {"test": test[:, :2], "samples": samples[:, :2]}, limit=FRAME)
        return
    named = {"test": test[:64], "samples": samples[:64]}
    pictures.panels(directory / "samples.png", {k: as_images(x, shape) for k, x in named.items()})


def as_images(x: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Values in [-1, 1] as images of ink on white, (n, *shape) in [0, 1]."""
    return 0.5 - 0.5 * np.reshape(np.asarray(x), (len(x), *shape))
