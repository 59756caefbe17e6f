"""E6: generative stochastic network with walkback.

    python -m experiments.energy.gsn                     # 8×8 digits at threshold 8, three layers
    python -m experiments.energy.gsn exact               # the middle 2×2 pixels: the stationary law by its matrix
    python -m experiments.energy.gsn binarized_mnist --data DIR   # the .amat files, or tfds:binarized_mnist
    python -m experiments.energy.gsn paper --data DIR    # the same, of the paper's size: an accelerator

CSL (conservative sampling-based log-likelihood) is a lower bound in mean of the log-probability under the chain's
stationary law, and rises with the number of samples.

Measured with seed 0 on two shared CPU cores:
    digits    at most 19.31 nats by CSL with 10,000 samples                                                 60 s
    binarized_mnist   at most 150.7 nats by CSL with 10,000 samples; chains go from digit to digit           481 s
    exact     2.3727 nats, CSL 2.3730; total variation 0.042 from the training data, 0.079 between the      16 s
              training and the test data

Papers: Bengio et al., "Deep generative stochastic networks trainable by backprop", 2014; Bengio, Yao and Cho,
"Bounding the test log-likelihood of generative models", 2013.
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
from experiments.evaluation import averages
from experiments.runner import main
from experiments.system import System
from jgen import run
from jgen._types import Batch, Key
from jgen.data import Data, Dataset, in_memory, load, transforms
from jgen.energy import gsn
from jgen.math import quadrature
from jgen.metrics.measurement import Measurement
from jgen.nets.tied import TiedLayers
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Images in whole-number levels."""
    threshold: int = 8
    """A pixel is on where its level is at least this; 1 keeps binary data as they are."""
    side: int = 0
    """Only the middle side × side pixels; 0 keeps all."""
    layers: tuple[int, ...] = (200, 200, 200)
    noise_std: float = 1.0
    """Of the noise in the layers above the first."""
    corruption: float = 0.4
    """The probability with which a pixel is replaced by a fair coin."""
    num_walkback: int = 5
    learning_rate: float = 1e-3
    batch_size: int = 100
    num_steps: int = 3_000
    eval_every: int = 500
    sample_steps: int = 200
    """From uniform noise to a sample, and before CSL counts."""
    num_bound_samples: int = 10_000
    num_bound_chains: int = 100


_MNIST = Config(
    data="tfds:binarized_mnist",
    threshold=1,
    layers=(500, 500, 500),
    noise_std=2.0,
    num_steps=8_000,
    eval_every=8_000,
)
PRESETS = {
    "digits": Config(),
    "exact": Config(side=2, layers=(64,), noise_std=0.0, corruption=0.05, num_walkback=1, num_steps=30_000),
    "smoke": Config(layers=(8, 8), num_steps=2, eval_every=2, sample_steps=2, num_bound_samples=10, num_bound_chains=5),
    "binarized_mnist": _MNIST,
    "paper": dataclasses.replace(_MNIST, layers=(1_500, 1_500, 1_500), num_steps=250_000, eval_every=5_000),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    if dataset.levels is None or not 1 <= config.threshold < dataset.levels:
        raise ValueError(
            f"`threshold` must be a level in 1..levels-1 of whole-number data, got {config.threshold} for "
            f"{dataset.name!r} with levels={dataset.levels}."
        )
    transform = transforms.chain(transforms.only("x"), functools.partial(_binarize, config))
    data = in_memory(dataset, config.batch_size, seed, transform=transform)
    size = data.train(0)["x"].shape[1]
    net = network(config, size)
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    model = gsn.model(
        net,
        optax.adam(schedule),
        num_walkback=config.num_walkback,
        num_sample_steps=config.sample_steps,
        num_bound_samples=config.num_bound_samples,
        num_bound_chains=config.num_bound_chains,
    )
    measure = functools.partial(_measure, config, dataset, data, model, net)
    draw = functools.partial(_draw, config, data, model, net)
    return Experiment(model, data, config.num_steps, measure, draw, eval_every=config.eval_every)


def network(config: Config, size: int) -> gsn.Network:
    """The chain of `config` over rows of `size` bits."""
    return gsn.Network(TiedLayers(config.layers, config.noise_std), size, corruption=config.corruption)


def _binarize(config: Config, key: Key, batch: Batch) -> Batch:
    """Bits of the (middle) pixels, as rows."""
    del key
    x = (batch["x"] >= config.threshold).astype(jnp.float32)
    if config.side:
        top, left = ((length - config.side) // 2 for length in x.shape[1:3])
        x = x[:, top : top + config.side, left : left + config.side]
    return {**batch, "x": x.reshape(len(x), -1)}


def _rows(data: Data, split: str) -> np.ndarray:
    return np.concatenate([np.asarray(batch["x"])[:num] for batch, num in data.batches(split)])


def _measure(
    config: Config, dataset: Dataset, data: Data, model: Any, net: gsn.Network, key: Key, state: Any
) -> dict[str, Measurement]:
    level = f" at level {config.threshold}" if (dataset.levels or 2) > 2 else ""
    middle = f", the middle {config.side}×{config.side} pixels" if config.side else ""
    protocol = f"{dataset.name}, static binarization{level}{middle}"
    csl = f"{protocol}, CSL with {config.num_bound_samples} samples of {config.num_bound_chains} chains"
    # The same chains for every batch, so that all examples are scored by one density.
    means = averages(key, data, "test", lambda _, batch: {"csl": -model.log_bound(key, state, batch)})
    found = {"nll_csl": Measurement(means["csl"], "nats", "bound", "test", csl)}
    if len(config.layers) == 1 and net.num_dims <= 10:
        found |= _exact(protocol, data, net, state)
    return found


def _exact(protocol: str, data: Data, net: gsn.Network, state: Any) -> dict[str, Measurement]:
    """The stationary law by the exact transition matrix: its distance from the data's, and test data under it."""
    points = quadrature.every((0.0, 1.0), net.num_dims).points
    matrix = np.asarray(
        jax.jit(functools.partial(gsn.transition_matrix, network=net))(state.params, points), np.float64
    )
    law = np.linalg.matrix_power(matrix / matrix.sum(axis=1, keepdims=True), 2**20)[0]
    law /= law.sum()
    powers = 2 ** np.arange(net.num_dims - 1, -1, -1)
    counts = {s: np.bincount(_rows(data, s).astype(int) @ powers, minlength=len(law)) for s in ("train", "test")}
    shares = {split: count / count.sum() for split, count in counts.items()}
    how = f"{protocol}, stationary law of the exact transition matrix"
    nll = -float(np.sum(shares["test"] * np.log(law)))
    apart = {split: 0.5 * float(np.abs(law - share).sum()) for split, share in shares.items()}
    floor = 0.5 * float(np.abs(shares["train"] - shares["test"]).sum())
    return {
        "nll": Measurement(nll, "nats", "exact", "test", how),
        "total_variation": Measurement(apart["train"], "-", "exact", "train", how),
        "total_variation_test": Measurement(apart["test"], "-", "exact", "test", how),
        "total_variation_floor": Measurement(
            floor, "-", "exact", "test", f"{protocol}, training from test frequencies"
        ),
    }


def _draw(
    config: Config, data: Data, model: Any, net: gsn.Network, key: Key, state: Any, directory: pathlib.Path
) -> None:
    """Samples, and chains that start at test images: a row each, the start first, then every fourth step."""
    side = int(np.sqrt(net.num_dims))

    def image(rows: Any) -> np.ndarray:
        return 1 - np.reshape(np.asarray(rows), (-1, side, net.num_dims // side, 1))

    samples = jax.jit(model.sample, static_argnums=2)(key, state, 64)["x"]
    test = _rows(data, "test")[:64]
    pictures.panels(directory / "samples.png", {"test": image(test), "samples": image(samples)})
    kernel, starts = gsn.chain(state.params, network=net), jnp.asarray(test[:8])

    def keep(state: gsn.State, info: gsn.Info) -> Any:
        del state
        return jax.nn.sigmoid(info.logits[..., 0])

    means = jax.jit(lambda key: run(key, kernel, kernel.init(key, starts), 60, keep=keep)[1])(key)
    path = np.concatenate([np.asarray(starts)[None], np.asarray(means)[3::4]]).swapaxes(0, 1)
    pictures.grid(directory / "chain.png", image(path.reshape(-1, net.num_dims)), columns=16)


SYSTEM = System(
    id="E6",
    module="energy.gsn",
    title="Generative stochastic network",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
