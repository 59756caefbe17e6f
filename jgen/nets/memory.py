"""Attention over an encoded source: encoders that give a memory, and a recurrent decoder that looks at it.

    a_t = softmax over s of h_t · k_s / √d,        logits_t = W tanh(W_c [h_t; Σ_s a_ts v_s]) + b

Luong et al., Effective approaches to attention-based neural machine translation, 2015.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Num

from jgen.nets import recurrent
from jgen.nets.attention import attend


class Memory(NamedTuple):
    """An encoded source.

    Attributes:
        keys: k, what the decoder's states are compared with.
        values: v, what they get.
        mask: where there is something to look at.
        state: of the decoder before its first token, leaves (batch, 1, num_units).
    """

    keys: Float[Array, "batch positions units"]
    values: Float[Array, "batch positions features"]
    mask: Bool[Array, "batch positions"]
    state: recurrent.State


class _Remember(nn.Module):
    """The memory of encoded positions, for a decoder of `cell` and `num_units`."""

    cell: str
    num_units: int

    @nn.compact
    def __call__(self, values: Any, mask: Any, summary: Any) -> Memory:
        keys = nn.Dense(self.num_units, use_bias=False, name="keys")(values)
        num = recurrent.CELLS[self.cell][2]
        state = jnp.tanh(nn.Dense(num * self.num_units, name="start")(summary))
        return Memory(keys, values, mask, tuple(s[:, None] for s in jnp.split(state, num, axis=-1)))


class TextEncoder(nn.Module):
    """Reads a text forwards and backwards.

    Attributes:
        vocabulary_size: of the source.
        cell: "vanilla", "gru" or "lstm".
        num_units: the size of the state of each direction, and of the decoder.
        embedding_size: the size of a token's vector.
    """

    vocabulary_size: int
    cell: str
    num_units: int
    embedding_size: int

    @nn.compact
    def __call__(self, source: Int[Array, "batch time"], mask: Bool[Array, "batch time"]) -> Memory:
        """`mask` is True on the tokens of each text, which come first; the others are never read."""
        last = jnp.sum(mask, axis=1) - 1
        t = jnp.arange(source.shape[1])[None]
        # Backwards from the last token of each text, not from its padding; the same permutation turns it around again.
        turned = jnp.where(mask, last[:, None] - t, t)
        x = nn.Embed(self.vocabulary_size, self.embedding_size, embedding_init=nn.initializers.normal(1.0))(source)
        zero = recurrent.zero_state(self.cell, source.shape[0], self.num_units)

        def read(x: Any, name: str) -> Any:
            out, _ = recurrent.Recurrent(self.cell, self.num_units, name=name)(jnp.swapaxes(x, 0, 1), zero)
            return jnp.swapaxes(out, 0, 1)

        both = jnp.concatenate([read(x, "forward"), read(_at(x, turned), "backward")], axis=-1)
        forward, backward = jnp.split(both, 2, axis=-1)
        values = jnp.concatenate([forward, _at(backward, turned)], axis=-1)
        return _Remember(self.cell, self.num_units)(values, mask, _at(both, last[:, None])[:, 0])


class ImageEncoder(nn.Module):
    """Two convolutions, the second of stride 2; each position of the smaller image has a learned vector of its own.

    Attributes:
        levels: pixels are whole numbers in 0..levels-1.
        cell: of the decoder.
        num_units: of the decoder.
        features: of each convolution.
    """

    levels: int
    cell: str
    num_units: int
    features: int

    @nn.compact
    def __call__(self, source: Num[Array, "batch height width channels"]) -> Memory:
        x = source.astype(jnp.float32) / (self.levels - 1)
        x = nn.relu(nn.Conv(self.features, (3, 3), name="conv_0")(x))
        x = nn.relu(nn.Conv(self.features, (3, 3), strides=2, name="conv_1")(x))
        values = x.reshape(x.shape[0], -1, self.features)
        place = self.param("place", nn.initializers.normal(0.1), values.shape[1:])
        values = values + place[None]
        mask = jnp.ones(values.shape[:2], bool)
        return _Remember(self.cell, self.num_units)(values, mask, x.reshape(x.shape[0], -1))


class Decoder(nn.Module):
    """Logits of the next token of several prefixes (lanes) of each example.

    Attributes:
        vocabulary_size: V, of the target; input token V is START.
        cell: "vanilla", "gru" or "lstm".
        num_units: the size of the state.
        embedding_size: the size of a token's vector.
    """

    vocabulary_size: int
    cell: str
    num_units: int
    embedding_size: int

    @nn.compact
    def __call__(self, inputs: Int[Array, "batch lanes time"], state: recurrent.State, memory: Memory) -> Any:
        """(logits (batch, lanes, time, V), the state after the last token, the attention).

        The attention is (batch, lanes, time, positions), exactly zero where the memory has nothing.
        """
        num, lanes, length = inputs.shape
        embed = nn.Embed(self.vocabulary_size + 1, self.embedding_size, embedding_init=nn.initializers.normal(1.0))
        x = embed(inputs.reshape(num * lanes, length).T)
        before = jax.tree.map(lambda s: s.reshape(num * lanes, self.num_units), state)
        h, after = recurrent.Recurrent(self.cell, self.num_units, name="layer")(x, before)
        h = jnp.swapaxes(h, 0, 1).reshape(num, lanes * length, self.num_units)
        mask = jnp.broadcast_to(memory.mask[:, None, None], (num, 1, h.shape[1], memory.mask.shape[1]))
        seen, weights = attend(h[:, None], memory.keys[:, None], memory.values[:, None], mask)
        h = jnp.tanh(nn.Dense(self.num_units, name="attended")(jnp.concatenate([h, seen[:, 0]], axis=-1)))
        logits = nn.Dense(self.vocabulary_size, name="logits")(h)
        logits, weights = (leaf.reshape(num, lanes, length, -1) for leaf in (logits, weights))
        return logits, jax.tree.map(lambda s: s.reshape(num, lanes, self.num_units), after), weights


def _at(
    x: Float[Array, "batch time features"], index: Int[Array, "batch places"]
) -> Float[Array, "batch places features"]:
    """x[b, index[b, i]]."""
    return jnp.take_along_axis(x, index[..., None], axis=1)
