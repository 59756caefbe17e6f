"""Windowed neural conditionals: one small net looks at the last L values, wherever in the image it stands.

    p(· | x_{d−L}, …, x_{d−1}) = Softmax(W_2 relu(W_1 (s(x_{d−L}), …, s(x_{d−1})) + b_1) + b_2)

with W_1: L → M and W_2: M → levels. Values enter as numbers, s(x) = 2x/(levels − 1) − 1 in [−1, 1]. Before the first
value stands START, which enters as a level of its own below the lowest, s(−1): no value of a pixel means "nothing
here". For two levels the softmax is a sigmoid.
Bengio, Ducharme, Vincent, Jauvin: A Neural Probabilistic Language Model, 2003, is this net over embedded words.

Differs from the paper: numbers, not embeddings; no direct connections from input to output; b_2 starts at the log
frequencies of the training values.
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

START = -1
"""The level that stands before the first value."""


class WindowNet(nn.Module):
    """Logits of every position of a sequence, (batch, time, width): Linear(L, M), an activation, Linear(M, width).

    Attributes:
        levels: values of x.
        window_size: L.
        hidden_size: M.
        activation: between the two.
    """

    levels: int
    window_size: int = 24
    hidden_size: int = 256
    activation: Any = nn.relu

    @nn.compact
    def __call__(self, x: Num[Array, "batch time"]) -> Float[Array, "batch time width"]:
        """One pass over a whole sequence: the net on every window at once."""
        h = self.activation(nn.Dense(self.hidden_size, name="hidden")(windows(x, self.levels, self.window_size)))
        return nn.Dense(discrete.width(self.levels), name="logits")(h)


def scale(x: Num[Array, "*shape"], levels: int) -> Float[Array, "*shape"]:
    """s(x): levels as numbers in [−1, 1], START below −1."""
    return 2 * x.astype(jnp.float32) / (levels - 1) - 1


def windows(x: Num[Array, "batch time"], levels: int, size: int) -> Float[Array, "batch time size"]:
    """What stands before each position, the oldest first: scaled values, and START before the first."""
    time = x.shape[1]
    padded = jnp.pad(scale(x, levels), ((0, 0), (size, 0)), constant_values=2 * START / (levels - 1) - 1)
    return padded[:, np.arange(time)[:, None] + np.arange(size)[None]]


def network(shape: tuple[int, int, int], levels: int, **sizes: Any) -> Network:
    """A window over images of `shape` in raster order, for `raster.model`.

    Args:
        shape: (height, width, channels).
        levels: x are whole numbers in 0..levels-1.
        sizes: of `WindowNet`: window_size, hidden_size, activation.

    Raises:
        ValueError: `levels` is below 2, or a size below 1.
    """
    _checks.at_least("levels", levels, 2)
    module = WindowNet(levels, **sizes)
    for name in ("window_size", "hidden_size"):
        _checks.at_least(name, getattr(module, name), 1)

    def init(key: Key, x: Any, label: Any) -> Params:
        del label
        params, _ = linen.init(module, key, x.reshape(x.shape[0], -1))
        return {**params, "logits": {**params["logits"], "bias": discrete.log_odds(x.reshape(-1), levels)}}

    def logits(params: Params, x: Any, label: Any, key: Key | None) -> Any:
        del label, key
        return linen.apply(module, params, {}, x.reshape(x.shape[0], -1)).reshape(*x.shape, -1)

    return Network(shape, levels, init, logits, functools.partial(_draw, module))


def _draw(module: WindowNet, params: Params, noise: Any, known: Any, mask: np.ndarray, label: Any) -> Any:
    """One value per step; the cache is the window."""
    del label
    num = known.shape[0]
    per_step = (
        jnp.moveaxis(noise.reshape(num, -1, noise.shape[-1]), 1, 0),
        known.reshape(num, -1).T,
        jnp.asarray(mask.ravel()),
    )

    def step(window: Any, now: Any) -> Any:
        noise, known, given = now
        h = module.activation(window @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
        logits = h @ params["logits"]["kernel"] + params["logits"]["bias"][None]
        x = jnp.where(given, known, discrete.draw(logits, noise))
        return jnp.concatenate([window[:, 1:], scale(x, module.levels)[:, None]], axis=1), x

    start = jnp.full((num, module.window_size), 2 * START / (module.levels - 1) - 1)
    return jax.lax.scan(step, start, per_step)[1].T.reshape(known.shape)
