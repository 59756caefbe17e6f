"""Monte-Carlo estimators of ∇_θ E_{z∼q_θ}[f(z, θ)], all unbiased.

    reparameterization   z = T_θ(ε):  ∇_θ f(T_θ(ε), θ)                       where T is smooth
    score function       (f(z, θ) − b) ∇_θ log q_θ(z) + ∇_θ f(z, θ)          for any q, discrete ones too

b may be any number that does not depend on z, since E[∇ log q] = 0: the mean of the other draws (`leave_one_out`), or
the one of least variance (`best_baseline`). Williams: Simple Statistical Gradient-Following Algorithms, 1992. Kool, van
Hoof, Welling: Buy 4 REINFORCE Samples, Get a Baseline for Free!, 2019. Mohamed et al.: Monte Carlo Gradient Estimation
in Machine Learning, 2020.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen import random
from jgen._checks import at_least
from jgen._types import Key, Scalar


def reparameterize(
    key: Key, mean: Float[Array, "*shape"], log_std: Float[Array, "*shape"], num: int
) -> Float[Array, "num *shape"]:
    """z = µ + σ ε, ε ~ N(0, I): `num` draws through which gradients flow; draw i depends on (key, i)."""
    noise = jax.vmap(lambda own: jax.random.normal(own, mean.shape, mean.dtype))(random.example_keys(key, num))
    return mean[None] + jnp.exp(log_std)[None] * noise


def score_function(
    values: Float[Array, " num"], log_probs: Float[Array, " num"], baseline: Float[Array, "..."] | float = 0.0
) -> Scalar:
    """A number whose value is the mean of f and whose gradient is the score-function estimate.

    Args:
        values: f(z_i, θ); gradients that reach θ directly are kept.
        log_probs: log q_θ(z_i), with z_i held fixed.
        baseline: b, one for all draws or one each; must not depend on draw i.
    """
    weight = jax.lax.stop_gradient(values - baseline)
    return jnp.mean(values + weight * (log_probs - jax.lax.stop_gradient(log_probs)))


def leave_one_out(values: Float[Array, " num"]) -> Float[Array, " num"]:
    """The mean of the other draws' values, of each draw: a baseline that costs nothing.

    Raises:
        ValueError: there is only one draw.
    """
    at_least("len(values)", len(values), 2)
    return (jnp.sum(values) - values) / (len(values) - 1)


def best_baseline(values: Float[Array, " num"], scores: Float[Array, "num parameters"]) -> Float[Array, " parameters"]:
    """E[f s²]/E[s²] for s = ∇ log q: the baseline of least variance, one for each parameter.

    Estimated from the draws that it then serves it would be biased: take others, or all values of a discrete z with
    rows weighted by √q.
    """
    return jnp.sum(values[:, None] * scores**2, axis=0) / jnp.sum(scores**2, axis=0)
