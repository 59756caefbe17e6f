"""L8: VQ-VAE, and then an autoregressive prior over its codes: two stages in one run.

    python -m experiments.latent.vq_vae                                  # 8×8 digits with 17 levels, 2×2 codes
    python -m experiments.latent.vq_vae digits_gradient                  # the codes learn by gradient
    python -m experiments.latent.vq_vae binarized_mnist --data DIR       # the four .amat files, or tfds:binarized_mnist
    python -m experiments.latent.vq_vae cifar10_small --data FILE.npz    # or tfds:cifar10

The autoencoder is trained first, in the run's directory; the prior then, on the codes of the autoencoder as it stands,
in `retrained`. −log p(x) is at most the rate, −log p(k(x)) under the prior, plus the distortion, −log p(x|e_k).

Measured (seed 0, two busy CPU cores, test data; nats at most = rate + distortion; perplexity of all codes):
    digits            90.30 = 13.86 + 76.45, 2.036 bits/dim, perplexity 45.4 of 64, 71 s of CPU time
    digits_gradient   92.10 = 12.98 + 79.12, 2.076 bits/dim, 35.6 of 64
    digits_fine       93.52 = 24.78 + 68.75, 2.108 bits/dim, 7.5 of 8; digits_pixel_cnn, the same codes: 94.32
    digits_dense      92.53 = 10.68 + 81.85, 2.086 bits/dim, 110 of 128
    cifar10_small    13226 = 224 + 13002, 6.211 bits/dim, 4,000 training images, 109.6 of 128, 131 s on two idle cores
    binarized_mnist  108.00 = 56.66 + 51.34, 121.4 of 128, 12 min of CPU time; without the prior 128.18
Every code is used in all of them. A VAE, whose latents need not be named to the last bit, stays ahead (latent.vae).

Paper: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", 2017.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.autoregressive import images
from experiments.evaluation import averages
from experiments.latent import vq_pictures
from experiments.runner import main
from experiments.system import System
from jgen._types import Batch, Key
from jgen.autoregressive import gated_pixel_cnn, image_transformer, raster
from jgen.data import transforms
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.latent import codebook, vq_prior, vq_vae
from jgen.learners import GradientState, average
from jgen.math import likelihoods
from jgen.metrics.measurement import Measurement
from jgen.model import Model
from jgen.train import Experiment, Outcome

MIN_TOKENS = 100_000
"""Codes that the perplexity is taken over, where the training images have as many."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Any source of images; levels and size come from the data."""
    likelihood: str = "discretized_logistic"
    """discretized_logistic, categorical, or bernoulli (grey images are binarized at half)."""
    network: str = "convolutional"
    """convolutional (a code for each 2^stages × 2^stages pixels) or dense (`num_vectors` codes that see everything)."""
    channels: tuple[int, ...] = (64, 64)
    """Of each stage, or the widths of the dense layers."""
    num_blocks: int = 2
    num_vectors: int = 16
    num_codes: int = 64
    dim: int = 16
    learning: str = "average"
    """How the codes learn: average or gradient."""
    commitment: float = 0.25
    decay: float = 0.99
    revive_below: float = 0.01
    """A code is dead, and revived, below this share of the mean count."""
    learning_rate: float = 1e-3
    batch_size: int = 64
    num_steps: int = 1_500
    eval_every: int = 100
    patience: int = 5
    """Evaluations on validation data without a better bound after which the autoencoder is finished."""
    prior: str = "transformer"
    """transformer or gated_pixel_cnn."""
    prior_layers: int = 2
    prior_width: int = 64
    prior_dropout: float = 0.1
    prior_learning_rate: float = 2e-3
    prior_average_decay: float = 0.99
    prior_steps: int = 1_000
    prior_eval_every: int = 50
    prior_patience: int = 5


_MNIST = Config(
    data="tfds:binarized_mnist",
    likelihood="bernoulli",
    channels=(16, 32, 64),
    num_blocks=1,
    num_codes=128,
    batch_size=100,
    num_steps=8_000,
    eval_every=500,
    prior_layers=3,
    prior_average_decay=0.999,
    prior_steps=6_000,
    prior_eval_every=500,
)
_PAPER = Config(
    data="tfds:cifar10",
    channels=(256, 256),
    num_codes=512,
    dim=64,
    learning_rate=2e-4,
    batch_size=128,
    num_steps=250_000,
    eval_every=5_000,
    prior="gated_pixel_cnn",
    prior_layers=12,
    prior_width=256,
    prior_learning_rate=4e-4,
    prior_average_decay=0.9995,
    prior_steps=100_000,
    prior_eval_every=2_000,
)

_CIFAR = Config(data="tfds:cifar10", prior_average_decay=0.999)
_SMOKE_PRIOR = {"prior_layers": 1, "prior_width": 8, "prior_steps": 2, "prior_eval_every": 2}

PRESETS = {
    "digits": Config(),
    "digits_gradient": Config(learning="gradient"),
    "digits_fine": Config(channels=(64,), num_codes=8),
    "digits_pixel_cnn": Config(channels=(64,), num_codes=8, prior="gated_pixel_cnn", prior_width=32, prior_dropout=0.5),
    "digits_dense": Config(network="dense", channels=(256, 256), num_vectors=4, num_codes=128, learning_rate=5e-4),
    "smoke": dataclasses.replace(
        Config(channels=(8,), num_blocks=1, num_codes=8, dim=4, num_steps=2, eval_every=2), **_SMOKE_PRIOR
    ),
    "binarized_mnist": _MNIST,
    "mnist": dataclasses.replace(_MNIST, data="tfds:mnist", likelihood="discretized_logistic"),
    "cifar10_small": dataclasses.replace(
        _CIFAR, channels=(32, 64), num_blocks=1, num_codes=128, eval_every=250, prior_width=96, prior_eval_every=250
    ),
    "cifar10": Config(
        data="tfds:cifar10",
        channels=(64, 128),
        num_codes=256,
        dim=32,
        num_steps=6_000,
        eval_every=500,
        prior_layers=4,
        prior_width=128,
        prior_average_decay=0.999,
        prior_steps=4_000,
        prior_eval_every=500,
    ),
    "paper_cifar10": _PAPER,
    "paper_imagenet": dataclasses.replace(_PAPER, data="imagenet128", prior_layers=20),
}


def build(config: Config, seed: int) -> Experiment:
    """The autoencoder's experiment, the first stage."""
    _, data, networks = _parts(config, seed)
    quantizer = vq_vae.Quantizer(
        config.num_codes, config.learning, config.commitment, config.decay, config.revive_below
    )
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01)
    model = vq_vae.model(networks, quantizer, optax.chain(optax.clip_by_global_norm(100.0), optax.adam(schedule)))
    choice = {"eval_every": config.eval_every, "select": "negative_bound", "patience": config.patience}
    return Experiment(model, data, config.num_steps, **choice)


def retrain(config: Config, seed: int, outcome: Outcome) -> Experiment:
    """The prior's experiment, the second stage, on the codes of the first one's outcome; it gives the result."""
    dataset, data, networks = _parts(config, seed)
    first: GradientState = outcome.state
    shape = vq_prior.code_shape(first.params, first.stats, networks)
    network = _prior(config, shape)
    schedule = optax.cosine_decay_schedule(config.prior_learning_rate, config.prior_steps, 0.01)
    optimizer = optax.adamw(schedule, weight_decay=1e-2, mask=images.kernels)
    prior = average(
        raster.model(network, optax.chain(optax.clip_by_global_norm(1.0), optimizer)), config.prior_average_decay
    )
    model = vq_prior.model(networks, first, prior)
    levels = 2 if config.likelihood == "bernoulli" else images.levels(dataset)
    drawing = vq_pictures.Drawing(networks, network, model, prior, data, levels)
    return Experiment(
        model,
        data,
        config.prior_steps,
        functools.partial(_measure, config, networks, prior, data, dataset),
        drawing.write,
        eval_every=config.prior_eval_every,
        select="negative_bound",
        patience=config.prior_patience,
    )


def _parts(config: Config, seed: int) -> tuple[Dataset, Data, vq_vae.Networks]:
    """The data set as images, its batches, and the autoencoder's networks."""
    dataset = images.images(images.Config(data=config.data), seed)
    levels = images.levels(dataset)
    kinds = {
        "bernoulli": likelihoods.Bernoulli(),
        "categorical": likelihoods.Categorical(levels),
        "discretized_logistic": likelihoods.DiscretizedLogistic(levels),
    }
    if config.likelihood not in kinds:
        raise ValueError(f"`likelihood` must be one of {', '.join(kinds)}, got {config.likelihood!r}.")
    only = transforms.only("x")
    transform = transforms.chain(only, transforms.binarize(levels)) if config.likelihood == "bernoulli" else only
    data = in_memory(dataset, config.batch_size, seed, transform=transform)
    return dataset, data, _networks(config, dataset.shape, kinds[config.likelihood])


def _networks(config: Config, shape: tuple[int, ...], likelihood: likelihoods.Likelihood) -> vq_vae.Networks:
    if config.network == "dense":
        return vq_vae.dense(shape, likelihood, config.dim, num_vectors=config.num_vectors, hidden_sizes=config.channels)
    if config.network != "convolutional":
        raise ValueError(f"`network` must be 'convolutional' or 'dense', got {config.network!r}.")
    return vq_vae.convolutional(shape, likelihood, config.dim, channels=config.channels, num_blocks=config.num_blocks)


def _prior(config: Config, shape: tuple[int, int, int]) -> raster.Network:
    """A network over maps of codes; their indices are names, so that it embeds each."""
    sizes: dict[str, Any] = {"num_layers": config.prior_layers, "dropout_rate": config.prior_dropout}
    if config.prior == "transformer":
        return image_transformer.network(shape, config.num_codes, width=config.prior_width, **sizes)
    if config.prior != "gated_pixel_cnn":
        raise ValueError(f"`prior` must be 'transformer' or 'gated_pixel_cnn', got {config.prior!r}.")
    sizes |= {"features": config.prior_width, "head_features": config.prior_width, "most_one_hot": config.num_codes}
    return gated_pixel_cnn.network(shape, config.num_codes, first_size=5, **sizes)


def _measure(
    config: Config, networks: vq_vae.Networks, prior: Model[Any], data: Data, dataset: Dataset, key: Key, state: Any
) -> dict[str, Measurement]:
    first = GradientState(state.params["autoencoder"], state.autoencoder.stats, ())

    def per_example(key: Key, batch: Batch) -> dict[str, Any]:
        bound, rate, distortion = vq_prior.terms(state, batch, networks=networks, prior=prior)
        apart = vq_vae.terms(first.params, first.stats, batch, networks=networks)
        return {"nll": -bound, "rate": rate, "distortion": distortion, "nll_of_frequencies": -apart.bound}

    found = averages(key, data, "test", per_example)
    places, dims = math.prod(vq_vae.map_shape(first.params, first.stats, networks)), int(np.prod(dataset.shape))
    protocol = f"{dataset.name}, {config.likelihood}"
    codes = f"{places} codes out of {config.num_codes}"
    stages = {
        "nll": f"{protocol}, two stages: {codes}, {config.prior} prior",
        "rate": f"{protocol}, −log p of {codes}, {config.prior} prior",
        "nll_of_frequencies": f"{protocol}, first stage: {codes}, each drawn by its frequency",
        "nll_of_uniform": f"{protocol}, first stage: {codes}, all maps alike",
    }
    found["nll_of_uniform"] = found["distortion"] + places * math.log(config.num_codes)
    measured = {
        name: Measurement(value, "nats", "bound" if "nll" in name else "none", "test", stages.get(name, protocol))
        for name, value in found.items()
    }
    bits = found["nll"] / dims / math.log(2)
    measured["bits_per_dim"] = dataclasses.replace(measured["nll"], value=bits, unit="bits/dim")
    return {**measured, **_usage(config, networks, data, first)}


def _usage(config: Config, networks: vq_vae.Networks, data: Data, first: GradientState) -> dict[str, Measurement]:
    """Perplexity of the codes and the share of them that is used, over training images."""
    count = jax.jit(lambda x: vq_vae.codes(first.params, first.stats, x, networks=networks))
    counts = np.zeros(config.num_codes)
    for batch, num in data.batches("train"):
        counts += np.bincount(np.asarray(count(batch["x"]))[:num].ravel(), minlength=config.num_codes)
        if counts.sum() >= MIN_TOKENS:
            break
    protocol = f"of {config.num_codes} codes, over {int(counts.sum())} places in training images"
    return {
        "perplexity": Measurement(float(codebook.perplexity(jnp.asarray(counts))), "codes", "none", "train", protocol),
        "codes_used": Measurement(float(np.mean(counts > 0)), "share", "none", "train", protocol),
    }


SYSTEM = System(
    id="L8",
    module="latent.vq_vae",
    title="VQ-VAE with an autoregressive prior over its codes",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
    retrain=retrain,
    references={
        "paper_cifar10": {
            "bits_per_dim": {"value": 4.67, "source": "van den Oord et al., 2017", "protocol": "CIFAR-10, 8×8×10 codes"}
        }
    },
)

if __name__ == "__main__":
    main(SYSTEM)
