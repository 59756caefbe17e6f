"""VRNN: a variational autoencoder for every frame of a sequence, tied to each other by a recurrent state.

    p(x, z) = Π_t p(x_t | z_t, h_{t−1}) p(z_t | h_{t−1}),    h_t = cell(φ_x(x_t), φ_z(z_t), h_{t−1})
    log p(x) ≥ ELBO(x) = Σ_t E_q [log p(x_t | z_t, h_{t−1}) − KL(q(z_t | x_t, h_{t−1}) ‖ p(z_t | h_{t−1}))]
    log p(x) ≥ L_K(x) = E log (1/K) Σ_k Π_t w_t(z^k),   w_t = p(x_t | z_t, ·) p(z_t | ·) / q(z_t | ·)

The posterior of z_t sees frames up to t alone. Where later frames tell more of z_t, as in a state space, the ELBO stays
below log p(x) whatever is learned; the posterior of the SRNN (`Network.smoothing`) sees them.
A conditional network is given what is said (a label) and draws how it is said: a style s ~ N(0, I) of each sequence,
with q(s|x) in the bound; so the style of one sequence can say what another one does.
With `latent_size` 0 the same parts are a plain recurrent network with an exact likelihood.

Papers: Chung et al., "A Recurrent Latent Variable Model for Sequential Data", 2015 (equations 5 to 11); Fraccaro et
al., "Sequential Neural Models with Stochastic Layers", 2016 (SRNN); Aksan, Pece and Hilliges, "DeepWriting", 2018
(content and style). Differs from the papers: one hidden layer everywhere, a learned offset of the decoder that starts
at the marginals, and of DeepWriting's style the part that belongs to a whole sequence, beside the path of z.

Everything is in nats, summed over dimensions and frames that count; the only weight is `beta`, 1 by default.
The parts are in `jgen.latent.vrnn_network`, the paths of z in `jgen.latent.vrnn_path`, what goes frame by frame in
`jgen.latent.vrnn_steps`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.latent import gaussian, warm_up, weights
from jgen.latent import vrnn_network as parts
from jgen.latent.vrnn_network import Memory, Network, dense
from jgen.latent.vrnn_path import Terms, drawn, evaluated, follow, style
from jgen.latent.vrnn_steps import continue_from, sample, start, step
from jgen.learners import GradientState, gradient
from jgen.math import framewise
from jgen.model import Model
from jgen.nets import recurrent

__all__ = [
    "Memory",
    "Network",
    "Terms",
    "continue_from",
    "dense",
    "elbo",
    "iwae_bound",
    "log_prob",
    "loss",
    "model",
    "reconstruct",
    "sample",
    "start",
    "step",
    "style",
    "terms",
]


def terms(key: Key, params: Params, batch: Batch, *, network: Network) -> Terms:
    """The terms of each sequence from one draw.

    Raises:
        ValueError: as `framewise.examples`, or there is no "label" where the network reads it.
    """
    return evaluated(random.batch_keys(key, batch), params, batch, network)


def elbo(key: Key, params: Params, batch: Batch, *, network: Network) -> Float[Array, " batch"]:
    """A one-draw estimate of the ELBO, nats; its mean is a lower bound on log p(x | length, label)."""
    return terms(key, params, batch, network=network).elbo


def log_prob(params: Params, batch: Batch, *, network: Network) -> Float[Array, " batch"]:
    """Exact log p(x | length, label) of a network without latents, nats.

    Raises:
        ValueError: the network has latents.
    """
    if not network.exact:
        raise ValueError("`network` must have no latents for an exact likelihood, got some.")
    return evaluated(random.example_keys(jax.random.key(0), random.batch_size(batch)), params, batch, network).elbo


def iwae_bound(
    key: Key, params: Params, batch: Batch, *, network: Network, num_samples: int, chunk_size: int = 10
) -> Float[Array, " batch"]:
    """log (1/K) Σ_k Π_t w_t with K paths, nats, in memory that does not grow with K.

    Its mean is a lower bound on log p(x | length, label) that rises with K. Path k of an example comes from
    fold_in(its key, k), so the paths for K are the first of those for 2K, whatever the chunks are.

    Args:
        num_samples: K.
        chunk_size: paths followed at a time; the largest divisor of K that does not exceed it is used.

    Raises:
        ValueError: `num_samples` or `chunk_size` is less than 1, or as `terms`.
    """
    x, mask = framewise.examples(batch, network.likelihood)
    keys = random.batch_keys(key, batch)

    def log_weight(k: Any) -> Float[Array, " batch"]:
        path, q, s = drawn(jax.vmap(jax.random.fold_in, (0, None))(keys, k), params, batch, network)
        ratio = jnp.sum(gaussian.log_prob(path.z, path.p) - gaussian.log_prob(path.z, path.q), axis=-1)
        of_style = jnp.sum(gaussian.log_prob(s, gaussian.standard(s)) - gaussian.log_prob(s, q), axis=-1)
        raw = parts.decode(network, params, path.inputs)
        return framewise.total(framewise.log_prob(network.likelihood, raw, x) + ratio, mask) + of_style

    return weights.log_mean(log_weight, num_samples, len(x), chunk_size=chunk_size)


def reconstruct(params: Params, batch: Batch, *, network: Network) -> Num[Array, "batch time ..."]:
    """E[x_t | z_t, h_{t−1}] of every frame at the means of the posterior, in the units of x."""
    x, mask = framewise.examples(batch, network.likelihood)
    s = style(params, batch, network=network).mean if network.style_size else None
    zeros = jnp.zeros((*mask.shape, network.latent_size))
    path = follow(network, params, zeros, x, mask, parts.condition(network, batch, s))
    return framewise.mean(network.likelihood, parts.decode(network, params, path.inputs))


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    /,
    *,
    train: bool,
    network: Network,
    beta: float = 1.0,
    warm_up_steps: int = 0,
    dropout_rate: float = 0.0,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean over the frames that count of distortion + w·β·rates, nats, w rising from 0 to 1 over `warm_up_steps`.

    In training the metrics are nats per frame of the batch; otherwise nats of each sequence.
    """
    mask = framewise.examples(batch, network.likelihood)[1]
    pairs = jax.vmap(jax.random.split)(random.batch_keys(key, batch))
    dropout = recurrent.dropout_masks(pairs[:, 1], 1, network.num_units, dropout_rate) if train else None
    found = evaluated(pairs[:, 0], params, batch, network, None if dropout is None else dropout[0])
    num_frames = jnp.sum(mask)
    objective = (
        jnp.sum(found.distortion + beta * warm_up.weight(stats, warm_up_steps) * (found.rate + found.style_rate))
        / num_frames
    )
    stats, reported = warm_up.counted(stats, train=train), _reported(found, network)
    if not train:
        return objective, (stats, reported)
    per_frame = {name: jnp.sum(value) / num_frames for name, value in reported.items()}
    return objective, (stats, {"loss": objective, **per_frame})


def model(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    length: int = 100,
    beta: float = 1.0,
    warm_up_steps: int = 0,
    dropout_rate: float = 0.0,
    num_bound_samples: int = 1,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The VRNN over batches {"x": (batch, time, *shape)}, "mask": (batch, time) where lengths differ, and "label".

    Samples have labels too where the network reads them, drawn evenly. Without latents the model has a `log_prob`
    instead of a `log_bound`.

    Args:
        network: its parts and sizes.
        optimizer: any optax optimizer.
        length: frames that `sample` draws.
        beta: the weight of the rates in the objective; reported ELBOs always have weight 1.
        warm_up_steps: the weight rises linearly from 0 to β over these updates.
        dropout_rate: of h, where a frame is given it; the recurrence keeps all of it.
        num_bound_samples: K of `log_bound`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: `dropout_rate` outside [0, 1), a negative `beta` or `warm_up_steps`, or `length` or
            `num_bound_samples` below 1.
    """
    for name, value, low in (("length", length, 1), ("beta", beta, 0), ("warm_up_steps", warm_up_steps, 0)):
        _checks.at_least(name, value, low)
    _checks.at_least("num_bound_samples", num_bound_samples, 1)
    if not 0.0 <= dropout_rate < 1.0:
        raise ValueError(f"`dropout_rate` must be in [0, 1), got {dropout_rate}.")
    bound = functools.partial(iwae_bound, network=network, num_samples=num_bound_samples)
    how = {"beta": beta, "warm_up_steps": warm_up_steps, "dropout_rate": dropout_rate}
    return gradient(
        functools.partial(_init, network),
        functools.partial(loss, network=network, **how),
        optimizer,
        sample=functools.partial(_sample, network, length),
        log_prob=(lambda state, batch: log_prob(state.params, batch, network=network)) if network.exact else None,
        log_bound=None if network.exact else lambda key, state, batch: bound(key, state.params, batch),
        axis_name=axis_name,
    )


def _init(network: Network, key: Key, batch: Batch) -> tuple[Params, Params]:
    x, mask = framewise.examples(batch, network.likelihood)
    parts.condition(network, batch)  # raises where a label is missing
    return parts.initialize(network, key, x, mask), warm_up.start()


def _sample(network: Network, length: int, key: Key, state: GradientState, num: int) -> Batch:
    if not network.num_contents:
        return {"x": sample(key, state.params, num, length, network=network)}
    label_key, key = jax.random.split(key)
    draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, network.num_contents))
    label = draw(random.example_keys(label_key, num))
    return {"x": sample(key, state.params, num, length, network=network, label=label), "label": label}


def _reported(found: Terms, network: Network) -> Metrics:
    if network.exact:
        return {"nll": found.distortion}
    style = {"style_rate": found.style_rate} if network.style_size else {}
    rate = {"rate": found.rate} if network.latent_size else {}
    return {"negative_elbo": -found.elbo, **rate, **style, "distortion": found.distortion}
