"""Noise-contrastive estimation: an energy and its normalizer, learned by telling data from noise of a known density.

    log p(x) = −E(x) − c,    G(x) = log p(x) − log q(x) − log ν,    P(x is data) = sigmoid(G(x))
    J = −E_data log sigmoid(G) − ν E_q log sigmoid(−G),   ν draws of the noise q for each example

The normalizer c is a parameter like any other: at the minimum over all functions −E − c is log p, and exp(−E − c)
integrates to 1 by itself. With a poor fit it need not.

Paper: Gutmann and Hyvärinen, "Noise-contrastive estimation of unnormalized statistical models, with applications to
natural image statistics", 2012.
Differs from the paper: c starts at its importance-sampled estimate under q; samples are by importance resampling
(Rubin, 1987) of draws of q.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import linen, random
from jgen._checks import at_least, rank
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.energy import ebm
from jgen.learners.gradient import GradientState, gradient
from jgen.model import Model

Data: TypeAlias = Float[Array, "batch dims"]
Values: TypeAlias = Float[Array, " batch"]


class Normalized(NamedTuple):
    """What is learned: the parameters of the energy, and c = log Z, nats."""

    energy: Params
    log_z: Scalar


class Noise(NamedTuple):
    """The known density q.

    Attributes:
        sample: (key) -> x (dims,), one draw.
        log_prob: (x (batch, dims)) -> (batch,), its log-density, normalized, nats.
    """

    sample: Callable[[Key], Any]
    log_prob: Callable[[Any], Any]


def gaussian(x: Float[Array, "rows dims"], *, widening: float = 1.0) -> Noise:
    """q = N(mean, widening²·covariance) of the rows of x, which should overlap the data and reach a little further.

    Raises:
        ValueError: x are not two or more rows, or their covariance is singular.
    """
    rank("x", x, 2, "(rows, dims)")
    at_least("len(x)", len(x), 2)
    mean, size = jnp.mean(x, axis=0), x.shape[1]
    factor = widening * jnp.linalg.cholesky(jnp.atleast_2d(jnp.cov(x.T)))
    if not jnp.all(jnp.isfinite(factor)):
        raise ValueError(f"`x` must vary in all of its {size} dimensions, got a singular covariance.")
    log_volume = jnp.sum(jnp.log(jnp.diagonal(factor))) + 0.5 * size * math.log(2 * math.pi)

    def log_prob(x: Data) -> Values:
        away = jax.scipy.linalg.solve_triangular(factor, (x - mean[None]).T, lower=True)
        return -0.5 * jnp.sum(jnp.square(away), axis=0) - log_volume

    return Noise(lambda key: mean + factor @ jax.random.normal(key, (size,)), log_prob)


def log_density(params: Normalized, x: Data, *, module: nn.Module) -> Values:
    """−E(x) − c, nats: an estimate of log p(x) that is normalized as far as c is learned."""
    return -ebm.energy(params.energy, x, module=module) - params.log_z


def objective(log_ratio_data: Float[Array, " batch"], log_ratio_noise: Float[Array, " draws"], ratio: float) -> Scalar:
    """J = −E_data log sigmoid(G) − ν E_q log sigmoid(−G), G = log p/q − log ν (Gutmann and Hyvärinen, 2012, eq. 8).

    Args:
        log_ratio_data: log p − log q at data.
        log_ratio_noise: the same at draws of q.
        ratio: ν, draws of the noise for each example.
    """
    known = jnp.mean(jax.nn.log_sigmoid(log_ratio_data - math.log(ratio)))
    drawn = jnp.mean(jax.nn.log_sigmoid(math.log(ratio) - log_ratio_noise))
    return -known - ratio * drawn


def loss(
    key: Key, params: Normalized, stats: Params, batch: Batch, *, module: nn.Module, noise: Noise, ratio: int,
    train: bool = True,
) -> tuple[Scalar, tuple[Params, Metrics]]:  # fmt: skip
    """The objective on a batch and ν times as many draws of the noise; `accuracy` is that of telling them apart."""
    del train
    keys = jax.vmap(lambda key: jax.random.split(key, ratio))(random.batch_keys(key, batch)).reshape(-1)
    drawn = jax.vmap(noise.sample)(keys)
    data_ratio, noise_ratio = (log_density(params, x, module=module) - noise.log_prob(x) for x in (batch["x"], drawn))
    value = objective(data_ratio, noise_ratio, ratio)
    offset = math.log(ratio)
    right = (jnp.mean(data_ratio > offset) + ratio * jnp.mean(noise_ratio < offset)) / (1 + ratio)
    return value, (stats, {"loss": value, "accuracy": right, "log_z": params.log_z})


def sample(
    key: Key, params: Normalized, num: int, *, module: nn.Module, noise: Noise, num_proposals: int
) -> Float[Array, "num dims"]:
    """Each one of `num_proposals` draws of the noise, chosen with probability in proportion to exp(−E)/q.

    Exact as `num_proposals` grows, and as poor as q covers p before that.
    """

    def one(key: Key) -> Float[Array, " dims"]:
        draw_key, choice_key = jax.random.split(key)
        proposals = jax.vmap(noise.sample)(jax.random.split(draw_key, num_proposals))
        log_weights = log_density(params, proposals, module=module) - noise.log_prob(proposals)
        return proposals[jax.random.categorical(choice_key, log_weights)]

    return jax.lax.map(one, random.example_keys(key, num), batch_size=64)


def model(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    noise: Noise,
    ratio: int = 1,
    num_proposals: int = 1_000,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """An energy of rows with its log-normalizer; evaluation reports `nll_estimate`, −log p with the learned c.

    Args:
        module: x -> one number per example, (batch,) or (batch, 1).
        optimizer: any optax optimizer.
        noise: q, such as `gaussian` of the training rows.
        ratio: ν, draws of the noise for each example.
        num_proposals: as in `sample`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: a count is less than 1.
    """
    at_least("ratio", ratio, 1)
    at_least("num_proposals", num_proposals, 1)
    settings = {"module": module, "noise": noise}
    learn = functools.partial(loss, ratio=ratio, **settings)

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        _, (_, metrics) = learn(key, state.params, state.stats, batch, train=False)
        return {**metrics, "nll_estimate": -log_density(state.params, batch["x"], module=module)}

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        return {"x": sample(key, state.params, num, num_proposals=num_proposals, **settings)}

    return gradient(
        functools.partial(_init, module, noise), learn, optimizer, evaluate=evaluate, sample=draw, axis_name=axis_name
    )


def _init(module: nn.Module, noise: Noise, key: Key, batch: Batch) -> tuple[Normalized, Params]:
    net_key, noise_key = jax.random.split(key)
    rank("x", batch["x"], 2, "(batch, dims)")
    params, stats = linen.init(module, net_key, batch["x"])
    drawn = jax.vmap(noise.sample)(jax.random.split(noise_key, 1_000))
    log_weights = -ebm.energy(params, drawn, module=module) - noise.log_prob(drawn)
    return Normalized(params, jax.nn.logsumexp(log_weights) - math.log(1_000)), stats
