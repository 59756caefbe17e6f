"""Temporal convolution network over frames: each frame's law is read off convolutions over all frames before it.

    log p(x) = Σ_t log p(x_t | raw_t),    raw_t = f(d_{t−1}^1, …, d_{t−1}^B),    d_t^b the state of x_{≤t} after block b

Frames are independent in their dimensions given the past, unless the likelihood joins them: what an STCN, the same
network with latent variables in each frame (`jgen.latent.stcn`), is held against. Sequences of different lengths share
a batch: `mask` is 1 on the frames that count, which come first; the model is p(x | length).
Bai, Kolter, Koltun: An Empirical Evaluation of Generic Convolutional and Recurrent Networks, 2018.

Differs from the paper: the residual blocks are WaveNet's gated ones, and f reads the states after all blocks.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.learners import GradientState, gradient
from jgen.math import framewise
from jgen.math.likelihoods import Likelihood
from jgen.model import Model
from jgen.nets import temporal
from jgen.nets.mlp import MLP


@dataclasses.dataclass(frozen=True)
class Network:
    """The likelihood of a frame and the sizes.

    Attributes:
        likelihood: p(x_t | raw_t).
        convolutions: over time.
        hidden_sizes: of f.
        dropout_rate: of f; that of the convolutions is their own.
    """

    likelihood: Likelihood
    convolutions: temporal.TemporalConv
    hidden_sizes: tuple[int, ...] = (64, 64)
    dropout_rate: float = 0.0

    def decoder(self, num_outputs: int) -> MLP:
        """f."""
        return MLP((*self.hidden_sizes, num_outputs), dropout_rate=self.dropout_rate)


def init(network: Network, key: Key, x: Num[Array, "batch time ..."], mask: Float[Array, "batch time"]) -> Params:
    """Weights, and the raw values that f's are added to: those of the marginals of the frames that count."""
    keys, module = jax.random.split(key), network.convolutions
    offset = framewise.offset(network.likelihood, x, mask)
    inputs = framewise.features(network.likelihood, x[:1, :1])
    d = jnp.zeros((1, module.num_blocks * module.channels))
    return {
        "convolutions": linen.init(module, keys[0], inputs)[0],
        "decoder": linen.init(network.decoder(offset.size), keys[1], d)[0],
        "offset": offset,
    }


def decode(
    network: Network, params: Params, before: Float[Array, "*batch blocks channels"], *, key: Key | None = None
) -> Float[Array, "..."]:
    """raw_t from d_{t−1}; `key`, for dropout, is given in training alone."""
    offset, inputs = params["offset"], before.reshape(*before.shape[:-2], -1)
    module = network.decoder(offset.size)
    out = linen.apply(module, params["decoder"], {}, inputs, key=key, train=key is not None)
    return (out + offset.reshape(*[1] * (out.ndim - 1), -1)).reshape(*out.shape[:-1], *offset.shape)


def log_prob_each(
    network: Network, params: Params, x: Num[Array, "batch time ..."], *, key: Key | None = None
) -> Float[Array, "batch time"]:
    """log p(x_t | x_<t) of every frame, in nats; `key`, for dropout, is given in training alone."""
    one, two = (None, None) if key is None else jax.random.split(key)
    inputs = framewise.features(network.likelihood, x)
    d = temporal.states(network.convolutions, params["convolutions"], inputs, key=one)
    return framewise.log_prob(network.likelihood, decode(network, params, temporal.before(d), key=two), x)


def log_prob(
    network: Network, params: Params, x: Num[Array, "batch time ..."], mask: Float[Array, "batch time"]
) -> Float[Array, " batch"]:
    """log p(x | length) in nats."""
    return framewise.total(log_prob_each(network, params, x), mask)


def sample(
    network: Network, key: Key, params: Params, num: int, length: int, *, prefix: Any = None
) -> Num[Array, "num length ..."]:
    """Draws frame after frame from queues of what the layers read; example i draws x_t from (key, i, t).

    Args:
        key: of the draws.
        num: sequences.
        length: frames to draw.
        prefix: (num, time, *shape) frames that the sequences begin with; they are not returned.

    Raises:
        ValueError: `length` is less than 1, or `prefix` has another number of sequences.
    """
    _checks.at_least("length", length, 1)
    keys, module, likelihood = random.example_keys(key, num), network.convolutions, network.likelihood
    if prefix is not None and len(prefix) != num:
        raise ValueError(f"`prefix` must hold {num} sequences, got {len(prefix)}.")
    cache = temporal.start(module, num)
    if prefix is not None:
        cache = temporal.read(module, params["convolutions"], framewise.features(likelihood, jnp.asarray(prefix)))

    def draw(cache: Any, _: Any) -> Any:
        frame = likelihood.sample(framewise.keys_at(keys, cache.t), decode(network, params, cache.d))
        inputs = framewise.features(likelihood, frame[:, None])[:, 0]
        return temporal.step(module, params["convolutions"], cache, inputs), frame

    return jnp.swapaxes(jax.lax.scan(draw, cache, None, length)[1], 0, 1)


def loss(
    key: Key, params: Params, stats: Params, batch: Batch, /, *, train: bool, network: Network
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean −log p(x_t | x_<t) in nats over the frames of the batch that count."""
    x, mask = framewise.examples(batch, network.likelihood)
    nll = -framewise.total(log_prob_each(network, params, x, key=key if train else None), mask)
    value = jnp.sum(nll) / jnp.sum(mask)
    return value, (stats, {"nats_per_frame": value} if train else {"nll": nll})


def model(
    network: Network, optimizer: optax.GradientTransformation, *, length: int = 100, axis_name: str | None = None
) -> Model[GradientState]:
    """Maximum likelihood over batches {"x": (batch, time, *shape)}, and "mask": (batch, time) where lengths differ.

    Args:
        network: its likelihood and sizes.
        optimizer: any optax optimizer.
        length: frames that `sample` draws.
        axis_name: the mapped axis over which gradients and metrics are averaged.

    Raises:
        ValueError: `length` is less than 1.
    """
    _checks.at_least("length", length, 1)
    return gradient(
        lambda key, batch: (init(network, key, *framewise.examples(batch, network.likelihood)), {}),
        functools.partial(loss, network=network),
        optimizer,
        sample=lambda key, state, num: {"x": sample(network, key, state.params, num, length)},
        log_prob=lambda state, batch: log_prob(network, state.params, *framewise.examples(batch, network.likelihood)),
        axis_name=axis_name,
    )
