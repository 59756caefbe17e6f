"""A13: PixelCNN, masked convolutions over pixels.

    python -m experiments.autoregressive.pixel_cnn                            # 8×8 digits, 17 levels
    python -m experiments.autoregressive.pixel_cnn binarized_mnist --data DIR # the .amat files, or tfds:binarized_mnist

Measured (seed 0, two CPU cores shared with other trainings, test data, exact): digits 83.48 nats (s.e. 0.69), 1.882
bits/dim, 106 s; fixed-point sampling takes 14.0 sweeps on average, 18 at most, where 64 are the bound. binarized_mnist
(two epochs on a CPU core, 8 min) 90.32 nats (s.e. 0.21), 35.8 sweeps on average, 50 at most, where 784 are the bound.

The centre sees 33 of the 36 inputs before it on digits, 228 of 406 in binarized_mnist, 351 in paper, 450 of 528 pixels
in cifar10; what is missing is the blind spot to the upper right, and what eight layers do not reach.

Paper: van den Oord, Kalchbrenner, Kavukcuoglu, "Pixel Recurrent Neural Networks", 2016.
"""

import dataclasses

from experiments.autoregressive import images
from experiments.runner import main
from experiments.system import System
from jgen.autoregressive import pixel_cnn
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """The knobs worth turning."""

    features: int = 64
    """Between the residual blocks, which work at half of them."""
    num_blocks: int = 6
    first_size: int = 3
    """Of the kernel of mask A."""
    size: int = 3
    """Of the kernels of mask B."""
    head_features: int = 64
    dropout_rate: float = 0.3


PRESETS = {
    "digits": Config(),
    "binarized": Config(binarized=True),
    "smoke": Config(num_steps=2, eval_every=2, features=8, num_blocks=1, first_size=3, head_features=4, batch_size=16),
    "binarized_mnist": Config(
        data="tfds:binarized_mnist",
        features=32,
        num_blocks=8,
        first_size=7,
        head_features=32,
        dropout_rate=0.0,
        batch_size=32,
        average_decay=0.995,
        num_steps=3_000,
        eval_every=1_000,
    ),
    "paper": Config(
        data="tfds:binarized_mnist",
        features=128,
        num_blocks=15,
        first_size=7,
        head_features=128,
        dropout_rate=0.0,
        learning_rate=1e-3,
        batch_size=256,
        average_decay=0.9995,
        num_steps=90_000,
        eval_every=2_000,
        patience=8,
    ),
    "cifar10": Config(
        data="tfds:cifar10",
        features=258,
        num_blocks=15,
        first_size=7,
        head_features=1_026,
        dropout_rate=0.0,
        learning_rate=4e-4,
        batch_size=64,
        eval_batch_size=100,
        average_decay=0.9995,
        num_steps=200_000,
        eval_every=5_000,
        patience=8,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""

    def network_of(shape, levels, _):
        names = ("features", "num_blocks", "first_size", "size", "head_features", "dropout_rate")
        return pixel_cnn.network(shape, levels, **{name: getattr(config, name) for name in names})

    return images.experiment(config, seed, network_of, passes=True)


_MNIST = {"nll": {"value": 81.30, "source": "van den Oord et al., 2016", "protocol": "static binarized MNIST, test"}}

SYSTEM = System(
    id="A13",
    module="autoregressive.pixel_cnn",
    title="PixelCNN",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "binarized_mnist": _MNIST,
        "paper": _MNIST,
        "cifar10": {
            "bits_per_dim": {"value": 3.14, "source": "van den Oord et al., 2016", "protocol": "CIFAR-10, test"}
        },
    },
)

if __name__ == "__main__":
    main(SYSTEM)
