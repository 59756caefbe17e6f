"""Transformers over pixels: every value attends to all values before it, in raster order.

    log p(x) = Σ_d log p(x_d | x_<d),    logits_d = W h_d + b_d,    h = Stack(Σ_j E_j x_{n_j(d)} + position_d + label)

The input at d is a sum over neighbours n_j(d) < d: the value before d, and with `neighbours` all channels of the pixels
up-left, above, up-right and left of it (a 3×3 convolution under mask A, whose taps are embeddings of levels). Values
outside the image, and the one before the first, have a vector of their own.
Chen et al.: Generative Pretraining from Pixels, 2020 (image GPT).

Differs from the paper: all levels are tokens, no palette of colours; the taps, as in pytorch-generative's ImageGPT,
which lacks the value before d, so that there the last pixel of a row is unseen at the beginning of the next; output
biases of each position, which start at the pixels' log frequencies.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Num

from jgen import _checks, linen, random
from jgen._types import Key, Params
from jgen.autoregressive.raster import Network
from jgen.math import discrete
from jgen.nets import attention


def taps(shape: tuple[int, int, int], neighbours: bool) -> np.ndarray:
    """(positions, taps), which values the input at each position reads: all earlier ones; −1 stands outside."""
    height, width, channels = shape
    index = np.full((height + 1, width + 2, channels), -1, np.int32)
    index[1:, 1:-1] = np.arange(height * width * channels).reshape(shape)
    before = np.arange(height * width * channels, dtype=np.int32)[:, None] - 1
    if not neighbours:
        return before
    around = [index[:-1, :-2], index[:-1, 1:-1], index[:-1, 2:], index[1:, :-2]]
    pixels = np.concatenate(around, axis=2).reshape(height * width, -1)
    return np.concatenate([before, np.repeat(pixels, channels, axis=0)], axis=1)


class ImageTransformer(nn.Module):
    """Logits of every position, (batch, time, width of a conditional), and the cache after the last.

    Attributes:
        shape: of one image, (height, width, channels).
        levels: values of x; input `levels` stands for outside.
        num_classes: of labels; None without.
        neighbours: also reads the pixels around each position; else the value before it alone.
        num_layers: blocks of attention and MLP.
        num_heads: of the attention.
        width: of the vectors between the layers.
        dropout_rate: of the embedded inputs and of what each branch adds.
    """

    shape: tuple[int, int, int]
    levels: int
    num_classes: int | None = None
    neighbours: bool = True
    num_layers: int = 4
    num_heads: int = 4
    width: int = 64
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self, values: Int[Array, "batch time taps"], label: Any = None, cache: Any = None, start: Any = 0
    ) -> tuple[Float[Array, "batch time width"], attention.Cache]:
        """Without `cache` the values are those that positions 0, 1, … read, else those from `start` on."""
        small, zeros = nn.initializers.normal(attention.SCALE), nn.initializers.zeros_init()
        length, num_taps = int(np.prod(self.shape)), values.shape[2]
        table = self.param("values", small, (num_taps, self.levels + 1, self.width))
        places = start + jnp.arange(values.shape[1])
        position = attention.Positions("learned", length, self.width, name="positions")(places)
        x = jnp.sum(table[jnp.arange(num_taps)[None, None], values], axis=2) + position[None]
        if label is not None:
            x = x + self.param("labels", small, (self.num_classes, self.width))[label][:, None]
        h, cache = attention.Stack(self.num_layers, self.num_heads, self.dropout_rate, name="stack")(x, cache, start)
        size = discrete.width(self.levels)
        bias = self.param("bias", zeros, (length, size))
        return nn.Dense(size, use_bias=False, kernel_init=small, name="output")(h) + bias[places][None], cache


def read(module: ImageTransformer, x: Num[Array, "batch h w c"]) -> Int[Array, "batch time taps"]:
    """The values that each position reads."""
    return _outside(module, x)[:, taps(module.shape, module.neighbours)]


def _outside(module: ImageTransformer, x: Any) -> Any:
    """x as one sequence, and behind it the value that stands for outside: index −1 reads it."""
    flat = x.reshape(x.shape[0], -1).astype(jnp.int32)
    return jnp.pad(flat, ((0, 0), (0, 1)), constant_values=module.levels)


def attention_maps(
    module: ImageTransformer, params: Params, x: Num[Array, "batch h w c"], label: Int[Array, " batch"] | None = None
) -> Float[Array, "layers batch heads queries keys"]:
    """The attention weights of each layer and head; query and key d are the positions that predict x_d."""
    _, kept = linen.apply_and_update(module, params, {"intermediates": {}}, read(module, x), label)
    return attention.maps(kept["intermediates"]["stack"])


def network(shape: tuple[int, int, int], levels: int, *, num_classes: int | None = None, **sizes: Any) -> Network:
    """A Transformer over images of `shape`, for `raster.model`.

    Args:
        shape: (height, width, channels).
        levels: x are whole numbers in 0..levels-1.
        num_classes: of labels; None for a model without.
        sizes: of `ImageTransformer`: neighbours, num_layers, num_heads, width, dropout_rate.

    Raises:
        ValueError: `levels` is below 2, or a size is out of its range.
    """
    _checks.at_least("levels", levels, 2)
    if num_classes is not None:
        _checks.at_least("num_classes", num_classes, 1)
    module = ImageTransformer(shape, levels, num_classes, **sizes)
    attention.check_sizes(module.width, module.num_heads, module.num_layers, "learned", module.dropout_rate)

    def init(key: Key, x: Any, label: Any) -> Params:
        params, _ = linen.init(module, key, read(module, x[:1]), None if label is None else label[:1])
        return {**params, "bias": discrete.log_odds(x, levels).reshape(params["bias"].shape)}

    def logits(params: Params, x: Any, label: Any, key: Key | None) -> Any:
        values = read(module, x)
        if key is None or not module.dropout_rate:
            out = linen.apply(module, params, {}, values, label)[0]
        else:
            out = _with_dropout(module, params, values, label, random.example_keys(key, x.shape[0]))
        return out.reshape(*x.shape, -1)

    return Network(shape, levels, init, logits, functools.partial(_draw, module), num_classes)


def _with_dropout(module: ImageTransformer, params: Params, values: Any, label: Any, keys: Any) -> Any:
    """Logits in training; each image has dropout of its own."""

    def one(values: Any, label: Any, key: Key) -> Any:
        label = None if label is None else label[None]
        return linen.apply(module, params, {}, values[None], label, key=key)[0][0]

    return jax.vmap(one)(values, label, keys)


def _draw(module: ImageTransformer, params: Params, noise: Any, known: Any, mask: np.ndarray, label: Any) -> Any:
    """What is known in one pass, then one position per step; the cache is the keys and values of all before."""
    num, first, length = known.shape[0], int(mask.sum()), mask.size
    if first == length:
        return known
    x, where = _outside(module, jnp.where(mask[None], known, 0)), taps(module.shape, module.neighbours)
    cache = attention.empty_cache(module.num_layers, module.num_heads, module.width, num, 0)
    if first:
        cache = linen.apply(module, params, {}, x[:, where[:first]], label)[1]

    def step(cache: Any, x: Any, position: Any, now: Any) -> Any:
        noise, where = now
        logits, cache = linen.apply(module, params, {}, x[:, where][:, None], label, cache, position)
        drawn = discrete.draw(logits[:, 0], noise).astype(jnp.int32)
        return cache, x.at[:, position].set(drawn), None

    rows = jnp.moveaxis(noise.reshape(num, length, -1), 1, 0)[first:], jnp.asarray(where[first:])
    x, _ = attention.scan(step, cache, x, rows, first)
    return x[:, :-1].reshape(known.shape).astype(known.dtype)
