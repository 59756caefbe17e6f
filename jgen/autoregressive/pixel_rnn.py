"""PixelRNN: LSTMs over the rows or the diagonals of an image.

    y_0 = mask-A convolution of x,      y_l = y_{l−1} + W_l LSTM_l(y_{l−1}),      logits = V ReLU(U ReLU(y_L)) + b

    log p(x) = Σ_d log p(x_d | x_<d)

The layers, `row` or `diagonal`, are those of `jgen.nets.pixel_lstm`; they work on half the features of y. All else are
1×1 convolutions with mask B. `receptive_field` says which pixels a prediction sees: the Row LSTM a cone; the Diagonal
BiLSTM everything earlier but, far from the right border and at any depth, the previous row's last pixel.
van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks, 2016.

Differs from the paper: up to 32 levels enter one-hot (two as ±1), more beside a channel of ones; the output bias is one
per position and starts at the pixels' log frequencies, the output kernel at zero, the forget gates' biases at 1. The
multi-scale version is not here; dropout is, for small data.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Num

from jgen import _checks, linen
from jgen._types import Key, Params
from jgen.autoregressive.raster import Network
from jgen.math import discrete
from jgen.nets import masked_conv, pixel_lstm, recurrent
from jgen.nets.masked_conv import MaskedConv

KINDS = tuple(pixel_lstm.LAYERS)


class PixelRNN(nn.Module):
    """Logits of every position of an image, (batch, h, w, c, width).

    Attributes:
        levels: values of x.
        kind: "row" or "diagonal".
        features: of each LSTM, a multiple of the channels; between the layers there are twice as many.
        num_layers: of LSTMs.
        first_size: the side of the first convolution, odd.
        dropout_rate: of what the LSTMs add, when a key is given.
        activation: in the head.
    """

    levels: int
    kind: str = "diagonal"
    features: int = 16
    num_layers: int = 7
    first_size: int = 7
    dropout_rate: float = 0.0
    activation: Any = nn.relu

    @nn.compact
    def __call__(self, x: Num[Array, "batch h w c"]) -> Float[Array, "batch h w c width"]:
        """One pass over whole images."""
        groups, wide, zeros = x.shape[-1], 2 * self.features, nn.initializers.zeros_init()
        pointwise = functools.partial(MaskedConv, size=(1, 1), kind="B", groups=groups)
        encoded = masked_conv.inputs(x, self.levels)
        y = MaskedConv(wide, (self.first_size, self.first_size), "A", groups, name="first")(encoded)
        for i in range(self.num_layers):
            h = pixel_lstm.LAYERS[self.kind](self.features, groups, name=f"layer_{i}")(y)
            h = nn.Dropout(self.dropout_rate, deterministic=not self.has_rng("dropout"))(h)
            y = y + pointwise(wide, name=f"residual_{i}")(h)
        y = pointwise(wide, name="head")(self.activation(y))
        shape = (*x.shape[1:], discrete.width(self.levels))
        out = pointwise(groups * shape[-1], use_bias=False, kernel_init=zeros, name="output")(self.activation(y))
        return out.reshape(-1, *shape) + self.param("bias", zeros, shape)[None]


def receptive_field(
    shape: tuple[int, int, int], kind: str, num_layers: int, first_size: int = 7
) -> Bool[np.ndarray, "positions positions"]:
    """[d, j]: does the prediction of position d see position j, by construction? Both in raster order.

    With p = (first_size − 1)/2, a pixel of the Row LSTM sees num_layers + p pixels to its left, and of the n-th row
    above those from num_layers + p + n to its left to p + n − 1 to its right. The Diagonal BiLSTM misses the last
    channel of the previous row's last pixel where the first convolution does not reach it. Of its own pixel, a position
    sees the channels before.
    """
    width, channels = shape[1:]
    row, column, channel = (i.ravel() for i in np.indices(shape))
    up, left, reach = row[:, None] - row[None], column[:, None] - column[None], first_size // 2
    out = (up > 0) | ((up == 0) & (left > 0)) | ((up == 0) & (left == 0) & (channel[:, None] > channel[None]))
    if kind == "row":
        return out & (left <= num_layers + reach + up) & (-left < reach + up)
    hidden = (column == width - 1) & (channel == channels - 1)
    return out & ~((up == 1) & hidden[None] & (-left > reach))


def network(shape: tuple[int, int, int], levels: int, kind: str = "diagonal", **sizes: Any) -> Network:
    """A PixelRNN over images of `shape`, for `raster.model`.

    Args:
        shape: (height, width, channels).
        levels: x are whole numbers in 0..levels-1.
        kind: "row" or "diagonal".
        sizes: of `PixelRNN`: features, num_layers, first_size, dropout_rate, activation.

    Raises:
        ValueError: `levels` is below 2, `kind` unknown, `features` no multiple of the channels, `num_layers` below 1,
            `first_size` even or below 3, or `dropout_rate` not in [0, 1).
    """
    _checks.at_least("levels", levels, 2)
    _checks.one_of("kind", kind, KINDS)
    module = PixelRNN(levels, kind, **sizes)
    for name, low in (("features", 1), ("num_layers", 1), ("first_size", 3)):
        _checks.at_least(name, getattr(module, name), low)
    if not 0.0 <= module.dropout_rate < 1.0:
        raise ValueError(f"`dropout_rate` must be in [0, 1), got {module.dropout_rate}.")
    if module.features % shape[-1]:
        raise ValueError(f"`features` must be a multiple of the {shape[-1]} channels, got {module.features}.")
    if module.first_size % 2 == 0:
        raise ValueError(f"`first_size` must be odd, got {module.first_size}.")

    def init(key: Key, x: Any, label: Any) -> Params:
        del label
        params, _ = linen.init(module, key, x)
        return {**params, "bias": discrete.log_odds(x, levels)}

    def logits(params: Params, x: Any, label: Any, key: Key | None) -> Any:
        del label
        return linen.apply(module, params, {}, x, key=key)

    return Network(shape, levels, init, logits, functools.partial(_draw, module))


class Weights(NamedTuple):
    """What the sampler multiplies, masked; the layers' stacked."""

    first: Any  # (first_size // 2 + 1, first_size, inputs, 2 features)
    first_bias: Any
    layers: Any
    centres: Any  # (layers, 2 features, gates)
    residual: Any  # (layers, features, 2 features)
    residual_bias: Any
    head: Any
    head_bias: Any
    output: Any


def _weights(module: PixelRNN, params: Params, groups: int) -> Weights:
    def stacked(name: str) -> Params:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *[params[f"{name}_{i}"] for i in range(depth)])

    depth, masked = module.num_layers, functools.partial(masked_conv.kernel, kind="B", groups=groups)
    layers, residual = stacked("layer"), stacked("residual")
    centre = functools.partial(pixel_lstm.STEPS[module.kind].centre, groups=groups)
    return Weights(
        masked_conv.kernel(params["first"], "A", groups),
        params["first"]["bias"],
        layers,
        jax.vmap(centre)(layers),
        jax.vmap(masked)(residual)[:, 0, 0],
        residual["bias"],
        masked(params["head"])[0, 0],
        params["head"]["bias"],
        masked(params["output"])[0, 0],
    )


def _draw(module: PixelRNN, params: Params, noise: Any, known: Any, mask: np.ndarray, label: Any) -> Any:
    """Row after row: the states of the rows above, and the first convolution's rows of inputs, are the cache."""
    del label
    num, height, width, groups = known.shape
    weights, steps = _weights(module, params, groups), pixel_lstm.STEPS[module.kind]
    pixel = functools.partial(_pixel, module, weights)

    def row(cache: Any, now: Any) -> Any:
        rows, state = cache
        ahead = jax.vmap(steps.ahead)(weights.layers, state)
        given = (_upper(weights, rows), jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 2, 0), ahead), *now)
        window = jnp.zeros((num, module.first_size // 2, rows.shape[-1]))
        left = jax.vmap(lambda layer: steps.left(layer, num))(weights.layers)
        _, (x, encoded, behind) = jax.lax.scan(pixel, (window, left), given)
        behind = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 2), behind)
        state = jax.vmap(functools.partial(steps.after, groups=groups))(weights.layers, state, behind)
        rows = jnp.concatenate([rows[:, 1:], jnp.swapaxes(encoded, 0, 1)[:, None]], axis=1)
        return (rows, state), x

    rows = jnp.zeros((num, module.first_size // 2, width, weights.first.shape[2]))
    state = jax.vmap(lambda layer: steps.start(layer, num, width))(weights.layers)
    per_row = (*(jnp.moveaxis(leaf, 0, 2) for leaf in (noise, known)), jnp.asarray(mask), params["bias"])
    x = jax.lax.scan(row, (rows, state), per_row)[1]
    return jnp.moveaxis(x, 2, 0).reshape(num, height, width, groups)


def _upper(weights: Weights, rows: Float[Array, "num r w inputs"]) -> Float[Array, "w num f"]:
    """The first convolution of a row without its own pixels."""
    reach = rows.shape[1]
    out = jax.lax.conv_general_dilated(
        rows, weights.first[:reach], (1, 1), [(0, 0), (reach, reach)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.swapaxes(out[:, 0], 0, 1) + weights.first_bias[None, None]


def _pixel(module: PixelRNN, weights: Weights, cache: Any, now: Any) -> Any:
    """Draws the channels of one pixel in turn; group g of all features is computed once, for channel g."""
    (window, left), (y, ahead, noise, known, given, bias) = cache, now
    groups, reach = known.shape[1], window.shape[1]
    y = y + jnp.einsum("btn,tnf->bf", window, weights.first[reach, :reach])
    step = functools.partial(pixel_lstm.STEPS[module.kind].pixel, groups=groups)
    ready = jax.vmap(step)(weights.layers, ahead, left)
    x, encoded, behind = jnp.zeros_like(known), jnp.zeros_like(window[:, 0]), jax.tree.map(jnp.zeros_like, left)
    last, hidden = jnp.zeros_like(y), jnp.zeros_like(y)
    for g in range(groups):
        part, put = functools.partial(_part, g, groups), functools.partial(_put, g, groups)
        out, behind = _layers(weights, ready, behind, part(y) + encoded @ part(weights.first[reach, reach]), g, groups)
        last = put(last, out)
        hidden = put(hidden, module.activation(last) @ part(weights.head) + part(weights.head_bias)[None])
        logits = module.activation(hidden) @ part(weights.output) + bias[g][None]
        x = x.at[:, g].set(jnp.where(given[g], known[:, g], discrete.draw(logits, noise[:, g])))
        encoded = put(encoded, part(masked_conv.inputs(x[:, None, None], module.levels)[:, 0, 0]))
    return (jnp.concatenate([window[:, 1:], encoded[:, None]], axis=1), behind), (x, encoded, behind)


def _layers(weights: Weights, ready: Any, behind: Any, y: Any, g: int, groups: int) -> Any:
    """Group g of y_L from that of y_0, and what the layers leave behind, completed by it."""
    part, put = functools.partial(_part, g, groups), functools.partial(_put, g, groups)
    after = []
    for i in range(weights.centres.shape[0]):
        gates, before, moved = (leaf[i] for leaf in ready)
        x, h, c = (leaf[i] for leaf in behind)
        x = put(x, y)
        states = recurrent.lstm(part(gates), x @ part(weights.centres[i]), (part(before), part(before)))
        h, c = put(h, states[0]), put(c, states[1])
        y = y + (h + moved) @ part(weights.residual[i]) + part(weights.residual_bias[i])[None]
        after.append((x, h, c))
    return y, jax.tree.map(lambda *leaves: jnp.stack(leaves), *after)


def _part(g: int, groups: int, x: Float[Array, "*batch f"]) -> Float[Array, "*batch part"]:
    """Group g of features."""
    return x.reshape(*x.shape[:-1], groups, -1)[..., g, :]


def _put(g: int, groups: int, x: Float[Array, "*batch f"], value: Float[Array, "*batch part"]) -> Any:
    """`x` with group g replaced."""
    return x.reshape(*x.shape[:-1], groups, -1).at[..., g, :].set(value).reshape(x.shape)
