"""A4: causal convolutions over an image as one sequence of pixels.

    python -m experiments.autoregressive.causal_conv                     # 8×8 digits, 17 levels, early stopping
    python -m experiments.autoregressive.causal_conv course              # 1,497 digits, 60 epochs, the last state

Measured (seed 0, two CPU cores shared with another training, test data, exact): digits 86.96 nats (s.e. 0.65), 1.960
bits/dim, 24 s.

Book: Tomczak, "Deep Generative Modeling", 2022, chapter 2.
"""

import dataclasses

from experiments.autoregressive import images
from experiments.runner import main
from experiments.system import System
from jgen.autoregressive import causal_conv
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """The knobs worth turning."""

    features: int = 64
    num_layers: int = 4
    kernel_size: int = 7
    """With 4 layers a pixel sees the 25 before it."""


PRESETS = {
    "digits": Config(),
    "course": Config(use_valid=True, num_steps=1_380, eval_every=230, weight_decay=1e-2),
    "binarized": Config(binarized=True),
    "smoke": Config(num_steps=2, eval_every=2, features=8, num_layers=2, batch_size=16),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""

    def network_of(shape, levels, _):
        sizes = {"features": config.features, "num_layers": config.num_layers, "kernel_size": config.kernel_size}
        return causal_conv.network(shape, levels, **sizes)

    return images.experiment(config, seed, network_of)


SYSTEM = System(
    id="A4",
    module="autoregressive.causal_conv",
    title="Causal convolutions over pixels",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
