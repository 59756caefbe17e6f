"""Dense encoders and decoders: the two halves of latent-variable models."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn


class Encoder(nn.Module):
    """Flattened features to (mean, log standard deviation) through dense layers.

    Attributes:
        latent_size: latent dimensions.
        hidden_sizes: widths.
        activation: between layers, unless they are gated.
        gated: each layer is h ⊙ sigmoid(g), both dense (Tomczak and Welling, "VAE with a VampPrior", 2018).
    """

    latent_size: int
    hidden_sizes: Sequence[int] = (256, 256)
    activation: Callable[[Any], Any] = nn.relu
    gated: bool = False

    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        """(batch, *shape) -> (batch, 2·latent_size)."""
        x = jnp.reshape(x, (len(x), -1))
        hidden = _hidden(x, self.hidden_sizes, self.activation, self.gated)
        return nn.Dense(2 * self.latent_size)(hidden)


class Decoder(nn.Module):
    """Latents to raw parameters through dense layers.

    Attributes:
        shape: the shape of one example.
        num_parameters: of the likelihood.
        hidden_sizes: widths.
        activation: as in `Encoder`.
        gated: as in `Encoder`.
    """

    shape: Sequence[int]
    num_parameters: int
    hidden_sizes: Sequence[int] = (256, 256)
    activation: Callable[[Any], Any] = nn.relu
    gated: bool = False

    @nn.compact
    def __call__(self, z: Any, *, train: bool = False) -> Any:
        """(batch, latent_size) -> (batch, *shape, num_parameters)."""
        sizes = (*self.shape, self.num_parameters)
        hidden = _hidden(z, self.hidden_sizes, self.activation, self.gated)
        out = nn.Dense(int(np.prod(sizes)))(hidden)
        return jnp.reshape(out, (len(z), *sizes))


def _hidden(x: Any, sizes: Sequence[int], activation: Callable[[Any], Any], gated: bool) -> Any:
    for size in sizes:
        x = nn.Dense(size)(x) * nn.sigmoid(nn.Dense(size)(x)) if gated else activation(nn.Dense(size)(x))
    return x
