"""Variational autoencoder.

    log p(x) ≥ ELBO(x) = E_{q(z|x)} log p(x|z) − KL(q(z|x) ‖ N(0, I)) = −(distortion + rate)
    log p(x) ≥ L_K(x) = E log (1/K) Σ_k p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x),  L_1 = ELBO, L_K ↑ log p(x)

Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014 (the ELBO: equation 10); the importance-weighted
bound: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016 (equation 8).
Differs from the paper: the decoder's output has a learned offset that starts at the marginals of the first batch.

Everything is in nats, summed over dimensions and never averaged over them: the only weight is `beta`, 1 by default.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jgen import random
from jgen._checks import at_least
from jgen._types import Batch, Key, Keys, Metrics, Params, Scalar
from jgen.latent import networks as parts
from jgen.latent.networks import Networks, Posterior, dense, run_decoder, run_encoder
from jgen.learners import GradientState, gradient
from jgen.model import Model

__all__ = [
    "Networks",
    "Posterior",
    "Terms",
    "active_units",
    "decode",
    "dense",
    "elbo",
    "encode",
    "interpolate",
    "iwae_bound",
    "kl_to_standard_normal",
    "loss",
    "model",
    "reconstruct",
    "reparameterize",
    "sample",
    "terms",
]

STEP = "step"  # the entry of `stats` that counts updates, for the warm-up


class Terms(NamedTuple):
    """One value per example, in nats; elbo = −(rate + distortion).

    Attributes:
        elbo: the evidence lower bound.
        rate: KL(q(z|x) ‖ N(0, I)), in closed form.
        distortion: −log p(x|z) at one draw z ~ q(z|x).
    """

    elbo: Float[Array, " batch"]
    rate: Float[Array, " batch"]
    distortion: Float[Array, " batch"]


def kl_to_standard_normal(posterior: Posterior) -> Float[Array, "batch latent"]:
    """KL(N(µ, σ²) ‖ N(0, 1)) = ½(µ² + expm1(2 log σ) − 2 log σ) of each dimension, nats."""
    double = 2 * posterior.log_std
    return 0.5 * (posterior.mean**2 + jnp.expm1(double) - double)


def encode(params: Params, stats: Params, x: Any, *, networks: Networks) -> Posterior:
    """q(z|x), with the statistics of `stats` as they are."""
    return run_encoder(params, stats, x, networks)[0]


def decode(params: Params, stats: Params, z: Float[Array, "batch latent"], *, networks: Networks) -> Array:
    """E[x|z], (batch, *shape), in the units of x."""
    return networks.likelihood.mean(run_decoder(params, stats, z, networks)[0])


def reparameterize(keys: Keys, posterior: Posterior) -> Float[Array, "batch latent"]:
    """z = µ + σ·ε with one key per example."""
    noise = jax.vmap(lambda key, like: jax.random.normal(key, like.shape))(keys, posterior.mean)
    return posterior.mean + jnp.exp(posterior.log_std) * noise


def terms(key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks) -> Terms:
    """ELBO, rate and distortion of each example from one draw of z.

    Raises:
        ValueError: x lies outside the likelihood's support.
    """
    return _terms(key, params, stats, batch, networks, train=False)[0]


def elbo(key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks) -> Float[Array, " batch"]:
    """A one-draw estimate of E_q log p(x|z) − KL(q(z|x) ‖ N(0, I)), nats; its mean is a lower bound on log p(x)."""
    return terms(key, params, stats, batch, networks=networks).elbo


def iwae_bound(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    networks: Networks,
    num_samples: int,
    chunk_size: int = 50,
) -> Float[Array, " batch"]:
    """log (1/K) Σ_k p(x|z_k) p(z_k)/q(z_k|x), z_k ~ q(z|x): with K draws, nats, in memory that does not grow with K.

    Draw k of an example comes from fold_in(its key, k), so the draws for K are the first of those for 2K, whatever the
    chunks are.

    Args:
        num_samples: K.
        chunk_size: draws decoded at a time; the largest divisor of K that does not exceed it is used.

    Raises:
        ValueError: `num_samples` or `chunk_size` is less than 1, or x lies outside the likelihood's support.
    """
    at_least("num_samples", num_samples, 1)
    at_least("chunk_size", chunk_size, 1)
    x, keys = _checked(batch, networks), random.batch_keys(key, batch)
    posterior = encode(params, stats, x, networks=networks)
    chunk = max(d for d in range(1, min(chunk_size, num_samples) + 1) if num_samples % d == 0)

    def log_weight(k: Any) -> Float[Array, " batch"]:
        draw_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, k)
        z = reparameterize(draw_keys, posterior)
        log_ratio = _log_prior(z) - _log_posterior(z, posterior)
        return networks.likelihood.log_prob(run_decoder(params, stats, z, networks)[0], x) + log_ratio

    def body(carry: Any, ks: Any) -> Any:
        top, total = carry
        weights = jax.vmap(log_weight)(ks)
        new_top = jnp.maximum(top, jnp.max(weights, axis=0))
        total = total * jnp.exp(top - new_top) + jnp.sum(jnp.exp(weights - new_top[None]), axis=0)
        return (new_top, total), None

    empty = (jnp.full(len(x), -jnp.inf), jnp.zeros(len(x)))
    (top, total), _ = jax.lax.scan(body, empty, jnp.arange(num_samples).reshape(-1, chunk))
    return top + jnp.log(total) - np.log(num_samples)


def reconstruct(params: Params, stats: Params, x: Any, *, networks: Networks) -> Array:
    """E[x|z] at z = E_q[z|x]."""
    return decode(params, stats, encode(params, stats, x, networks=networks).mean, networks=networks)


def interpolate(params: Params, stats: Params, a: Any, b: Any, num: int, *, networks: Networks) -> Array:
    """(num, *shape) means decoded on the straight line from one example's posterior mean to another's."""
    at_least("num", num, 2)
    ends = encode(params, stats, jnp.stack([a, b]), networks=networks).mean
    weight = jnp.linspace(0.0, 1.0, num)[:, None]
    return decode(params, stats, (1 - weight) * ends[:1] + weight * ends[1:], networks=networks)


def active_units(params: Params, stats: Params, x: Any, *, networks: Networks, threshold: float = 0.01) -> Array:
    """The number of latent dimensions whose posterior mean varies over `x` by more than `threshold` (a variance)."""
    return jnp.sum(jnp.var(encode(params, stats, x, networks=networks).mean, axis=0) > threshold)


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    networks: Networks,
    beta: float = 1.0,
    warm_up_steps: int = 0,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean (distortion + w·β·rate) in nats, w rising from 0 to 1 over `warm_up_steps`; the terms are its metrics."""
    warmth = jnp.minimum(1.0, stats[STEP] / warm_up_steps) if warm_up_steps else 1.0
    values, stats = _terms(key, params, stats, batch, networks, train=train)
    objective = jnp.mean(values.distortion + beta * warmth * values.rate)
    metrics = {"loss": objective, **{name: jnp.mean(value) for name, value in _reported(values).items()}}
    return objective, (stats, metrics)


def sample(key: Key, params: Params, stats: Params, num: int, *, networks: Networks) -> Array:
    """`num` draws x ~ p(x|z), z ~ N(0, I); draw i depends on (key, i) alone."""
    latent_key, data_key = jax.random.split(key)
    draw = jax.vmap(lambda k: jax.random.normal(k, (networks.latent_size,)))
    z = draw(random.example_keys(latent_key, num))
    raw = run_decoder(params, stats, z, networks)[0]
    return networks.likelihood.sample(random.example_keys(data_key, num), raw)


def model(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    *,
    beta: float = 1.0,
    warm_up_steps: int = 0,
    num_bound_samples: int = 1,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The VAE that minimizes mean (distortion + β·rate).

    Args:
        networks: encoder, decoder, likelihood.
        optimizer: any optax optimizer.
        beta: the weight of the rate in the objective; reported ELBOs always have weight 1.
        warm_up_steps: the weight rises linearly from 0 to β over these updates.
        num_bound_samples: K of `log_bound`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: a negative `beta` or `warm_up_steps`, or `num_bound_samples` below 1.
    """
    at_least("beta", beta, 0)
    at_least("warm_up_steps", warm_up_steps, 0)
    at_least("num_bound_samples", num_bound_samples, 1)

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        values = _terms(key, state.params, state.stats, batch, networks, train=False)[0]
        return _reported(values)

    def log_bound(key: Key, state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        return iwae_bound(key, state.params, state.stats, batch, networks=networks, num_samples=num_bound_samples)

    return gradient(
        functools.partial(_init, networks),
        functools.partial(loss, networks=networks, beta=beta, warm_up_steps=warm_up_steps),
        optimizer,
        evaluate=evaluate,
        sample=lambda key, state, num: {"x": sample(key, state.params, state.stats, num, networks=networks)},
        log_bound=log_bound,
        axis_name=axis_name,
    )


def _reported(values: Terms) -> Metrics:
    return {"negative_elbo": -values.elbo, "rate": values.rate, "distortion": values.distortion}


def _init(networks: Networks, key: Key, batch: Batch) -> tuple[Params, Params]:
    params, stats = parts.initialize(networks, key, _checked(batch, networks))
    return params, {**stats, STEP: jnp.zeros((), jnp.int32)}


def _checked(batch: Batch, networks: Networks) -> Any:
    random.batch_size(batch)
    networks.likelihood.check(batch["x"])
    return jnp.asarray(batch["x"])


def _terms(
    key: Key, params: Params, stats: Params, batch: Batch, networks: Networks, *, train: bool
) -> tuple[Terms, Params]:
    x = _checked(batch, networks)
    encoder_key, decoder_key, latent_key = jax.random.split(key, 3)
    posterior, encoder_stats = run_encoder(params, stats, x, networks, key=encoder_key if train else None)
    z = reparameterize(random.batch_keys(latent_key, batch), posterior)
    raw, decoder_stats = run_decoder(params, stats, z, networks, key=decoder_key if train else None)
    rate = jnp.sum(kl_to_standard_normal(posterior), axis=-1)
    distortion = -networks.likelihood.log_prob(raw, x)
    stats = {"encoder": encoder_stats, "decoder": decoder_stats, STEP: stats[STEP] + int(train)}
    return Terms(-(rate + distortion), rate, distortion), stats


def _log_prior(z: Float[Array, "batch latent"]) -> Float[Array, " batch"]:
    return jnp.sum(jax.scipy.stats.norm.logpdf(z), axis=-1)


def _log_posterior(z: Float[Array, "batch latent"], posterior: Posterior) -> Float[Array, " batch"]:
    return jnp.sum(jax.scipy.stats.norm.logpdf(z, posterior.mean, jnp.exp(posterior.log_std)), axis=-1)
