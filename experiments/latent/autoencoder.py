"""L1: autoencoders, under- and overcomplete, beside PCA; and why they are no generative models.

    python -m experiments.latent.autoencoder                             # 8×8 digits, dense, 8 codes
    python -m experiments.latent.autoencoder plane                       # 2 codes
    python -m experiments.latent.autoencoder conv                        # 8 codes, convolutions
    python -m experiments.latent.autoencoder overcomplete                # 256 codes, 8 of them active
    python -m experiments.latent.autoencoder noisy | contractive | copying
    python -m experiments.latent.autoencoder mnist --data DIR            # idx files, or tfds:mnist

Measured (seed 0, two shared, loaded CPU cores, test data, mean squared error of a pixel in [0, 1], PCA with as many
components in brackets): digits 0.0117 (0.0245), 6 s; plane 0.0319 (0.0538), 8 s; conv 0.0118 (0.0245), 26 s;
overcomplete 0.0123 (8 components: 0.0245), 18 s; mnist 0.0080 (0.0168), 88 s. contractive, 32 codes: 0.0027, no better
than PCA (0.0026). copying rebuilds anything: 0.0000, and of shuffled pixels 0.022, where noisy has 0.0112 and 0.121,
digits 0.202. MMD² of digits to test data: decoded N(0, I) 0.271, decoded Gaussian of the codes 0.019, a VAE's draws
0.008 (its means 0.084: they are blurred), validation data 0.001.

Papers: Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", 2006; Vincent et al.,
2008; Rifai et al., 2011; Makhzani and Frey, 2014.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from experiments.latent import codes
from experiments.runner import main
from experiments.system import System
from jgen._checks import one_of
from jgen._types import Key
from jgen.data import load, transforms
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.latent import autoencoder, vae
from jgen.math import likelihoods
from jgen.metrics import two_sample
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment, train

ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh}
MOST_CATEGORIES = 32
"""Levels up to which the VAE beside has a probability for each; beyond, a discretized logistic."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Any source of images, scaled to [0, 1]; or rows of real numbers, as they are."""
    network: str = "dense"
    """dense or conv."""
    latent_size: int = 8
    num_active: int = 0
    """Codes kept, the largest ones; 0 keeps all."""
    hidden_size: int = 256
    num_layers: int = 2
    """Hidden layers of each half; with 0 the dense autoencoder is linear."""
    activation: str = "relu"
    """relu or tanh, of the dense layers."""
    channels: int = 32
    """Of the first convolution; the second has twice as many."""
    reconstruction: str = "gaussian"
    """gaussian (half the squared error) or bernoulli (cross-entropy)."""
    noise_std: float = 0.0
    """Of Gaussian noise on the input in training; the target stays clean."""
    sparsity: float = 0.0
    """Weight of the ℓ1 penalty on the codes."""
    contractive: float = 0.0
    """Weight of the encoder's squared Jacobian."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    batch_size: int = 64
    num_steps: int = 6_000
    eval_every: int = 500
    patience: int = 4
    """Evaluations on validation data without a lower squared error after which training stops."""
    num_vae_steps: int = 3_000
    """Of the VAE, of as many codes and at least one hidden layer, whose samples stand beside."""


MNIST = Config(
    data="tfds:mnist", latent_size=32, hidden_size=512, weight_decay=1e-2, batch_size=128, num_vae_steps=4_000
)
PRESETS = {
    "digits": Config(),
    "smoke": Config(num_steps=2, eval_every=2, hidden_size=8, num_vae_steps=2),
    "plane": Config(latent_size=2),
    "conv": Config(network="conv", num_steps=3_000, num_vae_steps=1_500),
    "overcomplete": Config(latent_size=256, num_active=8, num_layers=0, sparsity=1e-3, weight_decay=0.01),
    "noisy": Config(latent_size=128, num_layers=0, noise_std=0.3, weight_decay=0.0),
    "contractive": Config(latent_size=32, num_layers=1, activation="tanh", contractive=0.01, weight_decay=0.01),
    "copying": Config(latent_size=128, num_layers=0, weight_decay=0.0),
    "mnist": MNIST,
    "mnist_plane": dataclasses.replace(MNIST, latent_size=2, num_layers=3),
    "mnist_conv": dataclasses.replace(MNIST, network="conv"),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    unit = transforms.scale(dataset.levels) if dataset.levels else transforms.chain()
    data = in_memory(dataset, config.batch_size, seed, transform=transforms.chain(transforms.only("x"), unit))
    networks = _networks(config, dataset)
    model = autoencoder.model(
        networks,
        _optimizer(config, config.num_steps),
        corruption=transforms.gaussian_noise(config.noise_std) if config.noise_std else None,
        sparsity=config.sparsity,
        contractive=config.contractive,
    )
    sample_vae = functools.cache(functools.partial(_vae, config, dataset, seed))
    return Experiment(
        model,
        data,
        config.num_steps,
        functools.partial(_measure, config, networks, dataset, data, sample_vae),
        functools.partial(_draw, config, networks, dataset, data, sample_vae),
        eval_every=config.eval_every,
        select="squared_error",
        patience=config.patience,
    )


def _networks(config: Config, dataset: Dataset) -> autoencoder.Networks:
    keywords: dict[str, Any] = {
        "reconstruction": config.reconstruction,
        "num_active": config.num_active or None,
        **_layers(config),
    }
    make = autoencoder.convolutional if config.network == "conv" else autoencoder.dense
    return make(dataset.shape, config.latent_size, **keywords)


def _layers(config: Config) -> dict[str, Any]:
    one_of("network", config.network, ("dense", "conv"))
    one_of("activation", config.activation, ACTIVATIONS)
    if config.network == "conv":
        return {"channels": (config.channels, 2 * config.channels)}
    sizes = (config.hidden_size,) * config.num_layers
    return {"hidden_sizes": sizes, "activation": ACTIVATIONS[config.activation]}


def _optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(config.learning_rate, num_steps, 0.01)
    return optax.adamw(schedule, weight_decay=config.weight_decay)


def _vae(config: Config, dataset: Dataset, seed: int) -> codes.Sampler:
    """(key, num) -> (E[x|z] at z ~ N(0, I), draws x ~ p(x)) of a VAE that is trained here; in [0, 1] as the data."""
    levels = dataset.levels
    fine = likelihoods.DiscretizedLogistic if levels and levels > MOST_CATEGORIES else likelihoods.Categorical
    likelihood = fine(levels) if levels else likelihoods.Gaussian()
    make = vae.convolutional if config.network == "conv" else vae.dense
    layers = _layers(dataclasses.replace(config, num_layers=max(1, config.num_layers)))
    networks = make(dataset.shape, likelihood, config.latent_size, **layers)
    data = in_memory(dataset, config.batch_size, seed, transform=transforms.only("x"))
    steps = config.num_vae_steps
    model = vae.model(networks, _optimizer(config, steps))
    every = min(config.eval_every, steps)
    chosen = Experiment(model, data, steps, eval_every=every, select="negative_elbo", patience=config.patience)
    state = train(chosen, seed=seed).state
    unit = 1 / (levels - 1) if levels else 1.0

    def sample(key: Key, num: int) -> tuple[Any, Any]:
        z = jax.random.normal(key, (num, config.latent_size))
        means = vae.decode(state.params, state.stats, z, networks=networks)
        return unit * means, unit * model.sample(key, state, num)["x"]  # pyright: ignore[reportOptionalCall]

    return sample


def _measure(
    config: Config,
    networks: autoencoder.Networks,
    dataset: Dataset,
    data: Data,
    sample_vae: Callable[[], codes.Sampler],
    key: Key,
    state: Any,
) -> dict[str, Measurement]:
    sets = {split: codes.rows(data, split) for split in ("train", "valid", "test")}
    test, dims = sets["test"], int(np.prod(dataset.shape))
    num, equal = pca_size(config, dims)
    protocol = f"{dataset.name}, {'pixels in [0, 1]' if dataset.levels else 'as they are'}"
    rebuild = jax.jit(functools.partial(autoencoder.reconstruct, networks=networks))
    shuffled = np.random.default_rng(0).permuted(test.reshape(len(test), -1), axis=1).reshape(test.shape)
    errors = {
        "mse": (test, rebuild(state.params, state.stats, test), f"{protocol}, {config.latent_size} codes"),
        "pca_mse": (test, codes.principal(sets["train"], num)(test)[1], f"{protocol}, {equal}"),
        "mse_of_shuffled_pixels": (
            shuffled,
            rebuild(state.params, state.stats, shuffled),
            f"{protocol}, each shuffled",
        ),
    }
    found = {
        name: Measurement(float(np.mean(np.square(x - np.asarray(again)))), "per pixel", "none", "test", said)
        for name, (x, again, said) in errors.items()
    }
    return {**found, **_failed_sampling(networks, sets, sample_vae(), protocol, key, state)}


def pca_size(config: Config, dims: int) -> tuple[int, str]:
    """(components of the PCA beside, in words): as many as codes, or as active ones, and fewer than dimensions."""
    num = min(config.num_active or config.latent_size, dims - 1)
    return num, f"{num} components"


def _failed_sampling(
    networks: autoencoder.Networks,
    sets: dict[str, np.ndarray],
    sample_vae: codes.Sampler,
    protocol: str,
    key: Key,
    state: Any,
) -> dict[str, Measurement]:
    """MMD² of decoded N(0, I), of the decoded Gaussian fitted to the codes, of a VAE, and of validation data."""
    size = min(1_000, len(sets["test"]), len(sets["valid"]))
    flat = {name: jnp.asarray(x[:size].reshape(size, -1)) for name, x in sets.items()}
    widths = tuple(h * two_sample.median_distance(flat["test"]) for h in (0.5, 1.0, 2.0))
    drawn = codes.drawn(key, networks, state, sets["train"], sample_vae, size)
    said = f"{protocol}, {size} images each, Gaussian kernels of ½, 1 and 2 median distances"
    distance = jax.jit(lambda x: two_sample.mmd2(jnp.asarray(x).reshape(size, -1), flat["test"], widths))
    names: tuple[str, ...] = ("mmd2_normal", "mmd2_fitted", "mmd2_vae_means", "mmd2_vae")
    named = dict(zip(names, drawn.items(), strict=True))
    named |= {"mmd2_floor": ("validation data", flat["valid"])}
    return {
        name: Measurement(float(distance(x)), "-", "none", "test", f"{title}: {said}")
        for name, (title, x) in named.items()
    }


def _draw(
    config: Config,
    networks: autoencoder.Networks,
    dataset: Dataset,
    data: Data,
    sample_vae: Callable[[], codes.Sampler],
    key: Key,
    state: Any,
    directory: pathlib.Path,
) -> None:
    train_rows, test = codes.rows(data, "train"), codes.rows(data, "test")
    principal = codes.principal(train_rows, pca_size(config, int(np.prod(dataset.shape)))[0])
    codes.draw_samples(directory, codes.drawn(key, networks, state, train_rows, sample_vae(), 64))
    codes.draw_reconstructions(directory, networks, state, principal, test)
    labels = dataset.splits["test"].get("label")
    codes.draw_latents(directory, networks, state, principal, test, labels)
    codes.draw_walks(directory, networks, state, test)
    if config.num_active:
        codes.draw_atoms(directory, networks, state, test)


SYSTEM = System(
    id="L1",
    module="latent.autoencoder",
    title="Autoencoders",
    kind="none",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
