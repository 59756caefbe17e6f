"""Causal convolutions over time: the output at t sees inputs at t, t − dilation, …, or only those before t.

A cache holds the last inputs that a convolution reads; `step` computes one more output from it. An empty cache is
zeros, which equals zero padding. Networks of many dilated layers of two taps keep all their caches, queues of the last
`dilation` inputs of a layer, in one buffer. Queues: Le Paine et al., "Fast WaveNet", 2016.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jgen._types import Params


class CausalConv(nn.Module):
    """y_t = b + Σ_i W_i x_{t − (k−1−i)·dilation}, i = 0..k−1, or the same one step later where `exclusive`.

    Attributes:
        features: output channels.
        kernel_size: k.
        dilation: the distance in time between two taps.
        exclusive: shifts the input by one, so that y_t sees x_{<t} alone: the first layer of a network over its own
            targets (the others see x_{≤t} of features that already exclude it).
        kernel_init: how W starts.
    """

    features: int
    kernel_size: int
    dilation: int = 1
    exclusive: bool = False
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "batch time channels"]) -> Float[Array, "batch time features"]:
        """All outputs of a whole sequence; before its begin there are zeros."""
        kernel = self.param("kernel", self.kernel_init, (self.kernel_size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        before = (self.kernel_size - 1) * self.dilation
        padding = (before + 1, -1) if self.exclusive else (before, 0)
        out = jax.lax.conv_general_dilated(
            x, kernel, (1,), [padding], rhs_dilation=(self.dilation,), dimension_numbers=("NWC", "WIO", "NWC")
        )
        return out + bias[None, None]


def step(params: Params, window: Float[Array, "batch taps channels"]) -> Float[Array, "batch features"]:
    """One output of a `CausalConv` with `params` from the inputs under its taps, oldest first."""
    return jnp.einsum("btc,tcf->bf", window, params["kernel"]) + params["bias"][None]


def push(
    window: Float[Array, "batch taps channels"], x: Float[Array, "batch channels"]
) -> Float[Array, "batch taps c"]:
    """The window with its oldest entry gone and `x` as its newest."""
    return jnp.concatenate([window[:, 1:], x[:, None]], axis=1)


def gated(x: Float[Array, "*shape twice"]) -> Float[Array, "*shape once"]:
    """tanh(f) ⊙ σ(g) of x = [f, g]."""
    f, g = jnp.split(x, 2, axis=-1)
    return jnp.tanh(f) * jax.nn.sigmoid(g)


def slots(dilations: Sequence[int], t: Int[Array, ""]) -> Int[Array, " layers"]:
    """Where in the buffer of all queues each layer's input of time t − dilation is; that of time t takes its place.

    The queue of a layer of dilation d keeps at slot t mod d, after the queues of the layers before it, what the layer
    read at t.
    """
    sizes = np.array(dilations)
    return jnp.asarray(np.cumsum(sizes) - sizes) + t % jnp.asarray(sizes)


def queues(
    read: Sequence[Float[Array, "batch time channels"]], dilations: Sequence[int]
) -> Float[Array, "batch slots channels"]:
    """The buffer after a pass over whole sequences in which the layers read `read`."""
    last = []
    for h, d in zip(read, dilations, strict=True):
        time = h.shape[1]
        padded = jnp.pad(h[:, -d:], ((0, 0), (max(d - time, 0), 0), (0, 0)))
        last.append(jnp.roll(padded, time % d, axis=1))
    return jnp.concatenate(last, axis=1)
