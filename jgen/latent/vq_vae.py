"""VQ-VAE: an autoencoder whose latents are indices of a learned codebook, and the bound that they give with any prior.

    k(x) = argmin_c ‖z(x) − e_c‖² at each place,    log p(x) = log Σ_k p(k) p(x|e_k) ≥ log p(k(x)) + log p(x|e_{k(x)})
    loss = −log p(x|z_q) + ‖sg z − e‖² + β ‖z − sg e‖²,    z_q = e in value, ∂z_q/∂z = I

The bound holds for any normalized prior p(k): `two_stage_bound` takes one, and gives both terms. Here, in the first
stage, it is the codes' moving frequencies at every place alike, so that this model too has a bound and samples;
`vq_prior` learns a better one. `codebook` has the quantizer; it replaces the middle term by moving averages.

Paper: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", 2017, equation 3.
Differs from the paper: the likelihood is normalized, in nats summed over dimensions, so that the terms of the loss have
the paper's weights only where its mean squared errors are sums too; codes start at data, and dead ones are revived; the
decoder's output has a learned offset.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jgen import random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.latent import codebook, vq_networks
from jgen.latent.codebook import Codebook, Quantizer
from jgen.latent.vq_networks import Networks, convolutional, dense, map_shape, run_decoder, run_encoder
from jgen.learners import GradientState, gradient
from jgen.model import Model

__all__ = [
    "Codebook",
    "Networks",
    "Quantizer",
    "Terms",
    "codes",
    "convolutional",
    "decode",
    "dense",
    "encode",
    "examples",
    "from_codes",
    "log_frequency_prior",
    "loss",
    "map_shape",
    "model",
    "reconstruct",
    "sample",
    "sample_given_codes",
    "table",
    "terms",
    "two_stage_bound",
]


class Terms(NamedTuple):
    """One value per example, in nats; bound = −(rate + distortion).

    Attributes:
        bound: below log p(x) = log Σ_k p(k) p(x|e_k).
        rate: −log p(k(x)), what the codes cost under the prior.
        distortion: −log p(x|e_{k(x)}).
    """

    bound: Float[Array, " batch"]
    rate: Float[Array, " batch"]
    distortion: Float[Array, " batch"]


def examples(batch: Batch, networks: Networks) -> Any:
    """x of a batch.

    Raises:
        ValueError: `batch` is none, or x lies outside the likelihood's support.
    """
    random.batch_size(batch)
    networks.likelihood.check(batch["x"])
    return jnp.asarray(batch["x"])


def table(params: Params, stats: Params) -> Float[Array, "codes dim"]:
    """All codes e: parameters where they learn by gradient, else the moving averages."""
    return params["codes"] if "codes" in params else stats["codebook"].codes


def encode(params: Params, stats: Params, x: Any, *, networks: Networks) -> Float[Array, "batch *map dim"]:
    """z(x), not quantized, with the statistics of `stats` as they are."""
    return run_encoder(params, stats, x, networks).out


def codes(params: Params, stats: Params, x: Any, *, networks: Networks) -> Int[Array, "batch *map"]:
    """k(x), the index of the code nearest to z(x) at each place."""
    return codebook.nearest(encode(params, stats, x, networks=networks), table(params, stats))


def decode(params: Params, stats: Params, e: Float[Array, "batch *map dim"], *, networks: Networks) -> Array:
    """E[x|e], (batch, *shape), in the units of x, of vectors that may be codes or not."""
    return networks.likelihood.mean(run_decoder(params, stats, e, networks).out)


def from_codes(params: Params, stats: Params, k: Int[Array, "batch *map"], *, networks: Networks) -> Array:
    """E[x|e_k], (batch, *shape), in the units of x."""
    return decode(params, stats, table(params, stats)[k], networks=networks)


def reconstruct(params: Params, stats: Params, x: Any, *, networks: Networks) -> Array:
    """E[x|e_{k(x)}]."""
    return from_codes(params, stats, codes(params, stats, x, networks=networks), networks=networks)


def log_frequency_prior(stats: Params, k: Int[Array, "batch *map"]) -> Float[Array, " batch"]:
    """log p(k) = Σ log p(k_i), nats, each code drawn alone with its frequency in the last updates."""
    each = codebook.log_frequencies(stats["codebook"].counts)[k]
    return jnp.sum(each, axis=tuple(range(1, k.ndim)))


def two_stage_bound(
    params: Params,
    stats: Params,
    batch: Batch,
    log_prior: Callable[[Int[Array, "batch *map"]], Float[Array, " batch"]],
    *,
    networks: Networks,
) -> Terms:
    """log p(k(x)) + log p(x|e_{k(x)}) and both of its terms, nats: one of the terms of the sum over k that is p(x).

    Args:
        log_prior: k -> log p(k), of a law over all maps of codes that sums to 1.

    Raises:
        ValueError: x lies outside the likelihood's support.
    """
    x = examples(batch, networks)
    k = codes(params, stats, x, networks=networks)
    raw = run_decoder(params, stats, table(params, stats)[k], networks).out
    rate, distortion = -log_prior(k), -networks.likelihood.log_prob(raw, x)
    return Terms(-(rate + distortion), rate, distortion)


def terms(params: Params, stats: Params, batch: Batch, *, networks: Networks) -> Terms:
    """`two_stage_bound` with `log_frequency_prior`."""
    return two_stage_bound(params, stats, batch, functools.partial(log_frequency_prior, stats), networks=networks)


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    networks: Networks,
    quantizer: Quantizer,
    axis_name: str | None = None,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean over examples of distortion + β‖z − sg e‖² (+ ‖sg z − e‖² where codes learn by gradient), sums each.

    Training moves the codebook in `stats`. The metrics are the loss, both terms of the bound under the frequencies,
    ‖z − e‖² as "commitment", and of the codebook those of `codebook.advance`.
    """
    x = examples(batch, networks)
    encoder_key, decoder_key, revival_key = jax.random.split(key, 3)
    z, encoder_stats = run_encoder(params, stats, x, networks, key=encoder_key if train else None)
    book = stats["codebook"]._replace(codes=table(params, stats))
    k = codebook.nearest(z, book.codes)
    quantized = codebook.straight_through(z, book.codes[k])
    raw, decoder_stats = run_decoder(params, stats, quantized, networks, key=decoder_key if train else None)
    distortion = -networks.likelihood.log_prob(raw, x)
    gap = _squared(z, jax.lax.stop_gradient(book.codes[k]))
    objective = jnp.mean(distortion + quantizer.commitment * gap)
    if quantizer.learning == "gradient":
        objective += jnp.mean(_squared(jax.lax.stop_gradient(z), book.codes[k]))
    rate = -log_frequency_prior(stats, k)
    moved, found = codebook.advance(revival_key, book, z, k, quantizer, axis_name)
    stats = {"encoder": encoder_stats, "decoder": decoder_stats, "codebook": moved if train else stats["codebook"]}
    means = {name: jnp.mean(v) for name, v in {"distortion": distortion, "rate": rate, "commitment": gap}.items()}
    return objective, (stats, {"loss": objective, **means, **found})


def sample_given_codes(
    key: Key, params: Params, stats: Params, k: Int[Array, "num *map"], *, networks: Networks
) -> Array:
    """One draw x ~ p(x|e_k) for each map of codes."""
    raw = run_decoder(params, stats, table(params, stats)[k], networks).out
    return networks.likelihood.sample(random.example_keys(key, len(k)), raw)


def sample(key: Key, params: Params, stats: Params, num: int, *, networks: Networks) -> Array:
    """`num` draws x ~ p(x|e_k), each code drawn alone by its frequency: what `terms` bounds the likelihood of."""
    code_key, data_key = jax.random.split(key)
    logits = codebook.log_frequencies(stats["codebook"].counts)
    shape = map_shape(params, stats, networks)
    draw = jax.vmap(lambda own: jax.random.categorical(own, logits, shape=shape))
    k = draw(random.example_keys(code_key, num))
    return sample_given_codes(data_key, params, stats, k, networks=networks)


def model(
    networks: Networks,
    quantizer: Quantizer,
    optimizer: optax.GradientTransformation,
    *,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The first stage: a model with codes that are drawn one by one from their frequencies.

    `log_bound` is below log Σ_k p(k) p(x|e_k) with that prior; a prior that is learned on the codes of the trained
    state, `vq_prior.model`, makes it better.

    Args:
        networks: encoder, decoder, likelihood.
        quantizer: how many codes, and how they learn.
        optimizer: any optax optimizer; it moves the codes too, where they learn by gradient.
        axis_name: as in `learners.gradient`; codes then count, move and are revived by the whole batch.
    """

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        bound, rate, distortion = terms(state.params, state.stats, batch, networks=networks)
        return {"negative_bound": -bound, "rate": rate, "distortion": distortion}

    built = gradient(
        functools.partial(_init, networks, quantizer),
        functools.partial(loss, networks=networks, quantizer=quantizer, axis_name=axis_name),
        optimizer,
        evaluate=evaluate,
        sample=lambda key, state, num: {"x": sample(key, state.params, state.stats, num, networks=networks)},
        log_bound=lambda key, state, batch: terms(state.params, state.stats, batch, networks=networks).bound,
        axis_name=axis_name,
    )
    if quantizer.learning == "average":
        return built

    def update(key: Key, state: GradientState, batch: Batch) -> tuple[GradientState, Metrics]:
        state, metrics = built.update(key, state, batch)
        return _with_revived(state), metrics

    return dataclasses.replace(built, update=update)


def _init(networks: Networks, quantizer: Quantizer, key: Key, batch: Batch) -> tuple[Params, Params]:
    network_key, code_key = jax.random.split(key)
    params, stats, z = vq_networks.initialize(networks, network_key, examples(batch, networks))
    book = codebook.start(codebook.from_data(code_key, z, quantizer.num_codes))
    if quantizer.learning == "gradient":
        params["codes"] = jnp.copy(book.codes)  # a donated buffer may be owned once only
    return params, {**stats, "codebook": book._replace(sums=jnp.copy(book.sums))}


def _with_revived(state: GradientState) -> GradientState:
    """The optimizer knows of no revival: codes that were revived in this update move to their new places after it."""
    book = state.stats["codebook"]
    moved = jnp.where((book.ages == 0)[:, None], book.codes, state.params["codes"])
    stats = {**state.stats, "codebook": book._replace(codes=jnp.copy(moved))}
    return state._replace(params={**state.params, "codes": moved}, stats=stats)


def _squared(one: Any, other: Any) -> Float[Array, " batch"]:
    return jnp.sum(jnp.square(one - other), axis=tuple(range(1, one.ndim)))
