"""LSTM layers over images: each pixel reads the states of pixels before it in raster order, and its own input.

    i, f, g, o = K_is ∗ x + K_ss near(h),     c = σ(f) c_before + σ(i) tanh(g),     h = σ(o) tanh(c)

    Row:       near = h at (r−1, c−1), (r−1, c), (r−1, c+1),   c_before at (r−1, c);   K_is is 1×3 with mask B
    Diagonal:  near = h at (r, c−1), (r−1, c),                 c_before at (r, c−1);   K_is is 1×1 with mask B

The diagonal layer has a mirrored copy, on the flipped image, whose output moves down one row before it is added. All
inputs are multiplied before a scan over the rows, or over the height + width − 1 diagonals of both directions at once
(row r skewed right by r); inside it there is one dense product. Before the first state stand learned ones, beside the
image there are zeros. Gates are laid out channel group by channel group, as `masked_conv` groups features.
van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks, 2016, sections 3.1 to 3.4, eq. 3.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jgen._types import Key, Params
from jgen.nets import masked_conv, recurrent
from jgen.nets.masked_conv import MaskedConv

GATES = 4
FORWARD, MIRRORED = 0, 1


def cell(
    pre: Float[Array, "*batch gates"],
    from_states: Float[Array, "*batch gates"],
    c: Float[Array, "*batch f"],
    groups: int,
) -> tuple[Float[Array, "*batch f"], Float[Array, "*batch f"]]:
    """(h, c) of one step of pixels; each group has its gates i, f, g, o side by side."""
    pre, from_states, before = (y.reshape(*y.shape[:-1], groups, -1) for y in (pre, from_states, c))
    h, after = recurrent.lstm(pre, from_states, (before, before))
    return h.reshape(c.shape), after.reshape(c.shape)


def above(h: Float[Array, "*batch w f"]) -> Float[Array, "*batch w near"]:
    """The three states above each pixel of a row, from those of the row above."""
    padded = jnp.pad(h, [(0, 0)] * (h.ndim - 2) + [(1, 1), (0, 0)])
    return jnp.concatenate([padded[..., :-2, :], h, padded[..., 2:, :]], axis=-1)


def skew(x: Float[Array, "*batch h w f"]) -> Float[Array, "t *batch h f"]:
    """Diagonal after diagonal: row r of entry t is the pixel (r, t − r), or zeros beside the image."""
    *batch, height, width, size = x.shape
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, height), (0, 0)]).reshape(*batch, -1, size)
    cut = padded[..., : height * (width + height - 1), :]
    return jnp.moveaxis(cut.reshape(*batch, height, width + height - 1, size), -2, 0)


def unskew(x: Float[Array, "t *batch h f"]) -> Float[Array, "*batch h w f"]:
    """The image whose diagonals these are."""
    time, *batch, height, size = x.shape
    flat = jnp.moveaxis(x, 0, -2).reshape(*batch, -1, size)
    padded = jnp.pad(flat, [(0, 0)] * len(batch) + [(0, height), (0, 0)])
    return padded.reshape(*batch, height, time + 1, size)[..., : time + 1 - height, :]


def down(x: Float[Array, "*batch h w f"]) -> Float[Array, "*batch h w f"]:
    """Every row where the next one was, zeros in the first: what a pixel may know of pixels on its right."""
    return jnp.pad(x[..., :-1, :, :], [(0, 0)] * (x.ndim - 3) + [(1, 0), (0, 0), (0, 0)])


class RowLSTM(nn.Module):
    """Sees, of the row above, one pixel more on either side with every row: a cone.

    Attributes:
        features: channels of h, a multiple of `groups`.
        groups: channels of the image.
    """

    features: int
    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w inputs"]) -> Float[Array, "batch h w f"]:
        """h of every pixel."""
        size = GATES * self.features
        start = functools.partial(forget_bias, self.features // self.groups)
        pre = MaskedConv(size, (1, 3), "B", self.groups, bias_init=start, name="input")(x)
        kernel = self.param("recurrent", nn.initializers.lecun_normal(), (3 * self.features, size))
        first = self.param("start", nn.initializers.zeros_init(), (2, self.features))

        @functools.partial(jax.checkpoint, prevent_cse=False)  # recomputing the gates is faster than keeping them
        def step(state: Any, pre: Any) -> Any:
            h, c = cell(pre, above(state[0]) @ kernel, state[1], self.groups)
            return (h, c), h

        states = jnp.broadcast_to(first[:, None, None], (2, x.shape[0], x.shape[2], self.features))
        out = jax.lax.scan(step, (states[0], states[1]), jnp.moveaxis(pre, 1, 0))[1]
        return jnp.moveaxis(out, 0, 1)


class DiagonalBiLSTM(nn.Module):
    """Sees all earlier pixels but, unless its input does, the last one of the row above.

    Attributes:
        features: channels of h, a multiple of `groups`.
        groups: channels of the image.
    """

    features: int
    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w inputs"]) -> Float[Array, "batch h w f"]:
        """The sum of both directions' h at every pixel, the mirrored ones moved down."""
        size = GATES * self.features
        start = functools.partial(forget_bias, self.features // self.groups)
        pre = MaskedConv(2 * size, (1, 1), "B", self.groups, bias_init=start, name="input")(x)
        pairs = nn.initializers.lecun_normal(batch_axis=(0,))
        kernel = self.param("recurrent", pairs, (2, 2 * self.features, size))
        left = self.param("start", nn.initializers.zeros_init(), (2, 2, self.features))
        top = self.param("start_above", nn.initializers.zeros_init(), (2, self.features))
        pre = directions(pre, self.groups)
        pre = jnp.stack([pre[FORWARD], jnp.flip(pre[MIRRORED], axis=2)])
        h = unskew(self._diagonals(skew(pre), kernel, left, top))
        return h[FORWARD] + down(jnp.flip(h[MIRRORED], axis=2))

    def _diagonals(self, pre: Any, kernel: Any, left: Any, top: Any) -> Float[Array, "t 2 batch h f"]:
        time, _, num, height, _ = pre.shape
        ceiling = jnp.broadcast_to(top[:, None, None], (2, num, 1, self.features))

        @functools.partial(jax.checkpoint, prevent_cse=False)
        def step(state: Any, now: Any) -> Any:
            t, pre = now
            h, c = state
            near = jnp.concatenate([h, jnp.concatenate([ceiling, h[:, :, :-1]], axis=2)], axis=-1)
            new = cell(pre, jnp.einsum("dbrn,dng->dbrg", near, kernel), c, self.groups)
            entered = (t >= jnp.arange(height))[None, None, :, None]  # row r waits in its start until diagonal r
            h, c = jnp.where(entered, new[0], h), jnp.where(entered, new[1], c)
            return (h, c), h

        shape = (2, num, height, self.features)
        first = tuple(jnp.broadcast_to(left[:, i, None, None], shape) for i in range(2))
        return jax.lax.scan(step, first, (jnp.arange(time), pre))[1]


LAYERS = {"row": RowLSTM, "diagonal": DiagonalBiLSTM}


def directions(x: Float[Array, "*batch gates"], groups: int) -> Float[Array, "2 *batch half"]:
    """Of features laid out (group, direction, ...), those of either direction, (group, ...)."""
    split = x.reshape(*x.shape[:-1], groups, 2, -1)
    return jnp.moveaxis(split, -2, 0).reshape(2, *x.shape[:-1], -1)


def forget_bias(units: int, key: Key, shape: tuple[int]) -> Float[Array, " gates"]:
    """Zero, but 1 for the forget gates: a layer remembers before it has learned to. A gate has `units` in a group."""
    del key
    return jnp.where(jnp.arange(shape[0]) // units % GATES == 1, 1.0, 0.0)


class Steps(NamedTuple):
    """A layer pixel by pixel: pure functions of its params and the number of groups, for samplers.

    A pixel leaves (x, h, c) behind, its input and states, for the pixel on its right.

    Attributes:
        start: (params, num, width) -> the state above the first row.
        ahead: (params, state) -> (gates, c, moved), each (num, width, ...): what the rows above give to every pixel.
        left: (params, num) -> the (x, h, c) that stand left of a row.
        pixel: (params, ahead at a pixel, left, groups) -> (gates, c, moved): all but the pixel's own input, whose
            product with `centre` is to be added to the gates; `moved` is to be added to h in the output.
        centre: (params, groups) -> (inputs, gates).
        after: (params, state, (x, h, c) of the row, each (num, width, ...), groups) -> the state above the next row.
    """

    start: Callable[..., Any]
    ahead: Callable[..., Any]
    left: Callable[..., Any]
    pixel: Callable[..., Any]
    centre: Callable[..., Any]
    after: Callable[..., Any]


def _row_start(params: Params, num: int, width: int) -> Any:
    first = params["start"]
    states = jnp.broadcast_to(first[:, None, None], (2, num, width, first.shape[-1]))
    return states[0], states[1]


def _row_ahead(params: Params, state: Any) -> Any:
    return above(state[0]) @ params["recurrent"], state[1], jnp.zeros_like(state[1])


def _row_left(params: Params, num: int) -> Any:
    size, zeros = params["start"].shape[-1], functools.partial(jnp.zeros, dtype=jnp.float32)
    return zeros((num, params["input"]["kernel"].shape[2])), zeros((num, size)), zeros((num, size))


def _row_pixel(params: Params, ahead: Any, left: Any, groups: int) -> Any:
    del groups
    gates = ahead[0] + left[0] @ params["input"]["kernel"][0, 0] + params["input"]["bias"][None]
    return gates, ahead[1], ahead[2]


def _row_centre(params: Params, groups: int) -> Float[Array, "inputs gates"]:
    return masked_conv.kernel(params["input"], "B", groups)[0, 1]


def _row_after(params: Params, state: Any, row: Any, groups: int) -> Any:
    del params, state, groups
    return row[1], row[2]


def _diagonal_start(params: Params, num: int, width: int) -> Any:
    top = params["start_above"]
    states = jnp.broadcast_to(top[:, None, None], (2, num, width, top.shape[-1]))
    return states[FORWARD], states[MIRRORED], jnp.zeros_like(states[MIRRORED])


def _diagonal_ahead(params: Params, state: Any) -> Any:
    forward, _, moved = state
    size = forward.shape[-1]
    return forward @ params["recurrent"][FORWARD, size:], jnp.zeros_like(forward), moved


def _diagonal_left(params: Params, num: int) -> Any:
    size, first = params["start"].shape[-1], params["start"][FORWARD]
    states = jnp.broadcast_to(first[:, None], (2, num, size))
    return jnp.zeros((num, params["input"]["kernel"].shape[2])), states[0], states[1]


def _diagonal_pixel(params: Params, ahead: Any, left: Any, groups: int) -> Any:
    size = left[1].shape[-1]
    bias = directions(params["input"]["bias"], groups)[FORWARD]
    return ahead[0] + left[1] @ params["recurrent"][FORWARD, :size] + bias[None], left[2], ahead[2]


def _diagonal_centre(params: Params, groups: int, direction: int = FORWARD) -> Float[Array, "inputs gates"]:
    return directions(masked_conv.kernel(params["input"], "B", groups)[0, 0], groups)[direction]


def _diagonal_after(params: Params, state: Any, row: Any, groups: int) -> Any:
    """The mirrored cells of the row that is now known, right to left."""
    x, forward, _ = row
    size = forward.shape[-1]
    beside, over = params["recurrent"][MIRRORED, :size], params["recurrent"][MIRRORED, size:]
    bias = directions(params["input"]["bias"], groups)[MIRRORED]
    pre = x @ _diagonal_centre(params, groups, MIRRORED) + state[1] @ over + bias[None, None]

    def step(before: Any, pre: Any) -> Any:
        h, c = cell(pre, before[0] @ beside, before[1], groups)
        return (h, c), h

    first = jnp.broadcast_to(params["start"][MIRRORED][:, None], (2, x.shape[0], size))
    out = jax.lax.scan(step, (first[0], first[1]), jnp.moveaxis(pre, 1, 0), reverse=True)[1]
    mirrored = jnp.moveaxis(out, 0, 1)
    return forward, mirrored, mirrored


STEPS = {
    "row": Steps(_row_start, _row_ahead, _row_left, _row_pixel, _row_centre, _row_after),
    "diagonal": Steps(
        _diagonal_start, _diagonal_ahead, _diagonal_left, _diagonal_pixel, _diagonal_centre, _diagonal_after
    ),
}
