"""A temporal convolution network: blocks of gated causal convolutions whose dilations double, a state after each block.

    h_0 = W x,   h_{i+1} = h_i + A_i gated(K_i ∗ h_i),   kernels K_i of two taps, 1, 2, …, 2^(num_layers − 1) apart
    d_t^l = h_t after block l: it sees x_{t−R}, …, x_t with R = l·(2^num_layers − 1)

Dilated causal convolutions with gates: van den Oord et al., "WaveNet", 2016.
"""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jgen import linen
from jgen._checks import at_least
from jgen._types import Key, Params
from jgen.nets import causal


class TemporalConv(nn.Module):
    """The states of every block, (batch, time, blocks, channels), and what each layer read, for the queues.

    Attributes:
        channels: of h, and of the gated convolutions.
        num_layers: of a block.
        num_blocks: that follow each other.
        dropout_rate: the share of a layer's channels that a sequence goes without in training, the same ones throughout
            the sequence; needs a key in `linen.apply`.

    Raises:
        ValueError: a size is less than 1, or the rate outside [0, 1).
    """

    channels: int = 64
    num_layers: int = 5
    num_blocks: int = 5
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        for name in ("channels", "num_layers", "num_blocks"):
            at_least(name, getattr(self, name), 1)
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ValueError(f"`dropout_rate` must be in [0, 1), got {self.dropout_rate}.")
        super().__post_init__()

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of every layer, the first one first."""
        return tuple(2**i for i in range(self.num_layers)) * self.num_blocks

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch time inputs"], *, train: bool = False
    ) -> tuple[Float[Array, "batch time blocks channels"], list[Float[Array, "batch time channels"]]]:
        """One pass over whole sequences; the states at t see x up to t, and zeros before its begin."""
        h = nn.Dense(self.channels, name="input")(x)
        read, states = [], []
        for i, dilation in enumerate(self.dilations):
            read.append(h)
            branch = causal.gated(causal.CausalConv(2 * self.channels, 2, dilation, name=f"gates_{i}")(h))
            branch = nn.Dropout(self.dropout_rate, broadcast_dims=(1,), deterministic=not train)(branch)
            h = h + nn.Dense(self.channels, name=f"residual_{i}")(branch)
            states.append(h)
        return jnp.stack(states[self.num_layers - 1 :: self.num_layers], axis=2), read


def states(
    module: TemporalConv, params: Params, x: Float[Array, "batch time inputs"], *, key: Key | None = None
) -> Float[Array, "batch time blocks channels"]:
    """d_t^l for all t; `key`, for dropout, is given in training alone."""
    return linen.apply(module, params, {}, x, key=key, train=key is not None)[0]


def before(d: Float[Array, "batch time blocks channels"]) -> Float[Array, "batch time blocks channels"]:
    """d_{t−1}^l for all t, zeros before the first."""
    return jnp.pad(d, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


class Cache(NamedTuple):
    """What a sequence so far leaves behind.

    Attributes:
        queue: of every layer, in one buffer (`causal.slots`).
        d: d_{t−1}, zeros before the first input.
        t: how many inputs there were.
    """

    queue: Float[Array, "batch slots channels"]
    d: Float[Array, "batch blocks channels"]
    t: Int[Array, ""]


def start(module: TemporalConv, num: int) -> Cache:
    """Before the first input of `num` sequences."""
    queue = jnp.zeros((num, sum(module.dilations), module.channels))
    return Cache(queue, jnp.zeros((num, module.num_blocks, module.channels)), jnp.zeros((), jnp.int32))


def read(module: TemporalConv, params: Params, x: Float[Array, "batch time inputs"]) -> Cache:
    """After all of x, by one pass over it."""
    time = x.shape[1]
    if not time:
        return start(module, x.shape[0])
    d, inputs = linen.apply(module, params, {}, x)
    return Cache(causal.queues(inputs, module.dilations), d[:, -1], jnp.asarray(time, jnp.int32))


def step(module: TemporalConv, params: Params, cache: Cache, x: Float[Array, "batch inputs"]) -> Cache:
    """After x_t: one gather, the layers, one scatter, whatever t is."""
    slots = causal.slots(module.dilations, cache.t)
    old, h = cache.queue[:, slots], _dense(params["input"], x)
    inputs, found = [], []
    for i in range(len(module.dilations)):
        inputs.append(h)
        gates = causal.step(params[f"gates_{i}"], jnp.stack([old[:, i], h], axis=1))
        h = h + _dense(params[f"residual_{i}"], causal.gated(gates))
        found.append(h)
    d = jnp.stack(found[module.num_layers - 1 :: module.num_layers], axis=1)
    return Cache(cache.queue.at[:, slots].set(jnp.stack(inputs, axis=1)), d, cache.t + 1)


def _dense(params: Params, x: Float[Array, "batch inputs"]) -> Float[Array, "batch outputs"]:
    return x @ params["kernel"] + params["bias"][None]
