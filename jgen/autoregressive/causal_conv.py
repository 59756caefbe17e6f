"""Causal convolutions over an image read as one long sequence of pixels.

    log p(x) = Σ_d log p(x_d | x_{d−r}, …, x_{d−1}),      r = kernel_size + (num_layers − 1)(kernel_size − 1)

The first convolution excludes the pixel it predicts; the others include their own position. Values enter as one-hot (or
±1) vectors, so that the zero padding before the first pixel is no pixel value.
Tomczak: Deep Generative Modeling, 2022, chapter 2 (8×8 digits).

Differs from the book: values enter one-hot, not as raw levels; probabilities are not clamped, so the likelihood is
exact; the output bias starts at the pixels' log frequencies, and is one per position.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jgen import _checks, linen
from jgen._types import Key, Params
from jgen.autoregressive.raster import Network
from jgen.math import discrete
from jgen.nets import causal


class CausalConvNet(nn.Module):
    """Logits of every position of a sequence, (batch, time, width).

    Attributes:
        levels: values of x.
        features: channels between the layers.
        num_layers: convolutions, the last of which gives the logits.
        kernel_size: of all of them.
        activation: between the layers.
    """

    levels: int
    features: int = 64
    num_layers: int = 4
    kernel_size: int = 7
    activation: Any = nn.leaky_relu

    @nn.compact
    def __call__(self, x: Num[Array, "batch time"]) -> Float[Array, "batch time width"]:
        """One pass over a whole sequence."""
        h = inputs(x, self.levels)
        sizes = [self.features] * (self.num_layers - 1) + [discrete.width(self.levels)]
        for i, size in enumerate(sizes):
            h = causal.CausalConv(size, self.kernel_size, exclusive=i == 0, name=f"layer_{i}")(h)
            h = self.activation(h) if i < self.num_layers - 1 else h
        bias = self.param("bias", nn.initializers.zeros_init(), h.shape[1:])
        return h + bias[None]


def inputs(x: Num[Array, "*shape"], levels: int) -> Float[Array, "*shape channels"]:
    """±1 for two levels, else one-hot: zeros, the padding, stand for no value."""
    return 2 * discrete.encode(x, levels) - 1 if levels == 2 else discrete.encode(x, levels)


def network(shape: tuple[int, int, int], levels: int, **sizes: Any) -> Network:
    """Causal convolutions over images of `shape`, for `raster.model`.

    Args:
        shape: (height, width, channels).
        levels: x are whole numbers in 0..levels-1.
        sizes: of `CausalConvNet`: features, num_layers, kernel_size, activation.

    Raises:
        ValueError: `levels` is below 2, or a size below 1.
    """
    _checks.at_least("levels", levels, 2)
    module = CausalConvNet(levels, **sizes)
    for name in ("features", "num_layers", "kernel_size"):
        _checks.at_least(name, getattr(module, name), 1)

    def init(key: Key, x: Any, label: Any) -> Params:
        del label
        params, _ = linen.init(module, key, x.reshape(x.shape[0], -1))
        return {**params, "bias": discrete.log_odds(x, levels).reshape(params["bias"].shape)}

    def logits(params: Params, x: Any, label: Any, key: Key | None) -> Any:
        del label, key
        return linen.apply(module, params, {}, x.reshape(x.shape[0], -1)).reshape(*x.shape, -1)

    return Network(shape, levels, init, logits, functools.partial(_draw, module))


def _draw(module: CausalConvNet, params: Params, noise: Any, known: Any, mask: np.ndarray, label: Any) -> Any:
    """One pixel per step; the cache of a layer is the inputs under its taps."""
    del label
    num, layers = known.shape[0], [params[f"layer_{i}"] for i in range(module.num_layers)]
    per_step = (
        jnp.moveaxis(noise.reshape(num, -1, noise.shape[-1]), 1, 0),
        known.reshape(num, -1).T,
        jnp.asarray(mask.ravel()),
        params["bias"],
    )

    def step(windows: Any, now: Any) -> Any:
        noise, known, given, bias = now
        h, after = causal.step(layers[0], windows[0]), []
        for layer, window in zip(layers[1:], windows[1:], strict=True):
            after.append(causal.push(window, module.activation(h)))
            h = causal.step(layer, after[-1])
        x = jnp.where(given, known, discrete.draw(h + bias[None], noise))
        return [causal.push(windows[0], inputs(x, module.levels)), *after], x

    windows = [jnp.zeros((num, *layer["kernel"].shape[:2])) for layer in layers]
    return jax.lax.scan(step, windows, per_step)[1].T.reshape(known.shape)
