"""C9: independent component analysis by maximum likelihood.

    python -m experiments.classical.ica                                  # a cocktail party of three signals
    python -m experiments.classical.ica mixtures                         # ten random 4×4 mixtures, side by side
    python -m experiments.classical.ica patches                          # 8×8 patches of two photographs
    python -m experiments.classical.ica natural_gradient                 # the party without second derivatives

Measured with seed 0 on two shared CPU cores:
    cocktail           Amari distance 0.010, every signal recovered with a correlation of at least 0.9996; 4 s
    mixtures           Amari distances of at most 0.012, mean 0.008; 4 s
    patches            test data −104.22 nats (a Gaussian's −82.07), mean excess kurtosis of whitened pixels 11.1,
                       of the sources 16.8, oriented edges among the filters; 9 s
    natural_gradient   the same optimum as Newton's 50 steps, after 1,000; 7 s

Papers: Bell and Sejnowski, "The Independent Components of Natural Scenes are Edge Filters", 1997; Lee, Girolami and
Sejnowski, "Independent Component Analysis Using an Extended Infomax Algorithm", 1999.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats

from experiments import pictures, sound
from experiments.runner import main
from experiments.system import System
from jgen import Model
from jgen._types import Batch, Key, Metrics
from jgen.classical import ica
from jgen.data import load
from jgen.data.pipeline import Data
from jgen.learners import GradientState
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment

RATE = 8_000


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "cocktail"
    """cocktail (three signals in three microphones), mixtures (ten of four sources), or any source of images or rows;
    images are dequantized by uniform noise."""
    newton: bool = True
    """Relative Newton steps; else steps along the natural gradient."""
    learning_rate: float = 1.0
    num_steps: int = 50
    """Each on all training rows."""


PRESETS = {
    "cocktail": Config(),
    "smoke": Config(num_steps=2),
    "mixtures": Config(data="mixtures"),
    "patches": Config(data="patches", newton=False, learning_rate=0.3, num_steps=600),
    "natural_gradient": Config(newton=False, learning_rate=0.1, num_steps=1_000),
}


@dataclasses.dataclass(frozen=True)
class Rows:
    """Observations of several mixtures side by side.

    Attributes:
        name: how protocols call them.
        x: (num, mixtures, dim), in their order in time where they have one.
        sources: (num, mixtures, dim) what was mixed; None where nobody knows.
        mixing: (mixtures, dim, dim); None where nobody knows.
        shape: of one example of images.
    """

    name: str
    x: np.ndarray
    sources: np.ndarray | None = None
    mixing: np.ndarray | None = None
    shape: tuple[int, ...] = ()

    def split(self, name: str, seed: int) -> np.ndarray:
        """Rows of a random split: 80 % train, 10 % valid, 10 % test."""
        order, num = np.random.default_rng(seed).permutation(len(self.x)), len(self.x)
        bounds = {"train": (0, num - 2 * (num // 10)), "valid": (num - 2 * (num // 10), num - num // 10)}
        return self.x[order[slice(*bounds.get(name, (num - num // 10, num)))]]


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    rows = _rows(config.data, seed)
    splits = {name: {"x": jnp.asarray(rows.split(name, seed))} for name in ("train", "valid", "test")}
    return Experiment(
        side_by_side(ica.model(optax.sgd(config.learning_rate), newton=config.newton)),
        Data(lambda step: splits["train"], lambda split: iter([(splits[split], len(splits[split]["x"]))])),
        config.num_steps,
        functools.partial(_measure, rows, splits),
        functools.partial(_draw, rows),
        log_every=max(1, config.num_steps // 50),
        eval_every=max(1, config.num_steps // 5),
    )


def side_by_side(model: Model[GradientState]) -> Model[GradientState]:
    """One copy of `model` for each column of batches {"x": (batch, mixtures, dim)}; metrics are their means."""

    def update(key: Key, state: GradientState, batch: Batch) -> tuple[GradientState, Metrics]:
        state, metrics = jax.vmap(model.update, (None, 0, 1))(key, state, batch)
        return state, {name: jnp.mean(value) for name, value in metrics.items()}

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        metrics = jax.vmap(model.evaluate, (None, 0, 1))(key, state, batch)
        return {name: jnp.mean(value, axis=0) for name, value in metrics.items()}

    return Model(jax.vmap(model.init, (None, 1)), update, evaluate)


def _rows(source: str, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    if source == "cocktail":
        return _mix(source, signals(rng, 2 * RATE)[:, None], rng)
    if source == "mixtures":
        return _mix(source, np.stack([four_sources(rng, 10_000) for _ in range(10)], axis=1), rng)
    dataset = load(source, seed=seed)
    x = np.concatenate([np.asarray(split["x"], np.float32) for split in dataset.splits.values()])
    if dataset.levels is not None:
        x = (x + rng.random(x.shape, np.float32)) / dataset.levels
    name = dataset.name if dataset.levels is None else f"{dataset.name}, uniform dequantization to [0, 1)"
    return Rows(name, x.reshape(len(x), 1, -1), shape=dataset.shape if len(dataset.shape) == 3 else ())


def _mix(name: str, sources: np.ndarray, rng: np.random.Generator) -> Rows:
    mixing = rng.standard_normal((sources.shape[1], sources.shape[2], sources.shape[2]))
    x = np.einsum("nms,mds->nmd", sources, mixing)
    return Rows(f"{name}, synthetic", x.astype(np.float32), sources, mixing)


def signals(rng: np.random.Generator, num: int) -> np.ndarray:
    """(num, 3): bursts of noise (heavy tails), a bent chord and a sawtooth (light tails), of variance 1."""
    seconds = np.arange(num) / RATE
    bursts = rng.standard_normal(num) * np.exp(-8 * (seconds * 3 % 1))
    chord = np.sin(2 * np.pi * (220 * seconds + np.sin(2 * np.pi * seconds))) + np.sin(2 * np.pi * 277 * seconds)
    found = np.stack([bursts, chord, 2 * (97 * seconds % 1) - 1], axis=1)
    return (found - found.mean(axis=0)) / found.std(axis=0)


def four_sources(rng: np.random.Generator, num: int) -> np.ndarray:
    """(num, 4): Laplace, Student's t with 5 degrees of freedom, uniform, and ±1."""
    draws = (rng.laplace(size=num), rng.standard_t(5, num), rng.uniform(-1, 1, num), rng.choice([-1.0, 1.0], num))
    return np.stack(draws, axis=1)


def _recovered(state: Any, x: Any) -> np.ndarray:
    """(num, mixtures, dim) sources by the learned matrices, standardized."""
    s = np.asarray(jax.vmap(ica.sources, (0, 0, 1), 1)(state.params, state.stats.center, jnp.asarray(x)), np.float64)
    return (s - s.mean(axis=0)) / s.std(axis=0)


def _measure(rows: Rows, splits: Any, key: Key, state: Any) -> dict[str, Measurement]:
    del key
    train, test = np.asarray(splits["train"]["x"]), splits["test"]["x"]
    protocol = f"{rows.name}, {len(train)} training rows of {train.shape[2]} mixed sources"
    nats = functools.partial(Measurement, unit="nats", kind="exact", split="test", protocol=f"{protocol}, density")
    nll = -jax.vmap(ica.log_prob, (0, 0, 1))(state.params, state.stats, test)
    law: Any = scipy.stats.multivariate_normal
    gaussian = [
        -law(x.mean(0), np.cov(x.T.astype(np.float64))).logpdf(t).mean()
        for x, t in zip(train.swapaxes(0, 1), np.asarray(test).swapaxes(0, 1), strict=True)
    ]
    general = functools.partial(Measurement, unit="-", kind="none", protocol=protocol)
    found = {"nll": nats(float(jnp.mean(nll))), "nll_of_a_gaussian": nats(float(np.mean(gaussian)))}
    if rows.mixing is not None and rows.sources is not None:
        distances = jax.vmap(ica.amari_distance)(state.params.matrix, jnp.asarray(rows.mixing, jnp.float32))
        found["largest_amari_distance"] = general(float(jnp.max(distances)), split="train")
        found["mean_amari_distance"] = general(float(jnp.mean(distances)), split="train")
        best = np.abs(_correlations(rows.sources, _recovered(state, rows.x))).max(axis=2)
        found["smallest_correlation"] = general(float(best.min()), split="train")
        return found
    white, center = ica.whitening(jnp.asarray(train[:, 0]))
    before = ica.excess_kurtosis((test[:, 0] - center[None]) @ white.T)
    after = ica.excess_kurtosis(jnp.asarray(_recovered(state, test)[:, 0], jnp.float32))
    found["kurtosis_of_whitened"] = general(float(jnp.mean(before)), split="test")
    found["kurtosis_of_sources"] = general(float(jnp.mean(after)), split="test")
    return found


def _correlations(sources: np.ndarray, recovered: np.ndarray) -> np.ndarray:
    """(mixtures, source, recovered)."""
    s = (sources - sources.mean(axis=0)) / sources.std(axis=0)
    return np.einsum("nms,nmr->msr", s, recovered) / len(s)


def _draw(rows: Rows, key: Key, state: Any, directory: pathlib.Path) -> None:
    first = jax.tree.map(lambda leaf: leaf[0], state)
    if rows.sources is None:
        drawn = np.asarray(jax.jit(ica.sample, static_argnums=3)(key, first.params, first.stats, 64))
        if not rows.shape:
            pictures.scatter(directory / "samples.png", {"rows": rows.x[:500, 0, :2], "samples": drawn[:, :2]})
            return
        named = {"data": rows.x[:: max(1, len(rows.x) // 64), 0][:64], "samples": drawn}
        pictures.panels(directory / "samples.png", {n: x.reshape(-1, *rows.shape) for n, x in named.items()})
        _draw_filters(rows, first.params, directory)
        return
    recovered = _recovered(state, rows.x)
    if rows.name.startswith("cocktail"):
        _draw_party(rows, recovered, directory)
    else:
        plane = np.argsort(-np.asarray(first.stats.tails))[[0, -1]]
        named = {
            "mixed": rows.x[:2_000, 0, :2],
            "recovered, heaviest and lightest tails": recovered[:2_000, 0][:, plane],
        }
        pictures.scatter(directory / "samples.png", named)


def _draw_filters(rows: Rows, params: ica.Unmixing, directory: pathlib.Path) -> None:
    """Rows of W (what a source looks for) and columns of W⁻¹ (what it adds to the picture), by how much they add."""
    basis = np.linalg.inv(np.asarray(params.matrix, np.float64)).T
    order = np.argsort(-np.linalg.norm(basis, axis=1))
    named = {
        "filters, rows of W": np.asarray(params.matrix)[order],
        "what they add, columns of its inverse": basis[order],
    }
    sheets = {n: 0.5 + 0.5 * w / np.abs(w).max(axis=1, keepdims=True) for n, w in named.items()}
    pictures.panels(directory / "filters.png", {n: w.reshape(-1, *rows.shape) for n, w in sheets.items()})


def _draw_party(rows: Rows, recovered: np.ndarray, directory: pathlib.Path) -> None:
    """samples.png: 40 ms of every signal, mixture and recovered signal; and the sounds."""
    assert rows.sources is not None
    sources, heard = rows.sources[:, 0], rows.x[:, 0]
    match = _correlations(rows.sources, recovered)[0]
    which = np.argmax(np.abs(match), axis=1)
    again = recovered[:, 0, which] * np.sign(match[np.arange(len(which)), which])
    named, kinds = {}, {"signal": sources, "microphone": heard, "recovered": again}
    for kind, values in kinds.items():
        for i, column in enumerate(np.asarray(values).T):
            wave = 0.9 * column / np.abs(column).max()
            named[f"{kind} {i + 1}"] = wave[:320]
            if kind != "signal":
                sound.write(directory / f"{kind}{i + 1}.wav", wave, RATE)
    sound.spectrograms(directory / "samples.png", named, RATE, columns=3)


SYSTEM = System(
    id="C9",
    module="classical.ica",
    title="Independent component analysis",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
