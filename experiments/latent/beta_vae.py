"""L4: β-VAE, with a fixed weight on the rate or with a limit on it.

    python -m experiments.latent.beta_vae                                # sprites, β = 4
    python -m experiments.latent.beta_vae beta_1                         # sprites, β = 1: a plain VAE
    python -m experiments.latent.beta_vae constrained                    # sprites, rate at most 9 nats
    python -m experiments.latent.beta_vae digits                         # 8×8 digits, rate at most 10 nats
    python -m experiments.latent.beta_vae mnist --data DIR               # rate at most 15 nats

Measured on two busy CPU cores (21 to 41 s of training each), sprites, mutual information gap over all 3,456 images:
    β = 4   0.336, 0.263, 0.328 (seeds 0, 1, 2)   rate 7.1, 7.0, 6.8 nats, total correlation 0.7 to 0.8, 5 active units
    β = 1   0.034, 0.034 (seeds 0, 1)             rate 17.7, 22.8 nats, total correlation 9.4, 14.7, all 10 units active
With a limit (seed 0): sprites at most 9 nats give a training rate of 9.04 at λ = 3.28, relative stationarity gap 0.14,
and a gap in information of 0.027; digits at most 10 nats give 9.96 at λ = 2.35, stationarity 0.064, test ELBO −88.51.

Papers: Higgins et al., "β-VAE", 2017; Chen et al., "Isolating Sources of Disentanglement in VAEs", 2018.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import pictures, workdir
from experiments.evaluation import averages
from experiments.latent import pixels, traversals
from experiments.runner import main
from experiments.system import System
from jgen._types import Batch, Key
from jgen.data import load, sprites
from jgen.data.pipeline import SPLITS, Data, Dataset, in_memory
from jgen.latent import beta_vae, vae
from jgen.metrics import disentanglement
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment

ROUNDS = 8
"""How often the training data are gone through for the gradients in the conditions of an optimum."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "sprites"
    """Any source of images; where it has factors, the mutual information gap is measured."""
    likelihood: str = "discretized_logistic"
    """One of `experiments.latent.pixels`."""
    beta: float = 4.0
    """The fixed weight of the rate."""
    max_rate: float = 0.0
    """A limit on the rate in nats, which takes the place of β; 0 for none."""
    multiplier_rate: float = 1e-2
    latent_size: int = 10
    hidden_size: int = 256
    num_layers: int = 2
    learning_rate: float = 1e-3
    batch_size: int = 128
    num_steps: int = 5_000
    eval_every: int = 1_000
    num_posteriors: int = 4_000
    """At most so many examples make the mixture q(z) in what is said of its parts."""


PRESETS = {
    "sprites": Config(),
    "smoke": Config(num_steps=2, eval_every=2, hidden_size=16, max_rate=5.0, num_posteriors=200),
    "beta_1": Config(beta=1.0),
    "constrained": Config(max_rate=9.0),
    "digits": Config(data="digits", max_rate=10.0, num_steps=3_000),
    "mnist": Config(data="tfds:mnist", likelihood="dynamic_bernoulli", max_rate=15.0, num_steps=20_000),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    likelihood, transform, levels = pixels.likelihood(config.likelihood, dataset)
    sizes = (config.hidden_size,) * config.num_layers
    networks = vae.dense(dataset.shape, likelihood, config.latent_size, hidden_sizes=sizes)
    optimizer = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01))
    form: dict[str, Any] = {"beta": config.beta}
    if config.max_rate:
        form = {"max_rate": config.max_rate, "multiplier_rate": config.multiplier_rate}
    model = beta_vae.model(networks, optimizer, **form)
    data = in_memory(dataset, config.batch_size, seed, transform=transform)
    measure = functools.partial(_measure, config, networks, data, dataset)
    draw = functools.partial(_draw, config, networks, model, data, dataset, levels)
    return Experiment(model, data, config.num_steps, measure, draw, eval_every=config.eval_every)


def _measure(
    config: Config, networks: vae.Networks, data: Data, dataset: Dataset, key: Key, state: Any
) -> dict[str, Measurement]:
    def per_example(key: Key, batch: Batch) -> dict[str, Any]:
        values = vae.terms(key, state.params, state.stats, batch, networks=networks)
        return {"negative_elbo": -values.elbo, "rate": values.rate, "distortion": values.distortion}

    terms_key, gradient_key, parts_key = jax.random.split(key, 3)
    protocol = f"{dataset.name}, {config.likelihood}"
    found = {
        name: Measurement(value, "nats", "bound" if name == "negative_elbo" else "none", "test", protocol)
        for name, value in averages(terms_key, data, "test", per_example).items()
    }
    if config.max_rate:
        found |= _conditions(config, networks, data, protocol, gradient_key, state)
    return found | _parts(config, networks, data, dataset, protocol, parts_key, state)


def _conditions(
    config: Config, networks: vae.Networks, data: Data, protocol: str, key: Key, state: Any
) -> dict[str, Measurement]:
    """How well the conditions of Karush, Kuhn and Tucker hold on the training data."""
    sides = jax.jit(functools.partial(beta_vae.sides, networks=networks))
    total, num = None, 0
    for i in range(ROUNDS):
        for j, (batch, count) in enumerate(data.batches("train")):
            if count == config.batch_size:
                own = sides(jax.random.fold_in(jax.random.fold_in(key, i), j), state.params, state.stats, batch)
                total = own if total is None else jax.tree.map(jnp.add, total, own)
                num += 1
    mean = jax.tree.map(lambda leaf: leaf / num, total)
    assert isinstance(mean, beta_vae.Sides)
    found = beta_vae.conditions(mean, beta_vae.multiplier(state.stats), config.max_rate)
    said = f"{protocol}, rate at most {config.max_rate:g} nats, {ROUNDS} draws of each example"
    units = {"stationarity": "share", "violation": "nats", "multiplier": "nats/nat", "slackness": "nats"}
    named = {
        name: Measurement(float(value), units[name], "none", "train", said) for name, value in found._asdict().items()
    }
    return {**named, "train_rate": Measurement(float(mean.rate), "nats", "none", "train", said)}


def _parts(
    config: Config, networks: vae.Networks, data: Data, dataset: Dataset, protocol: str, key: Key, state: Any
) -> dict[str, Measurement]:
    """Active units, the parts of the rate, and where factors are known how much of them each unit knows."""
    q, factors = _posteriors(config, networks, data, dataset, state)
    said = f"{protocol}, {len(q.mean)} posteriors"
    active = float(jnp.sum(jnp.var(q.mean, axis=0) > 0.01))
    found = {"active_units": Measurement(active, "units", "none", "-", said)}
    parts = disentanglement.rate_parts(key, q.mean, q.log_std)
    found |= {n: Measurement(float(v), "nats", "estimate", "-", said) for n, v in parts._asdict().items()}
    if factors is not None:
        information, entropies = _information(key, q, factors)
        gaps = disentanglement.mutual_information_gap(information, entropies)
        named = {f"gap_{name}": gap for name, gap in zip(sprites.FACTORS, gaps, strict=False)}
        values = {"mutual_information_gap": jnp.mean(gaps), **named}
        found |= {n: Measurement(float(v), "share", "estimate", "-", said) for n, v in values.items()}
    return found


def _information(key: Key, q: Any, factors: Any) -> tuple[Any, Any]:
    information = disentanglement.mutual_information(key, q.mean, q.log_std, jnp.asarray(factors))
    return information, disentanglement.entropy(jnp.asarray(factors))


def _posteriors(config: Config, networks: vae.Networks, data: Data, dataset: Dataset, state: Any) -> tuple[Any, Any]:
    """(q(z|x) of the examples of all splits, their factors or None), at most `num_posteriors` of them."""
    encode = jax.jit(functools.partial(vae.encode, networks=networks))
    found, factors = [], []
    for split in SPLITS:
        for batch, num in data.batches(split):
            q = encode(state.params, state.stats, batch["x"])
            found.append(jax.tree.map(lambda leaf, num=num: np.asarray(leaf)[:num], q))
        if "factors" in dataset.splits[split]:
            factors.append(np.asarray(dataset.splits[split]["factors"]))
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
    # Splits follow each other, so the first rows would be training data alone.
    rows = np.random.default_rng(0).permutation(len(whole.mean))[: config.num_posteriors]
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), whole), np.concatenate(factors)[rows] if factors else None


def _draw(
    config: Config,
    networks: vae.Networks,
    model: Any,
    data: Data,
    dataset: Dataset,
    levels: int,
    key: Key,
    state: Any,
    directory: pathlib.Path,
) -> None:
    batch, num = next(data.batches("test"))
    x = batch["x"][: min(num, 64)]
    samples = jax.jit(model.sample, static_argnums=2)(key, state, 64)["x"]
    pictures.grid(directory / "samples.png", pixels.images(samples) / (levels - 1))
    traversals.draw_reconstructions(directory / "reconstructions.png", state, x, levels, networks=networks)
    rates = np.asarray(vae.terms(key, state.params, state.stats, batch, networks=networks).rate_per_unit)[:num].mean(0)
    traversals.draw_traversals(directory / "traversals.png", state, x[0], rates, levels, networks=networks)
    q, factors = _posteriors(config, networks, data, dataset, state)
    if factors is not None:
        information, entropies = _information(key, q, factors)
        shares = information / entropies[:, None]
        traversals.draw_information(directory / "information.png", shares, sprites.FACTORS, rates)
    if config.max_rate:
        _draw_multiplier(config, directory)


def _draw_multiplier(config: Config, directory: pathlib.Path) -> None:
    """How the multiplier and the rate came to rest."""
    history = workdir.history(directory)
    steps, rate = history["train/rate_average"]
    limit = ([steps[0], steps[-1]], [config.max_rate] * 2)
    curves = {"multiplier λ": {"λ": history["train/multiplier"]}, "rate, nats": {"R̄": (steps, rate), "limit δ": limit}}
    pictures.line_panels(directory / "multiplier.png", curves, "step")


SYSTEM = System(
    id="L4",
    module="latent.beta_vae",
    title="β-VAE, with a weight or a limit on the rate",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
