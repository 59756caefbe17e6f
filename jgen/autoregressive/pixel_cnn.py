"""PixelCNN: masked convolutions over images, all conditionals in one pass.

    log p(x) = Σ_ij Σ_c log p(x_ijc | x_<ij, x_ij,<c),     h¹ = conv_A(x),    h ← h + conv_1×1(conv_B(conv_1×1(h)))

with a ReLU before each convolution but the first, and two 1×1 convolutions to the logits. Mask A hides the pixel itself
but for its earlier channels, mask B shows it: features know what comes before their pixel, and group c of them, of
channels before c. Kernels of masks reach to the right only with their rows above, one row and `size // 2` columns at a
time: what lies above on the right outside this wedge is never seen (`receptive_field`), whatever the depth.
van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks, 2016.

Differs from the paper: values enter as ±1 or one-hot, large numbers of levels scaled beside a channel of ones; output
biases are one per position and start at the pixels' log frequencies, output kernels at zero; dropout is there for
small data.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jgen import _checks, linen
from jgen._types import Key, Params
from jgen.autoregressive import receptive
from jgen.autoregressive.raster import Network
from jgen.math import discrete
from jgen.nets import masked_conv, pixelwise

Convolve = Callable[[str, Any], Any]


class PixelCNN(nn.Module):
    """Logits of all conditionals, (batch, h, w, channels, width).

    Attributes:
        levels: values of x.
        features: 2h in the paper, between the residual blocks; these work at half of it.
        num_blocks: residual blocks.
        first_size: of the kernel of mask A.
        size: of the kernels of the blocks.
        head_features: of the hidden 1×1 convolution after the blocks.
        dropout_rate: of what the last convolution of each block reads, when a key is given.
        activation: before each convolution but the first.
    """

    levels: int
    features: int = 64
    num_blocks: int = 6
    first_size: int = 7
    size: int = 3
    head_features: int = 64
    dropout_rate: float = 0.0
    activation: Any = nn.relu

    def layers(self, channels: int) -> dict[str, dict[str, Any]]:
        """Every convolution's arguments by its name."""
        half, one = self.features // 2, {"size": (1, 1), "kind": "B"}
        found: dict[str, dict[str, Any]] = {
            "input": {"features": self.features, "size": (self.first_size,) * 2, "kind": "A"}
        }
        for i in range(self.num_blocks):
            found[f"block_{i}_reduce"] = {"features": half, **one}
            found[f"block_{i}_conv"] = {"features": half, "size": (self.size,) * 2, "kind": "B"}
            found[f"block_{i}_expand"] = {"features": self.features, **one}
        found["head"] = {"features": self.head_features, **one}
        found["output"] = {"features": channels * discrete.width(self.levels), **one}
        found["output"]["kernel_init"] = nn.initializers.zeros_init()
        return {name: {**arguments, "groups": channels} for name, arguments in found.items()}

    def body(self, convolve: Convolve, x: Any) -> Any:
        """From inputs to logits, however `convolve` (name, input) applies a layer."""
        h = convolve("input", x)
        for i in range(self.num_blocks):
            inner = h
            for part in ("reduce", "conv", "expand"):
                inner = convolve(f"block_{i}_{part}", self.activation(inner))
            h = h + inner
        return convolve("output", self.activation(convolve("head", self.activation(h))))

    @nn.compact
    def __call__(self, x: Num[Array, "batch h w c"]) -> Float[Array, "batch h w c width"]:
        """One pass over whole images."""
        layers = self.layers(x.shape[-1])

        def convolve(name: str, x: Any) -> Any:
            if name.endswith("_expand"):
                x = nn.Dropout(self.dropout_rate, deterministic=not self.has_rng("dropout"))(x)
            return masked_conv.MaskedConv(**layers[name], name=name)(x)

        out = self.body(convolve, masked_conv.inputs(x, self.levels))
        out = out.reshape(*x.shape, discrete.width(self.levels))
        return out + self.param("bias", nn.initializers.zeros_init(), out.shape[1:])[None]


def receptive_field(
    shape: tuple[int, int, int], *, num_blocks: int = 6, first_size: int = 7, size: int = 3
) -> receptive.Reads:
    """[d, j]: does position d see j, by construction of the masks alone? Both in raster order."""
    found = receptive.masked(shape, (first_size, first_size), "A")
    for _ in range(num_blocks):
        found = receptive.after(receptive.masked(shape, (size, size), "B"), found)
    return receptive.after(receptive.masked(shape, (1, 1), "B"), found)


def network(shape: tuple[int, int, int], levels: int, **sizes: Any) -> Network:
    """PixelCNN over images of `shape`, for `raster.model`.

    Args:
        shape: (height, width, channels).
        levels: x are whole numbers in 0..levels-1.
        sizes: of `PixelCNN`: features, num_blocks, first_size, size, head_features, dropout_rate,
            activation.

    Raises:
        ValueError: `levels` is below 2, a kernel's size is even, a rate is not in [0, 1), or features do not divide
            among the channels.
    """
    _checks.at_least("levels", levels, 2)
    module = PixelCNN(levels, **sizes)
    _checks.at_least("num_blocks", module.num_blocks, 0)
    if not 0.0 <= module.dropout_rate < 1.0:
        raise ValueError(f"`dropout_rate` must be in [0, 1), got {module.dropout_rate}.")
    for name, parts in (("features", 2 * shape[2]), ("head_features", shape[2])):
        if getattr(module, name) < 1 or getattr(module, name) % parts:
            raise ValueError(f"`{name}` must be a positive multiple of {parts}, got {getattr(module, name)}.")
    for name in ("first_size", "size"):
        if getattr(module, name) < 1 or getattr(module, name) % 2 == 0:
            raise ValueError(f"`{name}` must be odd, got {getattr(module, name)}.")

    def init(key: Key, x: Any, label: Any) -> Params:
        del label
        return {**linen.init(module, key, x)[0], "bias": discrete.log_odds(x, levels)}

    def logits(params: Params, x: Any, label: Any, key: Key | None) -> Any:
        del label
        return linen.apply(module, params, {}, x, key=key)

    return Network(shape, levels, init, logits, functools.partial(_draw, module))


def _draw(module: PixelCNN, params: Params, noise: Any, known: Any, mask: np.ndarray, label: Any) -> Any:
    """One pixel per step, one pass per channel of it over the features of that channel."""
    del label
    num, _, width, channels = known.shape
    kinds = {name: arguments["kind"] for name, arguments in module.layers(channels).items()}
    layers = {name: pixelwise.taps(params[name], kind, channels) for name, kind in kinds.items()}

    def pixel(caches: Any, where: Any, row: Any, draw: Any) -> Any:
        del row
        walk, x = pixelwise.Walk(layers, dict(caches), where[1], channels), []
        bias = params["bias"][where[0], where[1]]
        for c in range(channels):
            walk.group = c
            x.append(draw(c, module.body(walk, None) + bias[c][None]))
            walk.put("input", masked_conv.inputs(x[c][:, None, None, None], module.levels)[:, 0, 0])
        return walk.caches, x

    start = pixelwise.caches_of(layers, num, width)
    return pixelwise.raster_scan(pixel, start, noise, known, mask, end=_next_rows)


def _next_rows(caches: Any, i: Any, x: Any) -> Any:
    del i, x
    return {name: pixelwise.next_row(cache) for name, cache in caches.items()}
