"""S2: a Markov chain on eight states comes to its equilibrium.

    python -m experiments.samplers.markov_chain               # steps to neighbours, made reversible for two hills
    python -m experiments.samplers.markov_chain one_way       # round a ring: the same equilibrium, no detailed balance

"hills" proposes a neighbour on a line and accepts as Metropolis does; "one_way" moves on round a ring and waits in each
state in proportion to its weight, so that its flow never turns back.

Measured with seed 0 on two shared CPU cores, 4 s ("hills"): all eight shares within 1.4 standard errors of the
equilibrium; from the matrix, d(t) ≤ 1/4 after 27 steps, imbalance and error of the equilibrium below 1e-5.

Book: Levin, Peres and Wilmer, "Markov chains and mixing times", 2009.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import pictures
from experiments.runner import main
from experiments.samplers import chains
from experiments.system import System
from jgen._checks import one_of
from jgen.metrics.measurement import Measurement
from jgen.samplers import markov_chain
from jgen.train import Experiment

WEIGHTS = np.array([1.0, 3.0, 5.0, 2.0, 1.0, 4.0, 6.0, 2.0])
PI = WEIGHTS / WEIGHTS.sum()
TIMES = 200


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    chain: str = "hills"
    """Or "one_way"."""
    num_chains: int = 64
    num_steps: int = 300
    """Updates; in each of them every chain takes `steps_per_update` steps."""
    steps_per_update: int = 100


PRESETS = {
    "hills": Config(),
    "smoke": Config(num_steps=2, steps_per_update=500, num_chains=8),
    "one_way": Config(chain="one_way"),
}


def matrix(chain: str) -> Any:
    """The transition matrix of one of the two."""
    if chain == "hills":
        neighbours = 0.5 * (np.eye(8, k=1) + np.eye(8, k=-1))
        neighbours += np.diag(1 - neighbours.sum(axis=1))  # at an end half of the proposals stay
        return markov_chain.metropolis(jnp.asarray(neighbours, jnp.float32), jnp.asarray(WEIGHTS, jnp.float32))
    onward = WEIGHTS.min() / WEIGHTS
    return jnp.asarray(np.diag(1 - onward) + np.diag(onward) @ np.roll(np.eye(8), 1, axis=1), jnp.float32)


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    del seed
    one_of("chain", config.chain, ("hills", "one_way"))
    transitions = matrix(config.chain)
    experiment = chains.experiment(
        markov_chain.sampler(transitions),
        lambda state: (state == jnp.arange(8)).astype(jnp.float32),
        {f"state_{i}": float(p) for i, p in enumerate(PI)},
        np.zeros(config.num_chains, np.int32),
        functools.partial(_draw, transitions),
        num_updates=config.num_steps,
        steps_per_update=config.steps_per_update,
        protocol=f"eight states, {config.chain.replace('_', ' ')}",
    )
    return dataclasses.replace(experiment, measure=functools.partial(_measure, transitions, experiment.measure))


def _measure(transitions: Any, means: Any, key: Any, state: Any) -> dict[str, Measurement]:
    """The share of each state, and what the matrix alone tells."""
    pi = markov_chain.stationary(transitions)
    curve = np.asarray(markov_chain.mixing_curve(transitions, TIMES))
    exact = functools.partial(Measurement, kind="exact", split="-", protocol="from the transition matrix")
    return {
        **means(key, state),
        "imbalance": exact(float(markov_chain.imbalance(transitions, pi)), "-"),
        "equilibrium_error": exact(float(markov_chain.total_variation(pi, jnp.asarray(PI, jnp.float32))), "-"),
        "mixing_time": exact(float(np.argmax(curve <= 0.25)), "steps"),
    }


def _draw(transitions: Any, points: np.ndarray, directory: Any) -> None:
    """samples.png: the law as time goes on; mixing.png: its distance from equilibrium; path.png: one chain."""
    start = jnp.zeros(8).at[0].set(1.0)
    laws = np.asarray(markov_chain.evolve(transitions, start, TIMES))
    state = np.arange(8)
    named = {f"after {t} steps": (state, laws[t]) for t in (0, 3, 10, 30, 100)}
    counts = np.bincount(points.ravel(), minlength=8) / points.size
    pictures.line_panels(
        directory / "samples.png",
        {"the law, from state 0": named, "in the end": {"chains": (state, counts), "equilibrium": (state, PI)}},
        "state",
    )
    times = np.arange(TIMES + 1)
    far = {"worst start": markov_chain.mixing_curve(transitions, TIMES)}
    middle = markov_chain.evolve(transitions, jnp.zeros(8).at[4].set(1.0), TIMES)
    far["from state 4"] = markov_chain.total_variation(
        middle, jnp.broadcast_to(jnp.asarray(PI, jnp.float32)[None], middle.shape)
    )
    pictures.lines(
        directory / "mixing.png",
        {name: (times, np.log10(np.maximum(value, 1e-6))) for name, value in far.items()},
        "steps; log10 of the total variation from equilibrium",
    )
    pictures.lines(directory / "path.png", {"one chain": (np.arange(200), points[0, :200])}, "steps")


SYSTEM = System(
    id="S2",
    module="samplers.markov_chain",
    title="Discrete Markov chain",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        name: {
            f"state_{i}": {"value": float(p), "source": "by construction", "protocol": "exact equilibrium"}
            for i, p in enumerate(PI)
        }
        for name in ("hills", "one_way")
    },
)

if __name__ == "__main__":
    main(SYSTEM)
