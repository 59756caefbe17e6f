"""S13: log Z by annealed importance sampling, from below and from above, as the temperatures are doubled.

    python -m experiments.samplers.annealed_importance                # an RBM of 10 × 8 units with strong weights
    python -m experiments.samplers.annealed_importance wide           # 20 × 16 units

The target is a random RBM, weights N(0, `scale`²), whose log Z is enumerated; the start is uniform.

Measured with seed 0 on two shared CPU cores, 9 s (10 × 8): log Z 37.950; the walk of 1,000 temperatures says 37.952;
doubling ends with 32 temperatures at 37.962 from below and 37.952 from above, standard error 0.03, ESS 550.

Papers: Neal, "Annealed importance sampling", 2001; Burda, Grosse and Salakhutdinov, 2015 (the bound from above).
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from experiments.runner import main
from experiments.system import System
from jgen import Model, run
from jgen._types import Batch, Key, Metrics
from jgen.data import Data
from jgen.energy import rbm
from jgen.metrics.measurement import Measurement
from jgen.samplers import annealed_importance as ais
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    num_visible: int = 10
    num_hidden: int = 8
    scale: float = 1.5
    num_chains: int = 1_000
    num_temperatures: int = 1_000
    """Of the walk that the updates take; those of the sandwich are doubled from 2."""
    tolerance: float = 0.05
    """Nats: the sandwich's gap and standard errors at which doubling ends."""
    num_steps: int = 50
    """Updates; in each of them the walk takes an equal part of the temperatures."""


PRESETS = {
    "small": Config(),
    "smoke": Config(num_steps=2, num_chains=50, num_temperatures=10, tolerance=1.0),
    "wide": Config(num_visible=20, num_hidden=16, num_temperatures=4_000, scale=1.0),
}


class WalkState(NamedTuple):
    """The chains on their way from the uniform start to the target."""

    params: ais.State


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    machine = _machine(config, seed)
    betas = ais.temperatures([config.num_temperatures], [0, 1])
    walk = ais.sampler(rbm.annealing_path(machine, jnp.zeros(config.num_visible)), betas)
    per_update = -(-config.num_temperatures // config.num_steps)
    batch = {"x": jnp.zeros((config.num_chains, config.num_visible))}

    def init(key: Key, batch: Batch) -> WalkState:
        start = jax.random.bernoulli(key, 0.5, batch["x"].shape).astype(jnp.float32)
        return WalkState(walk.init(key, start))

    def update(key: Key, state: WalkState, batch: Batch) -> tuple[WalkState, Metrics]:
        del batch
        new = WalkState(run(key, walk, state.params, per_update)[0])
        return new, _evaluate(key, new, {})

    def batches(split: str) -> Iterator[tuple[Batch, int]]:
        del split
        yield batch, config.num_chains

    return Experiment(
        Model(init, update, _evaluate),
        Data(lambda step: batch, batches),
        config.num_steps,
        functools.partial(_measure, config, machine),
        functools.partial(_draw, config, machine),
        log_every=1,
    )


def _evaluate(key: Key, state: WalkState, batch: Batch) -> Metrics:
    del key, batch
    found = ais.summarize(state.params)
    return {"log_ratio": found.log_ratio, "ess": found.ess}


def _machine(config: Config, seed: int) -> rbm.RBM:
    generator = np.random.default_rng(seed)
    shapes = ((config.num_visible, config.num_hidden), (config.num_visible,), (config.num_hidden,))
    return rbm.RBM(*(jnp.asarray(config.scale * generator.normal(size=shape), jnp.float32) for shape in shapes))


def _bounds(config: Config, machine: rbm.RBM) -> Any:
    """(key, betas) -> Sandwich, the reverse walk from exact draws."""
    num = config.num_visible
    states = ((jnp.arange(2**num)[:, None] >> jnp.arange(num)[None]) & 1).astype(jnp.float32)
    logits = jax.jit(rbm.free_energy)(machine, states)

    def bounds(key: Key, betas: Any) -> ais.Sandwich:
        draw_key, walk_key = jax.random.split(key)
        # By its inverse CDF: Gumbel noise for every state and chain would be a gigabyte.
        cdf = jnp.cumsum(jax.nn.softmax(-logits))
        uniform = jax.random.uniform(draw_key, (config.num_chains,)) * cdf[-1]
        exact = states[jnp.minimum(jnp.searchsorted(cdf, uniform), len(states) - 1)]
        return rbm.annealed_log_partition(walk_key, machine, jnp.zeros(num), exact, betas)

    return bounds


def _measure(config: Config, machine: rbm.RBM, key: Key, state: WalkState) -> dict[str, Measurement]:
    """log Z enumerated, by the walk, and by the sandwich that doubling ends with."""
    size = f"RBM of {config.num_visible}×{config.num_hidden} random units, {config.num_chains} chains"
    nats = functools.partial(Measurement, unit="nats", split="-")
    start = (config.num_visible + config.num_hidden) * np.log(2)
    walked = ais.summarize(state.params)
    found = ais.double(key, _bounds(config, machine), ais.temperatures([2], [0, 1]), tolerance=config.tolerance)
    text = f"{size}, {found.counts[-1]} temperatures"
    exact = float(jax.jit(rbm.log_partition)(machine))
    walk_text = f"{size}, {config.num_temperatures} temperatures"
    return {
        "log_z": nats(exact, kind="exact", protocol="enumeration"),
        "log_z_walk": nats(start + float(walked.log_ratio), kind="estimate", protocol=walk_text),
        "log_z_forward": nats(float(found.sandwich.forward), kind="estimate", protocol=text),
        "log_z_reverse": nats(float(found.sandwich.reverse), kind="estimate", protocol=f"{text}, from exact draws"),
        "log_z_gap": nats(float(found.sandwich.gap), kind="estimate", protocol=text),
        "log_z_standard_error": nats(float(found.sandwich.standard_error[0]), kind="estimate", protocol=text),
        "temperatures": Measurement(float(found.counts[-1]), "-", "estimate", "-", f"to {config.tolerance} nats"),
        "ess": Measurement(float(found.sandwich.ess[0]), "chains", "estimate", "-", text),
    }


def _draw(config: Config, machine: rbm.RBM, key: Key, state: WalkState, directory: Any) -> None:
    """samples.png: both bounds as the temperatures are doubled; weights.png: the walk's weights by β."""
    bounds, betas = _bounds(config, machine), ais.temperatures([2], [0, 1])
    exact, rows = float(jax.jit(rbm.log_partition)(machine)), []
    while len(betas) <= config.num_temperatures:
        found = jax.jit(lambda key, betas=betas: bounds(key, betas))(jax.random.fold_in(key, len(betas)))
        rows.append((len(betas) - 1, float(found.forward) - exact, float(found.reverse) - exact, *found.ess))
        betas = ais.refine(betas)
    count, forward, reverse, *ess = np.array(rows, np.float64).T
    panels = {
        "error of log Z, nats": {"forward": (count, forward), "reverse": (count, reverse), "exact": (count, 0 * count)},
        f"effective chains of {config.num_chains}": {"forward": (count, ess[0]), "reverse": (count, ess[1])},
    }
    pictures.line_panels(directory / "samples.png", panels, "temperatures", log_x=True)
    weights = np.asarray(ais.summarize(state.params).log_weights, np.float64)
    start = (config.num_visible + config.num_hidden) * np.log(2) - exact
    pictures.histograms(directory / "weights.png", {"log w − log Z": weights + start}, "nats")


SYSTEM = System(
    id="S13",
    module="samplers.annealed_importance",
    title="Annealed importance sampling",
    kind="estimate",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
