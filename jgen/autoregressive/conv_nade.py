"""ConvNADE: order-agnostic NADE whose conditionals come from a convolutional and a dense net, added up.

    logits = conv(x ⊙ m, m) + dense(x ⊙ m, m),      p(x_k | x_m) = σ(logits_k) or softmax(logits_k),  k ∉ m

The convolutions shrink the image ("valid") and then grow it back ("full") by the same kernels in reverse, so that every
output sees a wide part of what is known; m is a channel of its own. What is known changes everything: nothing is
cached, and an exact likelihood takes D passes per order. Likelihood, ensembles over orders, in-painting of any subset
and the model are `any_order`'s.
Uria, Côté, Gregor, Murray, Larochelle: Neural Autoregressive Distribution Estimation, 2016, section 6.

Differs from the paper: the loss is scaled by D/(D − |m|), not by the published code's D/(D − |m| + 1), which is not the
mean over orders; a new mask per example and step, not per epoch; output biases start at the data's log-odds; levels
above 2 enter one-hot and leave as a softmax.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Num

from jgen import _checks, linen
from jgen._types import Key, Params
from jgen.autoregressive import any_order
from jgen.autoregressive.order_agnostic_nade import inputs
from jgen.math import discrete


class ConvNADE(nn.Module):
    """Logits of every pixel given the known ones, (batch, height, width, channels, width of a conditional).

    Attributes:
        levels: values of x.
        features: channels between the convolutions.
        kernels: sides of the "valid" convolutions; the "full" ones mirror them.
        hidden_sizes: units per layer of the dense net.
        activation: between the layers of both.
    """

    levels: int = 2
    features: int = 64
    kernels: Sequence[int] = (8, 4, 6, 7)
    hidden_sizes: Sequence[int] = (500, 500)
    activation: Any = nn.relu

    @nn.compact
    def __call__(
        self, x: Num[Array, "batch h w c"], mask: Bool[Array, "batch h w c"]
    ) -> Float[Array, "batch h w c width"]:
        """One pass; x counts only where `mask` is True."""
        known = inputs(x, mask, self.levels)
        width, he = discrete.width(self.levels), nn.initializers.he_normal()
        planes = known.reshape(*x.shape[:3], -1)
        for i, side in enumerate(self.kernels):
            conv = nn.Conv(self.features, (side, side), padding="VALID", kernel_init=he, name=f"valid_{i}")
            planes = self.activation(conv(planes))
        for i, side in enumerate(reversed(self.kernels)):
            last = i == len(self.kernels) - 1
            size = x.shape[3] * width if last else self.features
            init = nn.initializers.normal(0.01) if last else he
            full = [(side - 1, side - 1)] * 2
            conv = nn.Conv(size, (side, side), padding=full, use_bias=not last, kernel_init=init, name=f"full_{i}")
            planes = conv(planes) if last else self.activation(conv(planes))
        h = known.reshape(x.shape[0], -1)
        for i, size in enumerate(self.hidden_sizes):
            h = self.activation(nn.Dense(size, kernel_init=he, name=f"hidden_{i}")(h))
        dense = nn.Dense(planes[0].size, kernel_init=nn.initializers.normal(0.01), name="output")(h)
        return planes.reshape(*x.shape, width) + dense.reshape(*x.shape, width)


def network(
    shape: tuple[int, int, int],
    levels: int = 2,
    *,
    features: int = 64,
    kernels: Sequence[int] = (8, 4, 6, 7),
    hidden_sizes: Sequence[int] = (500, 500),
    activation: Any = nn.relu,
) -> any_order.Network:
    """The network for `any_order.model`; by default the paper's best one for 28×28.

    Args:
        shape: (height, width, channels).
        levels: x are whole numbers in 0..levels-1.
        features: channels between the convolutions.
        kernels: sides of the "valid" convolutions, which must leave at least one pixel.
        hidden_sizes: units per layer of the dense net; none makes it affine.
        activation: between the layers.

    Raises:
        ValueError: `levels` is below 2, a size below 1, or the kernels leave no pixel.
    """
    _checks.at_least("levels", levels, 2)
    for name, sizes in (("features", [features]), ("kernels", kernels or [0]), ("hidden_sizes", hidden_sizes)):
        _checks.at_least(name, min(sizes, default=1), 1)
    left = min(shape[:2]) - sum(side - 1 for side in kernels)
    if left < 1:
        raise ValueError(f"`kernels` must leave at least 1 pixel of {shape[:2]}, got {tuple(kernels)}: {left}.")
    module = ConvNADE(levels, features, tuple(kernels), tuple(hidden_sizes), activation)

    def init(key: Key, x: Any) -> Params:
        params, _ = linen.init(module, key, x, jnp.zeros(x.shape, bool))
        return {**params, "output": {**params["output"], "bias": discrete.log_odds(x, levels).ravel()}}

    def logits(params: Params, x: Any, mask: Any) -> Any:
        return linen.apply(module, params, {}, x, mask)

    def push(params: Params, cache: Any, d: Any, value: Any) -> Any:
        del params
        x, mask = cache
        at = jnp.unravel_index(d, shape)
        return x.at[at].set(value.astype(x.dtype)), mask.at[at].set(True)

    def at(params: Params, cache: Any, d: Any) -> Any:
        return logits(params, *jax.tree.map(lambda leaf: leaf[None], cache)).reshape(-1, discrete.width(levels))[d]

    return any_order.Network(tuple(shape), levels, init, logits, lambda params, x, mask: (x, mask), push, at)
