"""Variables with finitely many levels: how they enter a network, their log-mass from logits, draws from shared noise.

Logits end in an axis `width`: 1 for two levels (the logit of x = 1), else one entry per level. A draw is a
deterministic function of logits and noise,

    x = 1[logit > g], g ~ Logistic,        x = argmax_k (logit_k + g_k), g_k ~ Gumbel,

so samplers that compute the same logits in other ways (one full pass per position, a cache, fixed-point sweeps) give
the same samples from the same noise.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jgen._types import Key


def width(levels: int) -> int:
    """The number of logits of one variable: 1 for two levels, else `levels`."""
    return 1 if levels == 2 else levels


def encode(x: Num[Array, "*shape"], levels: int) -> Float[Array, "*shape width"]:
    """Network inputs: x itself where it is binary, else one-hot."""
    return x[..., None].astype(jnp.float32) if levels == 2 else jax.nn.one_hot(x.astype(jnp.int32), levels)


def log_prob(logits: Float[Array, "*shape width"], x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log p(x) in nats: Bernoulli for width 1, −softplus(∓logit), else the softmax over the levels."""
    if logits.shape[-1] == 1:
        return -jax.nn.softplus(jnp.where(x > 0.5, -logits[..., 0], logits[..., 0]))
    return categorical_log_prob(logits, x)


def categorical_log_prob(logits: Float[Array, "*shape levels"], x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log p(x) in nats, the softmax of one logit per level, whatever their number."""
    picked = jnp.take_along_axis(logits, x.astype(jnp.int32)[..., None], axis=-1)[..., 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def noise(key: Key, shape: Sequence[int], levels: int) -> Float[Array, "*shape width"]:
    """Standard logistic noise for two levels, else standard Gumbel noise: what `draw` takes."""
    sample = jax.random.logistic if levels == 2 else jax.random.gumbel
    return sample(key, (*shape, width(levels)))


def draw(logits: Float[Array, "*shape width"], noise: Float[Array, "*shape width"]) -> Num[Array, "*shape"]:
    """Samples, float32 in {0, 1} for width 1, else int32 levels."""
    if logits.shape[-1] == 1:
        return (logits[..., 0] > noise[..., 0]).astype(jnp.float32)
    return jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)


def log_odds(x: Num[Array, "batch *shape"], levels: int) -> Float[Array, "*shape width"]:
    """Where output biases start: the smoothed log-odds log((n₁ + ½)/(n₀ + ½)), or log frequencies for more levels."""
    if levels == 2:
        ones = jnp.sum(x, axis=0)[..., None]
        return jnp.log(ones + 0.5) - jnp.log(x.shape[0] - ones + 0.5)
    counts = jnp.sum(jax.nn.one_hot(x.astype(jnp.int32), levels), axis=0)
    return jnp.log(counts + 0.5) - jnp.log(x.shape[0] + 0.5 * levels)


def points(levels: Sequence[int]) -> np.ndarray:
    """Every point of the space {0..L_1-1} × … × {0..L_n-1}, int32 (Π L, n), in the order of `row`."""
    return np.indices(tuple(levels)).reshape(len(levels), math.prod(levels)).T.astype(np.int32)


def row(x: Num[Array, "*shape variables"], levels: Sequence[int]) -> Int[Array, "*shape"]:
    """The number of each point among all Π L of them, the first variable its most significant digit; 0 for none."""
    number = jnp.zeros(x.shape[:-1], jnp.int32)
    for i, size in enumerate(levels):
        number = number * size + x[..., i].astype(jnp.int32)
    return number


def frequencies(counts: Float[Array, "*shape levels"], smoothing: float = 0.0) -> Float[Array, "*shape levels"]:
    """(n_c + α) / (n + α L) along the last axis; uniform where nothing was counted and α = 0."""
    smoothed = counts + smoothing
    total = jnp.sum(smoothed, axis=-1, keepdims=True)
    return jnp.where(total > 0, smoothed / jnp.where(total > 0, total, 1.0), 1.0 / counts.shape[-1])


def as_data(x: Num[Array, "*shape"], levels: Sequence[int]) -> Num[Array, "*shape"]:
    """As data come: float32 where all variables have two levels, else int32."""
    return x.astype(jnp.float32 if max(levels) == 2 else jnp.int32)
