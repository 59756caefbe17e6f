"""L3: variational autoencoder.

    python -m experiments.latent.vae                                     # 8×8 digits with 17 levels
    python -m experiments.latent.vae binarized_mnist --data DIR          # the four .amat files, or tfds:binarized_mnist

Measured (seed 0, two shared CPU cores, test data): digits at most 81.54 nats with 500 importance samples (1.838
bits/dim), one-draw ELBO −85.23, 51 s; binarized_mnist at most 88.51 nats with 500 importance samples, one-draw ELBO
−93.27, 509 s of training.

Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014.
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
from experiments.latent import pixels
from experiments.runner import main
from experiments.system import System
from jgen._types import Batch, Key
from jgen.data import load
from jgen.data.pipeline import Dataset, in_memory
from jgen.latent import representation, vae
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Any source of images; levels and size come from the data."""
    likelihood: str = "discretized_logistic"
    """discretized_logistic, categorical, bernoulli (binarized at half), dynamic_bernoulli (by draws), or gaussian."""
    latent_size: int = 16
    hidden_size: int = 512
    num_layers: int = 2
    gated: bool = False
    dropout_rate: float = 0.1
    beta: float = 1.0
    warm_up_steps: int = 0
    learning_rate: float = 5e-4
    weight_decay: float = 0.1
    batch_size: int = 64
    num_steps: int = 8_000
    eval_every: int = 500
    patience: int = 5
    """Evaluations on validation data without a better ELBO after which training stops."""
    num_importance_samples: int = 500
    """K of the reported importance-weighted bound."""


PRESETS = {
    "digits": Config(),
    "smoke": Config(num_steps=2, eval_every=2, hidden_size=16, num_importance_samples=4),
    "binarized_mnist": Config(
        data="tfds:binarized_mnist",
        likelihood="bernoulli",
        latent_size=40,
        hidden_size=300,
        gated=True,
        dropout_rate=0.0,
        warm_up_steps=10_000,
        learning_rate=1e-3,
        weight_decay=0.01,
        batch_size=100,
        num_steps=60_000,
        eval_every=2_500,
        patience=10,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    likelihood, transform, levels = pixels.likelihood(config.likelihood, dataset)
    networks = vae.dense(
        dataset.shape,
        likelihood,
        config.latent_size,
        hidden_sizes=(config.hidden_size,) * config.num_layers,
        gated=config.gated,
        dropout_rate=config.dropout_rate,
    )
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01)
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)
    model = vae.model(networks, optimizer, beta=config.beta, warm_up_steps=config.warm_up_steps)
    data = in_memory(dataset, config.batch_size, seed, transform=transform)
    measure = functools.partial(_measure, config, networks, data, dataset)
    draw = functools.partial(_draw, networks, model, data, dataset, levels)
    return Experiment(
        model,
        data,
        config.num_steps,
        measure,
        draw,
        eval_every=config.eval_every,
        select="negative_elbo",
        patience=config.patience,
    )


def _measure(
    config: Config, networks: vae.Networks, data: Any, dataset: Dataset, key: Key, state: Any
) -> dict[str, Measurement]:
    num, dims = config.num_importance_samples, int(np.prod(dataset.shape))

    def per_example(key: Key, batch: Batch) -> dict[str, Any]:
        one, many = jax.random.split(key)
        elbo, rate, distortion = vae.terms(one, state.params, state.stats, batch, networks=networks)
        nll = -vae.iwae_bound(many, state.params, state.stats, batch, networks=networks, num_samples=num)
        return {"nll": nll, "negative_elbo": -elbo, "rate": rate, "distortion": distortion}

    found = averages(key, data, "test", per_example)
    protocol = f"{dataset.name}, {config.likelihood}"
    kinds = {
        "nll": ("bound", f"{protocol}, {num} importance samples"),
        "negative_elbo": ("bound", f"{protocol}, one draw"),
    }
    measured = {
        name: Measurement(value, "nats", kinds.get(name, ("none",))[0], "test", kinds.get(name, ("", protocol))[1])
        for name, value in found.items()
    }
    if networks.likelihood.levels is not None:
        bits = found["nll"] / dims / float(np.log(2))
        measured["bits_per_dim"] = dataclasses.replace(measured["nll"], value=bits, unit="bits/dim")
    return measured


def _draw(
    networks: vae.Networks,
    model: Any,
    data: Any,
    dataset: Dataset,
    levels: int,
    key: Key,
    state: Any,
    directory: pathlib.Path,
) -> None:
    batch, num = next(data.batches("test"))
    x = batch["x"][: min(num, 32)]
    samples = jax.jit(model.sample, static_argnums=2)(key, state, 64)["x"]
    z = jax.random.normal(jax.random.fold_in(key, 1), (64, networks.latent_size))
    means = vae.decode(state.params, state.stats, z, networks=networks)
    unit = 1 / (levels - 1)
    named = {"draws from p(x|z)": pixels.images(samples) * unit, "E[x|z], other z": pixels.images(means) * unit}
    pictures.panels(directory / "samples.png", named)
    again = representation.reconstruct(state.params, state.stats, x, networks=networks)
    pictures.panels(
        directory / "reconstructions.png", {"test": pixels.images(x) * unit, "again": pixels.images(again) * unit}
    )
    steps = [
        representation.interpolate(state.params, state.stats, x[i], x[i + 8], 8, networks=networks) for i in range(8)
    ]
    pictures.grid(directory / "interpolations.png", pixels.images(jnp.concatenate(steps)) * unit)
    _draw_latents(networks, data, dataset, state, directory)


def _draw_latents(networks: vae.Networks, data: Any, dataset: Dataset, state: Any, directory: pathlib.Path) -> None:
    """Posterior means of test data in the plane, by t-SNE where the latent space has more axes; coloured by class."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    encode = jax.jit(functools.partial(vae.encode, networks=networks))
    means = [np.asarray(encode(state.params, state.stats, b["x"]).mean)[:n] for b, n in data.batches("test")]
    points = np.concatenate(means)[:1000]
    labels = dataset.splits["test"].get("label")
    few = min(30.0, (len(points) - 1) / 3)
    with threadpool_limits(1):  # on busy cores the threads of t-SNE wait for each other: 12 times the CPU time
        plane = points if points.shape[1] == 2 else TSNE(random_state=0, perplexity=few).fit_transform(points)
    title = "posterior means" if points.shape[1] == 2 else "posterior means, t-SNE"
    pictures.scatter(directory / "latents.png", {title: plane}, None if labels is None else labels[: len(points)])


SYSTEM = System(
    id="L3",
    module="latent.vae",
    title="Variational autoencoder",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "binarized_mnist": {
            "nll": {"value": 88.7, "source": "IWAE v2, about", "protocol": "static binarization, 5,000 samples"}
        }
    },
)

if __name__ == "__main__":
    main(SYSTEM)
