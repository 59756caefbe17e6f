"""Importance weighted autoencoder: a VAE trained on the bound of several draws.

    L_K(x) = E log (1/K) Σ_k p(x|z_k) p(z_k) / q(z_k|x),   ELBO = L_1 ≤ L_K ≤ L_{K+1} → log p(x)

Paper: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, eqs. 8 and 13; the gradient "dreg" of
Tucker et al., 2019 (`weights`). Differs from the paper: the encoder's gradient is doubly reparameterized by default,
which is unbiased too and less noisy, and the decoder's output has a learned offset (`vae`).
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.latent import networks as parts
from jgen.latent import vae, warm_up, weights
from jgen.latent.networks import Networks
from jgen.learners import GradientState
from jgen.model import Model


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    networks: Networks,
    num_samples: int = 50,
    estimator: str = "dreg",
    beta: float = 1.0,
    warm_up_steps: int = 0,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """−mean L_K in nats, with log w_k = log p(x|z_k) − w·β (log q(z_k|x) − log p(z_k)), w as in `vae.loss`.

    The metrics are those of weight 1: `negative_bound` of K draws, and the terms of the ELBO.
    """
    encoder_key, decoder_key, latent_key = jax.random.split(key, 3)
    (x, label), weight = parts.examples(batch, networks), beta * warm_up.weight(stats, warm_up_steps)
    q, encoder_stats = parts.run_encoder(params, stats, x, networks, label=label, key=encoder_key if train else None)
    z, log_q = vae.draws(random.batch_keys(latent_key, batch), params, q, num_samples, networks=networks)

    def log_weight(z: Any) -> Any:
        log_likelihood, log_prior, after = vae.log_joint(
            params, stats, z, batch, networks=networks, key=decoder_key if train else None
        )
        density = jnp.sum(log_q, axis=-1) if estimator == "plain" else _stopped_log_q(params, q, z, networks)
        rate = density - log_prior
        return log_likelihood - weight * rate, (log_likelihood, rate, after)

    found = log_weight(z) if estimator == "plain" else weights.path_weights(log_weight, z, estimator)
    each, (log_likelihood, rate, decoder_stats) = found
    objective = -jnp.mean(weights.log_mean_of(each))
    metrics = weights.report(objective, log_likelihood, rate)
    return objective, (vae.after_pass(stats, encoder_stats, decoder_stats, train=train), metrics)


def model(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    *,
    num_samples: int = 50,
    first_num_samples: int = 5,
    first_steps: int = 0,
    estimator: str = "dreg",
    beta: float = 1.0,
    warm_up_steps: int = 0,
    num_bound_samples: int | None = None,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The VAE of `networks` that maximizes the bound of `num_samples` draws.

    Args:
        networks: as in `vae.model`.
        optimizer: any optax optimizer.
        num_samples: K in training.
        first_num_samples: K of the first `first_steps` updates, which then cost less; what is learned at the end is
            the bound of `num_samples`.
        first_steps: 0 trains on `num_samples` throughout.
        estimator: of the encoder's gradient: "plain", "stl" (biased for K > 1) or "dreg".
        beta: the weight of log q − log p inside the weights of the objective.
        warm_up_steps: the weight rises linearly from 0 to β over these updates.
        num_bound_samples: K of `log_bound`, by default `num_samples`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: an argument is out of its range, or the posterior has no density for the estimator.
    """
    _checks.at_least("num_samples", num_samples, 1)
    _checks.at_least("first_num_samples", first_num_samples, 1)
    _checks.at_least("first_steps", first_steps, 0)
    _checks.at_least("beta", beta, 0)
    _checks.at_least("warm_up_steps", warm_up_steps, 0)
    _checks.one_of("estimator", estimator, weights.ESTIMATORS)
    settings = {"networks": networks, "estimator": estimator, "beta": beta, "warm_up_steps": warm_up_steps}
    more = {
        "num_bound_samples": num_samples if num_bound_samples is None else num_bound_samples,
        "axis_name": axis_name,
    }

    def trained(num: int) -> Model[GradientState]:
        return vae.trained_by(functools.partial(loss, num_samples=num, **settings), networks, optimizer, **more)

    whole = trained(num_samples)

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        one, many = jax.random.split(key)
        bound = vae.iwae_bound(many, state.params, state.stats, batch, networks=networks, num_samples=num_samples)
        return {"negative_bound": -bound, **whole.evaluate(one, state, batch)}

    found = dataclasses.replace(whole, evaluate=evaluate)
    return _after(found, trained(first_num_samples), first_steps) if first_steps else found


def _after(model: Model[GradientState], first: Model[GradientState], num_steps: int) -> Model[GradientState]:
    """`model`, whose first `num_steps` updates are those of `first`.

    Whole updates are chosen between: inside one gradient each branch would keep room for the other's values.
    """

    def update(key: Key, state: GradientState, batch: Batch) -> tuple[GradientState, Metrics]:
        random.batch_size(batch)  # raises where this is no batch
        return jax.lax.cond(state.stats[warm_up.STEP] < num_steps, first.update, model.update, key, state, batch)

    return dataclasses.replace(model, update=update)


def _stopped_log_q(params: Params, q: Any, z: Any, networks: Networks) -> Float[Array, "num batch"]:
    """log q(z_k|x) whose only gradient is the one through z_k."""
    own, q = jax.lax.stop_gradient((params["posterior"], q))

    def one(z: Any) -> Any:
        found = networks.posterior.log_prob(own, q, z)
        if found is None:
            raise ValueError('`estimator` must be "plain" for a posterior without a closed density.')
        return jnp.sum(found, axis=-1)

    return jax.vmap(one)(z)
