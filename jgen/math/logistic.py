"""Logistic distributions and their mixtures, cut into levels: exact masses over 0..levels−1.

The logistic lives on [−1, 1], where level v is 2v/(levels−1) − 1. In units of levels, with mean m and scale s, the mass
of level v is σ((v + ½ − m)/s) − σ((v − ½ − m)/s), and its logarithm exactly, without cancellation,

    log σ((v + ½ − m)/s) + log σ(−(v − ½ − m)/s) + log(1 − e^{−1/s}),

the first and the last level taking what lies beyond: log σ((½ − m)/s), log σ(−(levels − 3/2 − m)/s).

A pixel of C channels is a mixture of products, p(x) = Σ_k π_k Π_c P_k(x_c | x_<c), the mean of channel c moving with
the channels before it: µ_kc + Σ_{c' < c} tanh(γ_kcc') x_c'.
Salimans, Karpathy, Chen, Kingma: PixelCNN++, 2017, equations 1 to 3. Differs from the paper: masses are exact in the
tails as well, where the paper's code takes a density.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

LOWEST, HIGHEST = -7.0, 5.0
"""The bounds of log-scales."""


class Mixture(NamedTuple):
    """K components over C channels.

    Attributes:
        log_weight: (..., K), log π_k.
        mean: (..., C, K), µ on [−1, 1].
        log_scale: (..., C, K), within [`LOWEST`, `HIGHEST`].
        coupling: (..., C(C−1)/2, K), tanh γ of the pairs (1, 0), (2, 0), (2, 1), ….
    """

    log_weight: Any
    mean: Any
    log_scale: Any
    coupling: Any


def scale(x: Num[Array, "*shape"], levels: int) -> Float[Array, "*shape"]:
    """Levels on [−1, 1]."""
    return x.astype(jnp.float32) * (2 / (levels - 1)) - 1


def log_mass(
    x: Num[Array, "*shape"], mean: Float[Array, "*shape"], log_scale: Float[Array, "*shape"], levels: int
) -> Float[Array, "*shape"]:
    """log P(x) of one logistic, nats."""
    # Levels, not [−1, 1]: the upper edge of one bin is then bit for bit the lower edge of the next.
    inverse = jnp.exp(-log_scale) * (2 / (levels - 1))
    level = x.astype(jnp.float32)
    centre = (mean + 1) * ((levels - 1) / 2)
    upper = jax.nn.log_sigmoid((level + 0.5 - centre) * inverse)
    lower = jax.nn.log_sigmoid(-(level - 0.5 - centre) * inverse)
    inside = upper + lower + jnp.log(-jnp.expm1(-inverse))
    return jnp.where(level == 0, upper, jnp.where(level == levels - 1, lower, inside))


def num_parameters(channels: int, num_components: int) -> int:
    """How many numbers `split` takes."""
    return num_components * (1 + 2 * channels + channels * (channels - 1) // 2)


def split(raw: Float[Array, "*shape parameters"], channels: int, num_components: int) -> Mixture:
    """A mixture from unconstrained numbers."""
    parts = raw.astype(jnp.float32).reshape(*raw.shape[:-1], -1, num_components)
    ends = 1, 1 + channels, 1 + 2 * channels
    return Mixture(
        jax.nn.log_softmax(parts[..., 0, :]),
        parts[..., ends[0] : ends[1], :],
        jnp.clip(parts[..., ends[1] : ends[2], :], LOWEST, HIGHEST),
        jnp.tanh(parts[..., ends[2] :, :]),
    )


def conditional(mixture: Mixture, x: Num[Array, "*shape channels"], c: int, levels: int) -> tuple[Any, Any, Any]:
    """(log-weights, means, log-scales), each (..., K), of channel c given the channels of `x` before it."""
    weight = mixture.log_weight
    for before in range(c):
        mean, log_scale = _moved(mixture, x, before, levels)
        each = jnp.broadcast_to(x[..., before, None], mean.shape)
        weight = weight + log_mass(each, mean, log_scale, levels)
    return jax.nn.log_softmax(weight), *_moved(mixture, x, c, levels)


def log_prob(mixture: Mixture, x: Num[Array, "*shape channels"], levels: int) -> Float[Array, "*shape channels"]:
    """log p(x_c | x_<c) of every channel, nats; their sum is log p(x)."""
    each = []
    for c in range(x.shape[-1]):
        weight, mean, log_scale = conditional(mixture, x, c, levels)
        own = jnp.broadcast_to(x[..., c, None], mean.shape)
        each.append(jax.nn.logsumexp(weight + log_mass(own, mean, log_scale, levels), axis=-1))
    return jnp.stack(each, axis=-1)


def level_log_mass(
    mixture: Mixture, x: Num[Array, "*shape channels"], c: int, levels: int
) -> Float[Array, "*shape levels"]:
    """log p(x_c = v | x_<c) of every level v, nats."""
    weight, mean, log_scale = (part[..., None, :] for part in conditional(mixture, x, c, levels))
    shape = (*mean.shape[:-2], levels, mean.shape[-1])
    every = jax.lax.broadcasted_iota(jnp.float32, shape, len(shape) - 2)
    mass = log_mass(every, jnp.broadcast_to(mean, shape), jnp.broadcast_to(log_scale, shape), levels)
    return jax.nn.logsumexp(weight + mass, axis=-1)


def _moved(mixture: Mixture, x: Any, c: int, levels: int) -> tuple[Any, Any]:
    """The means of channel c, moved by the channels before it, and its log-scales."""
    mean, first = mixture.mean[..., c, :], c * (c - 1) // 2
    for before in range(c):
        mean = mean + mixture.coupling[..., first + before, :] * scale(x[..., before, None], levels)
    return mean, mixture.log_scale[..., c, :]
