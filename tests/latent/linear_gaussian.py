"""x = W z + σε with orthogonal columns of W: the exact posterior is diagonal, and log p(x) is known."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.stats
from flax import linen as nn

from jgen.latent import vae, warm_up
from jgen.math import likelihoods

SIGMA = 0.5
WEIGHTS = np.array([[2.0, 0.0, 0.0], [0.0, 0.6, 0.8]])  # latent × data


class Linear(nn.Module):
    """An affine map to `size` numbers, then `tail` axes."""

    size: int
    tail: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x, *, train=False):
        out = nn.Dense(self.size)(x)
        return jnp.reshape(out, (len(x), *(self.tail or (self.size,))))


class Exact(NamedTuple):
    """A VAE whose posterior is the exact one, and log p of each row of x."""

    networks: vae.Networks
    params: Any
    stats: Any
    x: Any
    log_prob: Any


def exact(num: int = 200) -> Exact:
    """The model at its optimum."""
    precision = 1 + (WEIGHTS**2).sum(1) / SIGMA**2
    networks = vae.Networks(Linear(4), Linear(3, (3, 1)), likelihoods.Gaussian(SIGMA), 2)
    log_std = -0.5 * np.log(precision)
    kernel = np.concatenate([WEIGHTS.T / SIGMA**2 / precision, np.zeros((3, 2))], axis=1)
    bias = np.concatenate([np.zeros(2), 6 * np.arctanh(log_std / 6)])
    params = {
        "encoder": {"Dense_0": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}},
        "decoder": {"Dense_0": {"kernel": jnp.asarray(WEIGHTS, jnp.float32), "bias": jnp.zeros(3)}},
        "offset": jnp.zeros((3, 1)),
        "prior": {},
        "posterior": {},
    }
    stats = {"encoder": {}, "decoder": {}, **warm_up.start()}
    covariance = WEIGHTS.T @ WEIGHTS + SIGMA**2 * np.eye(3)
    x = np.random.default_rng(0).multivariate_normal(np.zeros(3), covariance, num).astype(np.float32)
    log_prob = scipy.stats.multivariate_normal(np.zeros(3), covariance).logpdf(x)
    return Exact(networks, params, stats, x, log_prob)


def moved(params: Any, shift: float = 0.3, widen: float = 0.4) -> Any:
    """The same model with a posterior off by `shift` in its first mean and `widen` in its last log-scale."""
    encoder = params["encoder"]["Dense_0"]
    bias = encoder["bias"] + jnp.array([shift, 0.0, 0.0, widen])
    return {**params, "encoder": {"Dense_0": {"kernel": encoder["kernel"], "bias": bias}}}
