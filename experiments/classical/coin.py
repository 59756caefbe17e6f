"""C3: a coin of unknown rate: its posterior as the flips come in.

    python -m experiments.classical.coin                         # seven heads and three tails
    python -m experiments.classical.coin fair                    # the same flips, a prior that expects a fair coin
    python -m experiments.classical.coin digits                  # 64 coins: the pixels of binarized digits

Exact, a second: mode 0.7, mean 0.667, 95 % of the posterior in [0.390, 0.891]; evidence −7.185 nats beside −6.931 of
a fair coin.

Bayes, "An Essay towards solving a Problem in the Doctrine of Chances", 1763.
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
from jgen.classical import coin
from jgen.data import load, transforms
from jgen.data.pipeline import Data
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "HHHHHHHTTT"
    """Flips of one coin, H and T in their order, or images, whose pixels, cut at half, are coins."""
    prior_heads: float = 1.0
    prior_tails: float = 1.0
    """As if so many had been seen; 1 and 1 is flat."""
    num_steps: int = 10
    """Each adds an equal part of the flips."""


PRESETS = {
    "flips": Config(),
    "smoke": Config(num_steps=2),
    "fair": Config(prior_heads=20.0, prior_tails=20.0),
    "digits": Config(data="digits", prior_heads=0.5, prior_tails=0.5),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`; counting needs no randomness."""
    splits, shape = _flips(config, seed)
    length = len(splits["train"]) // config.num_steps
    if length == 0:
        raise ValueError(f"`--num-steps` must be at most the {len(splits['train'])} flips, got {config.num_steps}.")

    def train(step: int) -> dict[str, Any]:
        return {"x": splits["train"][step % config.num_steps * length :][:length]}

    return Experiment(
        coin.model(prior=(config.prior_heads, config.prior_tails)),
        Data(train, lambda split: iter([({"x": splits[split]}, len(splits[split]))])),
        config.num_steps,
        functools.partial(_measure, config, splits),
        functools.partial(_draw, config, splits["train"], shape),
        log_every=1,
        eval_every=1,
    )


def _flips(config: Config, seed: int) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """({split: (flips, coins)}, the shape of one example); flips given as text are all of the data."""
    if config.data and set(config.data) <= {"H", "T"}:
        x = np.array([[float(letter == "H")] for letter in config.data], np.float32)
        return dict.fromkeys(("train", "valid", "test"), x), (1,)
    dataset = load(config.data, seed=seed)
    if dataset.levels is None:
        raise ValueError(f"`--data` must have levels, or be flips such as HHT, got {config.data!r}.")
    cut = transforms.chain(transforms.binarize(dataset.levels), transforms.flatten)
    splits = {name: np.asarray(cut(jax.random.key(0), split)["x"]) for name, split in dataset.splits.items()}
    return splits, dataset.shape


def _measure(config: Config, splits: Any, key: Key, state: Any) -> dict[str, Measurement]:
    del key
    prior = coin.Beta(config.prior_heads, config.prior_tails)
    flips, own = state.moments, len(splits["test"][0]) == 1
    fair = jnp.sum(coin.log_likelihood(jnp.full_like(flips.heads, 0.5), flips))
    evidence = jnp.sum(coin.log_evidence(coin.Beta(*(jnp.full_like(flips.heads, v) for v in prior)), flips))
    named = {
        "nll": (-jnp.mean(coin.log_prob(state.params, jnp.asarray(splits["test"]))), "nats", "test"),
        "log_evidence": (evidence, "nats", "train"),
        "log_bayes_factor_against_fair": (evidence - fair, "nats", "train"),
    }
    if own:
        ends = [coin.quantile(state.params, jnp.full(1, u)) for u in (0.025, 0.975)]
        rates = (coin.mode(state.params), coin.mean(state.params), *ends)
        names = ("mode", "mean", "interval_low", "interval_high")
        named |= {name: (rate[0], "rate of heads", "train") for name, rate in zip(names, rates, strict=True)}
        named["nll"] = (*named["nll"][:2], "train")
    protocol = f"{config.data}, Beta({config.prior_heads:g}, {config.prior_tails:g}) prior"
    return {
        name: Measurement(float(value), unit, "exact", split, protocol) for name, (value, unit, split) in named.items()
    }


def _draw(config: Config, flips: Any, shape: tuple[int, ...], key: Key, state: Any, directory: pathlib.Path) -> None:
    drawn = np.asarray(jax.jit(coin.sample, static_argnums=2)(key, state.params, 64))
    if len(shape) == 3:
        pictures.grid(directory / "samples.png", drawn.reshape(-1, *shape))
        both = {
            "posterior mean": coin.mean(state.params),
            "standard deviation × 20": 20 * coin.variance(state.params) ** 0.5,
        }
        pictures.panels(directory / "rates.png", {n: np.asarray(v).reshape(1, *shape) for n, v in both.items()}, 1)
        return
    (directory / "samples.txt").write_text("".join("TH"[int(x)] for x in drawn[:, 0]) + "\n", encoding="utf-8")
    rate, prior = jnp.linspace(0.0, 1.0, 201), coin.Beta(config.prior_heads, config.prior_tails)
    densities, likelihoods = {}, {}
    for num in sorted({round(i * len(flips) / 5) for i in range(6)}):
        seen = jax.tree.map(lambda v: v[0], coin.count(jnp.asarray(flips[:num])))
        name = (config.data[:num] if num <= 12 else f"{num} flips") or "no flip"
        densities[name] = (rate, jnp.exp(coin.log_density(coin.posterior(prior, seen), rate)))
        likelihoods[name] = (rate, jnp.exp(coin.log_binomial(rate, seen)))
    panels = {"p(rate | flips)": densities, "p(number of heads | rate)": likelihoods}
    pictures.line_panels(directory / "posterior.png", panels, "rate of heads")


SYSTEM = System(
    id="C3",
    module="classical.coin",
    title="Beta-Bernoulli coin",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
