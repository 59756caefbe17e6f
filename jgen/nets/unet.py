"""The U-Net of diffusion models (Ho, Jain and Abbeel, 2020, appendix B): residual blocks that are told the time.

Any height and width will do: a level of n rows has ceil(n/2) below it, and what comes up again is cropped to its skip.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jgen.nets.embeddings import TimeEmbedding

Images = Float[Array, "batch _ _ _"]  # height, width and channels differ from level to level
_ZERO = jax.nn.initializers.zeros


class UNet(nn.Module):
    """Images and times to images; starts at zero.

    Attributes:
        channels: of every level, the finest first; each level has half the height and width of the one before it.
        num_blocks: residual blocks per level on the way down; one more on the way up.
        attention_levels: the levels with self-attention (0 is the finest); the middle always has it.
        num_heads: of the attention.
        outputs_per_input: values per channel; 2 where a variance is learned too.
        dropout_rate: inside the residual blocks, when `train`.
        dtype: the precision of the layers; parameters and the output stay in float32.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    num_blocks: int = 1
    attention_levels: tuple[int, ...] = ()
    num_heads: int = 1
    outputs_per_input: int = 1
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    def __post_init__(self) -> None:
        if not self.channels or any(size < 1 for size in self.channels):
            raise ValueError(f"`channels` must be at least one positive number, got {self.channels}.")
        if any(not 0 <= level < len(self.channels) for level in self.attention_levels):
            raise ValueError(f"`attention_levels` must be in 0..{len(self.channels) - 1}, got {self.attention_levels}.")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Images,
        time: Float[Array, " batch"],
        condition: Float[Array, "batch features"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "batch height width outputs"]:
        """The output has `outputs_per_input` times as many channels as `x`.

        Args:
            time: in [0, 1].
            condition: features that are added to the time's, such as the embedding of a class.
        """
        told = TimeEmbedding(4 * self.channels[0])(time)
        if condition is not None:
            told = told + nn.Dense(told.shape[-1])(condition)
        told = nn.silu(told)
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)

        def block(h: Images, size: int, attend: bool) -> Images:
            h = ResidualBlock(size, self.dropout_rate, self.dtype)(h, told, train=train)
            return ImageAttention(self.num_heads, self.dtype)(h) if attend else h

        h = conv(self.channels[0])(x)
        skips, last = [h], len(self.channels) - 1
        for level, size in enumerate(self.channels):
            for _ in range(self.num_blocks):
                h = block(h, size, level in self.attention_levels)
                skips.append(h)
            if level < last:
                h = conv(size, strides=2)(h)
                skips.append(h)
        h = block(block(h, self.channels[-1], True), self.channels[-1], False)
        for level, size in reversed(list(enumerate(self.channels))):
            for _ in range(self.num_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), size, level in self.attention_levels)
            if level > 0:
                h = conv(size)(_double(h, skips[-1]))
        outputs = conv(x.shape[-1] * self.outputs_per_input, kernel_init=_ZERO)
        return outputs(nn.silu(norm(h, self.dtype))).astype(jnp.float32)


class ResidualBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x))) + Wt))); the second convolution starts at zero."""

    size: int
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Images, told: Float[Array, "batch features"], *, train: bool) -> Images:
        h = nn.Conv(self.size, (3, 3), dtype=self.dtype)(nn.silu(norm(x, self.dtype)))
        h = h + jnp.expand_dims(nn.Dense(self.size, dtype=self.dtype)(told), (1, 2))
        h = nn.Dropout(self.dropout_rate, deterministic=not train)(nn.silu(norm(h, self.dtype)))
        h = nn.Conv(self.size, (3, 3), kernel_init=_ZERO, dtype=self.dtype)(h)
        return h + (x if x.shape[-1] == self.size else nn.Conv(self.size, (1, 1), dtype=self.dtype)(x))


class ImageAttention(nn.Module):
    """Self-attention among all pixels, added to its input; its last layer starts at zero."""

    num_heads: int = 1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Images) -> Images:
        batch, height, width, size = x.shape
        if size % self.num_heads:
            raise ValueError(f"`num_heads` must divide the {size} channels, got {self.num_heads}.")
        h = norm(x, self.dtype).reshape(batch, height * width, size)
        query, key, value = (
            nn.Dense(size, dtype=self.dtype)(h).reshape(batch, height * width, self.num_heads, -1) for _ in range(3)
        )
        h = jax.nn.dot_product_attention(query, key, value).reshape(batch, height, width, size)
        return x + nn.Dense(size, kernel_init=_ZERO, dtype=self.dtype)(h)


def norm(x: Images, dtype: jnp.dtype | None = None) -> Images:
    """GroupNorm with 32 groups, fewer where they would hold less than four channels."""
    groups = max(1, math.gcd(32, x.shape[-1] // 4))
    return nn.GroupNorm(groups, dtype=dtype)(x)


def _double(x: Images, like: Images) -> Images:
    """Each pixel four times, cropped to the height and width of `like`."""
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return x[:, : like.shape[1], : like.shape[2]]
