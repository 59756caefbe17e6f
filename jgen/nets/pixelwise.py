"""Masked convolutions and their relatives, one pixel after another: what a layer has read is kept, and read again.

A cache holds the rows above the current pixel that a kernel reaches, and the row of the pixel, with zeros around them:
(num, rows, width + 2·left, channels). A layer writes its input at the pixel before it reads its window, and multiplies
only the taps that its mask leaves free. With channel groups a pixel takes one pass per group, over that group's
features alone, so that all of them together cost one.
Ramachandran et al.: Fast Generation for Convolutional Autoregressive Models, 2017.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jgen._types import Params
from jgen.math import discrete
from jgen.nets import masked_conv


class Taps(NamedTuple):
    """A layer as it is applied at one pixel.

    Attributes:
        kernel: (taps, inputs, outputs), the taps in raster order, none after the pixel.
        bias: (outputs,), or zeros.
        columns: of the kernel; 1 where only the pixel itself is read.
        rows: of the kernel.
    """

    kernel: Any
    bias: Any
    columns: int
    rows: int


def taps(params: Params, kind: str, groups: int = 1) -> Taps:
    """The free taps of a `MaskedConv` with `params`; a pixel that mask A hides whole is none of them."""
    kernel = masked_conv.kernel(params, kind, groups)
    rows, columns = kernel.shape[:2]
    num = (rows - 1) * columns + columns // 2 + (kind == "B" or groups > 1)
    return Taps(kernel.reshape(-1, *kernel.shape[2:])[:num], params["bias"], columns, rows)


def blank(layer: Taps, num: int, width: int) -> Float[Array, "num rows columns channels"]:
    """The cache of `layer` above the first row: zeros, as the padding."""
    return jnp.zeros((num, layer.rows, width + layer.columns - 1, layer.kernel.shape[1]))


def put(
    cache: Float[Array, "num rows columns channels"], x: Float[Array, "num part"], column: Any, left: int, first: int
) -> Float[Array, "num rows columns channels"]:
    """`x` as the channels from `first` of the pixel at `column` of the last row; `left` zeros stand before column 0."""
    return jax.lax.dynamic_update_slice(cache, x[:, None, None], (0, cache.shape[1] - 1, column + left, first))


def window(
    cache: Float[Array, "num rows columns channels"], column: Any, layer: Taps
) -> Float[Array, "num taps channels"]:
    """What the taps of `layer` read at `column`."""
    patch = jax.lax.dynamic_slice_in_dim(cache, column, layer.columns, axis=2)
    return patch.reshape(cache.shape[0], -1, cache.shape[3])[:, : layer.kernel.shape[0]]


def next_row(cache: Float[Array, "num rows columns channels"]) -> Float[Array, "num rows columns channels"]:
    """The cache at the beginning of the next row, whose pixels are still unknown."""
    return jnp.concatenate([cache[:, 1:], jnp.zeros_like(cache[:, :1])], axis=1)


@dataclasses.dataclass
class Walk:
    """Applies layers at one pixel, for one group of channels after another.

    Attributes:
        layers: by name.
        caches: of the layers that read more than the pixel itself; replaced as the walk goes on.
        column: of the pixel.
        groups: the channels of the image.
        group: the channel that is predicted.
        seen: what layers without a cache have read of this pixel, one array per group.
    """

    layers: Mapping[str, Taps]
    caches: dict[str, Any]
    column: Any
    groups: int = 1
    group: int = 0
    seen: dict[str, list[Any]] = dataclasses.field(default_factory=dict)

    def __call__(self, name: str, x: Float[Array, "num inputs"] | None) -> Float[Array, "num features"]:
        """The group's features from the group's input `x`; None where the input was put by hand."""
        layer = self.layers[name]
        if name in self.caches:
            if x is not None:
                self.put(name, x)
            read = window(self.caches[name], self.column, layer)
        else:
            self.seen.setdefault(name, []).append(x)
            read = jnp.concatenate(self.seen[name], axis=-1)[:, None]
        size = layer.bias.shape[0] // self.groups
        own = slice(self.group * size, (self.group + 1) * size)
        return jnp.einsum("btc,tcf->bf", read, layer.kernel[:, : read.shape[-1], own]) + layer.bias[None, own]

    def put(self, name: str, x: Float[Array, "num inputs"]) -> None:
        """Writes the group's input `x` of a layer at the pixel."""
        left = self.layers[name].columns // 2
        self.caches[name] = put(self.caches[name], x, self.column, left, self.group * x.shape[-1])


def caches_of(layers: Mapping[str, Taps], num: int, width: int) -> dict[str, Any]:
    """Blank caches of those `layers` that read more than the pixel itself."""
    return {name: blank(layer, num, width) for name, layer in layers.items() if layer.rows * layer.columns > 1}


def raster_scan(
    pixel: Callable[[Any, Any, Any, Callable[[int, Any], Any]], tuple[Any, list[Any]]],
    carry: Any,
    noise: Float[Array, "num h w c width"],
    known: Num[Array, "num h w c"],
    mask: np.ndarray,
    *,
    begin: Callable[[Any, Any], tuple[Any, Any]] = lambda carry, i: (carry, None),
    end: Callable[[Any, Any, Any], Any] = lambda carry, i, x: carry,
) -> Num[Array, "num h w c"]:
    """Draws an image pixel after pixel: a scan over rows, and in it one over columns.

    Args:
        pixel: (carry, (i, j), row, draw) -> (carry, [x_0, …, x_{c−1}]) where `draw(c, logits)` gives channel c, known
            or drawn.
        carry: the caches.
        begin: (carry, i) -> (carry, row) before each row; all its pixels see `row`.
        end: (carry, i, x (num, w, c)) -> carry after each row.
    """

    def column(row: Any, carry: Any, now: Any) -> Any:
        where, noise, known, given = now

        def draw(c: int, logits: Any) -> Any:
            return jnp.where(given[c], known[:, c], discrete.draw(logits, noise[:, c]))

        carry, x = pixel(carry, where, row, draw)
        return carry, jnp.stack(x, axis=-1)

    def rows(carry: Any, now: Any) -> Any:
        i = now[0][0, 0]
        carry, row = begin(carry, i)
        carry, x = jax.lax.scan(lambda carry, now: column(row, carry, now), carry, now)
        return end(carry, i, jnp.moveaxis(x, 0, 1)), x

    where = jnp.stack(jnp.meshgrid(*map(jnp.arange, mask.shape[:2]), indexing="ij"), axis=-1)
    per_pixel = (where, *(jnp.moveaxis(a, 0, 2) for a in (noise, known)), jnp.asarray(mask))
    return jnp.moveaxis(jax.lax.scan(rows, carry, per_pixel)[1], 2, 0)
