"""Importance weights w = p(x, z)/q(z|x): their running log-mean, and gradients of bounds that are made of them.

    log p(x) ≥ L_K(x) = E log (1/K) Σ_k w_k,  z_k ~ q(z|x),  L_1 = ELBO, L_K ↑ log p(x)

Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016, eq. 8. With w̃ = softmax(log w) the gradient
of the bound with respect to q's parameters φ has three estimators, which differ in how much of it is noise:

    plain   Σ_k w̃_k ∇_φ log w_k
    stl     Σ_k w̃_k (∂log w_k/∂z_k) ∇_φ z_k     sticking the landing; biased for K > 1
    dreg    Σ_k w̃_k² (∂log w_k/∂z_k) ∇_φ z_k    doubly reparameterized; unbiased, and its signal-to-noise grows with K

Roeder, Wu and Duvenaud, "Sticking the Landing", 2017; Tucker et al., "Doubly Reparameterized Gradient Estimators",
2019, eq. 7. What is returned is always the bound itself; a surrogate Σ w̃ log w has the right gradient and a value that
is too good.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen import _checks
from jgen._types import Scalar

ESTIMATORS = ("plain", "stl", "dreg")


def log_mean(
    log_weight: Callable[[Any], Float[Array, " batch"]], num_samples: int, num_examples: int, *, chunk_size: int = 50
) -> Float[Array, " batch"]:
    """log (1/K) Σ_k exp log_weight(k), nats, in memory that does not grow with K.

    Args:
        log_weight: k -> (batch,); what is random in it must be a function of k.
        num_samples: K.
        num_examples: the length of the batch.
        chunk_size: weights computed at a time; the largest divisor of K that does not exceed it is used.

    Raises:
        ValueError: `num_samples` or `chunk_size` is less than 1.
    """
    _checks.at_least("num_samples", num_samples, 1)
    _checks.at_least("chunk_size", chunk_size, 1)
    chunk = max(d for d in range(1, min(chunk_size, num_samples) + 1) if num_samples % d == 0)

    def body(carry: Any, ks: Any) -> Any:
        top, total = carry
        weights = jax.vmap(log_weight)(ks)
        new_top = jnp.maximum(top, jnp.max(weights, axis=0))
        total = total * jnp.exp(top - new_top) + jnp.sum(jnp.exp(weights - new_top[None]), axis=0)
        return (new_top, total), None

    empty = (jnp.full(num_examples, -jnp.inf), jnp.zeros(num_examples))
    (top, total), _ = jax.lax.scan(body, empty, jnp.arange(num_samples).reshape(-1, chunk))
    return top + jnp.log(total) - np.log(num_samples)


def log_mean_of(log_weights: Float[Array, "num batch"]) -> Float[Array, " batch"]:
    """log (1/K) Σ_k exp(log w_k), nats."""
    return jax.nn.logsumexp(log_weights, axis=0) - np.log(len(log_weights))


def report(
    objective: Scalar, log_likelihood: Float[Array, "num batch"], rate: Float[Array, "num batch"]
) -> dict[str, Scalar]:
    """Means of what K draws say, nats, with weight 1 on the rate whatever the objective has.

    Args:
        objective: what is minimized.
        log_likelihood: log p(x|z_k).
        rate: log q(z_k|x) − log p(z_k).
    """
    found = {
        "loss": objective,
        "negative_bound": -log_mean_of(log_likelihood - rate),
        "negative_elbo": rate - log_likelihood,
        "rate": rate,
        "distortion": -log_likelihood,
    }
    return {name: jnp.mean(value) for name, value in found.items()}


def path_weights(
    log_weight: Callable[[Any], tuple[Float[Array, "num batch"], Any]], z: Any, estimator: str
) -> tuple[Float[Array, "num batch"], Any]:
    """`log_weight(z)`, where `log_mean_of` its first part has the gradient "stl" or "dreg" with respect to q.

    Args:
        log_weight: z -> (log w_k, anything else), with q's parameters stopped inside log q(z|x).
        z: a pytree of draws, leaves (num, batch, …), through which gradients flow to q.
        estimator: "stl" or "dreg".
    """
    if estimator == "dreg":
        # The compiler merges this pass with the one below, which has the same values.
        shares = jax.nn.softmax(jax.lax.stop_gradient(log_weight(z)[0]), axis=0)
        z = jax.tree.map(lambda leaf: _scale_cotangent(leaf, _columns(shares, leaf)), z)
    return log_weight(z)


def _columns(shares: Any, leaf: Any) -> Any:
    return jnp.broadcast_to(shares.reshape(*shares.shape, *(1,) * (leaf.ndim - 2)), leaf.shape)


@jax.custom_vjp
def _scale_cotangent(x: Any, scale: Any) -> Any:
    """x, with gradients that arrive multiplied by `scale`."""
    del scale
    return x


_scale_cotangent.defvjp(
    lambda x, scale: (x, scale), lambda scale, cotangent: (cotangent * scale, jnp.zeros_like(scale))
)
