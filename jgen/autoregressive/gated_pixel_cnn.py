"""Gated PixelCNN: two stacks of convolutions, so that every earlier pixel is seen, and gates; conditional on a class.

    vertical:    v⁰ = x,  a^l = rows(v^{l−1}),                    v^l = gate(a^l + V^l y)
    horizontal:  h⁰ = x,  b^l = left(h^{l−1}) + L^l a^l + U^l y,  h^l = h^{l−1} + R^l gate(b^l)  (no h⁰ in layer 1)

with gate(f, g) = tanh(f)·σ(g). The rows of layer 1 are those above the pixel, later ones include its own, of features
that exclude it; `left` reads to the left of the pixel, mask A in layer 1 and B later. Two 1×1 convolutions lead from h
to the logits. The vertical stack grows by a rectangle per layer: no pixel above is out of its reach for ever. With
channels, `left`, R and the head have channel groups; the vertical stack needs none.
van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu: Conditional Image Generation with PixelCNN Decoders,
2016.

Differs from the paper: values enter as ±1 or one-hot, large numbers of levels scaled beside a channel of ones; output
biases are one per position and start at the pixels' log frequencies, output kernels at zero; dropout is there for
small data.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Num

from jgen import _checks, linen
from jgen._types import Key, Params
from jgen.autoregressive import receptive
from jgen.autoregressive.raster import Network
from jgen.math import discrete
from jgen.nets import masked_conv, pixelwise

Convolve = Callable[[str, Any], Any]


def gate(x: Float[Array, "*batch twice"], groups: int = 1) -> Float[Array, "*batch features"]:
    """tanh(f)·σ(g) of features that come as f and g in each group."""
    parts = x.reshape(*x.shape[:-1], groups, 2, -1)
    return (jnp.tanh(parts[..., 0, :]) * jax.nn.sigmoid(parts[..., 1, :])).reshape(*x.shape[:-1], -1)


class GatedPixelCNN(nn.Module):
    """Logits of all conditionals, (batch, h, w, channels, width).

    Attributes:
        levels: values of x.
        features: of both stacks.
        num_layers: of both stacks.
        first_size: of the kernels of layer 1.
        size: of those of the other layers.
        head_features: of the hidden 1×1 convolution after the stacks.
        num_classes: of the labels; None without.
        dropout_rate: of what the gates of the horizontal stack give, when a key is given.
        activation: before each convolution of the head.
        most_one_hot: more levels than these enter as one number each; levels that are names, such as codes, should not.
    """

    levels: int
    features: int = 32
    num_layers: int = 7
    first_size: int = 7
    size: int = 3
    head_features: int = 64
    num_classes: int | None = None
    dropout_rate: float = 0.0
    activation: Any = nn.relu
    most_one_hot: int = masked_conv.MOST_ONE_HOT

    def layers(self, channels: int) -> dict[str, dict[str, Any]]:
        """The arguments of every masked convolution by its name: the horizontal stack and the head."""
        one, found = {"size": (1, 1), "kind": "B"}, {}
        for i in range(self.num_layers):
            size, kind = (self.size, "B") if i else (self.first_size, "A")
            found[f"layer_{i}_left"] = {"features": 2 * self.features, "size": (1, size), "kind": kind}
            found[f"layer_{i}_residual"] = {"features": self.features, **one}
        found["head"] = {"features": self.head_features, **one}
        zeros = nn.initializers.zeros_init()
        found["output"] = {"features": channels * discrete.width(self.levels), "kernel_init": zeros, **one}
        return {name: {**arguments, "groups": channels} for name, arguments in found.items()}

    def vertical(self, convolve: Convolve, v: Any) -> list[Any]:
        """L^l a^l of every layer; `convolve` (name, input) applies a layer and adds the label's term."""
        links = []
        for i in range(self.num_layers):
            pre = convolve(f"layer_{i}_rows", v)
            links.append(convolve(f"layer_{i}_link", pre))
            if i < self.num_layers - 1:
                v = gate(convolve(f"layer_{i}_rows_label", pre))
        return links

    def horizontal(self, convolve: Convolve, h: Any, links: list[Any], groups: int) -> Any:
        """From the inputs and the vertical stack's links to logits."""
        for i, link in enumerate(links):
            pre = convolve(f"layer_{i}_left_label", convolve(f"layer_{i}_left", h) + link)
            out = convolve(f"layer_{i}_residual", gate(pre, groups))
            h = h + out if i else out
        return convolve("output", self.activation(convolve("head", self.activation(h))))

    @nn.compact
    def __call__(
        self, x: Num[Array, "batch h w c"], label: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch h w c width"]:
        """One pass over whole images."""
        layers, channels = self.layers(x.shape[-1]), x.shape[-1]

        def convolve(name: str, x: Any) -> Any:
            if name.endswith("_rows"):
                first = name == "layer_0_rows"
                size = self.first_size if first else self.size
                return masked_conv.RowConv(2 * self.features, size, exclusive=first, name=name)(x)
            if name.endswith("_link"):
                return nn.Dense(2 * self.features, use_bias=False, name=name)(x)
            if name.endswith("_label"):
                return x if label is None else x + self._table(name)[label][:, None, None]
            if name.endswith("_residual"):
                x = nn.Dropout(self.dropout_rate, deterministic=not self.has_rng("dropout"))(x)
            return masked_conv.MaskedConv(**layers[name], name=name)(x)

        inputs = masked_conv.inputs(x, self.levels, self.most_one_hot)
        out = self.horizontal(convolve, inputs, self.vertical(convolve, inputs), channels)
        out = out.reshape(*x.shape, discrete.width(self.levels))
        return out + self.param("bias", nn.initializers.zeros_init(), out.shape[1:])[None]

    def _table(self, name: str) -> Float[Array, "classes features"]:
        return self.param(name, nn.initializers.normal(0.01), (self.num_classes, 2 * self.features))


def receptive_field(
    shape: tuple[int, int, int], *, num_layers: int = 7, first_size: int = 7, size: int = 3
) -> receptive.Reads:
    """[d, j]: does position d see j, by construction? Both in raster order."""
    above = receptive.rows(shape, first_size, exclusive=True)
    found = receptive.masked(shape, (1, first_size), "A") | above
    for _ in range(num_layers - 1):
        above = receptive.after(receptive.rows(shape, size), above)
        found = receptive.after(receptive.masked(shape, (1, size), "B"), found) | above
    return receptive.after(receptive.masked(shape, (1, 1), "B"), found)


def network(shape: tuple[int, int, int], levels: int, *, num_classes: int | None = None, **sizes: Any) -> Network:
    """Gated PixelCNN over images of `shape`, for `raster.model`.

    Args:
        shape: (height, width, channels).
        levels: x are whole numbers in 0..levels-1.
        num_classes: learns p(x | label) of labels 0..num_classes-1; None takes no labels.
        sizes: of `GatedPixelCNN`: features, num_layers, first_size, size, head_features, dropout_rate, activation,
            most_one_hot.

    Raises:
        ValueError: `levels` is below 2, there is no layer or class, a kernel's size is even or does not reach the row
            above, a rate is not in [0, 1), or features do not divide among the channels.
    """
    _checks.at_least("levels", levels, 2)
    module = GatedPixelCNN(levels, num_classes=num_classes, **sizes)
    _check(module, shape[2])

    def init(key: Key, x: Any, label: Any) -> Params:
        return {**linen.init(module, key, x, label)[0], "bias": discrete.log_odds(x, levels)}

    def logits(params: Params, x: Any, label: Any, key: Key | None) -> Any:
        return linen.apply(module, params, {}, x, label, key=key)

    return Network(shape, levels, init, logits, functools.partial(_draw, module), num_classes)


def _check(module: GatedPixelCNN, channels: int) -> None:
    _checks.at_least("num_layers", module.num_layers, 1)
    if module.num_classes is not None:
        _checks.at_least("num_classes", module.num_classes, 1)
    if not 0.0 <= module.dropout_rate < 1.0:
        raise ValueError(f"`dropout_rate` must be in [0, 1), got {module.dropout_rate}.")
    for name in ("features", "head_features"):
        if getattr(module, name) < 1 or getattr(module, name) % channels:
            raise ValueError(f"`{name}` must be a positive multiple of {channels}, got {getattr(module, name)}.")
    for name, low in (("first_size", 3), ("size", 1)):
        if getattr(module, name) < low or getattr(module, name) % 2 == 0:
            raise ValueError(f"`{name}` must be odd and at least {low}, got {getattr(module, name)}.")


def _draw(module: GatedPixelCNN, params: Params, noise: Any, known: Any, mask: np.ndarray, label: Any) -> Any:
    """The vertical stack a row at a time, the horizontal one a pixel at a time, each channel over its own features."""
    num, _, width, channels = known.shape
    kinds = {name: arguments["kind"] for name, arguments in module.layers(channels).items()}
    layers = {name: pixelwise.taps(params[name], kind, channels) for name, kind in kinds.items()}
    part, inputs = 2 * module.features // channels, (module.levels, module.most_one_hot)

    def begin(caches: Any, i: Any) -> Any:
        del i
        above, left = dict(caches[0]), caches[1]
        links = module.vertical(functools.partial(_row, params, label, above), None)
        return (above, left), links

    def pixel(caches: Any, where: Any, links: Any, draw: Any) -> Any:
        walk, x = pixelwise.Walk(layers, dict(caches[1]), where[1], channels), []
        bias = params["bias"][where[0], where[1]]
        for c in range(channels):
            walk.group, own = c, slice(c * part, (c + 1) * part)
            convolve = functools.partial(_pixel, params, label, walk, own)
            logits = module.horizontal(convolve, None, [link[:, where[1], own] for link in links], 1)
            x.append(draw(c, logits + bias[c][None]))
            walk.put("layer_0_left", masked_conv.inputs(x[c][:, None, None, None], *inputs)[:, 0, 0])
        return (caches[0], walk.caches), x

    def end(caches: Any, i: Any, x: Any) -> Any:
        del i
        above, row = dict(caches[0]), masked_conv.inputs(x[:, None], *inputs)
        above["layer_0_rows"] = jnp.concatenate([above["layer_0_rows"][:, 1:], row], axis=1)
        return above, {name: pixelwise.next_row(cache) for name, cache in caches[1].items()}

    start = _rows_above(params, num, width), pixelwise.caches_of(layers, num, width)
    return pixelwise.raster_scan(pixel, start, noise, known, mask, begin=begin, end=end)


def _rows_above(params: Params, num: int, width: int) -> dict[str, Any]:
    """For every convolution over rows the inputs that it keeps: all of its rows in layer 1, all but the last later."""
    shapes = {name: layer["kernel"].shape for name, layer in params.items() if name.endswith("_rows")}
    kept = {name: shape[0] - (name != "layer_0_rows") for name, shape in shapes.items()}
    return {name: jnp.zeros((num, kept[name], width, shape[2])) for name, shape in shapes.items()}


def _row(params: Params, label: Any, above: dict[str, Any], name: str, x: Any) -> Any:
    """One layer of the vertical stack over one row (num, 1, w, features); `above` keeps what it reads next."""
    if name.endswith("_link"):
        return (x @ params[name]["kernel"])[:, 0]
    if name.endswith("_label"):
        return x if label is None else x + params[name][label][:, None, None]
    if x is None:
        return masked_conv.rows(params[name], above[name])
    both = jnp.concatenate([above[name], x], axis=1)
    above[name] = both[:, 1:]
    return masked_conv.rows(params[name], both)


def _pixel(params: Params, label: Any, walk: pixelwise.Walk, own: slice, name: str, x: Any) -> Any:
    """One layer of the horizontal stack at one pixel, over the features `own` of its channel."""
    if name.endswith("_label"):
        return x if label is None else x + params[name][label][:, own]
    return walk(name, x)
