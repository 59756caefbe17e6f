"""DCGAN: a GAN of convolutions for images in [-1, 1].

    generator: z → Dense → (BatchNorm, relu, upsample, conv) × n → tanh
    critic: (strided conv, leaky relu) × n → Dense

Radford, Metz, Chintala: Unsupervised representation learning with deep convolutional generative adversarial networks
(2016). Differs from the paper: nearest-neighbour upsampling and a 3×3 convolution stand for the transposed convolution,
which leaves checkerboards unless its stride divides its kernel; Gaussian latents; no normalization in the critic, where
it couples examples; as many scales as the image's size has factors of two, down to at least 4 pixels.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jgen._checks import at_least
from jgen._types import Key
from jgen.adversarial import gan
from jgen.learners import AlternatingState
from jgen.model import Model

_INIT = nn.initializers.normal(0.02)


def num_scales(height: int, width: int) -> int:
    """How often both sides can be halved and stay whole numbers of at least 4: 1 for 8×8, 2 for 28×28, 3 for 32×32."""
    num = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 8:
        height, width, num = height // 2, width // 2, num + 1
    return num


def arithmetic(
    plus: Float[Array, "examples latent"], minus: Float[Array, "examples latent"], base: Float[Array, "examples latent"]
) -> Float[Array, " latent"]:
    """mean(plus) - mean(minus) + mean(base): the paper's vector arithmetic on concepts (section 6.3.2), scaled back to
    the length that a Gaussian latent has, √latent."""
    total = jnp.mean(plus, axis=0) - jnp.mean(minus, axis=0) + jnp.mean(base, axis=0)
    return total * jnp.sqrt(total.size) / jnp.linalg.norm(total)


class Generator(nn.Module):
    """Latents to images.

    Attributes:
        shape: (height, width, channels) of an image.
        channels: of the layer before the image; they double at each coarser scale.
        dtype: the precision of the layers; parameters stay in float32.
    """

    shape: tuple[int, ...]
    channels: int = 32
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "batch latent"], *, train: bool = False
    ) -> Float[Array, "batch height width channels"]:
        height, width, depth = self.shape
        num = num_scales(height, width)
        size = (height // 2**num, width // 2**num, self.channels * 2 ** max(num - 1, 0))
        # No bias before a BatchNorm, which would take it away again.
        h = nn.Dense(size[0] * size[1] * size[2], use_bias=False, kernel_init=_INIT, dtype=self.dtype)(z)
        h = self._normalized(h.reshape(-1, *size), train)
        for i in range(num):
            h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
            if i < num - 1:
                channels = self.channels * 2 ** (num - 2 - i)
                h = nn.Conv(channels, (3, 3), use_bias=False, kernel_init=_INIT, dtype=self.dtype)(h)
                h = self._normalized(h, train)
        out = nn.Conv(depth, (3, 3), kernel_init=_INIT, dtype=self.dtype)(h)
        return jnp.tanh(out.astype(jnp.float32))

    def _normalized(self, h: Array, train: bool) -> Array:
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, scale_init=_scale_init, dtype=self.dtype)
        return jax.nn.relu(norm(h))


class Critic(nn.Module):
    """Images to logits.

    Attributes:
        channels: of the first layer; they double at each coarser scale.
        slope: of the leaky ReLU.
        dtype: the precision of the layers; parameters stay in float32.
    """

    channels: int = 32
    slope: float = 0.2
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch 1"]:
        del train
        h = x
        for i in range(max(num_scales(*x.shape[1:3]), 1) + (min(x.shape[1:3]) < 16)):
            h = nn.Conv(self.channels * 2**i, (4, 4), strides=2, kernel_init=_INIT, dtype=self.dtype)(h)
            h = jax.nn.leaky_relu(h, self.slope)
        logits = nn.Dense(1, kernel_init=_INIT, dtype=self.dtype)(h.reshape(h.shape[0], -1))
        return logits.astype(jnp.float32)


def _scale_init(key: Key, shape: Any, dtype: Any = jnp.float32) -> Array:
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def networks(shape: tuple[int, ...], latent_size: int, *, channels: int = 32) -> gan.Networks:
    """The pair for images of `shape` = (height, width, channels).

    Raises:
        ValueError: `shape` has not three axes, or `channels` is less than 1.
    """
    if len(shape) != 3:
        raise ValueError(f"`shape` must be (height, width, channels), got {shape}.")
    at_least("channels", channels, 1)
    return gan.Networks(Generator(tuple(shape), channels), Critic(channels), latent_size)


def model(
    shape: tuple[int, ...],
    *,
    latent_size: int,
    generator_optimizer: optax.GradientTransformation,
    critic_optimizer: optax.GradientTransformation,
    channels: int = 32,
    num_critic_steps: int = 1,
    loss: str = "non_saturating",
    label_smoothing: float = 0.0,
    instance_noise: optax.Schedule | None = None,
    axis_name: str | None = None,
) -> Model[AlternatingState]:
    """A GAN of the pair `networks(shape, latent_size, channels=channels)`, for images in [-1, 1].

    The other arguments are those of `gan.model`.
    """
    pair = networks(shape, latent_size, channels=channels)
    return gan.model(
        pair.generator,
        pair.critic,
        latent_size=latent_size,
        generator_optimizer=generator_optimizer,
        critic_optimizer=critic_optimizer,
        num_critic_steps=num_critic_steps,
        loss=loss,
        label_smoothing=label_smoothing,
        instance_noise=instance_noise,
        axis_name=axis_name,
    )
