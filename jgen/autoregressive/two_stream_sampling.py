"""Draws from a network of two streams at the cost of one pass: rows and pixels are computed once, when they are due.

The vertical stream advances by a row, its convolutions keeping the row before. The horizontal one advances by a pixel,
its convolutions keeping the row before and the pixels of this one. Resolution r is due in every 2^r-th row and column;
what it gave last is kept for the rows and columns between.
Ramachandran et al.: Fast Generation for Convolutional Autoregressive Models, 2017.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen._types import Params
from jgen.nets import pixelwise, weight_norm
from jgen.nets.two_streams import Features, TwoStreams, Ways

Caches = dict[str, Any]


def draw(
    module: TwoStreams,
    params: Params,
    noise: Any,
    known: Any,
    mask: np.ndarray,
    channels: Callable[[Any, Any], list[Any]],
    encode: Callable[[Any], Any],
) -> Any:
    """Images pixel after pixel.

    Args:
        module: the network.
        noise: and the rest as in `raster.Network.draw`.
        channels: (outputs (num, outputs) of the network at a pixel, draw) -> [x_0, …, x_{c−1}].
        encode: images -> inputs of the network.
    """
    layers = {name: weight_norm.weights(layer) for name, layer in params.items()}
    num, _, width, _ = known.shape

    def begin(carry: Any, i: Any) -> Any:
        rows, pixels = carry
        walk = Rows(layers, dict(rows), i)
        _, links = module.stream(walk.ways(), "v", walk.stem(), None)
        above = _row(layers["h_stem_above"], rows["x"][:, 1:])[:, 0]
        return (walk.caches, pixels), (links, above)

    def pixel(carry: Any, where: Any, row: Any, draw: Any) -> Any:
        walk = Pixels(layers, dict(carry[1]), where)
        start = jax.lax.dynamic_index_in_dim(row[1], where[1], 1, keepdims=False) + walk.left()
        h, _ = module.stream(walk.ways(), "h", start, row[0])
        x = channels(walk.convolve("h_outputs", jax.nn.elu(h)), draw)
        walk.put("x", encode(jnp.stack(x, axis=-1)[:, None, None])[:, 0, 0], where[1])
        return (carry[0], walk.caches), x

    def end(carry: Any, i: Any, x: Any) -> Any:
        rows, pixels = carry
        rows = {**rows, "x": jnp.concatenate([rows["x"][:, 1:], encode(x[:, None])], axis=1)}
        return rows, {name: _next_row(name, cache, i) for name, cache in pixels.items()}

    start = _blank(module, layers, num, width)
    return pixelwise.raster_scan(pixel, start, noise, known, mask, begin=begin, end=end)


class Rows:
    """The vertical stream over one row: (num, 1, columns, features) at every resolution."""

    def __init__(self, layers: Any, caches: Caches, i: Any) -> None:
        self.layers, self.caches, self.i = layers, caches, i

    def ways(self) -> Ways:
        """How the stream's layers are carried out."""
        return Ways(self.convolve, lambda r, features: features, self.lower)

    def stem(self) -> Any:
        """The first features, from the two rows above."""
        return _row(self.layers["v_stem"], self.caches["x"])

    def both(self, name: str, x: Any) -> Any:
        """The row that `name` read last, and this one."""
        rows = jnp.concatenate([self.caches[name], x], axis=1)
        self.caches[name] = x
        return rows

    def convolve(self, name: str, x: Any) -> Any:
        """A convolution over the row before and this one, or a 1×1 one."""
        return _row(self.layers[name], x if name.endswith("_beside") else self.both(name, x))

    def lower(self, stream: str, r: int, h: Any, body: Any) -> tuple[Any, Any]:
        """The resolution below is due in every other row; the rows between take its last one."""
        odd, rows = (self.i >> r) % 2, self.both(f"{stream}_{r}_halve", h)

        def due(caches: Caches) -> Caches:
            self.caches = dict(caches)
            held = body(_row(self.layers[f"{stream}_{r}_halve"], rows, stride=2))
            return {**self.caches, f"{stream}_{r}_held": held}

        self.caches = jax.lax.cond(odd == 0, due, lambda caches: caches, self.caches)
        below, features = self.caches[f"{stream}_{r}_held"]
        kernel, bias = self.layers[f"{stream}_{r}_raise"]
        part = jax.lax.dynamic_slice_in_dim(kernel, 1 - odd, 1, axis=0)
        wide = weight_norm.convolve(below, part, ((0, 0), (1, 2)), upsampling=2)[:, :, : h.shape[2]]
        return wide + bias[None, None, None], features


class Pixels:
    """The horizontal stream at one pixel: (num, features) at every resolution."""

    def __init__(self, layers: Any, caches: Caches, where: Any) -> None:
        self.layers, self.caches, self.where = layers, caches, where

    def ways(self) -> Ways:
        """How the stream's layers are carried out."""
        return Ways(self.convolve, self.read, self.lower)

    def read(self, r: int, features: Any) -> Any:
        """The vertical stream's features at this column."""
        return jax.lax.dynamic_index_in_dim(features[:, 0], self.where[1] >> r, 1, keepdims=False)

    def put(self, name: str, x: Any, column: Any) -> None:
        """Writes what `name` reads at this pixel."""
        self.caches[name] = pixelwise.put(self.caches[name], x, column, 1, 0)

    def left(self) -> Any:
        """The part of the first features that comes from the column to the left."""
        return _taps(self.layers["h_stem_left"], self.caches["x"], self.where[1])

    def convolve(self, name: str, x: Any) -> Any:
        """A convolution over this pixel, the one to the left and the two above, or a 1×1 one."""
        kernel, bias = self.layers[name]
        if kernel.shape[:2] == (1, 1):
            return x @ kernel[0, 0] + bias[None]
        column = self.where[1] >> _resolution(name)
        self.put(name, x, column)
        return _taps(self.layers[name], self.caches[name], column)

    def lower(self, stream: str, r: int, h: Any, body: Any) -> tuple[Any, None]:
        """The resolution below is due at every other row and column; the pixels between take what it gave last."""
        odd, column = (self.where >> r) % 2, self.where[1] >> r
        name, held = f"{stream}_{r}_halve", f"{stream}_{r}_held"
        self.put(name, h, column)

        def due(caches: Caches) -> Caches:
            self.caches = dict(caches)
            below, _ = body(_taps(self.layers[name], self.caches[name], column))
            return {**self.caches, held: caches[held].at[:, column // 2].set(below)}

        self.caches = jax.lax.cond(jnp.all(odd == 0), due, lambda caches: caches, self.caches)
        below = jax.lax.dynamic_index_in_dim(self.caches[held], column // 2, 1, keepdims=False)
        kernel, bias = self.layers[f"{stream}_{r}_raise"]
        return below @ kernel[1 - odd[0], 1 - odd[1]] + bias[None], None


def _row(layer: Any, rows: Any, stride: int = 1) -> Any:
    """One row of outputs from as many rows as the kernel has."""
    side = layer[0].shape[1] // 2
    out = weight_norm.convolve(rows, layer[0], ((0, 0), (side, side)), stride)
    return out + layer[1][None, None, None]


def _taps(layer: Any, cache: Any, column: Any) -> Any:
    """A convolution of two rows at `column` of a cache with one column of zeros to the left."""
    kernel, bias = layer
    patch = jax.lax.dynamic_slice_in_dim(cache, column, kernel.shape[1], axis=2)
    return jnp.einsum("brkc,rkcf->bf", patch, kernel) + bias[None]


def _resolution(name: str) -> int:
    """Of the layer or cache called `name`."""
    return 0 if name == "x" else int(name.split("_")[1])


def _next_row(name: str, cache: Any, i: Any) -> Any:
    """A cache after row i: moved where a row of its resolution is over; what is held for rows to come stays."""
    if name.endswith("_held"):
        return cache
    return jnp.where((i + 1) % 2 ** _resolution(name) == 0, pixelwise.next_row(cache), cache)


def _blank(module: TwoStreams, layers: Any, num: int, width: int) -> tuple[Caches, Caches]:
    """Caches above the first row: zeros, as the padding."""
    wide = [-(-width // 2**r) for r in range(module.num_resolutions)]
    rows: Caches = {"x": jnp.zeros((num, 2, width, layers["v_stem"][0].shape[2]))}
    pixels: Caches = {"x": jnp.zeros((num, 2, width + 1, layers["v_stem"][0].shape[2]))}
    for name, (kernel, _) in layers.items():
        if "stem" not in name and not name.endswith("_raise") and kernel.shape[:2] != (1, 1):
            columns, size = wide[_resolution(name)], kernel.shape[2]
            if name[0] == "v":
                rows[name] = jnp.zeros((num, 1, columns, size))
            else:
                pixels[name] = jnp.zeros((num, 2, columns + 1, size))

    def features(r: int) -> Features:
        each = jnp.zeros((num, 1, wide[r], module.features))
        last = r + 1 == module.num_resolutions
        counts = module.num_blocks, module.num_blocks + (not last)
        return Features([each] * counts[0], None if last else features(r + 1), [each] * counts[1])

    for r in range(module.num_resolutions - 1):
        below = jnp.zeros((num, 1, wide[r + 1], module.features))
        rows[f"v_{r}_held"] = (below, features(r + 1))
        pixels[f"h_{r}_held"] = below[:, 0]
    return rows, pixels
