"""A14: Gated PixelCNN, two stacks of gated convolutions without a blind spot, conditional on the class or not.

    python -m experiments.autoregressive.gated_pixel_cnn                            # 8×8 digits, 17 levels
    python -m experiments.autoregressive.gated_pixel_cnn conditional                # p(image | label)
    python -m experiments.autoregressive.gated_pixel_cnn binarized_mnist --data DIR # .amat files, tfds:binarized_mnist

Measured (seed 0, two CPU cores shared with other trainings, test data, exact): digits 79.42 nats (s.e. 0.67), 1.790
bits/dim, 144 s; fixed-point sampling takes 14.9 sweeps on average, 20 at most, where 64 are the bound. binarized_mnist
(one epoch on a CPU core, 14 min) 88.39 nats (s.e. 0.21), 39.2 sweeps on average, 56 at most, where 784 are the bound.
conditional: 76.16 nats given the label, 1.717 bits/dim, 111 s on one core.

The centre sees all of the 36 inputs before it on digits and all 528 pixels in cifar10, 180 of 406 in binarized_mnist
and 312 of 406 in paper and conditional_mnist: a rectangle, wider by one with each layer; 25 layers see all of 28×28.

Paper: van den Oord et al., "Conditional Image Generation with PixelCNN Decoders", 2016.
"""

import dataclasses

from experiments.autoregressive import images
from experiments.runner import main
from experiments.system import System
from jgen.autoregressive import gated_pixel_cnn
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """The knobs worth turning."""

    conditional: bool = False
    """Learn p(image | label)."""
    features: int = 32
    num_layers: int = 6
    first_size: int = 5
    """Of the first layer's kernels."""
    size: int = 3
    """Of the other layers' kernels."""
    head_features: int = 64
    dropout_rate: float = 0.5


_MNIST = Config(
    data="tfds:binarized_mnist",
    num_layers=7,
    first_size=7,
    head_features=32,
    dropout_rate=0.0,
    batch_size=32,
    average_decay=0.995,
    num_steps=1_500,
    eval_every=500,
)
_PAPER = dataclasses.replace(
    _MNIST,
    features=128,
    num_layers=10,
    head_features=128,
    learning_rate=1e-3,
    batch_size=128,
    average_decay=0.9995,
    num_steps=60_000,
    eval_every=2_000,
    patience=8,
)

PRESETS = {
    "digits": Config(),
    "conditional": Config(conditional=True),
    "binarized": Config(binarized=True),
    "smoke": Config(num_steps=2, eval_every=2, features=4, num_layers=2, first_size=3, head_features=4, batch_size=16),
    "binarized_mnist": _MNIST,
    "paper": _PAPER,
    "conditional_mnist": dataclasses.replace(_PAPER, data="tfds:mnist", binarized=True, conditional=True),
    "cifar10": dataclasses.replace(
        _PAPER,
        data="tfds:cifar10",
        features=192,
        num_layers=20,
        head_features=384,
        learning_rate=4e-4,
        eval_batch_size=100,
        num_steps=200_000,
        eval_every=5_000,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""

    def network_of(shape, levels, num_classes):
        names = ("features", "num_layers", "first_size", "size", "head_features", "dropout_rate")
        sizes = {name: getattr(config, name) for name in names}
        return gated_pixel_cnn.network(shape, levels, num_classes=num_classes, **sizes)

    return images.experiment(config, seed, network_of, conditional=config.conditional, passes=True)


SYSTEM = System(
    id="A14",
    module="autoregressive.gated_pixel_cnn",
    title="Gated PixelCNN",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "cifar10": {
            "bits_per_dim": {"value": 3.03, "source": "van den Oord et al., 2016", "protocol": "CIFAR-10, test"}
        }
    },
)

if __name__ == "__main__":
    main(SYSTEM)
