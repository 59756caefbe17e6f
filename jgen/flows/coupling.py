"""Flows that are compositions of affine couplings, squeezes and splits: forward, inverse, and their log-determinants.

    coupling with mask b: y = b·x + (1 - b)·(x·exp(s(b·x)) + t(b·x)), log |det dy/dx| = Σ (1 - b)·s

Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP (2017), sections 3.2 to 3.6. Differs from the paper:
the log-scale is c·tanh(s/c) with a fixed bound c.
"""

import math
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from jgen import linen
from jgen._types import Key, Params
from jgen.math.bijectors import bounded, squeeze, unsqueeze


class Coupling(NamedTuple):
    """One affine coupling layer.

    Attributes:
        mask: True where x passes unchanged, in the shape of one example.
        net: what gives (s, t), twice the channels of its input.
        bound: c, the largest |log-scale|.
    """

    mask: Bool[np.ndarray, "*event"]
    net: nn.Module
    bound: float


class Squeeze(NamedTuple):
    """Each 2×2 block of pixels becomes channels."""


class Split(NamedTuple):
    """The second half of the channels is done: it goes to the latent vector as it is."""


Layer: TypeAlias = Coupling | Squeeze | Split


class Flow(NamedTuple):
    """Attributes: `shape` of one example; `layers` from x to z."""

    shape: tuple[int, ...]
    layers: tuple[Layer, ...]


def couple(
    x: Float[Array, "batch *event"], mask: Bool[np.ndarray, "*event"], log_scale: Array, shift: Array
) -> tuple[Float[Array, "batch *event"], Float[Array, " batch"]]:
    """(y, log |det dy/dx|) of y = x where `mask`, else x·exp(log_scale) + shift (eq. 7-8)."""
    kept = jnp.asarray(mask)[None]
    return jnp.where(kept, x, x * jnp.exp(log_scale) + shift), _log_det(mask, log_scale)


def uncouple(
    y: Float[Array, "batch *event"], mask: Bool[np.ndarray, "*event"], log_scale: Array, shift: Array
) -> tuple[Float[Array, "batch *event"], Float[Array, " batch"]]:
    """(x, log |det dx/dy|), the inverse of `couple` with the same log_scale and shift."""
    kept = jnp.asarray(mask)[None]
    return jnp.where(kept, y, (y - shift) * jnp.exp(-log_scale)), -_log_det(mask, log_scale)


def scale_and_shift(
    layer: Coupling, params: Params, x: Float[Array, "batch *event"]
) -> tuple[Float[Array, "batch *event"], Float[Array, "batch *event"]]:
    """(log-scale, shift) from the kept part of x alone, in at least float32."""
    out = linen.apply(layer.net, params, {}, jnp.where(jnp.asarray(layer.mask)[None], x, 0))
    s, t = jnp.split(out.astype(jnp.promote_types(out.dtype, jnp.float32)), 2, axis=-1)
    return bounded(s, layer.bound), t


def forward(
    flow: Flow, params: Params, x: Float[Array, "batch *event"]
) -> tuple[Float[Array, "batch latent"], Float[Array, " batch"]]:
    """(z, log |det dz/dx|); z holds the parts in the order in which they leave.

    Args:
        flow: the layers.
        params: one entry per layer, from `init`.
        x: examples of shape `flow.shape`.
    """
    batch = x.shape[0]
    log_det = jnp.zeros(batch, x.dtype)
    done = []
    for layer, own in zip(flow.layers, params, strict=True):
        if isinstance(layer, Squeeze):
            x = squeeze(x)
        elif isinstance(layer, Split):
            x, leaving = jnp.split(x, 2, axis=-1)
            done.append(leaving.reshape(batch, -1))
        else:
            x, added = couple(x, layer.mask, *scale_and_shift(layer, own, x))
            log_det += added
    return jnp.concatenate([*done, x.reshape(batch, -1)], axis=1), log_det


def inverse(
    flow: Flow, params: Params, z: Float[Array, "batch latent"]
) -> tuple[Float[Array, "batch *event"], Float[Array, " batch"]]:
    """(x, log |det dx/dz|), the inverse of `forward`."""
    batch, shapes = z.shape[0], _shapes(flow)
    log_det = jnp.zeros(batch, z.dtype)
    left, x = jnp.split(z, [z.shape[1] - math.prod(shapes[-1])], axis=1)
    x = x.reshape(batch, *shapes[-1])
    for layer, own in zip(reversed(flow.layers), reversed(params), strict=True):
        if isinstance(layer, Squeeze):
            x = unsqueeze(x)
        elif isinstance(layer, Split):
            left, back = jnp.split(left, [left.shape[1] - math.prod(x.shape[1:])], axis=1)
            x = jnp.concatenate([x, back.reshape(x.shape)], axis=-1)
        else:
            x, added = uncouple(x, layer.mask, *scale_and_shift(layer, own, x))
            log_det += added
    return x, log_det


def init(key: Key, flow: Flow) -> tuple[Params, ...]:
    """Parameters of every layer, {} where it has none."""
    params, x = [], jnp.zeros((1, *flow.shape))
    for i, (layer, shape) in enumerate(zip(flow.layers, _shapes(flow), strict=False)):
        x = x.reshape(1, *shape)
        own = linen.init(layer.net, jax.random.fold_in(key, i), x)[0] if isinstance(layer, Coupling) else {}
        params.append(own)
        x = jnp.zeros(x.size if not isinstance(layer, Split) else x.size // 2)
    return tuple(params)


def _log_det(mask: Bool[np.ndarray, "*event"], log_scale: Array) -> Array:
    return jnp.sum(jnp.where(jnp.asarray(mask)[None], 0, log_scale), axis=tuple(range(1, log_scale.ndim)))


def _shapes(flow: Flow) -> list[tuple[int, ...]]:
    """The shape of one example before each layer, and after the last."""
    shapes = [flow.shape]
    for layer in flow.layers:
        shape = shapes[-1]
        if isinstance(layer, Squeeze):
            shape = (shape[0] // 2, shape[1] // 2, 4 * shape[2])
        elif isinstance(layer, Split):
            shape = (*shape[:-1], shape[-1] // 2)
        shapes.append(shape)
    return shapes
