"""S5: unadjusted Langevin dynamics on a double well whose moments are known.

    python -m experiments.samplers.langevin

    log π(x, y) = −4(x² − 1)² − y²/2:  E x² = 0.917671, E x⁴ = 0.980171, E y² = 1.

Without a Metropolis test the chains keep another law, of order step_size away: for y it is N(0, 1/(1 − step_size/2)).

Measured with seed 0 on two shared CPU cores, 11 s: E x² 0.9032 (41 standard errors of bias), E y² 1.0043 ± 0.004.

Paper: Roberts and Tweedie, "Exponential convergence of Langevin distributions and their discrete approximations",
1996.
"""

import dataclasses

from experiments.runner import main
from experiments.samplers import chains, planes
from experiments.system import System
from jgen.samplers import langevin
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    step_size: float = 0.01
    num_chains: int = 64
    num_steps: int = 1_000
    """Updates; in each of them every chain takes `steps_per_update` steps."""
    steps_per_update: int = 200


PRESETS = {
    "double_well": Config(),
    "smoke": Config(num_steps=2, steps_per_update=10, num_chains=8),
    "fine": Config(step_size=0.001, steps_per_update=1_000),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    del seed
    return chains.on_plane(
        planes.DOUBLE_WELL,
        langevin.sampler(planes.DOUBLE_WELL.log_density, config.step_size),
        config.num_chains,
        config.num_steps,
        config.steps_per_update,
        f"double well, unadjusted steps of size {config.step_size} (biased to that order)",
    )


SYSTEM = System(
    id="S5",
    module="samplers.langevin",
    title="Unadjusted Langevin dynamics",
    kind="estimate",
    config=Config,
    presets=PRESETS,
    build=build,
    references={preset: planes.DOUBLE_WELL.references() for preset in ("double_well", "fine")},
)

if __name__ == "__main__":
    main(SYSTEM)
