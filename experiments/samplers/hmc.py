"""S6: Hamiltonian Monte Carlo on densities of the plane whose moments are known, tuned by a warm-up of its own.

    python -m experiments.samplers.hmc                       # the banana: x ~ N(0, 4), y | x ~ N((x² − 4)/2, 1)
    python -m experiments.samplers.hmc double_well           # log π = −4(x² − 1)² − y²/2

Step size and diagonal mass come from dual averaging and Stan's windows over all chains; the length of a trajectory is
drawn anew in each step.

Measured with seed 0 on two shared CPU cores, 25 s: E x² 3.972, E y² 8.648, all within 1.9 standard errors; ESS 10,144,
R-hat 1.008, acceptance 0.934 with steps of 0.171.

Papers: Duane et al., "Hybrid Monte Carlo", 1987; Neal, "MCMC using Hamiltonian dynamics", 2011.
"""

import dataclasses

from experiments.runner import main
from experiments.samplers import planes, tuned
from experiments.system import System
from jgen._checks import at_least, one_of
from jgen.samplers import hmc
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    target: str = "banana"
    """Or "double_well"."""
    num_leapfrog: int = 20
    """Steps of a trajectory, on average: each draws its number from half of it to one and a half."""
    accept: float = 0.95
    """The acceptance probability at which the warm-up aims: high, for the banana's ends are stiffer than its middle."""
    warm_up: int = 300
    """Steps of the warm-up."""
    num_chains: int = 64
    num_steps: int = 500
    """Updates; in each of them every chain takes `steps_per_update` steps."""
    steps_per_update: int = 100


PRESETS = {
    "banana": Config(),
    "smoke": Config(num_steps=2, steps_per_update=10, num_chains=8, warm_up=60),
    "double_well": Config(target="double_well"),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    one_of("target", config.target, tuple(planes.PLANES))
    at_least("num_leapfrog", config.num_leapfrog, 1)
    plane = planes.PLANES[config.target]
    lengths = (max(1, config.num_leapfrog // 2), config.num_leapfrog + config.num_leapfrog // 2)
    return tuned.experiment(
        plane,
        lambda p: hmc.sampler(plane.log_density, p.step_size, lengths, inverse_mass=p.inverse_mass),
        config,
        seed,
        f"{config.target.replace('_', ' ')}, HMC with {lengths[0]} to {lengths[1]} leapfrog steps",
    )


SYSTEM = System(
    id="S6",
    module="samplers.hmc",
    title="Hamiltonian Monte Carlo",
    kind="estimate",
    config=Config,
    presets=PRESETS,
    build=build,
    references={name: plane.references() for name, plane in planes.PLANES.items()},
)

if __name__ == "__main__":
    main(SYSTEM)
