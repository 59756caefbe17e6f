"""A fully connected network of data and time, for denoising what has few dimensions."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jgen.nets.embeddings import TimeEmbedding


class TimeMLP(nn.Module):
    """Residual layers over the flattened data, each told the time; starts at zero.

    Attributes:
        hidden_size: of every layer.
        num_blocks: residual blocks.
        outputs_per_input: values per dimension; 2 where a variance is learned too.
        dropout_rate: of the blocks' inner layer, when `train`.
    """

    hidden_size: int = 128
    num_blocks: int = 3
    outputs_per_input: int = 1
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch *shape"],
        time: Float[Array, " batch"],
        condition: Float[Array, "batch features"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "batch *outputs"]:
        """The output has the shape of `x`, its last axis `outputs_per_input` times as long.

        Args:
            time: in [0, 1].
            condition: features that are added to the time's.
        """
        size = self.hidden_size
        told = TimeEmbedding(size)(time)
        if condition is not None:
            told = told + nn.Dense(size)(condition)
        h = nn.Dense(size)(x.reshape(x.shape[0], -1))
        for _ in range(self.num_blocks):
            inner = nn.Dense(size)(nn.silu(nn.LayerNorm()(h))) + nn.Dense(size)(nn.silu(told))
            inner = nn.Dropout(self.dropout_rate, deterministic=not train)(nn.silu(inner))
            h = h + nn.Dense(size)(inner)
        shape = (*x.shape[1:-1], x.shape[-1] * self.outputs_per_input)
        h = nn.Dense(math.prod(shape), kernel_init=jax.nn.initializers.zeros)(nn.silu(nn.LayerNorm()(h)))
        return jnp.reshape(h, (x.shape[0], *shape))
