"""STCN: a temporal convolution network with a hierarchy of latent variables in each frame.

    log p(x) = Σ_t log p(x_t | x_<t),    p(x_t | x_<t) = ∫ p(x_t | z_t) Π_l p(z_t^l | z_t^{l+1}, d_{t−1}^l) dz_t
    ELBO(x) = Σ_t E_q log p(x_t | z_t) − Σ_l KL(q(z_t^l | z_t^{l+1}, d_t^l) ‖ p(z_t^l | z_t^{l+1}, d_{t−1}^l))
    L_K(x) = Σ_t E log (1/K) Σ_k w_{t,k},    w_{t,k} = p(x_t | z_{t,k}) p(z_{t,k} | x_<t) / q(z_{t,k} | x_≤t)

d_t^l, the state of a causal convolution network after block l, is a function of x_{≤t}: all frames are trained side by
side, and a draw keeps queues, so that one frame more costs the same however many there were. Latents of different
frames meet in x alone, so the importance-weighted bound averages frame by frame, which whole sequences could not.

Paper: Aksan and Hilliges, "STCN: Stochastic Temporal Convolutional Networks", ICLR 2019 (equations 4 to 9).
Differs from the paper: the posterior's precision-weighted variance is a variance (the released code takes it for a
standard deviation), and one draw of a layer serves the prior and posterior below it and the decoder (the released code
draws anew for each: a bound too, but a looser one); the decoder may see d_{t−1} (`Network.skip`).

Everything is in nats, summed over dimensions, layers and frames that count; the only weight is `beta`, 1 by default.
The parts are in `jgen.latent.stcn_network`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num

from jgen import _checks, random
from jgen._types import Batch, Key, Keys, Metrics, Params, Scalar
from jgen.latent import gaussian, warm_up, weights
from jgen.latent import stcn_network as parts
from jgen.latent.stcn_network import Network
from jgen.learners import GradientState, gradient
from jgen.math import framewise
from jgen.model import Model
from jgen.nets import temporal

__all__ = [
    "Network",
    "Terms",
    "continue_from",
    "elbo",
    "frame_terms",
    "iwae_bound",
    "loss",
    "model",
    "reconstruct",
    "sample",
    "start",
    "step",
    "terms",
]


class Terms(NamedTuple):
    """One value per sequence (or per frame), in nats; elbo = −(rate + distortion).

    Attributes:
        elbo: the evidence lower bound.
        rate: Σ_l KL(q(z^l|·) ‖ p(z^l|·)), each in closed form given one draw of the layers above.
        rate_per_layer: its summands, z^1's first.
        distortion: −log p(x|z) at one draw z ~ q(z|x).
    """

    elbo: Float[Array, "*batch"]
    rate: Float[Array, "*batch"]
    rate_per_layer: Float[Array, "*batch layers"]
    distortion: Float[Array, "*batch"]


def frame_terms(
    network: Network, keys: Keys, params: Params, x: Num[Array, "batch time ..."], *, key: Key | None = None
) -> Terms:
    """The terms of every frame, (batch, time), from one draw of its latents.

    Args:
        keys: (batch,), one for each sequence; frame t draws from (its key, t), so padding moves no draw.
        key: for dropout, given in training alone.
    """
    split = [None] * 3 if key is None else jax.random.split(key, 3)
    before, now = parts.states(network, params, x, key=split[0])
    noise = parts.noise(network, framewise.keys_at(keys, jnp.arange(x.shape[1])))
    found = parts.descend(network, params, noise, before, now, key=split[1])
    raw = parts.decode(network, params, found.z, before, key=split[2])
    rates = [jnp.sum(gaussian.kl(q, p), axis=-1) for q, p in zip(found.q, found.p, strict=True)]
    distortion, per_layer = -framewise.log_prob(network.likelihood, raw, x), jnp.stack(rates, axis=-1)
    rate = jnp.sum(per_layer, axis=-1)
    return Terms(-(rate + distortion), rate, per_layer, distortion)


def terms(key: Key, params: Params, batch: Batch, *, network: Network) -> Terms:
    """The terms of each sequence, summed over the frames that count.

    Raises:
        ValueError: as `framewise.examples`.
    """
    x, mask = framewise.examples(batch, network.likelihood)
    return _over_time(frame_terms(network, random.batch_keys(key, batch), params, x), mask)


def elbo(key: Key, params: Params, batch: Batch, *, network: Network) -> Float[Array, " batch"]:
    """A one-draw estimate of the ELBO, nats; its mean is a lower bound on log p(x | length)."""
    return terms(key, params, batch, network=network).elbo


def iwae_bound(
    key: Key, params: Params, batch: Batch, *, network: Network, num_samples: int, chunk_size: int = 50
) -> Float[Array, " batch"]:
    """Σ_t log (1/K) Σ_k w_{t,k} with K draws, nats, in memory that does not grow with K.

    Its mean is a lower bound on log p(x | length) that rises with K. Draw k of frame t of an example comes from
    (its key, t, k), so the draws for K are the first of those for 2K, whatever the chunks are.

    Args:
        num_samples: K.
        chunk_size: draws decoded at a time; the largest divisor of K that does not exceed it is used.

    Raises:
        ValueError: `num_samples` or `chunk_size` is less than 1, or as `framewise.examples`.
    """
    x, mask = framewise.examples(batch, network.likelihood)
    keys = framewise.keys_at(random.batch_keys(key, batch), jnp.arange(x.shape[1]))
    before, now = parts.states(network, params, x)

    def log_weight(k: Any) -> Float[Array, " frames"]:
        own = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (0, None))(keys, k)
        return frame_log_weight(network, own, params, x, before, now).reshape(-1)

    each = weights.log_mean(log_weight, num_samples, mask.size, chunk_size=chunk_size)
    return framewise.total(each.reshape(mask.shape), mask)


def frame_log_weight(
    network: Network, keys: Keys, params: Params, x: Num[Array, "batch time ..."], before: Any, now: Any
) -> Float[Array, "batch time"]:
    """log p(x_t | z_t) + log p(z_t | x_<t) − log q(z_t | x_≤t) at one draw of q, with one key for each frame."""
    found = parts.descend(network, params, parts.noise(network, keys), before, now)
    raw = parts.decode(network, params, found.z, before)
    ratios = [
        jnp.sum(gaussian.log_prob(z, p) - gaussian.log_prob(z, q), axis=-1) for z, q, p in zip(*found, strict=True)
    ]
    return framewise.log_prob(network.likelihood, raw, x) + sum(ratios)


def reconstruct(params: Params, batch: Batch, *, network: Network) -> Num[Array, "batch time ..."]:
    """E[x_t | z_t] of every frame at the means of the posterior, layer by layer, in the units of x."""
    x, _ = framewise.examples(batch, network.likelihood)
    before, now = parts.states(network, params, x)
    zeros = tuple(jnp.zeros((*x.shape[:2], size)) for size in network.latent_sizes)
    found = parts.descend(network, params, zeros, before, now)
    return framewise.mean(network.likelihood, parts.decode(network, params, found.z, before))


def start(num: int, *, network: Network) -> temporal.Cache:
    """What `step` goes on from before the first frame of `num` sequences."""
    return temporal.start(network.convolutions, num)


def step(params: Params, cache: temporal.Cache, frame: Num[Array, "batch ..."], *, network: Network) -> temporal.Cache:
    """The cache with one frame more, in the same time however many there were."""
    inputs = framewise.features(network.likelihood, frame[:, None])[:, 0]
    return temporal.step(network.convolutions, params["convolutions"], cache, inputs)


def draw_frame(keys: Keys, params: Params, cache: temporal.Cache, *, network: Network) -> Num[Array, "batch ..."]:
    """x_t ~ p(x_t | z_t), z_t ~ p(z_t | x_<t), from one key for each sequence."""
    pairs = jax.vmap(jax.random.split)(keys)
    found = parts.descend(network, params, parts.noise(network, pairs[:, 0]), cache.d)
    return network.likelihood.sample(pairs[:, 1], parts.decode(network, params, found.z, cache.d))


def sample(key: Key, params: Params, num: int, length: int, *, network: Network) -> Num[Array, "num length ..."]:
    """Draws `num` sequences of `length` frames; example i draws frame t from (key, i, t).

    Raises:
        ValueError: `length` is less than 1.
    """
    _checks.at_least("length", length, 1)
    return _go_on(key, params, start(num, network=network), length, network)


def continue_from(
    key: Key, params: Params, prefix: Num[Array, "batch time ..."], num: int, *, network: Network
) -> Num[Array, "batch num ..."]:
    """`num` frames after those of `prefix`, drawn from p(rest | prefix), by the same noise as `sample` at these t.

    Raises:
        ValueError: `num` is less than 1, or `prefix` outside the likelihood's support.
    """
    _checks.at_least("num", num, 1)
    x, _ = framewise.examples({"x": prefix}, network.likelihood)
    inputs = framewise.features(network.likelihood, x)
    return _go_on(key, params, temporal.read(network.convolutions, params["convolutions"], inputs), num, network)


def _go_on(key: Key, params: Params, cache: temporal.Cache, num: int, network: Network) -> Any:
    keys = random.example_keys(key, len(cache.d))

    def draw(cache: temporal.Cache, _: Any) -> tuple[temporal.Cache, Any]:
        frame = draw_frame(framewise.keys_at(keys, cache.t), params, cache, network=network)
        return step(params, cache, frame, network=network), frame

    return jnp.swapaxes(jax.lax.scan(draw, cache, None, num)[1], 0, 1)


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
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean over the frames that count of distortion + w·β·rate, nats, w rising from 0 to 1 over `warm_up_steps`.

    In training the metrics are nats per frame of the batch; otherwise nats of each sequence.
    """
    x, mask = framewise.examples(batch, network.likelihood)
    draw_key, dropout_key = jax.random.split(key)
    keys = random.batch_keys(draw_key, batch)
    found = _over_time(frame_terms(network, keys, params, x, key=dropout_key if train else None), mask)
    num_frames = jnp.sum(mask)
    objective = jnp.sum(found.distortion + beta * warm_up.weight(stats, warm_up_steps) * found.rate) / num_frames
    stats = warm_up.counted(stats, train=train)
    if not train:
        return objective, (stats, _reported(found))
    per_frame = {name: jnp.sum(value) / num_frames for name, value in _reported(found).items()}
    return objective, (stats, {"loss": objective, **per_frame})


def model(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    length: int = 100,
    beta: float = 1.0,
    warm_up_steps: int = 0,
    num_bound_samples: int = 1,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The STCN over batches {"x": (batch, time, *shape)}, and "mask": (batch, time) where lengths differ.

    Args:
        network: its likelihood and sizes.
        optimizer: any optax optimizer.
        length: frames that `sample` draws.
        beta: the weight of the rate in the objective; reported ELBOs always have weight 1.
        warm_up_steps: the weight rises linearly from 0 to β over these updates.
        num_bound_samples: K of `log_bound`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: a negative `beta` or `warm_up_steps`, or `length` or `num_bound_samples` below 1.
    """
    for name, value, low in (("length", length, 1), ("beta", beta, 0), ("warm_up_steps", warm_up_steps, 0)):
        _checks.at_least(name, value, low)
    _checks.at_least("num_bound_samples", num_bound_samples, 1)

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        params = parts.initialize(network, key, *framewise.examples(batch, network.likelihood))
        return params, warm_up.start()

    def log_bound(key: Key, state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        return iwae_bound(key, state.params, batch, network=network, num_samples=num_bound_samples)

    return gradient(
        init,
        functools.partial(loss, network=network, beta=beta, warm_up_steps=warm_up_steps),
        optimizer,
        sample=lambda key, state, num: {"x": sample(key, state.params, num, length, network=network)},
        log_bound=log_bound,
        axis_name=axis_name,
    )


def _over_time(each: Terms, mask: Float[Array, "batch time"]) -> Terms:
    return jax.tree.map(lambda term: framewise.total(term, mask), each)


def _reported(found: Terms) -> Metrics:
    layers = {f"rate_{i + 1}": rate for i, rate in enumerate(jnp.moveaxis(found.rate_per_layer, -1, 0))}
    return {"negative_elbo": -found.elbo, "rate": found.rate, "distortion": found.distortion, **layers}
