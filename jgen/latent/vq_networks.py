"""The user's parts of a VQ-VAE: x to a map of vectors, and such a map to p(x|·); dense and convolutional ones."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import _checks, linen
from jgen._types import Key, Params
from jgen.math.likelihoods import Likelihood
from jgen.nets.encoders import Decoder, Down, Encoder, Up


@dataclasses.dataclass(frozen=True)
class Networks:
    """The parts of a VQ-VAE that are the user's.

    Attributes:
        encoder: a Flax module, features (batch, *shape) -> (batch, *map, dim), any number of vectors.
        decoder: a Flax module, codes (batch, *map, dim) -> raw (batch, *shape, likelihood.num_parameters).
        likelihood: p(x|raw); with a discrete one, bounds are of a log-mass, and bits/dim mean something.
        dim: of the vectors.

    Both modules are called with the keyword `train`.
    """

    encoder: nn.Module
    decoder: nn.Module
    likelihood: Likelihood
    dim: int

    def __post_init__(self) -> None:
        _checks.at_least("dim", self.dim, 1)


class MapEncoder(nn.Module):
    """`Down`, then a 1×1 convolution.

    Attributes:
        dim: of the vectors.
        channels: as in `Down`.
        num_blocks: as in `Down`.
    """

    dim: int
    channels: Sequence[int] = (32, 64)
    num_blocks: int = 0

    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        """(batch, height, width, channels) -> (batch, height', width', dim)."""
        return nn.Conv(self.dim, (1, 1))(nn.relu(Down(self.channels, self.num_blocks)(x, train=train)))


class MapDecoder(nn.Module):
    """`Up`, to raw parameters.

    Attributes:
        shape: (height, width, channels) of one example.
        num_parameters: of the likelihood, per value.
        channels: as in `Up`.
        num_blocks: as in `Up`.
    """

    shape: Sequence[int]
    num_parameters: int
    channels: Sequence[int] = (64, 32)
    num_blocks: int = 0

    @nn.compact
    def __call__(self, e: Any, *, train: bool = False) -> Any:
        """(batch, height', width', dim) -> (batch, *shape, num_parameters)."""
        out = Up((*self.shape[:2], self.shape[2] * self.num_parameters), self.channels, self.num_blocks)(e, train=train)
        return jnp.reshape(out, (len(e), *self.shape, self.num_parameters))


class DenseEncoder(nn.Module):
    """`Encoder`, its outputs cut into `num_vectors` vectors.

    Attributes:
        num_vectors: of one example.
        dim: of the vectors.
        hidden_sizes: as in `Encoder`.
        dropout_rate: as in `Encoder`.
    """

    num_vectors: int
    dim: int
    hidden_sizes: Sequence[int] = (256, 256)
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        """(batch, *shape) -> (batch, num_vectors, dim)."""
        sizes = {"hidden_sizes": self.hidden_sizes, "dropout_rate": self.dropout_rate}
        out = Encoder(self.num_vectors * self.dim, **sizes)(x, train=train)
        return jnp.reshape(out, (len(x), self.num_vectors, self.dim))


class DenseDecoder(nn.Module):
    """`Decoder` of all vectors side by side.

    Attributes:
        shape: of one example.
        num_parameters: of the likelihood.
        hidden_sizes: as in `Decoder`.
        dropout_rate: as in `Decoder`.
    """

    shape: Sequence[int]
    num_parameters: int
    hidden_sizes: Sequence[int] = (256, 256)
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, e: Any, *, train: bool = False) -> Any:
        """(batch, num_vectors, dim) -> (batch, *shape, num_parameters)."""
        sizes = {"hidden_sizes": self.hidden_sizes, "dropout_rate": self.dropout_rate}
        return Decoder(self.shape, self.num_parameters, **sizes)(jnp.reshape(e, (len(e), -1)), train=train)


def convolutional(
    shape: Sequence[int],
    likelihood: Likelihood,
    dim: int,
    *,
    channels: Sequence[int] = (32, 64),
    num_blocks: int = 0,
) -> Networks:
    """`Networks` for images of `shape` (height, width, channels): one code for each 2^stages × 2^stages pixels.

    Args:
        channels: of the encoder's stages; the decoder's are the same backwards.
        num_blocks: residual blocks in each.

    Raises:
        ValueError: `shape` has not three axes, or there is no stage.
    """
    if len(shape) != 3 or not channels:
        raise ValueError(f"`shape` must be (height, width, channels), got {shape}, with stages, got {channels}.")
    decoder = MapDecoder(tuple(shape), likelihood.num_parameters, tuple(channels)[::-1], num_blocks)
    return Networks(MapEncoder(dim, tuple(channels), num_blocks), decoder, likelihood, dim)


def dense(shape: Sequence[int], likelihood: Likelihood, dim: int, *, num_vectors: int, **kwargs: Any) -> Networks:
    """`Networks` for data of any shape with `num_vectors` codes an example; further keywords go to both."""
    _checks.at_least("num_vectors", num_vectors, 1)
    decoder = DenseDecoder(tuple(shape), likelihood.num_parameters, **kwargs)
    return Networks(DenseEncoder(num_vectors, dim, **kwargs), decoder, likelihood, dim)


class Pass(NamedTuple):
    """What a module gave, and its statistics after the pass."""

    out: Any
    stats: Params


def initialize(networks: Networks, key: Key, x: Any) -> tuple[Params, Params, Float[Array, "batch *map dim"]]:
    """(params, stats, the encoder's outputs): entries "encoder", "decoder" and, of params, "offset".

    The offset is added to the decoder's outputs and starts at the marginals of `x`.
    """
    encoder_key, decoder_key = jax.random.split(key)
    encoder, encoder_stats = linen.init(networks.encoder, encoder_key, networks.likelihood.features(x), train=False)
    params = {"encoder": encoder, "offset": networks.likelihood.offset(x)}
    stats = {"encoder": encoder_stats}
    z = run_encoder(params, stats, x, networks).out
    params["decoder"], stats["decoder"] = linen.init(networks.decoder, decoder_key, z, train=False)
    run_decoder(params, stats, z, networks)
    return params, stats, z


def run_encoder(params: Params, stats: Params, x: Any, networks: Networks, *, key: Key | None = None) -> Pass:
    """z, (batch, *map, dim), in float32.

    Args:
        key: given in training alone, for dropout; statistics run then, and are read only otherwise.

    Raises:
        ValueError: the encoder's output has another shape than `Networks` asks for.
    """
    features = networks.likelihood.features(jnp.asarray(x))
    out, own = linen.run(networks.encoder, params["encoder"], stats["encoder"], features, key=key)
    if out.ndim < 2 or out.shape[0] != len(x) or out.shape[-1] != networks.dim:
        raise ValueError(f"`encoder` must return shape ({len(x)}, ..., {networks.dim}), got {out.shape}.")
    return Pass(out.astype(jnp.float32), own)


def run_decoder(params: Params, stats: Params, e: Any, networks: Networks, *, key: Key | None = None) -> Pass:
    """Raw parameters of p(x|e); `key` as in `run_encoder`.

    Raises:
        ValueError: the decoder's output has another shape than the data and the likelihood ask for.
    """
    out, own = linen.run(networks.decoder, params["decoder"], stats["decoder"], e, key=key)
    expected = (len(e), *params["offset"].shape)
    if out.shape != expected:
        raise ValueError(f"`decoder` must return shape {expected} for this data and likelihood, got {out.shape}.")
    return Pass(out + params["offset"][None], own)


def map_shape(params: Params, stats: Params, networks: Networks) -> tuple[int, ...]:
    """The shape of an example's codes; nothing is computed."""
    x = jnp.zeros((1, *np.shape(params["offset"])[:-1]))
    return jax.eval_shape(lambda: run_encoder(params, stats, x, networks).out).shape[1:-1]
