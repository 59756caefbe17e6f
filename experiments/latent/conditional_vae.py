"""L5: conditional VAE, and what it does with style and content.

    python -m experiments.latent.conditional_vae                         # 8×8 digits with 17 levels
    python -m experiments.latent.conditional_vae mnist --data DIR        # bits drawn anew in each step

Measured (digits, seed 0, two busy CPU cores, 26 s, test data): −log p(x|y) at most 79.19 nats with 100 importance
samples, one-draw ELBO −81.73; Bayes' rule over the ten bounds is right on 98.3 %; from z that was read given y a linear
and a two-layer probe tell 20.3 % of the labels, 7.3 % by chance.

Papers: Kingma, Rezende, Mohamed and Welling, "Semi-Supervised Learning with Deep Generative Models", 2014; Sohn, Lee
and Yan, "Learning Structured Output Representation using Deep Conditional Generative Models", 2015.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.evaluation import averages
from experiments.latent import pixels, style_content, traversals
from experiments.runner import main
from experiments.system import System
from jgen._types import Batch, Key
from jgen.data import load
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.latent import conditional_vae, representation, vae
from jgen.metrics import probes
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment

PROBED = 10_000
"""At most so many examples of a split are shown to the probes."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Any source of labelled images."""
    likelihood: str = "discretized_logistic"
    """One of `experiments.latent.pixels`."""
    latent_size: int = 8
    hidden_size: int = 256
    num_layers: int = 2
    dropout_rate: float = 0.1
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    batch_size: int = 64
    num_steps: int = 6_000
    eval_every: int = 500
    patience: int = 5
    num_importance_samples: int = 100
    """K of the bounds on log p(x|y), also of those by which classes are told apart."""


PRESETS = {
    "digits": Config(),
    "smoke": Config(num_steps=2, eval_every=2, hidden_size=16, num_importance_samples=2),
    "mnist": Config(
        data="tfds:mnist",
        likelihood="dynamic_bernoulli",
        latent_size=20,
        hidden_size=400,
        dropout_rate=0.0,
        weight_decay=0.01,
        batch_size=100,
        num_steps=30_000,
        eval_every=2_000,
        num_importance_samples=20,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    if "label" not in dataset.splits["train"]:
        raise ValueError(f"`data` must be a source with labels, such as digits, got {config.data!r}.")
    likelihood, transform, levels = pixels.likelihood(config.likelihood, dataset, "label")
    networks = vae.dense(
        dataset.shape,
        likelihood,
        config.latent_size,
        num_classes=int(np.max(dataset.splits["train"]["label"])) + 1,
        hidden_sizes=(config.hidden_size,) * config.num_layers,
        dropout_rate=config.dropout_rate,
    )
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01)
    model = conditional_vae.model(networks, optax.adamw(schedule, weight_decay=config.weight_decay))
    data = in_memory(dataset, config.batch_size, seed, transform=transform)
    return Experiment(
        model,
        data,
        config.num_steps,
        functools.partial(_measure, config, networks, data, dataset),
        functools.partial(_draw, networks, data, dataset, levels),
        eval_every=config.eval_every,
        select="negative_elbo",
        patience=config.patience,
    )


def _measure(
    config: Config, networks: vae.Networks, data: Data, dataset: Dataset, key: Key, state: Any
) -> dict[str, Measurement]:
    num, log_classes = config.num_importance_samples, np.log(networks.num_classes or 1)

    def per_example(key: Key, batch: Batch) -> dict[str, Any]:
        one, many = jax.random.split(key)
        values = vae.terms(one, state.params, state.stats, batch, networks=networks)
        each = conditional_vae.class_log_bounds(
            many, state.params, state.stats, batch, networks=networks, num_samples=num
        )
        own = jnp.take_along_axis(each, batch["label"][:, None], axis=1)[:, 0]
        right = (conditional_vae.classify(each) == batch["label"]) * 1.0
        rate = {"rate": values.rate, "distortion": values.distortion}
        return {"nll": -own - log_classes, "negative_elbo": -values.elbo, **rate, "accuracy": right}

    protocol = f"{dataset.name}, {config.likelihood}, given the label"
    said = {
        "nll": ("nats", "bound", f"{protocol}, {num} importance samples"),
        "negative_elbo": ("nats", "bound", f"{protocol}, one draw"),
        "accuracy": ("share", "none", f"Bayes' rule with bounds of {num} importance samples, all training labels"),
    }
    found = averages(key, data, "test", per_example)
    measured = {}
    for name, value in found.items():
        unit, kind, protocol_of = said.get(name, ("nats", "none", protocol))
        measured[name] = Measurement(value, unit, kind, "test", protocol_of)
    return measured | _probes(networks, data, dataset, state)


def _probes(networks: vae.Networks, data: Data, dataset: Dataset, state: Any) -> dict[str, Measurement]:
    """What can be read of y from the codes that were made given y, and from those of the pixels."""
    from threadpoolctl import threadpool_limits

    code = jax.jit(functools.partial(representation.code, networks=networks))
    codes, labels = {}, {}
    for split in ("train", "test"):
        found, known = [], []
        for batch, num in data.batches(split):
            z = code(state.params, state.stats, batch["x"], label=batch["label"])
            found.append(np.asarray(z)[:num])
            known.append(np.asarray(batch["label"])[:num])
        codes[split], labels[split] = np.concatenate(found)[:PROBED], np.concatenate(known)[:PROBED]
    sets = (codes["train"], labels["train"], codes["test"], labels["test"])
    with threadpool_limits(1):
        values = {
            "probe_linear": probes.probe_accuracy(*sets),
            "probe_mlp": probes.probe_accuracy(*sets, hidden_sizes=(64,)),
            "probe_chance": probes.chance(labels["train"], labels["test"]),
        }
    said = f"{dataset.name}, y from the posterior mean of z given y, {len(labels['train'])} training codes"
    return {name: Measurement(value, "share", "none", "test", said) for name, value in values.items()}


def _draw(
    networks: vae.Networks, data: Data, dataset: Dataset, levels: int, key: Key, state: Any, directory: pathlib.Path
) -> None:
    whole, num = next(data.batches("test"))
    batch, rows = style_content.chosen(whole, num), style_content.names(dataset, networks.num_classes or 0)
    x, label = batch["x"], batch["label"]
    z = representation.code(state.params, state.stats, x, networks=networks, label=label)
    means = conditional_vae.style_content(state.params, state.stats, z, networks=networks)
    style_content.draw_grid(directory / "style_content.png", x, means, rows, levels)

    def sample(label: Any) -> Any:
        return vae.sample(key, state.params, state.stats, len(label), networks=networks, label=label)

    style_content.draw_samples(directory / "samples.png", sample, rows, levels)
    shown, label = whole["x"][: min(num, 40)], whole["label"][: min(num, 40)]
    traversals.draw_reconstructions(
        directory / "reconstructions.png", state, shown, levels, networks=networks, label=label
    )


SYSTEM = System(
    id="L5",
    module="latent.conditional_vae",
    title="Conditional VAE",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
