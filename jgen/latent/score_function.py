"""A VAE whose encoder learns by the score function: no gradient through z, so z may be drawn in any way.

    ∇_φ ELBO = E_q[(f(z) − b) ∇_φ log q(z|x)],   f(z) = log p(x, z) − log q(z|x)

b is the mean of f at the example's other draws, which leaves the mean and takes most of the variance
(`math.estimators`).
Papers: Ranganath, Gerrish and Blei, "Black Box Variational Inference", 2014; Mnih and Gregor, "Neural Variational
Inference and Learning in Belief Networks", 2014; the baseline: Kool, van Hoof and Welling, 2019.
Differs from the papers: no control variates and no learned baselines.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.latent import networks as parts
from jgen.latent import vae, warm_up
from jgen.latent.networks import Networks
from jgen.learners import GradientState
from jgen.math import estimators
from jgen.model import Model


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    networks: Networks,
    num_samples: int = 2,
    beta: float = 1.0,
    warm_up_steps: int = 0,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """−mean over examples and draws of log p(x|z) − w·β (log q(z|x) − log p(z)), nats, w as in `vae.loss`."""
    encoder_key, decoder_key, latent_key = jax.random.split(key, 3)
    (x, label), weight = parts.examples(batch, networks), beta * warm_up.weight(stats, warm_up_steps)
    q, encoder_stats = parts.run_encoder(params, stats, x, networks, label=label, key=encoder_key if train else None)
    z = vae.draws(random.batch_keys(latent_key, batch), params, q, num_samples, networks=networks).z
    z = jax.lax.stop_gradient(z)
    log_q = jax.vmap(lambda z: jnp.sum(networks.posterior.log_prob(params["posterior"], q, z), axis=-1))(z)
    log_likelihood, log_prior, decoder_stats = vae.log_joint(
        params, stats, z, batch, networks=networks, key=decoder_key if train else None
    )
    rate = jax.lax.stop_gradient(log_q) - log_prior
    values = log_likelihood - weight * rate
    baseline = jax.vmap(estimators.leave_one_out, 1, 1)(values) if num_samples > 1 else jnp.zeros_like(values)
    objective = -jnp.mean(jax.vmap(estimators.score_function, (1, 1, 1))(values, log_q, baseline))
    metrics = {
        "loss": objective,
        "negative_elbo": jnp.mean(rate - log_likelihood),
        "rate": jnp.mean(rate),
        "distortion": -jnp.mean(log_likelihood),
    }
    return objective, (vae.after_pass(stats, encoder_stats, decoder_stats, train=train), metrics)


def model(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    *,
    num_samples: int = 2,
    beta: float = 1.0,
    warm_up_steps: int = 0,
    num_bound_samples: int = 1,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The VAE of `networks`, whose posterior must have a density that can be computed.

    Args:
        networks: as in `vae.model`.
        optimizer: any optax optimizer.
        num_samples: draws of z per example; with one there is no baseline.
        beta: the weight of the rate in the objective.
        warm_up_steps: the weight rises linearly from 0 to β over these updates.
        num_bound_samples: K of `log_bound`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: an argument is out of its range.
    """
    _checks.at_least("num_samples", num_samples, 1)
    _checks.at_least("beta", beta, 0)
    _checks.at_least("warm_up_steps", warm_up_steps, 0)
    settings = {"num_samples": num_samples, "beta": beta, "warm_up_steps": warm_up_steps}
    objective = functools.partial(loss, networks=networks, **settings)
    return vae.trained_by(objective, networks, optimizer, num_bound_samples=num_bound_samples, axis_name=axis_name)
