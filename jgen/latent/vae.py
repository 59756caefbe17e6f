"""Variational autoencoder.

    log p(x) ≥ ELBO(x) = E_{q(z|x)} log p(x|z) − KL(q(z|x) ‖ p(z)) = −(distortion + rate)
    log p(x) ≥ L_K(x) = E log (1/K) Σ_k p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x),  L_1 = ELBO, L_K ↑ log p(x)

Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014 (the ELBO: equation 10); the importance-weighted
bound: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016 (equation 8).
Differs from the paper: the decoder's output has a learned offset that starts at the marginals of the first batch.

Everything is in nats, summed over dimensions and never averaged over them: the only weight is `beta`, 1 by default.
With `Networks.num_classes` all of it is given y: log p(x|y), from batches {"x", "label"}.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jgen import _checks, random
from jgen._types import Batch, Key, Keys, Metrics, Params, Scalar
from jgen.latent import networks as parts
from jgen.latent import warm_up, weights
from jgen.latent.networks import Networks, run_decoder, run_encoder
from jgen.latent.networks import convolutional as convolutional
from jgen.latent.networks import dense as dense
from jgen.latent.posteriors import Draw
from jgen.latent.priors import StandardNormal
from jgen.learners import GradientState, gradient
from jgen.learners.gradient import Loss
from jgen.model import Model


class Terms(NamedTuple):
    """One value per example, in nats; elbo = −(rate + distortion).

    Attributes:
        elbo: the evidence lower bound.
        rate: KL(q(z|x) ‖ p(z)), in closed form where there is one, else log q(z|x) − log p(z) at the draw.
        distortion: −log p(x|z) at one draw z ~ q(z|x).
        rate_per_unit: the rate by latent dimension; one column where the prior's dimensions are not independent.
    """

    elbo: Float[Array, " batch"]
    rate: Float[Array, " batch"]
    distortion: Float[Array, " batch"]
    rate_per_unit: Float[Array, "batch units"]


def encode(params: Params, stats: Params, x: Any, *, networks: Networks, label: Any = None) -> Any:
    """q(z|x), with the statistics of `stats` as they are: a `Gaussian` for the diagonal posterior."""
    return run_encoder(params, stats, x, networks, label=label)[0]


def decode(
    params: Params, stats: Params, z: Float[Array, "batch latent"], *, networks: Networks, label: Any = None
) -> Array:
    """E[x|z], (batch, *shape), in the units of x."""
    return networks.likelihood.mean(run_decoder(params, stats, z, networks, label=label)[0])


def terms(key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks) -> Terms:
    """ELBO, rate and distortion of each example from one draw of z.

    Raises:
        ValueError: x lies outside the likelihood's support.
    """
    return terms_and_stats(key, params, stats, batch, networks=networks, train=False)[0]


def elbo(key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks) -> Float[Array, " batch"]:
    """A one-draw estimate of E_q log p(x|z) − KL(q(z|x) ‖ p(z)), nats; its mean is a lower bound on log p(x)."""
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
    (x, label), keys = parts.examples(batch, networks), random.batch_keys(key, batch)
    q = encode(params, stats, x, networks=networks, label=label)
    law = parts.prior_law(params, stats, networks)

    def log_weight(k: Any) -> Float[Array, " batch"]:
        z, log_q = networks.posterior.draw(jax.vmap(jax.random.fold_in, (0, None))(keys, k), params["posterior"], q)
        log_prior = jnp.sum(networks.prior.log_prob(law, z), axis=-1)
        raw = run_decoder(params, stats, z, networks, label=label)[0]
        return networks.likelihood.log_prob(raw, x) + log_prior - jnp.sum(log_q, axis=-1)

    return weights.log_mean(log_weight, num_samples, len(x), chunk_size=chunk_size)


def draws(keys: Keys, params: Params, q: Any, num: int, *, networks: Networks) -> Draw:
    """`num` draws z_k ~ q(z|x) of each example, leaves (num, batch, latent); draw k is the k-th of `iwae_bound`."""

    def one(k: Any) -> Draw:
        return networks.posterior.draw(jax.vmap(jax.random.fold_in, (0, None))(keys, k), params["posterior"], q)

    return jax.vmap(one)(jnp.arange(num))


def log_joint(
    params: Params,
    stats: Params,
    z: Float[Array, "num batch latent"],
    batch: Batch,
    *,
    networks: Networks,
    key: Key | None = None,
) -> tuple[Float[Array, "num batch"], Float[Array, "num batch"], Params]:
    """(log p(x|z_k), log p(z_k), the decoder's statistics) of several z for each example; `key` as in `run_decoder`."""
    x, label = parts.examples(batch, networks)
    num, size = z.shape[:2]
    flat = z.reshape(num * size, -1)
    repeated = None if label is None else jnp.tile(label, num)
    raw, decoder_stats = run_decoder(params, stats, flat, networks, label=repeated, key=key)
    raw = raw.reshape(num, size, *raw.shape[1:])
    log_likelihood = jax.vmap(networks.likelihood.log_prob, (0, None))(raw, x)
    log_prior = jnp.sum(networks.prior.log_prob(parts.prior_law(params, stats, networks), flat), axis=-1)
    return log_likelihood, log_prior.reshape(num, size), decoder_stats


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    networks: Networks,
    beta: float | Scalar = 1.0,
    warm_up_steps: int = 0,
    free_bits: float = 0.0,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean (distortion + w·β·rate) in nats, w rising from 0 to 1 over `warm_up_steps`; the terms are its metrics.

    With `free_bits` ε the rate in it is Σ_j max(ε, mean over the batch of KL_j), which is no bound; the metrics are
    always those of the ELBO.
    """
    weight = beta * warm_up.weight(stats, warm_up_steps)
    values, stats = terms_and_stats(key, params, stats, batch, networks=networks, train=train)
    rate = jnp.mean(values.rate)
    if free_bits:
        rate = jnp.sum(jnp.maximum(free_bits, jnp.mean(values.rate_per_unit, axis=0)))
    objective = jnp.mean(values.distortion) + weight * rate
    metrics = {"loss": objective, **{name: jnp.mean(value) for name, value in reported(values).items()}}
    return objective, (stats, metrics)


def after_pass(stats: Params, encoder_stats: Params, decoder_stats: Params, *, train: bool) -> Params:
    """`stats` with what the two networks left behind; in training one update is counted."""
    return {**stats, "encoder": encoder_stats, "decoder": decoder_stats, **warm_up.counted(stats, train=train)}


def sample(key: Key, params: Params, stats: Params, num: int, *, networks: Networks, label: Any = None) -> Array:
    """`num` draws x ~ p(x|z), z ~ p(z); draw i depends on (key, i) alone."""
    latent_key, data_key = jax.random.split(key)
    z = parts.sample_prior(random.example_keys(latent_key, num), params, stats, networks)
    raw = run_decoder(params, stats, z, networks, label=label)[0]
    return networks.likelihood.sample(random.example_keys(data_key, num), raw)


def model(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    *,
    beta: float = 1.0,
    warm_up_steps: int = 0,
    free_bits: float = 0.0,
    num_bound_samples: int = 1,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The VAE that minimizes mean (distortion + β·rate).

    Args:
        networks: encoder, decoder, likelihood, prior, posterior.
        optimizer: any optax optimizer.
        beta: the weight of the rate in the objective; reported ELBOs always have weight 1.
        warm_up_steps: the weight rises linearly from 0 to β over these updates.
        free_bits: nats per latent dimension below which its mean rate does not count; reported rates are whole.
        num_bound_samples: K of `log_bound`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: an argument is negative, or `num_bound_samples` below 1.
    """
    _checks.at_least("beta", beta, 0)
    _checks.at_least("warm_up_steps", warm_up_steps, 0)
    _checks.at_least("free_bits", free_bits, 0)
    settings = {"beta": beta, "warm_up_steps": warm_up_steps, "free_bits": free_bits}
    objective = functools.partial(loss, networks=networks, **settings)
    return trained_by(objective, networks, optimizer, num_bound_samples=num_bound_samples, axis_name=axis_name)


def trained_by(
    objective: Loss,
    networks: Networks,
    optimizer: optax.GradientTransformation,
    *,
    num_bound_samples: int = 1,
    more_stats: Params | None = None,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The same model, learned by another objective, such as the importance-weighted bound or a constraint on the rate.

    Args:
        objective: as `loss` above, with its keywords bound.
        networks: as in `model`.
        optimizer: any optax optimizer.
        num_bound_samples: K of `log_bound`.
        more_stats: first values of what else the objective keeps in `stats`.
        axis_name: as in `learners.gradient`.
    """
    _checks.at_least("num_bound_samples", num_bound_samples, 1)
    log_classes = 0.0 if networks.num_classes is None else float(np.log(networks.num_classes))

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        random.batch_size(batch)
        params, stats = parts.initialize(networks, key, parts.examples(batch, networks)[0])
        return params, {**stats, **(more_stats or {}), **warm_up.start()}

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        return reported(terms(key, state.params, state.stats, batch, networks=networks))

    def log_bound(key: Key, state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        bound = iwae_bound(key, state.params, state.stats, batch, networks=networks, num_samples=num_bound_samples)
        return bound - log_classes

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        if (size := networks.num_classes) is None:
            return {"x": sample(key, state.params, state.stats, num, networks=networks)}
        classes = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, size))
        label = classes(random.example_keys(key, num))
        return {"x": sample(key, state.params, state.stats, num, networks=networks, label=label), "label": label}

    return gradient(
        init, objective, optimizer, evaluate=evaluate, sample=draw, log_bound=log_bound, axis_name=axis_name
    )


def reported(values: Terms) -> Metrics:
    """The terms under the names of metrics."""
    return {"negative_elbo": -values.elbo, "rate": values.rate, "distortion": values.distortion}


def terms_and_stats(
    key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks, train: bool
) -> tuple[Terms, Params]:
    """`terms`, and `stats` after the pass; in training dropout draws, and statistics are of the batch."""
    random.batch_size(batch)
    x, label = parts.examples(batch, networks)
    encoder_key, decoder_key, latent_key = jax.random.split(key, 3)
    q, encoder_stats = run_encoder(params, stats, x, networks, label=label, key=encoder_key if train else None)
    z, log_q = networks.posterior.draw(random.batch_keys(latent_key, batch), params["posterior"], q)
    raw, decoder_stats = run_decoder(params, stats, z, networks, label=label, key=decoder_key if train else None)
    by_unit = _rates(params, stats, q, z, log_q, networks)
    rate, distortion = jnp.sum(by_unit, axis=-1), -networks.likelihood.log_prob(raw, x)
    after = after_pass(stats, encoder_stats, decoder_stats, train=train)
    return Terms(-(rate + distortion), rate, distortion, by_unit), after


def _rates(params: Params, stats: Params, q: Any, z: Any, log_q: Any, networks: Networks) -> Any:
    """KL(q ‖ p) by latent dimension, in closed form where there is one, else at the draw; (batch, units)."""
    if isinstance(networks.prior, StandardNormal) and (closed := networks.posterior.kl(q)) is not None:
        return closed
    log_prior = networks.prior.log_prob(parts.prior_law(params, stats, networks), z)
    independent = log_prior.shape == log_q.shape
    return (log_q if independent else jnp.sum(log_q, axis=-1, keepdims=True)) - log_prior
