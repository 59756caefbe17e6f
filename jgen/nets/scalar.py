"""Energies from networks: one number per example, or one logit per class, that belongs to a normalizable density."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


class SquaredError(nn.Module):
    """‖x − f(x, time)‖²/2std², f any network that keeps the shape: an autoencoder's error, or a denoiser's.

    Salimans and Ho, "Should EBMs model the energy or the score?", 2021. Where f starts at zero this starts as the
    energy of N(0, std²); where f is bounded its density has a normalizer.

    Attributes:
        inner: f, (x, time) or (x) -> an array of the shape of x.
        std: the unit of the error.
    """

    inner: nn.Module
    std: float = 1.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *shape"], time: Float[Array, " batch"] | None = None
    ) -> Float[Array, " batch"]:
        found = self.inner(x) if time is None else self.inner(x, time)
        return 0.5 * jnp.sum(jnp.square((x - found) / self.std), axis=tuple(range(1, x.ndim)))


class Tilted(nn.Module):
    """f(x) + ‖x‖²/2std²: p ∝ exp(−f)·N(0, std²) has a normalizer wherever f grows slower than a square.

    Xie et al., "A theory of generative ConvNet", 2016.

    Attributes:
        inner: f, x -> (batch,) or (batch, 1).
        std: of the Gaussian.
    """

    inner: nn.Module
    std: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
        away = jnp.sum(jnp.square(x / self.std), axis=tuple(range(1, x.ndim)))
        return jnp.reshape(self.inner(x), (x.shape[0],)) + 0.5 * away


class TiltedLogits(nn.Module):
    """f_y(x) − ‖x‖²/2std² for every class y: log Σ_y exp of it is −energy of a tilt; the softmax does not see it.

    Attributes:
        inner: f, x -> (batch, classes).
        std: of the Gaussian.
    """

    inner: nn.Module
    std: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "batch *shape"]) -> Float[Array, "batch classes"]:
        away = jnp.sum(jnp.square(x / self.std), axis=tuple(range(1, x.ndim)))
        return self.inner(x) - 0.5 * away[:, None]
