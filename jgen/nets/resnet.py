"""Residual convolutional networks."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jgen.math.bijectors import squeeze, unsqueeze


class ResNet(nn.Module):
    """conv 3×3, then blocks h + conv 1×1(relu(conv 3×3(relu(h)))), then conv 3×3; height and width are kept.

    There is no normalization: the last layer starts at zero, and the blocks are few. With `patches` the layers work on
    2×2 patches of pixels as channels: a quarter of the arithmetic at the same number of channels.

    Attributes:
        channels: width of the hidden layers.
        num_blocks: residual blocks.
        outputs: channels of the output.
        patches: work on 2×2 patches; height and width must be even.
        zero_last: starts the last layer at zero, so that the whole network does.
        dtype: the precision of the layers; parameters stay in float32.
    """

    channels: int
    num_blocks: int
    outputs: int
    patches: bool = False
    zero_last: bool = True
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch height width outputs"]:
        del train
        outputs = self.outputs
        if self.patches:
            x, outputs = squeeze(x), 4 * outputs
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(x)
        for _ in range(self.num_blocks):
            update = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(jax.nn.relu(h))
            h = h + nn.Conv(self.channels, (1, 1), dtype=self.dtype)(jax.nn.relu(update))
        last = jax.nn.initializers.zeros if self.zero_last else nn.linear.default_kernel_init
        out = nn.Conv(outputs, (3, 3), kernel_init=last, dtype=self.dtype)(jax.nn.relu(h))
        return unsqueeze(out) if self.patches else out
