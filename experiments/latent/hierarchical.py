"""L12: VAE with several stochastic layers: a ladder, or inference from the bottom up.

    python -m experiments.latent.hierarchical                             # 8×8 digits with 17 levels
    python -m experiments.latent.hierarchical binarized_mnist --data DIR  # four .amat files

Measured (seed 0, two shared CPU cores, test data): digits at most 82.18 nats with 500 importance samples (1.853
bits/dim), one-draw ELBO −85.52, 40 s; binarized_mnist, a ladder of two layers under a VampPrior, at most 84.24 nats
with 5,000 importance samples, one-draw ELBO −88.19, 1,174 s of training and 17 min of evaluation on one core.

Papers: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016; Sønderby et al., "Ladder Variational
Autoencoders", 2016.
"""

import dataclasses
import functools
import pathlib
from typing import Any

from experiments import pictures
from experiments.latent import image_vae
from experiments.runner import main
from experiments.system import System
from jgen._types import Batch, Key
from jgen.latent import hierarchical
from jgen.model import Model
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(image_vae.Training):
    """The knobs worth turning."""

    inference: str = "ladder"
    """ladder or bottom_up."""
    latent_sizes: tuple[int, ...] = (16, 8)
    """Of z_1, …, z_L."""
    hidden_sizes: tuple[int, ...] = (512, 128)
    """Of each layer's networks, up and down."""
    num_hidden: int = 2
    """Hidden layers in each network."""
    gated: bool = False
    prior: str = "standard_normal"
    """Of z_L: standard_normal, mixture or vamp."""
    num_components: int = 500
    """Of the mixture, or pseudo-inputs of the VampPrior."""
    num_samples: int = 1
    """K of the bound that is trained; 1 is the ELBO."""
    estimator: str = "dreg"
    """plain, stl or dreg, where K > 1."""
    dropout_rate: float = 0.2
    warm_up_steps: int = 1_000
    num_steps: int = 6_000


_MNIST = dataclasses.replace(
    Config(latent_sizes=(40, 40), hidden_sizes=(300, 300), gated=True, warm_up_steps=10_000), **image_vae.STATIC_MNIST
)

PRESETS = {
    "digits": Config(),
    "smoke": Config(num_steps=2, eval_every=2, hidden_sizes=(16, 8), num_importance_samples=4),
    "binarized_mnist": dataclasses.replace(_MNIST, prior="vamp", num_components=200, num_steps=50_000),
    "binarized_mnist_normal": _MNIST,
    "binarized_mnist_50": dataclasses.replace(
        _MNIST,
        inference="bottom_up",
        latent_sizes=(100, 50),
        hidden_sizes=(200, 100),
        gated=False,
        num_samples=50,
        num_steps=400_000,
        eval_every=5_000,
        patience=20,
    ),
    "ladder_5": dataclasses.replace(
        _MNIST,
        data="tfds:mnist",
        likelihood="dynamic_bernoulli",
        latent_sizes=(64, 32, 16, 8, 4),
        hidden_sizes=(512, 256, 128, 64, 32),
        gated=False,
        warm_up_steps=100_000,
        num_steps=1_000_000,
        eval_every=10_000,
        patience=20,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    images, likelihood = image_vae.load_images(config, seed)
    hierarchy = hierarchical.dense(
        images.dataset.shape,
        likelihood,
        config.latent_sizes,
        [(size,) * config.num_hidden for size in config.hidden_sizes],
        inference=config.inference,
        prior=image_vae.prior(config),
        gated=config.gated,
        dropout_rate=config.dropout_rate,
    )
    model = hierarchical.model(
        hierarchy,
        image_vae.optimizer(config),
        num_samples=config.num_samples,
        estimator=config.estimator,
        warm_up_steps=config.warm_up_steps,
    )

    def terms(key: Key, state: Any, batch: Batch) -> hierarchical.Terms:
        return hierarchical.terms(key, state.params, state.stats, batch, hierarchy=hierarchy)

    def bound(key: Key, state: Any, batch: Batch) -> Any:
        own = {"hierarchy": hierarchy, "num_samples": config.num_importance_samples}
        return hierarchical.iwae_bound(key, state.params, state.stats, batch, **own)

    draw = functools.partial(_draw, images, model, hierarchy)
    return image_vae.experiment(config, images, model, terms, bound, draw, select="negative_bound")


def _draw(
    images: image_vae.Images,
    model: Model[Any],
    hierarchy: hierarchical.Hierarchy,
    key: Key,
    state: Any,
    directory: pathlib.Path,
) -> None:
    image_vae.draw_samples(images, model, key, state, directory)
    x = images.rows("test", 32)
    again = hierarchical.reconstruct(key, state.params, state.stats, x, hierarchy=hierarchy)
    pictures.panels(directory / "reconstructions.png", {"test": images.shown(x), "again": images.shown(again)})


SYSTEM = System(
    id="L12",
    module="latent.hierarchical",
    title="Hierarchical and ladder VAE",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "binarized_mnist_50": {
            "nll": {
                "value": 85.32,
                "source": "IWAE, two stochastic layers, as quoted",
                "protocol": "static binarization, K = 50 in training, 5,000 samples",
            }
        },
        "ladder_5": {
            "nll": {
                "value": 81.74,
                "source": "LVAE with five layers, quoted by VLAE",
                "protocol": "dynamic binarization, batch normalization",
            }
        },
    },
)

if __name__ == "__main__":
    main(SYSTEM)
