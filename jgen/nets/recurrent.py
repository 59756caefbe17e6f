"""Recurrent layers over whole sequences: vanilla, GRU and LSTM, with one scan over time and nothing avoidable in it.

    pre_t = x_t W + b (all t in one product, before the scan),     state_t = cell(pre_t, h_{t−1} U, state_{t−1})

The gates of a step are one product. The gradient of U is one product over all steps after the backward scan, where
automatic differentiation of a scan would add up a (hidden, gates) matrix in every step.
LSTM: Hochreiter and Schmidhuber, 1997, with forget gates and their bias 1. GRU: Cho et al., 2014.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import _checks
from jgen._types import Key

State = tuple[Any, ...]  # (h,) or (h, c); h is the output
Cell = Callable[[Any, Any, State], State]


def vanilla(pre: Float[Array, "*batch h"], recurrent: Float[Array, "*batch h"], state: State) -> State:
    """h' = tanh(pre + h U)."""
    del state
    return (jnp.tanh(pre + recurrent),)


def gru(pre: Float[Array, "*batch gates"], recurrent: Float[Array, "*batch gates"], state: State) -> State:
    """h' = (1 − z) n + z h with r, z = σ(·) and n = tanh(pre_n + r · (h U_n)); gates in the order r, z, n."""
    r, z, n = jnp.split(pre, 3, axis=-1)
    recurrent_r, recurrent_z, recurrent_n = jnp.split(recurrent, 3, axis=-1)
    reset, update = jax.nn.sigmoid(r + recurrent_r), jax.nn.sigmoid(z + recurrent_z)
    candidate = jnp.tanh(n + reset * recurrent_n)
    return (candidate + update * (state[0] - candidate),)


def lstm(pre: Float[Array, "*batch gates"], recurrent: Float[Array, "*batch gates"], state: State) -> State:
    """c' = f c + i g, h' = o tanh(c') with i, f, o = σ(·) and g = tanh(·); gates in the order i, f, g, o."""
    i, f, g, o = jnp.split(pre + recurrent, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


CELLS: dict[str, tuple[Cell, int, int]] = {"vanilla": (vanilla, 1, 1), "gru": (gru, 3, 1), "lstm": (lstm, 4, 2)}
"""name -> (cell, number of gates, number of arrays in its state)."""


def zero_state(cell: str, batch_size: int, num_units: int) -> State:
    """The state in which a sequence begins.

    Raises:
        ValueError: `cell` is unknown.
    """
    _checks.one_of("cell", cell, tuple(CELLS))
    return tuple(jnp.zeros((batch_size, num_units)) for _ in range(CELLS[cell][2]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def unroll(
    cell: Cell, kernel: Float[Array, "hidden gates"], pre: Float[Array, "time batch gates"], state: State
) -> tuple[State, State]:
    """Runs `cell` over time from `state`.

    Returns:
        The last state, and every state (time, batch, hidden). Differentiable in reverse mode, once.
    """

    def step(state: State, pre: Any) -> tuple[State, State]:
        state = cell(pre, state[0] @ kernel, state)
        return state, state

    return jax.lax.scan(step, state, pre)


def _forward(cell: Cell, kernel: Any, pre: Any, state: State) -> Any:
    def step(state: State, pre: Any) -> Any:
        recurrent = state[0] @ kernel
        new = cell(pre, recurrent, state)
        return new, (new, state, recurrent)

    last, (states, before, recurrent) = jax.lax.scan(step, state, pre)
    return (last, states), (kernel, pre, before, recurrent)


def _backward(cell: Cell, residuals: Any, cotangents: Any) -> Any:
    kernel, pre, before, recurrent = residuals
    d_last, d_states = cotangents

    def step(d_state: State, now: Any) -> Any:
        pre, recurrent, before, d_output = now
        d_state = jax.tree.map(jnp.add, d_state, d_output)
        d_pre, d_recurrent, d_before = jax.vjp(cell, pre, recurrent, before)[1](d_state)
        d_before = (d_before[0] + d_recurrent @ kernel.T, *d_before[1:])
        return d_before, (d_pre, d_recurrent)

    d_state, (d_pre, d_recurrent) = jax.lax.scan(step, d_last, (pre, recurrent, before, d_states), reverse=True)
    d_kernel = jnp.einsum("tbh,tbg->hg", before[0], d_recurrent)
    return d_kernel, d_pre, d_state


unroll.defvjp(_forward, _backward)


def dropout_masks(keys: Any, num_layers: int, num_units: int, rate: float) -> Any:
    """One (batch, num_units) array per layer, 0 with probability `rate`, else 1/(1 − rate); None for rate 0.

    A mask serves a whole window (Gal and Ghahramani, 2016); example i draws it from keys[i].
    """
    if rate == 0.0:
        return None
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, (num_layers, num_units)))(keys)
    return list(jnp.swapaxes(kept, 0, 1) / (1.0 - rate))


def orthogonal_gates(key: Key, shape: tuple[int, int], dtype: Any = jnp.float32) -> Float[Array, "hidden gates"]:
    """One orthogonal (hidden, hidden) matrix per gate, side by side."""
    hidden, gates = shape
    blocks = jax.vmap(lambda key: nn.initializers.orthogonal()(key, (hidden, hidden), dtype))
    return jnp.concatenate(list(blocks(jax.random.split(key, gates // hidden))), axis=1)


class Recurrent(nn.Module):
    """One recurrent layer, time first.

    Attributes:
        cell: "vanilla", "gru" or "lstm".
        num_units: the size of h.
    """

    cell: str
    num_units: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "time batch inputs"], state: State
    ) -> tuple[Float[Array, "time batch hidden"], State]:
        """The outputs h_t for all t, and the last state."""
        _checks.one_of("cell", self.cell, tuple(CELLS))
        cell, num_gates, _ = CELLS[self.cell]
        gates = num_gates * self.num_units
        into = self.param("input", nn.initializers.lecun_normal(), (x.shape[-1], gates))
        kernel = self.param("recurrent", orthogonal_gates, (self.num_units, gates))
        bias = self.param("bias", self._bias, (gates,))
        after: tuple[State, State] = unroll(cell, kernel, x @ into + bias[None, None], state)
        return after[1][0], after[0]

    def _bias(self, key: Key, shape: tuple[int]) -> Float[Array, " gates"]:
        """Zero, but 1 for the forget gates of an LSTM: it remembers before it has learned to."""
        del key
        gate = jnp.arange(shape[0]) // self.num_units
        return jnp.where((gate == 1) & (self.cell == "lstm"), 1.0, 0.0)
