"""What the experiments with VAEs of images share: bounds on test data, and pictures of a trained model."""

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

from experiments import pictures
from experiments.evaluation import averages
from experiments.latent import codes, pixels
from jgen import _checks, random
from jgen._types import Batch, Key
from jgen.data import load
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.latent import priors, representation, vae
from jgen.latent.networks import Networks, sample_prior
from jgen.learners import average
from jgen.math import likelihoods
from jgen.metrics.measurement import Measurement
from jgen.model import Model
from jgen.train import Experiment

PRIORS = ("standard_normal", "mixture", "vamp")
STATIC_MNIST = {
    "data": "tfds:binarized_mnist",
    "likelihood": "bernoulli",
    "dropout_rate": 0.0,
    "average_decay": 0.999,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "batch_size": 100,
    "num_steps": 60_000,
    "eval_every": 2_500,
    "patience": 10,
    "num_importance_samples": 5_000,
}
"""How all of them train on static binarized MNIST, where they do not say otherwise."""
NUM_POINTS = 1_000
"""Test examples in the picture of the latent space."""


@dataclasses.dataclass(frozen=True)
class Training:
    """The knobs that these experiments share."""

    data: str = "digits"
    """Any source of images; levels and size come from the data."""
    likelihood: str = "discretized_logistic"
    """discretized_logistic, categorical, bernoulli (binarized at half), dynamic_bernoulli (by draws), or gaussian."""
    dropout_rate: float = 0.1
    warm_up_steps: int = 0
    """Updates over which the weight of the rate rises from 0."""
    average_decay: float = 0.0
    """Of the exponential moving average of the parameters that is evaluated; 0 keeps none."""
    learning_rate: float = 5e-4
    weight_decay: float = 0.1
    batch_size: int = 64
    num_steps: int = 8_000
    eval_every: int = 500
    patience: int = 5
    """Evaluations on validation data without a better bound after which training stops."""
    num_importance_samples: int = 500
    """K of the reported importance-weighted bound."""


@dataclasses.dataclass(frozen=True)
class Dense(Training):
    """The knobs of those with one layer of latents and dense networks."""

    latent_size: int = 16
    hidden_size: int = 512
    num_layers: int = 2
    gated: bool = False


@dataclasses.dataclass(frozen=True)
class Images:
    """What is learned from, and how its results are named.

    Attributes:
        dataset: where the images come from.
        data: its batches, in the likelihood's units.
        levels: of a pixel in these units; 2 for bits and for real pixels in [0, 1].
        protocol: data set and likelihood, as results name them.
    """

    dataset: Dataset
    data: Data
    levels: int
    protocol: str

    def shown(self, x: Any) -> Any:
        """x as images (n, h, w, c) in [0, 1]."""
        return pixels.images(x) / (self.levels - 1)

    def rows(self, split: str, num: int) -> np.ndarray:
        """`num` examples at equal distances in a split."""
        return pixels.spread(self.data, split, num)[1]


def load_images(config: Training, seed: int) -> tuple[Images, likelihoods.Likelihood]:
    """The data of `config.data` in the units of `config.likelihood`, and that likelihood."""
    dataset = load(config.data, seed=seed)
    likelihood, transform, levels = pixels.likelihood(config.likelihood, dataset)
    data = in_memory(dataset, config.batch_size, seed, transform=transform)
    return Images(dataset, data, levels, f"{dataset.name}, {config.likelihood}"), likelihood


def prior(config: Any) -> priors.Prior:
    """`config.prior` of `config.num_components`.

    Raises:
        ValueError: there is no such prior.
    """
    _checks.one_of("prior", config.prior, PRIORS)
    if config.prior == "standard_normal":
        return priors.STANDARD_NORMAL
    kind = priors.Mixture if config.prior == "mixture" else priors.Vamp
    return kind(config.num_components)


def optimizer(config: Training) -> optax.GradientTransformation:
    """AdamW along a cosine from `learning_rate` to a hundredth of it, over `num_steps`."""
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01)
    return optax.adamw(schedule, weight_decay=config.weight_decay)


def experiment(
    config: Training,
    images: Images,
    model: Model[Any],
    terms: Callable[[Key, Any, Batch], Any],
    bound: Callable[[Key, Any, Batch], Any],
    draw: Callable[[Key, Any, pathlib.Path], None],
    *,
    select: str = "negative_elbo",
) -> Experiment:
    """The training of an image VAE, stopped by its ELBO on validation data.

    Args:
        config: of the training and the evaluation.
        images: what is learned from.
        model: any model that reports `negative_elbo`.
        terms: (key, state, batch) -> its `Terms`.
        bound: (key, state, batch) -> the bound of `num_importance_samples` draws.
        draw: (key, state, directory), its pictures.
        select: the validation metric that stops training.
    """
    averaged = bool(config.average_decay)
    inner = (lambda state: state.inner._replace(params=state.params)) if averaged else lambda state: state
    return Experiment(
        average(model, config.average_decay) if averaged else model,
        images.data,
        config.num_steps,
        lambda key, state: measure(key, inner(state), images, config.num_importance_samples, terms, bound),
        lambda key, state, directory: draw(key, inner(state), directory),
        eval_every=config.eval_every,
        select=select,
        patience=config.patience,
    )


def measure(
    key: Key,
    state: Any,
    images: Images,
    num: int,
    terms: Callable[[Key, Any, Batch], Any],
    bound: Callable[[Key, Any, Batch], Any],
) -> dict[str, Measurement]:
    """The bound of `num` draws, the ELBO of one and its two parts, on test data; bits/dim where pixels have levels."""

    def per_example(key: Key, batch: Batch) -> dict[str, Any]:
        one, many = jax.random.split(key)
        values = terms(one, state, batch)
        named = {"negative_elbo": -values.elbo, "rate": values.rate, "distortion": values.distortion}
        return {"nll": -bound(many, state, batch), **named}

    found = averages(key, images.data, "test", per_example)
    kinds = {
        "nll": ("bound", f"{images.protocol}, {num} importance samples"),
        "negative_elbo": ("bound", f"{images.protocol}, one draw"),
    }
    measured = {
        name: Measurement(
            value, "nats", kinds.get(name, ("none",))[0], "test", kinds.get(name, ("", images.protocol))[1]
        )
        for name, value in found.items()
    }
    if not images.protocol.endswith("gaussian"):
        bits = found["nll"] / math.prod(images.dataset.shape) / math.log(2)
        measured["bits_per_dim"] = dataclasses.replace(measured["nll"], value=bits, unit="bits/dim")
    return measured


def of_networks(config: Training, images: Images, model: Model[Any], networks: Networks) -> Experiment:
    """`experiment` of a model that `vae.Networks` describes."""

    def terms(key: Key, state: Any, batch: Batch) -> vae.Terms:
        return vae.terms(key, state.params, state.stats, batch, networks=networks)

    def bound(key: Key, state: Any, batch: Batch) -> Any:
        own = {"networks": networks, "num_samples": config.num_importance_samples}
        return vae.iwae_bound(key, state.params, state.stats, batch, **own)

    return experiment(config, images, model, terms, bound, functools.partial(draw_networks, images, model, networks))


def draw_networks(
    images: Images, model: Model[Any], networks: Networks, key: Key, state: Any, directory: pathlib.Path
) -> None:
    """Samples, reconstructions, interpolations, traversals of the busiest units, completions, the latent space."""
    draw_samples(images, model, key, state, directory, functools.partial(_means, networks))
    of = functools.partial(functools.partial, networks=networks)
    params, stats, x = state.params, state.stats, images.rows("test", 32)
    again = of(representation.reconstruct)(params, stats, x)
    pictures.panels(directory / "reconstructions.png", {"test": images.shown(x), "again": images.shown(again)})
    paths = [of(representation.interpolate)(params, stats, x[i], x[i + 16], 8) for i in range(0, 16, 2)]
    pictures.grid(directory / "interpolations.png", images.shown(jnp.concatenate(paths)))
    _draw_completions(images, networks, key, state, x[::4], directory)
    which, test = pixels.spread(images.data, "test", NUM_POINTS)
    points = np.asarray(of(representation.code)(params, stats, test))
    labels = images.dataset.splits["test"].get("label")
    shown = {codes.title("codes", points): codes.in_plane(points)}
    pictures.scatter(directory / "latents.png", shown, None if labels is None else labels[which])


def draw_samples(
    images: Images,
    model: Model[Any],
    key: Key,
    state: Any,
    directory: pathlib.Path,
    means: Callable[[Key, Any, int], Any] | None = None,
) -> None:
    """Draws of the model, beside means E[x|z] at other z where `means` gives some."""
    assert model.sample is not None
    named = {"draws from p(x|z)": jax.jit(model.sample, static_argnums=2)(key, state, 64)["x"]}
    if means is not None:
        named["E[x|z], other z"] = means(jax.random.fold_in(key, 1), state, 64)
    pictures.panels(directory / "samples.png", {name: images.shown(x) for name, x in named.items()})


def _means(networks: Networks, key: Key, state: Any, num: int) -> Any:
    z = sample_prior(random.example_keys(key, num), state.params, state.stats, networks)
    return vae.decode(state.params, state.stats, z, networks=networks)


def _draw_completions(
    images: Images, networks: Networks, key: Key, state: Any, x: np.ndarray, directory: pathlib.Path
) -> None:
    """Eight images whose lower half is missing, completed seven times each."""
    shape = images.shown(x).shape
    upper = np.broadcast_to(np.arange(shape[1])[:, None, None] < shape[1] / 2, shape[1:]).reshape(x.shape[1:])
    rows = np.repeat(x, 7, axis=0)
    mask = np.broadcast_to(upper, rows.shape)
    start = np.where(mask, rows, 0).astype(x.dtype)
    complete = jax.jit(functools.partial(representation.complete, num_steps=100, networks=networks))
    drawn = np.asarray(complete(key, state.params, state.stats, start, mask)).reshape(len(x), 7, *x.shape[1:])
    known = np.where(upper[None], images.shown(x).reshape(x.shape), 0.5).reshape(shape)
    rows = [np.concatenate([known[i : i + 1], images.shown(drawn[i])]) for i in range(len(x))]
    pictures.grid(directory / "completions.png", np.concatenate(rows), title="upper half known; seven completions")
