"""Encoders and decoders, dense and convolutional: the two halves of latent-variable models."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class Encoder(nn.Module):
    """Flattened features, and a condition beside them, through dense layers.

    Attributes:
        num_outputs: for a Gaussian posterior 2·latent_size: mean and log standard deviation.
        hidden_sizes: widths.
        activation: between layers, unless they are gated.
        gated: each layer is h ⊙ sigmoid(g), both dense (Tomczak and Welling, "VAE with a VampPrior", 2018).
        dropout_rate: the share of hidden units dropped in training.
    """

    num_outputs: int
    hidden_sizes: Sequence[int] = (256, 256)
    activation: Callable[[Any], Any] = nn.relu
    gated: bool = False
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Any, condition: Any = None, *, train: bool = False) -> Any:
        """(batch, *shape), (batch, classes) -> (batch, num_outputs)."""
        hidden = _hidden(self, beside(jnp.reshape(x, (len(x), -1)), condition), train)
        return nn.Dense(self.num_outputs)(hidden)


class Decoder(nn.Module):
    """Latents, and a condition beside them, to raw parameters through dense layers.

    Attributes:
        shape: the shape of one example.
        num_parameters: of the likelihood.
        hidden_sizes: widths.
        activation: as in `Encoder`.
        gated: as in `Encoder`.
        dropout_rate: as in `Encoder`.
    """

    shape: Sequence[int]
    num_parameters: int
    hidden_sizes: Sequence[int] = (256, 256)
    activation: Callable[[Any], Any] = nn.relu
    gated: bool = False
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, z: Any, condition: Any = None, *, train: bool = False) -> Any:
        """(batch, latent_size), (batch, classes) -> (batch, *shape, num_parameters)."""
        sizes = (*self.shape, self.num_parameters)
        hidden = _hidden(self, beside(z, condition), train)
        out = nn.Dense(int(np.prod(sizes)))(hidden)
        return jnp.reshape(out, (len(z), *sizes))


def beside(x: Any, condition: Any) -> Any:
    """(batch, size) with the condition (batch, classes), where there is one, as further columns."""
    return x if condition is None else jnp.concatenate([x, condition], axis=-1)


def _hidden(module: Encoder | Decoder, x: Any, train: bool) -> Any:
    for size in module.hidden_sizes:
        x = nn.Dense(size)(x) * nn.sigmoid(nn.Dense(size)(x)) if module.gated else module.activation(nn.Dense(size)(x))
        if module.dropout_rate:
            x = nn.Dropout(module.dropout_rate, deterministic=not train)(x)
    return x


class ResidualBlock(nn.Module):
    """h + conv 1×1(relu(conv 3×3(relu(h)))), the block of van den Oord et al., "VQ-VAE", 2017, section 4.1."""

    @nn.compact
    def __call__(self, h: Any) -> Any:
        """(batch, height, width, channels), kept."""
        channels = h.shape[-1]
        update = nn.Conv(channels, (3, 3))(nn.relu(h))
        return h + nn.Conv(channels, (1, 1))(nn.relu(update))


class Down(nn.Module):
    """Images to maps: per stage a 4×4 convolution of stride 2, then residual blocks; odd sizes are rounded up.

    Attributes:
        channels: of each stage.
        num_blocks: residual blocks after the last stage.
        activation: after each convolution.
    """

    channels: Sequence[int] = (32, 64)
    num_blocks: int = 0
    activation: Callable[[Any], Any] = nn.relu

    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        """(batch, height, width, channels) -> (batch, ⌈height/2^stages⌉, ⌈width/2^stages⌉, channels[-1])."""
        del train
        for channels in self.channels:
            x = self.activation(nn.Conv(channels, (4, 4), (2, 2))(x))
        for _ in range(self.num_blocks):
            x = ResidualBlock()(x)
        return x


class Up(nn.Module):
    """Maps to images, `Down` backwards: residual blocks, then per stage a transposed 4×4 convolution of stride 2.

    Attributes:
        shape: (height, width, channels) of the output; the map must be ⌈height/2^stages⌉ × ⌈width/2^stages⌉.
        channels: of each stage's input, so the last stage gives `shape[-1]` channels.
        num_blocks: residual blocks before the first stage.
        activation: between the stages.
    """

    shape: Sequence[int]
    channels: Sequence[int] = (64, 32)
    num_blocks: int = 0
    activation: Callable[[Any], Any] = nn.relu

    @nn.compact
    def __call__(self, h: Any, *, train: bool = False) -> Any:
        """(batch, height', width', features) -> (batch, *shape)."""
        del train
        h = nn.Conv(self.channels[0], (3, 3))(h)
        for _ in range(self.num_blocks):
            h = ResidualBlock()(h)
        for i, outputs in enumerate((*self.channels[1:], self.shape[-1])):
            height, width = map_size(self.shape, len(self.channels) - 1 - i)
            h = nn.ConvTranspose(outputs, (4, 4), (2, 2))(self.activation(h))[:, :height, :width]
        return h


def map_size(shape: Sequence[int], stages: int) -> tuple[int, int]:
    """(height, width) after `stages` halvings, rounded up."""
    return -(-shape[0] // 2**stages), -(-shape[1] // 2**stages)


class ConvEncoder(nn.Module):
    """`Down`, then one dense layer.

    Attributes:
        num_outputs: for a Gaussian posterior 2·latent_size.
        channels: as in `Down`.
        num_blocks: as in `Down`.
    """

    num_outputs: int
    channels: Sequence[int] = (32, 64)
    num_blocks: int = 0

    @nn.compact
    def __call__(self, x: Any, condition: Any = None, *, train: bool = False) -> Any:
        """(batch, height, width, channels), (batch, classes) -> (batch, num_outputs)."""
        h = nn.relu(Down(self.channels, self.num_blocks)(x, train=train))
        return nn.Dense(self.num_outputs)(beside(jnp.reshape(h, (len(x), -1)), condition))


class ConvDecoder(nn.Module):
    """One dense layer, then `Up`.

    Attributes:
        shape: (height, width, channels) of one example.
        num_parameters: of the likelihood, per value.
        channels: as in `Up`.
        num_blocks: as in `Up`.
    """

    shape: Sequence[int]
    num_parameters: int
    channels: Sequence[int] = (64, 32)
    num_blocks: int = 0

    @nn.compact
    def __call__(self, z: Any, condition: Any = None, *, train: bool = False) -> Any:
        """(batch, latent_size), (batch, classes) -> (batch, *shape, num_parameters)."""
        height, width = map_size(self.shape, len(self.channels))
        h = nn.relu(nn.Dense(height * width * self.channels[0])(beside(z, condition)))
        h = jnp.reshape(h, (len(z), height, width, self.channels[0]))
        out = Up((*self.shape[:2], self.shape[2] * self.num_parameters), self.channels, self.num_blocks)(h, train=train)
        return jnp.reshape(out, (len(z), *self.shape, self.num_parameters))
