"""C5: Gaussian mixture by expectation-maximization.

    python -m experiments.classical.mixture                              # a ring of eight Gaussians
    python -m experiments.classical.mixture digits                       # 8×8 digits, on 20 principal components
    python -m experiments.classical.mixture binary                       # binarized digits: a Bernoulli mixture

Seed 0, test data: ring 0.329 nats, digits 59.28 nats (density on the principal components), binary 17.86 nats.

Dempster, Laird, Rubin, "Maximum Likelihood from Incomplete Data via the EM Algorithm", 1977.
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
from jgen.classical import classifier, latent_class, mixture
from jgen.data import load
from jgen.data.pipeline import Data, Dataset
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "toy:eight_gaussians"
    """Points, a table, or images (their pixels as rows)."""
    num_components: int = 8
    covariance: str = "full"
    """full or diagonal for Gaussians; levels for independent categories, of images binarized at half."""
    num_principal: int = 0
    """Principal components (of the training data) to project on; 0 leaves the data as they are."""
    floor: float = 1e-4
    """Added to every variance."""
    num_steps: int = 30
    """Rounds of EM, each on all training data."""


PRESETS = {
    "toy": Config(),
    "smoke": Config(num_steps=2),
    "digits": Config(data="digits", num_components=20, num_principal=20, floor=1e-1, num_steps=50),
    "binary": Config(data="digits", num_components=30, covariance="levels", num_steps=50),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    if config.covariance == "levels":
        return _of_levels(config, dataset)
    axes = _Axes(dataset, config.num_principal)
    splits = {name: {"x": axes.project(split["x"])} for name, split in dataset.splits.items()}
    model = mixture.model(config.num_components, covariance=config.covariance, floor=config.floor)
    return Experiment(
        model,
        Data(lambda step: splits["train"], lambda split: iter([(splits[split], len(splits[split]["x"]))])),
        config.num_steps,
        functools.partial(_measure, config, dataset, splits["test"]),
        functools.partial(_draw, axes, splits["train"]["x"]),
        log_every=1,
        eval_every=10,
        select="nll",
    )


def _of_levels(config: Config, dataset: Dataset) -> Experiment:
    """A mixture of Bernoulli variables, one per pixel."""
    if dataset.levels is None:
        raise ValueError(f"`covariance` must be full or diagonal for real data such as {dataset.name!r}, got 'levels'.")
    half = (dataset.levels - 1) / 2
    rows = {name: (np.asarray(s["x"]).reshape(dataset.size(name), -1) > half) for name, s in dataset.splits.items()}
    splits = {name: {"x": jnp.asarray(x, jnp.int32)} for name, x in rows.items()}
    data = Data(lambda step: splits["train"], lambda split: iter([(splits[split], len(splits[split]["x"]))]))
    model = latent_class.model(config.num_components)

    def measure(key: Key, state: Any) -> dict[str, Measurement]:
        nll = float(jnp.mean(model.evaluate(key, state, splits["test"])["nll"]))
        protocol = f"{dataset.name}, binarized at half, {config.num_components} Bernoulli components"
        return {"nll": Measurement(nll, "nats", "exact", "test", protocol)}

    def draw(key: Key, state: Any, directory: pathlib.Path) -> None:
        drawn, _ = jax.jit(classifier.sample, static_argnums=2)(key, state.params, 64)
        order = np.argsort(-np.asarray(state.params.log_prior))
        means = np.exp(np.asarray(state.params.log_probs))[order, :, 1]
        named = {"samples": drawn, "components, the heaviest first": means, "test data": rows["test"][:64]}
        sheets = {name: np.asarray(x, np.float32).reshape(len(x), *dataset.shape) for name, x in named.items()}
        pictures.panels(directory / "samples.png", sheets)

    return Experiment(model, data, config.num_steps, measure, draw, log_every=1, eval_every=10, select="nll")


class _Axes:
    """Rows of data, or their coordinates along the first principal axes of the training split."""

    def __init__(self, dataset: Dataset, num: int) -> None:
        rows = self._rows(dataset.splits["train"]["x"])
        self.shape, self.levels = dataset.shape, dataset.levels or 2
        self.mean = rows.mean(axis=0) if num else np.zeros(rows.shape[1])
        self.basis = np.linalg.svd(rows - self.mean, full_matrices=False)[2][:num] if num else np.eye(rows.shape[1])

    def project(self, x: Any) -> Any:
        return ((self._rows(x) - self.mean) @ self.basis.T).astype(np.float32)

    def images(self, coordinates: Any) -> Any:
        """Images in [0, 1]."""
        return ((np.asarray(coordinates) @ self.basis + self.mean) / (self.levels - 1)).reshape(-1, *self.shape)

    @staticmethod
    def _rows(x: Any) -> np.ndarray:
        return np.asarray(x, np.float64).reshape(len(x), -1)


def _measure(config: Config, dataset: Dataset, test: Any, key: Key, state: Any) -> dict[str, Measurement]:
    del key
    x = jnp.asarray(test["x"])
    r = mixture.responsibilities(state.params, x)
    entropy = -jnp.mean(jnp.sum(jax.scipy.special.xlogy(r, r), axis=1))
    space = f"density on {config.num_principal} principal components" if config.num_principal else "density"
    protocol = f"{dataset.name}, {config.num_components} {config.covariance} components, {space}"
    nll = -float(jnp.mean(mixture.log_prob(state.params, x)))
    return {
        "nll": Measurement(nll, "nats", "exact", "test", protocol),
        "responsibility_entropy": Measurement(float(entropy), "nats", "none", "test", protocol),
    }


def _draw(axes: _Axes, train: Any, key: Key, state: Any, directory: pathlib.Path) -> None:
    plane = train.shape[1] == 2
    drawn, which = jax.jit(mixture.sample, static_argnums=2)(key, state.params, 2_000 if plane else 64)
    if len(axes.shape) == 3:
        pictures.grid(directory / "samples.png", axes.images(drawn))
        pictures.grid(directory / "components.png", axes.images(state.params.means))
        return
    pictures.scatter(directory / "samples.png", {"samples, by component": drawn[:, :2]}, labels=np.asarray(which))
    own = np.argmax(mixture.responsibilities(state.params, jnp.asarray(train)), axis=1)
    rings = _ellipses(state.params)
    points = np.concatenate([train[:, :2], rings])
    # The ellipses get a colour of their own.
    labels = np.concatenate([own, np.full(len(rings), own.max() + 1)])
    pictures.scatter(directory / "components.png", {"data, by responsibility": points}, labels=labels)


def _ellipses(params: mixture.Mixture) -> np.ndarray:
    """Points at two standard deviations from each component's mean, in the first two axes."""
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = 2 * np.stack([np.cos(angle), np.sin(angle)])
    full = params.covariances if params.covariances.ndim == 3 else jax.vmap(jnp.diag)(params.covariances)
    factors = np.linalg.cholesky(np.asarray(full)[:, :2, :2])
    rings = np.asarray(params.means)[:, :2, None] + factors @ circle
    return np.moveaxis(rings, 1, 2).reshape(-1, 2)


SYSTEM = System(
    id="C5",
    module="classical.mixture",
    title="Gaussian mixture",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
