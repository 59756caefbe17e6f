"""Autoencoder: a code z = f(x) and a reconstruction x̂ = g(z); a model of no distribution.

    loss = E[R(x, g(f(c(x)))) + λ Σ_j |z_j| + γ ‖∂f/∂x‖²_F],   c a corruption of the input, or none
    gaussian    R(x, x̂) = ½ Σ_d (x_d − x̂_d)²                          = −log N(x; x̂, I) − (D/2) log 2π
    bernoulli   R(x, a) = Σ_d softplus(a_d) − x_d·a_d,  x̂ = sigmoid(a)  = −log p(x|a) of bits

Of grey x in (0, 1) the cross-entropy is the mean of −log p over bits drawn with the rates x, and no likelihood of x
itself; its least value is not 0. Nothing fixes the law of the codes, so there is nothing to sample from: neither
N(0, I) nor a Gaussian fitted to the codes is what the decoder was trained on. `log_prob`, `log_bound` and `sample` are
None.

An overcomplete code (as large as x or larger) can copy x and learn nothing. Against that: the input's corruption
(Vincent et al., "Extracting and composing robust features with denoising autoencoders", 2008), an ℓ1 penalty λ, only
the `num_active` largest codes kept (Makhzani and Frey, "k-sparse autoencoders", 2014), or a contraction γ (Rifai et
al., "Contractive auto-encoders", 2011, equation 3). The ℓ1 penalty is void for a decoder that may grow while the codes
shrink: give the optimizer weight decay.

Papers: Hinton and Salakhutdinov, "Reducing the dimensionality of data with neural networks", 2006; Baldi and Hornik,
"Neural networks and principal component analysis", 1989: the linear one spans PCA's subspace.
Differs from the papers: no layerwise pretraining; the decoder's output has a learned offset that starts at the
marginals of the first batch.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import linen, random
from jgen._checks import at_least, one_of, within
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.data.pipeline import Transform
from jgen.latent import representation
from jgen.learners import GradientState, gradient
from jgen.math.likelihoods import Bernoulli, Gaussian
from jgen.model import Model
from jgen.nets.encoders import ConvDecoder, ConvEncoder, Decoder, Encoder

RECONSTRUCTIONS = ("gaussian", "bernoulli")
_OFFSETS = {"gaussian": Gaussian(1.0), "bernoulli": Bernoulli()}


@dataclasses.dataclass(frozen=True)
class Networks:
    """The parts of an autoencoder.

    Attributes:
        encoder: a Flax module, x (batch, *shape) -> codes (batch, latent_size).
        decoder: a Flax module, codes (batch, latent_size) -> raw (batch, *shape, 1).
        latent_size: the number of codes.
        reconstruction: "gaussian" or "bernoulli": R, and with it what raw means.
        num_active: how many codes are kept, the largest in size, the others being 0; None keeps all.

    Both modules are called with the keyword `train`.
    """

    encoder: nn.Module
    decoder: nn.Module
    latent_size: int
    reconstruction: str = "gaussian"
    num_active: int | None = None

    def __post_init__(self) -> None:
        at_least("latent_size", self.latent_size, 1)
        one_of("reconstruction", self.reconstruction, RECONSTRUCTIONS)
        if self.num_active is not None:
            within("num_active", self.num_active, 1, self.latent_size)


def dense(
    shape: Sequence[int],
    latent_size: int,
    *,
    reconstruction: str = "gaussian",
    num_active: int | None = None,
    **keywords: Any,
) -> Networks:
    """`Networks` of dense layers; further keywords go to both halves, and `hidden_sizes=()` makes them linear.

    The decoder's widths are the encoder's backwards.
    """
    hidden_sizes = tuple(keywords.pop("hidden_sizes", (256, 256)))
    encoder = Encoder(latent_size, hidden_sizes, **keywords)
    decoder = Decoder(tuple(shape), 1, hidden_sizes[::-1], **keywords)
    return Networks(encoder, decoder, latent_size, reconstruction, num_active)


def convolutional(
    shape: Sequence[int],
    latent_size: int,
    *,
    reconstruction: str = "gaussian",
    num_active: int | None = None,
    channels: Sequence[int] = (32, 64),
    num_blocks: int = 0,
) -> Networks:
    """`Networks` of strided convolutions for images of `shape` (height, width, channels), and a dense layer between.

    Args:
        channels: of the encoder's stages; the decoder's are the same backwards.
        num_blocks: residual blocks in each half.
    """
    if len(shape) != 3:
        raise ValueError(f"`shape` must be (height, width, channels), got {tuple(shape)}.")
    encoder = ConvEncoder(latent_size, tuple(channels), num_blocks)
    decoder = ConvDecoder(tuple(shape), 1, tuple(channels)[::-1], num_blocks)
    return Networks(encoder, decoder, latent_size, reconstruction, num_active)


def keep_largest(z: Float[Array, "batch latent"], num: int | None) -> Float[Array, "batch latent"]:
    """The `num` codes of largest size of each example, the others set to 0; all of them where `num` is None."""
    if num is None:
        return z
    least = jax.lax.top_k(jnp.abs(z), num)[0][:, -1:]
    return jnp.where(jnp.abs(z) >= least, z, 0.0)


def encode(params: Params, stats: Params, x: Any, *, networks: Networks) -> Float[Array, "batch latent"]:
    """z = f(x), with the statistics of `stats` as they are."""
    return _encode(params, stats, x, networks, None)[0]


def decode(params: Params, stats: Params, z: Float[Array, "batch latent"], *, networks: Networks) -> Array:
    """x̂ = g(z), (batch, *shape)."""
    raw = _decode(params, stats, z, networks, None)[0]
    return jax.nn.sigmoid(raw) if networks.reconstruction == "bernoulli" else raw


def reconstruct(params: Params, stats: Params, x: Any, *, networks: Networks) -> Array:
    """g(f(x)), (batch, *shape)."""
    return decode(params, stats, encode(params, stats, x, networks=networks), networks=networks)


def reconstruction_loss(raw: Any, x: Any, reconstruction: str) -> Float[Array, " batch"]:
    """R of each example in nats, summed over its values: of the decoder's raw output, x̂ or logits."""
    each = jax.nn.softplus(raw) - x * raw if reconstruction == "bernoulli" else 0.5 * jnp.square(x - raw)
    return jnp.sum(each, axis=tuple(range(1, each.ndim)))


def anomaly_score(params: Params, stats: Params, x: Any, *, networks: Networks) -> Float[Array, " batch"]:
    """R(x, g(f(x))), nats: how badly each example is rebuilt. It is no likelihood: whatever is copied looks normal."""
    x = _checked({"x": x}, networks)
    raw = _decode(params, stats, encode(params, stats, x, networks=networks), networks, None)[0]
    return reconstruction_loss(raw, x, networks.reconstruction)


def contraction(params: Params, stats: Params, x: Any, *, networks: Networks) -> Float[Array, " batch"]:
    """‖∂f/∂x‖²_F of each example (Rifai et al., 2011, equation 2); one backward pass for each code."""
    z, pull = jax.vjp(lambda x: encode(params, stats, x, networks=networks), x)

    def row(direction: Any) -> Float[Array, " batch"]:
        slope = pull(jnp.broadcast_to(direction[None], z.shape))[0]
        return jnp.sum(jnp.square(slope), axis=tuple(range(1, slope.ndim)))

    return jnp.sum(jax.vmap(row)(jnp.eye(networks.latent_size, dtype=z.dtype)), axis=0)


def interpolate(params: Params, stats: Params, a: Any, b: Any, num: int, *, networks: Networks) -> Array:
    """(num, *shape) decoded on the straight line from the code of one example to that of another."""
    ends = encode(params, stats, jnp.stack([a, b]), networks=networks)
    return decode(params, stats, representation.path(ends[0], ends[1], num), networks=networks)


def traverse(
    params: Params, stats: Params, z: Float[Array, " latent"], unit: int, values: Any, *, networks: Networks
) -> Array:
    """(values, *shape) decoded at `z` with code `unit` set to each of `values`."""
    return decode(params, stats, representation.varied(z, unit, values), networks=networks)


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    networks: Networks,
    corruption: Transform | None = None,
    sparsity: float = 0.0,
    contractive: float = 0.0,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean R + λ Σ|z| + γ‖∂f/∂x‖²_F, in nats; `model` says what the arguments are."""
    x = _checked(batch, networks)
    encoder_key, decoder_key, noise_key = jax.random.split(key, 3)
    seen = x if corruption is None else corruption(noise_key, {**batch, "x": x})["x"]
    z, encoder_stats = _encode(params, stats, seen, networks, encoder_key if train else None)
    raw, decoder_stats = _decode(params, stats, z, networks, decoder_key if train else None)
    error = jnp.mean(reconstruction_loss(raw, x, networks.reconstruction))
    objective = error + sparsity * jnp.mean(jnp.sum(jnp.abs(z), axis=-1))
    if contractive:
        objective = objective + contractive * jnp.mean(contraction(params, stats, seen, networks=networks))
    metrics = {"loss": objective, "reconstruction": error}
    return objective, ({"encoder": encoder_stats, "decoder": decoder_stats}, metrics)


def model(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    *,
    corruption: Transform | None = None,
    sparsity: float = 0.0,
    contractive: float = 0.0,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The autoencoder over batches {"x": (batch, *shape)}; it has no distribution, so nothing can be drawn from it.

    Args:
        networks: encoder, decoder, R.
        optimizer: any optax optimizer.
        corruption: (key, batch) -> batch, of the input alone: `transforms.gaussian_noise`, `denoising.masking`, ….
            The target stays clean.
        sparsity: λ, of the ℓ1 penalty on the codes.
        contractive: γ, of the encoder's squared Jacobian; costs a pass for each code.
        axis_name: the mapped axis over which gradients are averaged.

    Raises:
        ValueError: a negative `sparsity` or `contractive`.
    """
    at_least("sparsity", sparsity, 0)
    at_least("contractive", contractive, 0)

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        del key
        x = _checked(batch, networks)
        rebuilt = reconstruct(state.params, state.stats, x, networks=networks)
        error = jnp.sum(jnp.square(x - rebuilt), axis=tuple(range(1, x.ndim)))
        return {
            "squared_error": error,
            "reconstruction": anomaly_score(state.params, state.stats, x, networks=networks),
        }

    return gradient(
        functools.partial(_init, networks),
        functools.partial(loss, networks=networks, corruption=corruption, sparsity=sparsity, contractive=contractive),
        optimizer,
        evaluate=evaluate,
        axis_name=axis_name,
    )


def _init(networks: Networks, key: Key, batch: Batch) -> tuple[Params, Params]:
    x = _checked(batch, networks)
    encoder_key, decoder_key = jax.random.split(key)
    encoder, encoder_stats = linen.init(networks.encoder, encoder_key, x, train=False)
    decoder, decoder_stats = linen.init(
        networks.decoder, decoder_key, jnp.zeros((len(x), networks.latent_size)), train=False
    )
    params = {"encoder": encoder, "decoder": decoder, "offset": _OFFSETS[networks.reconstruction].offset(x)[..., 0]}
    stats = {"encoder": encoder_stats, "decoder": decoder_stats}
    decode(params, stats, encode(params, stats, x, networks=networks), networks=networks)
    return params, stats


def _encode(params: Params, stats: Params, x: Any, networks: Networks, key: Key | None) -> tuple[Any, Params]:
    x = jnp.asarray(x, jnp.float32)
    z, own = linen.run(networks.encoder, params["encoder"], stats["encoder"], x, key=key)
    if z.shape != (len(x), networks.latent_size):
        raise ValueError(f"`encoder` must return shape {(len(x), networks.latent_size)}, got {z.shape}.")
    return keep_largest(z, networks.num_active), own


def _decode(params: Params, stats: Params, z: Any, networks: Networks, key: Key | None) -> tuple[Any, Params]:
    raw, own = linen.run(networks.decoder, params["decoder"], stats["decoder"], z, key=key)
    expected = (len(z), *params["offset"].shape, 1)
    if raw.shape != expected:
        raise ValueError(f"`decoder` must return shape {expected} for this data, got {raw.shape}.")
    return raw[..., 0] + params["offset"][None], own


def _checked(batch: Batch, networks: Networks) -> Any:
    random.batch_size(batch)
    low, high = (0.0, 1.0) if networks.reconstruction == "bernoulli" else (-1e30, 1e30)
    within("x", batch["x"], low, high)
    return jnp.asarray(batch["x"], jnp.float32)
