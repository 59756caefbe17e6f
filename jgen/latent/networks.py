"""The user's parts of a latent-variable model: q(z|x), p(z), p(x|z), and how they are initialized and applied."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import _checks, linen
from jgen._types import Batch, Key, Keys, Params
from jgen.latent.posteriors import DIAGONAL, Diagonal, Posterior
from jgen.latent.priors import STANDARD_NORMAL, Prior, Vamp
from jgen.math.likelihoods import Likelihood
from jgen.nets.encoders import ConvDecoder, ConvEncoder, Decoder, Encoder


@dataclasses.dataclass(frozen=True)
class Networks:
    """The parts of a latent-variable model that are the user's.

    Attributes:
        encoder: a Flax module, features (batch, *shape) -> (batch, posterior.num_outputs(latent_size)); for the
            diagonal posterior mean and log standard deviation.
        decoder: a Flax module, z (batch, latent_size) -> raw (batch, *shape, likelihood.num_parameters).
        likelihood: p(x|raw).
        latent_size: the number of latent dimensions.
        prior: p(z).
        posterior: what the encoder's outputs mean.
        num_classes: where the model is conditional, p(x|z, y) and q(z|x, y): how many values y has.

    Both modules are called with the keyword `train`, and with y as a one-hot row (batch, num_classes) after x or z
    where there are classes.
    """

    encoder: nn.Module
    decoder: nn.Module
    likelihood: Likelihood
    latent_size: int
    prior: Prior = STANDARD_NORMAL
    posterior: Posterior = DIAGONAL
    num_classes: int | None = None

    def __post_init__(self) -> None:
        _checks.at_least("latent_size", self.latent_size, 1)
        if self.num_classes is not None:
            _checks.at_least("num_classes", self.num_classes, 1)
        if isinstance(self.prior, Vamp) and (self.num_classes or not isinstance(self.posterior, Diagonal)):
            raise ValueError("`prior` must not be Vamp where there are classes or where the posterior is not Diagonal.")


def dense(
    shape: Sequence[int],
    likelihood: Likelihood,
    latent_size: int,
    *,
    prior: Prior = STANDARD_NORMAL,
    posterior: Posterior = DIAGONAL,
    num_classes: int | None = None,
    **kwargs: Any,
) -> Networks:
    """`Networks` with the dense `Encoder` and `Decoder` of `nets.encoders`; further keywords go to both."""
    encoder = Encoder(posterior.num_outputs(latent_size), **kwargs)
    decoder = Decoder(tuple(shape), likelihood.num_parameters, **kwargs)
    return Networks(encoder, decoder, likelihood, latent_size, prior, posterior, num_classes)


def convolutional(
    shape: Sequence[int],
    likelihood: Likelihood,
    latent_size: int,
    *,
    prior: Prior = STANDARD_NORMAL,
    posterior: Posterior = DIAGONAL,
    num_classes: int | None = None,
    channels: Sequence[int] = (32, 64),
    num_blocks: int = 0,
) -> Networks:
    """`Networks` with `ConvEncoder` and `ConvDecoder`, for images of `shape` (height, width, channels).

    Args:
        channels: of the encoder's stages; the decoder's are the same backwards.
        num_blocks: residual blocks in each; with some the networks are residual ones.
    """
    _checks.rank("shape", jnp.zeros(tuple(shape)), 3, "(height, width, channels)")
    encoder = ConvEncoder(posterior.num_outputs(latent_size), tuple(channels), num_blocks)
    decoder = ConvDecoder(tuple(shape), likelihood.num_parameters, tuple(channels)[::-1], num_blocks)
    return Networks(encoder, decoder, likelihood, latent_size, prior, posterior, num_classes)


def initialize(networks: Networks, key: Key, x: Any) -> tuple[Params, Params]:
    """(params, stats).

    `params` has the entries "encoder", "decoder", "prior", "posterior", and "offset", the likelihood's first raw
    values; `stats` has "encoder" and "decoder".
    """
    encoder_key, decoder_key = jax.random.split(key)
    prior_key, posterior_key = jax.random.split(jax.random.fold_in(key, 2))
    features = networks.likelihood.features(x)
    label = None if networks.num_classes is None else jnp.zeros(len(x), jnp.int32)
    condition = conditions(networks, label)
    encoder, encoder_stats = linen.init(networks.encoder, encoder_key, features, *condition, train=False)
    z = jnp.zeros((len(x), networks.latent_size))
    decoder, decoder_stats = linen.init(networks.decoder, decoder_key, z, *condition, train=False)
    params = {
        "encoder": encoder,
        "decoder": decoder,
        "offset": networks.likelihood.offset(x),
        "prior": networks.prior.init(prior_key, features, networks.latent_size),
        "posterior": networks.posterior.init(posterior_key, networks.latent_size),
    }
    stats = {"encoder": encoder_stats, "decoder": decoder_stats}
    run_decoder(params, stats, z, networks, label=label)
    return params, stats


def examples(batch: Batch, networks: Networks) -> tuple[Any, Any]:
    """(x, label or None) of a batch.

    Raises:
        ValueError: x lies outside the likelihood's support, or labels are missing, too much or out of range.
    """
    networks.likelihood.check(batch["x"])
    label = batch.get("label")
    if networks.num_classes is None:
        return jnp.asarray(batch["x"]), None
    if label is None:
        raise ValueError(
            f"`batch` must hold `label` for a model with {networks.num_classes} classes, got {sorted(batch)}."
        )
    _checks.integers("label", label, networks.num_classes)
    return jnp.asarray(batch["x"]), jnp.asarray(label)


def conditions(networks: Networks, label: Any) -> tuple[Any, ...]:
    """What comes after x or z in a call of the user's modules: a one-hot row of each label, or nothing.

    Raises:
        ValueError: `label` is missing, or given to a model without classes.
    """
    if (label is None) != (networks.num_classes is None):
        raise ValueError(f"`label` must be given just where there are classes, got {label} and {networks.num_classes}.")
    return () if networks.num_classes is None else (jax.nn.one_hot(label, networks.num_classes),)


def run_encoder(
    params: Params, stats: Params, x: Any, networks: Networks, *, label: Any = None, key: Key | None = None
) -> tuple[Any, Params]:
    """q(z|x), and the encoder's statistics after the pass.

    Args:
        label: (batch,), where there are classes.
        key: given in training alone, for dropout; statistics run then, and are read only otherwise.

    Raises:
        ValueError: the encoder's output has another shape than `Networks` asks for.
    """
    return _encode(params, stats, networks.likelihood.features(jnp.asarray(x)), networks, label, key)


def _encode(params: Params, stats: Params, features: Any, networks: Networks, label: Any, key: Key | None) -> Any:
    inputs = (features, *conditions(networks, label))
    out, own = linen.run(networks.encoder, params["encoder"], stats["encoder"], *inputs, key=key)
    expected = (len(features), networks.posterior.num_outputs(networks.latent_size))
    if out.shape != expected:
        raise ValueError(f"`encoder` must return shape {expected}, got {out.shape}.")
    return networks.posterior.read(out.astype(jnp.float32), networks.latent_size), own


def run_decoder(
    params: Params, stats: Params, z: Any, networks: Networks, *, label: Any = None, key: Key | None = None
) -> tuple[Any, Params]:
    """Raw parameters of p(x|z), and the decoder's statistics after the pass; `label` and `key` as in `run_encoder`.

    Raises:
        ValueError: the decoder's output has another shape than the data and the likelihood ask for.
    """
    inputs = (z, *conditions(networks, label))
    out, own = linen.run(networks.decoder, params["decoder"], stats["decoder"], *inputs, key=key)
    expected = (len(z), *params["offset"].shape)
    if out.shape != expected:
        raise ValueError(f"`decoder` must return shape {expected} for this data and likelihood, got {out.shape}.")
    return out + params["offset"][None], own


def prior_law(params: Params, stats: Params, networks: Networks) -> Any:
    """p(z) as it is now: what `prior_log_prob` needs, however many z it sees."""
    return networks.prior.law(params["prior"], lambda u: _encode(params, stats, u, networks, None, None)[0])


def sample_prior(keys: Keys, params: Params, stats: Params, networks: Networks) -> Float[Array, "num latent"]:
    """z ~ p(z), one draw per key."""
    return networks.prior.sample(keys, prior_law(params, stats, networks), networks.latent_size)
