"""A18: Transformer over pixels, in raster order, with a cache of keys and values.

    python -m experiments.autoregressive.image_transformer                                  # 8×8 digits, 17 levels
    python -m experiments.autoregressive.image_transformer conditional                      # given the digit
    python -m experiments.autoregressive.image_transformer binarized_mnist --data DIR       # a GPU

`attention.png` shows where the heads look from one pixel, on average over test images.

Measured (seed 0, two CPU cores, test data, exact): digits 81.42 nats (s.e. 0.68), 1.835 bits/dim, 104 s; with twice
the steps 80.40.

Paper: Chen et al., "Generative Pretraining from Pixels", 2020; sizes of the MNIST presets: pytorch-generative.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from experiments.autoregressive import images
from experiments.runner import main
from experiments.system import System
from jgen._types import Key
from jgen.autoregressive import image_transformer, raster
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(images.Config):
    """The knobs worth turning."""

    num_layers: int = 4
    num_heads: int = 4
    width: int = 64
    dropout_rate: float = 0.1
    conditional: bool = False
    """Learn p(x | label)."""
    learning_rate: float = 3e-3
    num_steps: int = 570


PRESETS = {
    "digits": Config(),
    "conditional": Config(conditional=True),
    "binarized": Config(binarized=True),
    "smoke": Config(num_steps=2, eval_every=2, num_layers=1, num_heads=2, width=8, batch_size=16),
    "binarized_mnist": Config(
        data="binarized_mnist",
        num_layers=8,
        num_heads=2,
        average_decay=0.999,
        num_steps=39_050,
        eval_every=781,
        patience=10,
    ),
    "mnist": Config(
        data="mnist",
        num_layers=8,
        num_heads=4,
        width=128,
        average_decay=0.999,
        num_steps=42_200,
        eval_every=844,
        patience=10,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    sizes = {name: getattr(config, name) for name in ("num_layers", "num_heads", "width", "dropout_rate")}
    built = {}

    def network_of(shape: Any, levels: int, num_classes: int | None) -> raster.Network:
        built["module"] = image_transformer.ImageTransformer(shape, levels, num_classes, **sizes)
        return image_transformer.network(shape, levels, num_classes=num_classes, **sizes)

    experiment = images.experiment(config, seed, network_of, conditional=config.conditional)
    batch = functools.partial(_test_images, experiment)

    def draw(key: Key, state: Any, directory: pathlib.Path) -> None:
        experiment.draw(key, state, directory)
        _draw_attention(built["module"], state.params, batch(), directory)

    return dataclasses.replace(experiment, draw=draw)


def _test_images(experiment: Experiment) -> Any:
    return next(iter(experiment.data.batches("test")))[0]


def _draw_attention(module: image_transformer.ImageTransformer, params: Any, batch: Any, directory: Any) -> None:
    """Where each head looks from the pixel in the middle, on average over test images."""
    height, width, channels = module.shape
    x = batch["x"][:64]
    label = None if module.num_classes is None else batch["label"][:64]
    maps = jax.jit(functools.partial(image_transformer.attention_maps, module))(params, x, label)
    middle = (height // 2 * width + width // 2) * channels
    weights = np.asarray(jnp.mean(maps[:, :, :, middle], axis=1)).reshape(*maps.shape[:1], maps.shape[2], *module.shape)
    shown = {
        f"layer {i + 1}, head {j + 1}": np.where(np.arange(weights[0, 0].size) <= middle, weights[i, j].ravel(), np.nan)
        .reshape(module.shape)
        .sum(axis=-1)
        for i in range(weights.shape[0])
        for j in range(weights.shape[1])
    }
    pictures.matrices(directory / "attention.png", shown, columns=weights.shape[1])


SYSTEM = System(
    id="A18",
    module="autoregressive.image_transformer",
    title="Transformer over pixels",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "binarized_mnist": {
            "nll": {
                "value": 79.17,
                "source": "pytorch-generative's ImageGPT",
                "protocol": "dynamically binarized MNIST, test images evaluated every epoch",
            }
        }
    },
)

if __name__ == "__main__":
    main(SYSTEM)
