"""The user's parts of a latent-variable model, q(z|x) and p(x|z), and how they are initialized and applied."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import linen
from jgen._checks import at_least
from jgen._types import Key, Params
from jgen.math.likelihoods import Likelihood
from jgen.nets.encoders import Decoder, Encoder


@dataclasses.dataclass(frozen=True)
class Networks:
    """The parts of a latent-variable model that are the user's.

    Attributes:
        encoder: a Flax module, features (batch, *shape) -> (batch, 2·latent_size): mean and log standard deviation.
        decoder: a Flax module, z (batch, latent_size) -> raw (batch, *shape, likelihood.num_parameters).
        likelihood: p(x|raw).
        latent_size: the number of latent dimensions.

    Both modules are called with the keyword `train`.
    """

    encoder: nn.Module
    decoder: nn.Module
    likelihood: Likelihood
    latent_size: int

    def __post_init__(self) -> None:
        at_least("latent_size", self.latent_size, 1)


class Posterior(NamedTuple):
    """q(z|x) = N(mean, diag exp(2·log_std))."""

    mean: Float[Array, "batch latent"]
    log_std: Float[Array, "batch latent"]


def dense(shape: Sequence[int], likelihood: Likelihood, latent_size: int, **kwargs: Any) -> Networks:
    """`Networks` with the dense `Encoder` and `Decoder` of `nets.encoders`; keywords go to both."""
    decoder = Decoder(tuple(shape), likelihood.num_parameters, **kwargs)
    return Networks(Encoder(latent_size, **kwargs), decoder, likelihood, latent_size)


def initialize(networks: Networks, key: Key, x: Any) -> tuple[Params, Params]:
    """(params, stats) with entries "encoder", "decoder" and, of params, "offset", the likelihood's first raw values."""
    encoder_key, decoder_key = jax.random.split(key)
    features = networks.likelihood.features(x)
    encoder, encoder_stats = linen.init(networks.encoder, encoder_key, features, train=False)
    z = jnp.zeros((len(x), networks.latent_size))
    decoder, decoder_stats = linen.init(networks.decoder, decoder_key, z, train=False)
    params = {"encoder": encoder, "decoder": decoder, "offset": networks.likelihood.offset(x)}
    stats = {"encoder": encoder_stats, "decoder": decoder_stats}
    run_decoder(params, stats, z, networks)
    return params, stats


def run_encoder(
    params: Params, stats: Params, x: Any, networks: Networks, *, key: Key | None = None
) -> tuple[Posterior, Params]:
    """q(z|x), and the encoder's statistics after the pass.

    Args:
        key: given in training alone, for dropout; statistics run then, and are read only otherwise.

    Raises:
        ValueError: the encoder's output has another shape than `Networks` asks for.
    """
    module, features = networks.encoder, networks.likelihood.features(jnp.asarray(x))
    out, own = _apply(module, key, params["encoder"], stats["encoder"], features)
    if out.shape != (len(x), 2 * networks.latent_size):
        raise ValueError(f"`encoder` must return shape {(len(x), 2 * networks.latent_size)}, got {out.shape}.")
    mean, log_std = jnp.split(out.astype(jnp.float32), 2, axis=-1)
    # Bounded smoothly: exp of an unbounded log-scale overflows on an outlier.
    return Posterior(mean, 6.0 * jnp.tanh(log_std / 6.0)), own


def run_decoder(
    params: Params, stats: Params, z: Any, networks: Networks, *, key: Key | None = None
) -> tuple[Any, Params]:
    """Raw parameters of p(x|z), and the decoder's statistics after the pass; `key` as in `run_encoder`.

    Raises:
        ValueError: the decoder's output has another shape than the data and the likelihood ask for.
    """
    out, own = _apply(networks.decoder, key, params["decoder"], stats["decoder"], z)
    expected = (len(z), *params["offset"].shape)
    if out.shape != expected:
        raise ValueError(f"`decoder` must return shape {expected} for this data and likelihood, got {out.shape}.")
    return out + params["offset"][None], own


def _apply(module: nn.Module, key: Key | None, params: Params, stats: Params, x: Any) -> tuple[Any, Params]:
    if key is not None:
        return linen.apply_and_update(module, params, stats, x, key=key, train=True)
    return linen.apply(module, params, stats, x, train=False), stats
