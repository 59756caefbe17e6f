"""S8: parallel tempering on a double well that a single chain does not cross.

    python -m experiments.samplers.tempering

    log π(x, y) = −20(x² − 1)² + x/4 − y²/2: the right well holds 0.62 of the mass, behind a ridge of 20 nats.

Measured with seed 0 on two shared CPU cores, 32 s: 0.625 on the right (exact 0.6213, 1.5 standard errors off);
neighbours swap at least 65 % of their turns; of 64 single walks from the left 2 are on the right after 10,000 steps.

Papers: Geyer, 1991; Syed et al., "Non-reversible parallel tempering", 2022.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from experiments.runner import main
from experiments.samplers import chains, planes
from experiments.system import System
from jgen import random, run
from jgen._types import Key
from jgen.metrics.measurement import Measurement
from jgen.sampler import parallel
from jgen.samplers import metropolis, tempering
from jgen.train import Experiment


def log_density(z: Any) -> Any:
    """log π(x, y), up to a constant."""
    return -20 * jnp.square(jnp.square(z[0]) - 1) + z[0] / 4 - 0.5 * jnp.square(z[1])


def _exact() -> dict[str, float]:
    x = np.linspace(-2, 2, 20_001)
    weight = np.exp(-20 * (x**2 - 1) ** 2 + x / 4)
    weight /= weight.sum()
    return {"right": float(weight[x > 0].sum()), "mean_x": float(weight @ x), "mean_x2": float(weight @ x**2)}


PLANE = planes.Plane(
    log_density,
    lambda z: jnp.stack([(z[0, 0] > 0).astype(jnp.float32), z[0, 0], z[0, 0] ** 2]),
    _exact(),
    lambda num: np.tile(np.array([-1.0, 0.0], np.float32), (num, 1)),
    (-2.0, 2.0, -3.0, 3.0),
    "quadrature in float64",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    num_replicas: int = 6
    hottest: float = 0.03
    """The smallest inverse temperature; the others lie between it and 1 in one ratio."""
    scale: float = 0.4
    """Standard deviation of the random walk's steps, at every temperature."""
    num_moves: int = 2
    """Moves between swaps."""
    num_chains: int = 64
    num_steps: int = 400
    """Updates; in each of them every set of replicas takes `steps_per_update` steps."""
    steps_per_update: int = 50


PRESETS = {
    "double_well": Config(),
    "smoke": Config(num_steps=2, steps_per_update=10, num_chains=8, num_replicas=3),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    del seed
    betas = tempering.ladder(config.hottest, config.num_replicas)
    walk = functools.partial(metropolis.sampler, propose=metropolis.random_walk(config.scale))
    sampler = tempering.sampler(*tempering.powers(log_density, walk), betas, num_moves=config.num_moves)
    starts = np.repeat(PLANE.starts(config.num_chains)[:, None], config.num_replicas, axis=1)
    experiment = chains.experiment(
        sampler,
        PLANE.statistics,
        PLANE.exact,
        starts,
        functools.partial(_draw, walk(log_density)),
        num_updates=config.num_steps,
        steps_per_update=config.steps_per_update,
        protocol=f"double well of 20 nats, {config.num_replicas} replicas down to {config.hottest}, from the left",
    )
    return dataclasses.replace(experiment, measure=functools.partial(_measure, sampler, walk, experiment.measure))


def _measure(sampler: Any, walk: Any, means: Any, key: Key, state: Any) -> dict[str, Measurement]:
    """The means, the smallest swap rate, and where a single chain is after as many moves."""
    found = means(key, state)
    protocol = found["right"].protocol
    start = state.rest._replace(position=state.params)
    kept = jax.jit(lambda key: run(key, parallel(sampler), start, 400, keep=lambda s, i: i.swaps)[1])(key)
    rates = tempering.swap_rates(jax.tree.map(lambda x: jnp.reshape(x, (-1, x.shape[-1])), kept))
    estimate = functools.partial(Measurement, unit="-", kind="estimate", split="-")
    found["swap_rate"] = estimate(float(jnp.min(rates)), protocol=f"{protocol}, the pair that swaps least")
    kernel = parallel(walk(log_density))
    left = PLANE.starts(len(state.params))
    ends = jax.jit(lambda key: run(key, kernel, kernel.init(key, jnp.asarray(left)), 10_000)[0].position)(key)
    text = f"{len(left)} random walks of 10,000 steps without tempering, from the left"
    found["right_alone"] = estimate(float(jnp.mean(ends[:, 0] > 0)), protocol=text)
    return found


def _draw(alone: Any, points: np.ndarray, directory: Any) -> None:
    """The target's replica in the plane; trajectories.png: its x beside a single chain's, of two chains each."""
    chains.draw_plane(PLANE, points[:, :, 0], directory)
    key = random.stream(0, "sample")
    kernel = parallel(alone)
    state = kernel.init(key, jnp.asarray(PLANE.starts(2)))
    lone = run(key, kernel, state, points.shape[1], keep=lambda s, i: s.position[:, 0])[1]
    steps = np.arange(points.shape[1])
    panels = {
        "x of the target's replica": {str(i): (steps, points[i, :, 0, 0]) for i in range(2)},
        "x of single chains": {str(i): (steps, np.asarray(lone)[:, i]) for i in range(2)},
        "x of the hottest replica": {str(i): (steps, points[i, :, -1, 0]) for i in range(2)},
    }
    pictures.line_panels(directory / "trajectories.png", panels, "step", legend=False)


SYSTEM = System(
    id="S8",
    module="samplers.tempering",
    title="Parallel tempering",
    kind="estimate",
    config=Config,
    presets=PRESETS,
    build=build,
    references={"double_well": PLANE.references()},
)

if __name__ == "__main__":
    main(SYSTEM)
