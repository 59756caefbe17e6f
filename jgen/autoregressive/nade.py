"""NADE: one hidden layer that grows by one input at a time, so that all D conditionals cost O(DH).

    a_1 = c,        a_{i+1} = a_i + W_{i, x_i}        (binary: a_i + W_i x_i)
    h_i = σ(a_i),   p(x_i | x_<i) = softmax(b_i + V_i h_i)        (binary: σ of one logit)

W and V are shared by all conditionals; position i is the i-th variable of a fixed but arbitrary order. Training feeds
the data's own values x_<i (teacher forcing); sampling carries a_i.
Larochelle and Murray: The Neural Autoregressive Distribution Estimator, 2011; Uria, Côté, Gregor, Murray, Larochelle:
Neural Autoregressive Distribution Estimation, 2016.

Differs from the papers: output biases start at the data's log-odds; the optimizer is any; σ may be another activation.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jgen import _checks
from jgen._types import Key
from jgen.autoregressive.fixed_order import Conditional, Levels, Network, permutation
from jgen.math import discrete

ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "tanh": jnp.tanh}
BLOCK = 28
"""Positions between two pre-activations that training keeps; those between are computed again for the gradient."""

Activation = Callable[[Any, Any], Any]
"""(pre-activations (batch, H), what a position has of its own) -> hidden units."""


class Weights(NamedTuple):
    """A NADE's parameters, by position in the order.

    Attributes:
        encoder: W, (D, inputs, H): one row for x as a number, else one row per level.
        hidden_bias: c, (H,), or (batch, H) where each example has its own, from a recurrent state for instance.
        decoder: V, (D, outputs, H).
        bias: b, (D, outputs).
    """

    encoder: Any
    hidden_bias: Any
    decoder: Any
    bias: Any


def increment(encoder: Float[Array, "inputs H"], x: Num[Array, " batch"]) -> Float[Array, "batch H"]:
    """What the value x at one position adds to the pre-activations: W x, or row x of W where there are several."""
    if encoder.shape[0] == 1:
        return x.astype(jnp.float32)[:, None] * encoder
    return encoder.at[x.astype(jnp.int32)].get(mode="clip")


def conditionals(
    weights: Weights,
    x: Num[Array, "batch dims"],
    activation: Activation,
    own: Any = None,
    *,
    block: int = BLOCK,
) -> Float[Array, "batch dims outputs"]:
    """The outputs for all positions, in O(DH) and without an array of batch × D × H, for the gradient neither.

    A scan over blocks of positions keeps a at the start of each block alone; a scan inside a block adds up its
    increments, and is run again for the gradient.

    Args:
        weights: the parameters.
        x: values in the order.
        activation: of the hidden units.
        own: arrays with leading axis D, of which `activation` gets those of its position.
        block: positions in a block.
    """
    size = x.shape[1]
    block = min(block, size)

    def blocked(leaf: Any) -> Any:
        padding = [(0, -size % block)] + [(0, 0)] * (leaf.ndim - 1)
        return jnp.pad(leaf, padding).reshape(-1, block, *leaf.shape[1:])

    def position(a: Any, now: Any) -> Any:
        x, encoder, decoder, own = now
        return a + increment(encoder, x), activation(a, own) @ decoder.T

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def positions(a: Any, now: Any) -> Any:
        return jax.lax.scan(position, a, now)

    start = jnp.broadcast_to(weights.hidden_bias, (x.shape[0], weights.hidden_bias.shape[-1]))
    parts = jax.tree.map(blocked, (x.T, weights.encoder, weights.decoder, own))
    out = jax.lax.scan(positions, start, parts)[1]
    out = out.reshape(-1, *out.shape[2:])[:size]
    return jnp.moveaxis(out + weights.bias[:, None], 0, 1)


def draw(
    weights: Weights,
    noise: Float[Array, "num dims width"],
    known: Num[Array, "num dims"],
    mask: np.ndarray,
    law: Conditional,
    activation: Activation,
    own: Any = None,
) -> Num[Array, "num dims"]:
    """One position per step; the cache is the running pre-activation a, (num, H)."""

    def step(a: Any, now: Any) -> Any:
        noise, known, given, encoder, decoder, bias, own = now
        x = jnp.where(given, known, law.draw(activation(a, own) @ decoder.T + bias[None], noise))
        return a + increment(encoder, x), x

    start = jnp.broadcast_to(weights.hidden_bias, (known.shape[0], weights.hidden_bias.shape[-1]))
    each = (jnp.moveaxis(noise, 1, 0), known.T, jnp.asarray(mask), weights.encoder, weights.decoder, weights.bias, own)
    return jax.lax.scan(step, start, each)[1].T


def initial(key: Key, num_inputs: int, hidden_size: int, bias: Float[Array, "dims outputs"]) -> Weights:
    """W ~ N(0, 1/D), V ~ N(0, 0.01²), c = 0: the first outputs are nearly `bias`."""
    encoder, decoder = jax.random.split(key)
    size, width = bias.shape
    return Weights(
        jax.random.normal(encoder, (size, num_inputs, hidden_size)) / math.sqrt(size),
        jnp.zeros(hidden_size),
        0.01 * jax.random.normal(decoder, (size, width, hidden_size)),
        bias,
    )


def network(
    num_dims: int,
    levels: int = 2,
    *,
    hidden_size: int = 500,
    activation: str = "sigmoid",
    order: int | Sequence[int] | None = None,
) -> Network:
    """NADE over vectors of whole numbers in 0..levels-1, for `fixed_order.model`.

    Args:
        num_dims: D.
        levels: the number of values of each variable.
        hidden_size: H.
        activation: "sigmoid", "relu" or "tanh".
        order: the seed of a random order, a permutation, or None for the variables as they come.

    Raises:
        ValueError: a size is too small, `activation` is unknown, or `order` is no permutation.
    """
    _checks.at_least("hidden_size", hidden_size, 1)
    _checks.one_of("activation", activation, tuple(ACTIVATIONS))
    law, function = Levels(levels), ACTIVATIONS[activation]

    def hidden(a: Any, own: Any) -> Any:
        del own
        return function(a)

    def init(key: Key, x: Any) -> Weights:
        return initial(key, 1 if levels == 2 else levels, hidden_size, discrete.log_odds(x, levels))

    def outputs(weights: Weights, x: Any) -> Any:
        return conditionals(weights, x, hidden)

    return Network(
        permutation(order, num_dims), law, init, outputs, functools.partial(draw, law=law, activation=hidden)
    )
