"""S4: Gibbs sampling of the Ising model on a torus, beside its exact values.

    python -m experiments.samplers.gibbs                     # 4×4 at the critical coupling, by enumeration
    python -m experiments.samplers.gibbs ising8              # 8×8

    log π(s) = K Σ s_i s_j over the bonds, each once.

Measured with seed 0 on two shared CPU cores, 10 s (4×4): energy 1.5647, magnetization 0.8435 per site, within 1.2
standard errors.

Paper: Geman and Geman, "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images", 1984.
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from experiments.runner import main
from experiments.samplers import chains
from experiments.system import System
from jgen._checks import at_least, one_of
from jgen.samplers import gibbs
from jgen.train import Experiment

CRITICAL = 0.4406868
# d log Z/dK per site by Kaufman's formula, and E|Σs|/N by enumeration (4×4 only).
EXACT = {4: {"energy": 1.5656238138, "magnetization": 0.8438604556}, 8: {"energy": 1.491589}}


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    side: int = 4
    """The torus has side × side spins; exact values are known for 4 and 8."""
    scan: str = "systematic"
    """All spins in order in each step, or "random": one spin."""
    num_chains: int = 64
    num_steps: int = 200
    """Updates; in each of them every chain takes `steps_per_update` steps."""
    steps_per_update: int = 100


PRESETS = {
    "ising4": Config(),
    "smoke": Config(num_steps=2, steps_per_update=5, num_chains=8),
    "ising8": Config(side=8),
}


def bonds(s: Any, side: int) -> Any:
    """Σ s_i s_j over the bonds of the torus."""
    grid = jnp.reshape(s, (side, side))
    return jnp.sum(grid * (jnp.roll(grid, 1, 0) + jnp.roll(grid, 1, 1)))


def spin_blocks(side: int) -> gibbs.Blocks:
    """One block per spin: P(s_i = 1 | rest) = σ(2K Σ of its neighbours)."""

    def draw(key: Any, s: Any, index: Any) -> Any:
        row, column = index // side, index % side
        neighbours = [((row + 1) % side, column), ((row - 1) % side, column)]
        neighbours += [(row, (column + 1) % side), (row, (column - 1) % side)]
        field = sum(s[r * side + c] for r, c in neighbours)
        up = jax.random.bernoulli(key, jax.nn.sigmoid(2 * CRITICAL * field))
        return s.at[index].set(jnp.where(up, 1.0, -1.0))

    return gibbs.Blocks(side * side, draw)


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    del seed
    at_least("num_chains", config.num_chains, 2)
    one_of("side", config.side, tuple(EXACT))
    side, exact = config.side, EXACT[config.side]

    def statistics(s: Any) -> Any:
        return jnp.stack([bonds(s, side), jnp.abs(jnp.sum(s))][: len(exact)]) / side**2

    starts = np.random.default_rng(0).choice([-1.0, 1.0], (config.num_chains, side * side)).astype(np.float32)
    return chains.experiment(
        gibbs.sampler(spin_blocks(side), scan=config.scan),
        statistics,
        exact,
        starts,
        functools.partial(_draw, side),
        num_updates=config.num_steps,
        steps_per_update=config.steps_per_update,
        protocol=f"Ising {side}×{side} torus at the critical coupling, {config.scan} scan",
    )


def _draw(side: int, points: np.ndarray, directory: Any) -> None:
    last = points[:64, -1].reshape(-1, side, side, 1)
    pictures.grid(directory / "samples.png", 0.25 + 0.5 * (last > 0))
    total = np.arange(-side * side, side * side + 1, 2)
    counts = np.array([(points.sum(axis=-1) == value).mean() for value in total])
    named = {"chains": (total, counts)}
    if side == 4:
        named["exact"] = (total, _magnetization_law(total))
    pictures.lines(directory / "magnetization.png", named, "sum of the spins")


def _magnetization_law(total: np.ndarray) -> np.ndarray:
    states = np.array(list(itertools.product([-1.0, 1.0], repeat=16)), np.float32)
    weight = np.exp(CRITICAL * np.asarray(jax.vmap(lambda s: bonds(s, 4))(jnp.asarray(states)), np.float64))
    return np.array([weight[states.sum(axis=1) == value].sum() for value in total]) / weight.sum()


SYSTEM = System(
    id="S4",
    module="samplers.gibbs",
    title="Gibbs sampling",
    kind="estimate",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        preset: {
            name: {"value": value, "source": "enumeration and Kaufman's formula", "protocol": "exact mean per site"}
            for name, value in EXACT[side].items()
        }
        for preset, side in (("ising4", 4), ("ising8", 8))
    },
)

if __name__ == "__main__":
    main(SYSTEM)
