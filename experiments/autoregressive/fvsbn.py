"""A5: FVSBN, a logistic regression of every pixel on those before it.

    python -m experiments.autoregressive.fvsbn                            # 8×8 digits, binarized at half
    python -m experiments.autoregressive.fvsbn binarized_mnist --data DIR # the .amat files, or tfds:binarized_mnist

Measured (seed 0, two shared CPU cores, test data, exact): digits 18.16 nats (s.e. 0.23), 15 s; binarized_mnist 97.37
nats (s.e. 0.23) in a random order, 80 s on one core; in raster order it was 97.83.

Paper: Frey, Hinton, Dayan, "Does the wake-sleep algorithm produce good density estimators?", 1996.
"""

import dataclasses

from experiments.autoregressive import rows
from experiments.runner import main
from experiments.system import System
from jgen.autoregressive import fvsbn
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(rows.Config):
    """The knobs worth turning."""

    order: int | None = None
    """The seed of a random order of the variables; None takes them as they come."""


PRESETS = {
    "digits": Config(learning_rate=1e-2, weight_decay=0.05),
    "smoke": Config(num_steps=2, eval_every=2, batch_size=16),
    "binarized_mnist": Config(
        data="tfds:binarized_mnist",
        order=0,
        learning_rate=3e-3,
        average_decay=0.999,
        num_steps=20_000,
        eval_every=1_000,
        patience=4,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    return rows.fixed(config, seed, lambda num_dims: fvsbn.network(num_dims, order=config.order))


SYSTEM = System(
    id="A5",
    module="autoregressive.fvsbn",
    title="FVSBN: fully visible sigmoid belief network",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "binarized_mnist": {
            "nll": {"value": 97.45, "source": "about, from memory: NADE, 2011", "protocol": "static binarization"}
        }
    },
)

if __name__ == "__main__":
    main(SYSTEM)
