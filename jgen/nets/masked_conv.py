"""Convolutions over images in raster order: a feature sees earlier pixels and, of its own pixel, earlier channels.

    mask = 1 in the rows above and left of the centre; at the centre where group(in) < group(out) (A) or ≤ (B); else 0

An image of G channels has G groups of features, side by side and equally many. After a convolution with mask A, group
g knows all earlier pixels and the channels before g of its own; mask B keeps it so, and group g of the outputs predicts
channel g. The rows below the centre are all 0: a kernel does not hold them.
van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks, 2016, section 3.4.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Num

from jgen import _checks
from jgen._types import Key, Params
from jgen.math import discrete

KINDS = ("A", "B")
MOST_ONE_HOT = 32
"""More levels enter a network as one number each."""


def inputs(
    x: Num[Array, "batch h w c"], levels: int, most_one_hot: int = MOST_ONE_HOT
) -> Float[Array, "batch h w channels"]:
    """Images as network inputs, one group per channel; zeros, the padding, stand for no value.

    ±1 for two levels, one-hot up to `most_one_hot`, else the value scaled to [−1, 1] beside a 1.
    """
    if levels == 2:
        out = 2 * discrete.encode(x, levels) - 1
    elif levels <= most_one_hot:
        out = discrete.encode(x, levels)
    else:
        scaled = 2 * x.astype(jnp.float32) / (levels - 1) - 1
        out = jnp.stack([scaled, jnp.ones_like(scaled)], axis=-1)
    return out.reshape(*x.shape[:3], -1)


def mask(
    size: tuple[int, int], num_inputs: int, num_outputs: int, kind: str, groups: int = 1
) -> Bool[np.ndarray, "rows columns inputs outputs"]:
    """Which weights of a (height, width) kernel are free, without its rows below the centre (a NumPy constant).

    Raises:
        ValueError: a size is not odd, `kind` is unknown, or a number of features is no multiple of `groups`.
    """
    _checks.one_of("kind", kind, KINDS)
    if any(side < 1 or side % 2 == 0 for side in size):
        raise ValueError(f"`size` must be two odd numbers, got {size}.")
    for name, count in (("num_inputs", num_inputs), ("num_outputs", num_outputs)):
        if count % groups:
            raise ValueError(f"`{name}` must be a multiple of the {groups} groups, got {count}.")
    above, left = size[0] // 2, size[1] // 2
    before = (np.arange(num_inputs) * groups // num_inputs)[:, None]
    after = (np.arange(num_outputs) * groups // num_outputs)[None, :]
    out = np.zeros((above + 1, size[1], num_inputs, num_outputs), bool)
    out[:above] = True
    out[above, :left] = True
    out[above, left] = before < after if kind == "A" else before <= after
    return out


class MaskedConv(nn.Module):
    """A convolution with stride 1 and zeros around the image, its kernel times `mask`.

    Attributes:
        features: output channels.
        size: (height, width) of the whole kernel, odd; the parameter "kernel" holds its upper height // 2 + 1 rows.
        kind: "A" excludes the pixel itself but for the channels before, "B" includes it.
        groups: the channels of the image.
        use_bias: adds a bias.
        kernel_init: how the kernel starts, times √(weights / free weights) of each output.
        bias_init: how the bias starts.
    """

    features: int
    size: tuple[int, int]
    kind: str
    groups: int = 1
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()
    bias_init: Any = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w inputs"]) -> Float[Array, "batch h w features"]:
        """The whole image at once."""
        free = mask(self.size, x.shape[-1], self.features, self.kind, self.groups)
        kernel = self.param("kernel", self._start, free.shape)
        above, left = self.size[0] // 2, self.size[1] // 2
        out = jax.lax.conv_general_dilated(
            x, kernel * free, (1, 1), [(above, 0), (left, left)], dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if not self.use_bias:
            return out
        bias = self.param("bias", self.bias_init, (self.features,))
        return out + bias[None, None, None]

    def _start(self, key: Key, shape: tuple[int, ...]) -> Float[Array, "rows columns inputs outputs"]:
        free = mask(self.size, shape[2], shape[3], self.kind, self.groups)
        share = np.maximum(free.sum((0, 1, 2)), 1) / np.prod(shape[:3])
        return self.kernel_init(key, shape) / jnp.sqrt(jnp.asarray(share, jnp.float32))[None, None, None]


class RowConv(nn.Module):
    """A convolution over rows i−r..i, or i−r..i−1 where `exclusive`, and columns j−r..j+r, with r = size // 2.

    Of features that know the rows above theirs it makes features that know no more: no weight is masked.

    Attributes:
        features: output channels.
        size: of the whole kernel, odd; the parameter "kernel" holds the rows that are read.
        exclusive: leaves row i out: the first layer of a network over its own targets.
        kernel_init: how the kernel starts.
    """

    features: int
    size: int
    exclusive: bool = False
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w inputs"]) -> Float[Array, "batch h w features"]:
        """The whole image at once."""
        reach = self.size // 2
        shape = (reach + 1 - self.exclusive, self.size, x.shape[-1], self.features)
        params = {
            "kernel": self.param("kernel", self.kernel_init, shape),
            "bias": self.param("bias", nn.initializers.zeros_init(), (self.features,)),
        }
        return rows(params, x, (reach, -int(self.exclusive)))


def rows(
    params: Params, x: Float[Array, "batch h w inputs"], padding: tuple[int, int] = (0, 0)
) -> Float[Array, "batch _ w features"]:
    """A `RowConv` with `params` over `x` with so many rows of zeros around it: without any, from rows of a cache."""
    side = params["kernel"].shape[1] // 2
    out = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), [padding, (side, side)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return out + params["bias"][None, None, None]


def kernel(params: Params, kind: str, groups: int = 1) -> Float[Array, "rows columns inputs outputs"]:
    """The kernel of a `MaskedConv` with `params`, masked: for samplers that apply it tap by tap."""
    rows, columns, num_inputs, num_outputs = params["kernel"].shape
    return params["kernel"] * mask((2 * rows - 1, columns), num_inputs, num_outputs, kind, groups)
