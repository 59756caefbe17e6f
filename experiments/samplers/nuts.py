"""S11: the No-U-Turn sampler, BlackJAX's kernel under this project's warm-up and statistics; needs the extra `nuts`.

    python -m experiments.samplers.nuts                      # the banana: x ~ N(0, 4), y | x ~ N((x² − 4)/2, 1)
    python -m experiments.samplers.nuts double_well          # log π = −4(x² − 1)² − y²/2

Measured with seed 0 on two shared CPU cores, 43 s: E x² 4.003, E y² 9.034, all within 0.4 standard errors; ESS 1,741 of
16 chains of 20,000 steps, R-hat 1.010, acceptance 0.940 with steps of 0.202.

Paper: Hoffman and Gelman, "The No-U-Turn sampler: adaptively setting path lengths in Hamiltonian Monte Carlo", 2014.
"""

import dataclasses

from experiments.runner import main
from experiments.samplers import planes, tuned
from experiments.system import System
from jgen._checks import one_of
from jgen.samplers import nuts
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    target: str = "banana"
    """Or "double_well"."""
    accept: float = 0.95
    """The acceptance probability at which the warm-up aims: high, for the banana's ends are stiffer than its middle."""
    warm_up: int = 300
    """Steps of the warm-up."""
    num_chains: int = 16
    num_steps: int = 200
    """Updates; in each of them every chain takes `steps_per_update` steps."""
    steps_per_update: int = 100


PRESETS = {
    "banana": Config(),
    "smoke": Config(num_steps=2, steps_per_update=5, num_chains=4, warm_up=60),
    "double_well": Config(target="double_well"),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    one_of("target", config.target, tuple(planes.PLANES))
    plane = planes.PLANES[config.target]
    return tuned.experiment(
        plane,
        lambda p: nuts.sampler(plane.log_density, p.step_size, inverse_mass=p.inverse_mass),
        config,
        seed,
        f"{config.target.replace('_', ' ')}, NUTS with leapfrog steps",
    )


SYSTEM = System(
    id="S11",
    module="samplers.nuts",
    title="No-U-Turn sampler (BlackJAX)",
    kind="estimate",
    config=Config,
    presets=PRESETS,
    build=build,
    references={name: plane.references() for name, plane in planes.PLANES.items()},
)

if __name__ == "__main__":
    main(SYSTEM)
