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
        dropout_rate: the share of hidden units dropped in training.
    """

    latent_size: int
    hidden_sizes: Sequence[int] = (256, 256)
    activation: Callable[[Any], Any] = nn.relu
    gated: bool = False
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        """(batch, *shape) -> (batch, 2·latent_size)."""
        x = jnp.reshape(x, (len(x), -1))
        hidden = _hidden(self, x, train)
        return nn.Dense(2 * self.latent_size)(hidden)


class Decoder(nn.Module):
    """Latents to raw parameters through dense layers.

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
    def __call__(self, z: Any, *, train: bool = False) -> Any:
        """(batch, latent_size) -> (batch, *shape, num_parameters)."""
        sizes = (*self.shape, self.num_parameters)
        hidden = _hidden(self, z, train)
        out = nn.Dense(int(np.prod(sizes)))(hidden)
        return jnp.reshape(out, (len(z), *sizes))


def _hidden(module: Encoder | Decoder, x: Any, train: bool) -> Any:
    for size in module.hidden_sizes:
        x = nn.Dense(size)(x) * nn.sigmoid(nn.Dense(size)(x)) if module.gated else module.activation(nn.Dense(size)(x))
        if module.dropout_rate:
            x = nn.Dropout(module.dropout_rate, deterministic=not train)(x)
    return x
