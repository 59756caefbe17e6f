"""Embeddings of scalars, such as a diffusion time, as vectors of sines and cosines."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float


def sinusoidal(
    position: Float[Array, "*batch"], size: int, *, max_period: float = 10_000.0
) -> Float[Array, "*batch size"]:
    """[sin(ω_k p), cos(ω_k p)] with ω_k from 1 down to 1/max_period, geometrically (Vaswani et al., 2017).

    Raises:
        ValueError: `size` is odd or less than 2.
    """
    if size < 2 or size % 2:
        raise ValueError(f"`size` must be even and at least 2, got {size}.")
    half = size // 2
    frequencies = jnp.asarray(max_period ** -(np.arange(half) / max(half - 1, 1)), jnp.float32)
    angles = jnp.expand_dims(position, -1) * frequencies.reshape((1,) * position.ndim + (half,))
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """A time of [0, 1] as features: sines and cosines of 1000·time, then two layers.

    Attributes:
        size: of the result; there are a quarter as many sines and cosines, at least 32.
    """

    size: int

    @nn.compact
    def __call__(self, time: Float[Array, " batch"]) -> Float[Array, "batch size"]:
        width = 2 * max(16, self.size // 8)
        h = nn.Dense(self.size)(sinusoidal(1000.0 * time, width))
        return nn.Dense(self.size)(nn.silu(h))
