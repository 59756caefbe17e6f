"""A15: PixelCNN++, two streams over several resolutions and mixtures of logistics cut into levels.

    python -m experiments.autoregressive.pixel_cnn_pp                            # 8×8 digits, 17 levels
    python -m experiments.autoregressive.pixel_cnn_pp paper                      # CIFAR-10, the paper's network

Measured (seed 0, two CPU cores, test data, exact): digits 78.08 nats (s.e. 0.65), 1.760 bits/dim, 86 s; fixed-point
sampling takes 14.0 sweeps on average, 19 at most, where 64 are the bound. The centre sees all of the 36 inputs before
it.

Paper: Salimans, Karpathy, Chen, Kingma, "PixelCNN++", 2017.
"""

import dataclasses

from experiments.autoregressive import images
from experiments.runner import main
from experiments.system import System
from jgen.autoregressive import pixel_cnn_pp
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """The knobs worth turning."""

    num_steps: int = 760
    """40 epochs of the digits."""
    features: int = 20
    num_blocks: int = 2
    """Residual blocks per resolution on the way down; one more on the way up."""
    num_resolutions: int = 2
    """Each has half the rows and columns of the one before it."""
    num_components: int = 5
    """Logistics per pixel."""
    dropout_rate: float = 0.3


_PAPER = Config(
    data="tfds:cifar10",
    features=160,
    num_blocks=5,
    num_resolutions=3,
    num_components=10,
    dropout_rate=0.5,
    learning_rate=1e-3,
    weight_decay=0.0,
    batch_size=128,
    eval_batch_size=100,
    average_decay=0.9995,
    num_steps=400_000,
    eval_every=5_000,
    patience=10,
)

PRESETS = {
    "digits": Config(),
    "binarized": Config(binarized=True),
    "smoke": Config(num_steps=2, eval_every=2, features=3, num_blocks=1, num_components=2, batch_size=16),
    "binarized_mnist": Config(
        data="tfds:binarized_mnist",
        features=16,
        num_resolutions=3,
        num_components=1,
        dropout_rate=0.0,
        learning_rate=1e-3,
        average_decay=0.999,
        num_steps=10_000,
        eval_every=1_000,
    ),
    "mnist": dataclasses.replace(_PAPER, data="tfds:mnist", features=64, num_blocks=3, num_steps=60_000),
    "paper": _PAPER,
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""

    def network_of(shape, levels, _):
        names = ("features", "num_blocks", "num_resolutions", "num_components", "dropout_rate")
        return pixel_cnn_pp.network(shape, levels, **{name: getattr(config, name) for name in names})

    return images.experiment(config, seed, network_of, passes=True)


SYSTEM = System(
    id="A15",
    module="autoregressive.pixel_cnn_pp",
    title="PixelCNN++",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "paper": {"bits_per_dim": {"value": 2.92, "source": "PixelCNN++, 2017", "protocol": "CIFAR-10, test"}},
    },
)

if __name__ == "__main__":
    main(SYSTEM)
