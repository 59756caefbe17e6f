"""Weight normalization: a kernel as direction times length, both learned; the first batch sets length and bias.

    y = g · (v ∗ x)/‖v‖ + b,    at the start: g = s/std[v ∗ x/‖v‖], b = −g·mean[v ∗ x/‖v‖] for every output channel

Salimans, Kingma: Weight Normalization, 2016. Differs from the paper: a floor of 0.1 under the standard deviation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jgen._types import Params

Padding = tuple[tuple[int, int], tuple[int, int]]
FLOOR = 0.1


class NormConv(nn.Module):
    """A convolution of any padding and stride.

    Attributes:
        features: output channels.
        size: (rows, columns) of the kernel.
        padding: rows of zeros above and below, columns left and right; negative ones cut.
        stride: of the output.
        upsampling: puts upsampling − 1 zeros between the inputs: a transposed convolution.
        first_scale: s.
    """

    features: int
    size: tuple[int, int]
    padding: Padding
    stride: int = 1
    upsampling: int = 1
    first_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w inputs"]) -> Float[Array, "batch _ _ features"]:
        """The whole image at once."""
        start = nn.initializers.normal(0.05)
        kernel = self.param("kernel", start, (*self.size, x.shape[-1], self.features))
        plain = convolve(x, kernel / _length(kernel), self.padding, self.stride, self.upsampling)
        mean, std = jnp.mean(plain, axis=(0, 1, 2)), jnp.maximum(jnp.std(plain, axis=(0, 1, 2)), FLOOR)
        scale = self.param("scale", lambda key: self.first_scale / std)
        bias = self.param("bias", lambda key: -self.first_scale * mean / std)
        return plain * scale[None, None, None] + bias[None, None, None]


def convolve(
    x: Float[Array, "batch h w inputs"],
    kernel: Float[Array, "rows columns inputs features"],
    padding: Padding,
    stride: int = 1,
    upsampling: int = 1,
) -> Float[Array, "batch _ _ features"]:
    """The convolution of `NormConv`."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        lhs_dilation=(upsampling, upsampling),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def weights(params: Params) -> tuple[Float[Array, "rows columns inputs features"], Float[Array, " features"]]:
    """(kernel, bias) of the plain convolution that a `NormConv` with `params` is."""
    kernel = params["kernel"]
    return kernel * (params["scale"] / _length(kernel)[0, 0, 0])[None, None, None], params["bias"]


def _length(kernel: Any) -> Float[Array, "1 1 1 features"]:
    return jnp.sqrt(jnp.sum(kernel**2, axis=(0, 1, 2), keepdims=True) + 1e-12)
