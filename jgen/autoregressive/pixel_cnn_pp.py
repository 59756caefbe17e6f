"""PixelCNN++: two streams over several resolutions, and mixtures of logistics cut into levels.

    p(x_ij | x_<ij) = Σ_k π_k Π_c P_k(x_ijc | x_ij,<c),    P_k(v) = σ((v + ½ − m_kc)/s_kc) − σ((v − ½ − m_kc)/s_kc)

π, m and s of a pixel come from a network over the pixels before it (`nets.two_streams`); the channels of a pixel are
coupled in the mixture (`math.logistic`), where the mean of G moves with R and that of B with R and G. As a network in
raster order its conditional of a channel is the mixture's, given the channels before: Σ_k p(k | x_<c) P_k(x_c | x_<c).
Salimans, Karpathy, Chen, Kingma: PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and
Other Modifications, 2017.

Differs from the paper: samples are drawn from the levels' masses themselves, where the paper draws from the continuous
logistics, off the levels; masses are exact in the tails; any height and width will do.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jgen import _checks, linen
from jgen._types import Key, Params
from jgen.autoregressive import two_stream_sampling
from jgen.autoregressive.raster import Network
from jgen.math import logistic
from jgen.nets.two_streams import TwoStreams


def inputs(x: Num[Array, "batch h w c"], levels: int) -> Float[Array, "batch h w channels"]:
    """Values on [−1, 1], and a channel of ones that shows where the image ends."""
    scaled = logistic.scale(x, levels)
    return jnp.concatenate([scaled, jnp.ones_like(scaled[..., :1])], axis=-1)


def level_logits(
    mixture: logistic.Mixture, x: Num[Array, "*shape channels"], c: int, levels: int
) -> Float[Array, "*shape width"]:
    """log p(x_c = v | x_<c) of every level v; for two levels the log-odds of 1."""
    mass = logistic.level_log_mass(mixture, x, c, levels)
    return mass[..., 1:] - mass[..., :1] if levels == 2 else mass


def network(
    shape: tuple[int, int, int],
    levels: int,
    *,
    features: int = 32,
    num_blocks: int = 2,
    num_resolutions: int = 2,
    num_components: int = 5,
    dropout_rate: float = 0.0,
) -> Network:
    """PixelCNN++ over images of `shape`, for `raster.model`.

    Args:
        shape: (height, width, channels).
        levels: x are whole numbers in 0..levels-1.
        features: of both streams.
        num_blocks: residual blocks per resolution and stream on the way down.
        num_resolutions: each has half the rows and columns of the one before it.
        num_components: of the mixture.
        dropout_rate: inside the blocks.

    Raises:
        ValueError: `levels` is below 2, a number is below 1, or a rate is not in [0, 1).
    """
    _checks.at_least("levels", levels, 2)
    sizes = {"features": features, "num_blocks": num_blocks, "num_resolutions": num_resolutions}
    for name, value in {**sizes, "num_components": num_components}.items():
        _checks.at_least(name, value, 1)
    if not 0.0 <= dropout_rate < 1.0:
        raise ValueError(f"`dropout_rate` must be in [0, 1), got {dropout_rate}.")
    channels = shape[2]
    outputs = logistic.num_parameters(channels, num_components)
    module = TwoStreams(features, num_blocks, num_resolutions, outputs, dropout_rate)

    def init(key: Key, x: Any, label: Any) -> Params:
        del label
        return linen.init(module, key, inputs(x, levels))[0]

    def mixture(params: Params, x: Any, key: Key | None) -> logistic.Mixture:
        return logistic.split(linen.apply(module, params, {}, inputs(x, levels), key=key), channels, num_components)

    def logits(params: Params, x: Any, label: Any, key: Key | None) -> Any:
        del label
        found = mixture(params, x, key)
        return jnp.stack([level_logits(found, x, c, levels) for c in range(channels)], axis=3)

    def log_prob(params: Params, x: Any, label: Any, key: Key | None) -> Any:
        del label
        return logistic.log_prob(mixture(params, x, key), x, levels)

    draw = functools.partial(_draw, module, levels, num_components)
    return Network(shape, levels, init, logits, draw, log_prob=log_prob)


def _draw(
    module: TwoStreams,
    levels: int,
    num_components: int,
    params: Params,
    noise: Any,
    known: Any,
    mask: np.ndarray,
    label: Any,
) -> Any:
    """One pixel per step, from caches; the channels of a pixel one after another from its mixture."""
    del label
    channels = known.shape[3]

    def channel(raw: Any, draw: Any) -> list[Any]:
        mixture, x = logistic.split(raw, channels, num_components), []
        for c in range(channels):
            given = jnp.stack([*x, *[jnp.zeros_like(known[:, 0, 0, 0])] * (channels - c)], axis=-1)
            x.append(draw(c, level_logits(mixture, given, c, levels)))
        return x

    encode = functools.partial(inputs, levels=levels)
    return two_stream_sampling.draw(module, params, noise, known, mask, channel, encode)
