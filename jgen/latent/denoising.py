"""Restoration autoencoders: denoising, in-painting, super-resolution, colorization.

    y = corruption of x,   t(y) the trivial restoration,   x̂(y) = agree(t(y) + r(y), y),   r a network
    loss = E ½ ‖x − x̂(y)‖²                              (= −log N(x; x̂, I) − (D/2) log 2π, nats)

The least loss is at x̂(y) = E[x|y]. For y = x + σε that is Tweedie's formula, E[x|y] = y + σ² ∇ log p_σ(y), so a
denoiser is a score: ∇ log p_σ(y) = (x̂(y) − y)/σ² (Vincent, "A connection between score matching and denoising
autoencoders", 2011). `agree` puts back what was seen: in-painting pastes the known pixels, colorization keeps the luma.
With r = 0, where `Restorer` starts, the restoration is the trivial one exactly: the noisy image, the mean of the seen
pixels, bicubic interpolation, grey.

Papers: Vincent et al., "Extracting and composing robust features with denoising autoencoders", 2008; Pathak et al.,
"Context encoders", 2016 (in-painting); Shi et al., "Real-time single image and video super-resolution using an
efficient sub-pixel convolutional neural network", 2016 (channels to pixels); Zhang, Isola and Efros, "Colorful image
colorization", 2016.
Differs from the papers: one residual network for all tasks, no bottleneck, no adversary, squared error for all; for
colours that is the mean of the possible ones, which is paler than any of them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import linen, random
from jgen._checks import positive
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.latent.corruptions import Corruption, Observation
from jgen.learners import GradientState, gradient
from jgen.math.bijectors import unsqueeze
from jgen.model import Model
from jgen.nets.resnet import ResNet

FLAT, FAINT = 1e-4, 1 / 255
"""What is added, squared, to an image's squared contrast: far below a level of 8 bits; and such a level, in weights."""


def restore(
    params: Params, stats: Params, seen: Observation, *, network: nn.Module, corruption: Corruption
) -> Float[Array, "batch ..."]:
    """x̂ = agree(t(y) + r(y), y), the shape of the images; it may leave [0, 1] a little.

    Raises:
        ValueError: the network's output has another shape than the trivial restoration.
    """
    return _restore(params, stats, seen, network, corruption, None)[0]


def score(
    restored: Float[Array, "batch ..."], noisy: Float[Array, "batch ..."], std: float
) -> Float[Array, "batch ..."]:
    """∇ log p_σ(y) = (x̂(y) − y)/σ² at noisy data y, of a denoiser that was trained with Gaussian noise of this σ.

    Raises:
        ValueError: `std` is not positive.
    """
    positive("std", std)
    return (restored - noisy) / std**2


def squared_error(restored: Any, x: Any) -> Float[Array, " batch"]:
    """‖x − x̂‖² of each example, summed over its values."""
    return jnp.sum(jnp.square(x - restored), axis=tuple(range(1, jnp.ndim(x))))


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    network: nn.Module,
    corruption: Corruption,
    balanced: bool = False,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean ½‖x − x̂(y)‖² with y drawn anew for each key; `balanced` as in `model`."""
    corruption_key, network_key = jax.random.split(key)
    x, seen = _seen(corruption_key, batch, corruption)
    restored, stats = _restore(params, stats, seen, network, corruption, network_key if train else None)
    error = squared_error(restored, x)
    if balanced:
        error = error / (jnp.square(standardized(corruption.features(seen), x.shape[-1])[1][:, 0, 0, 0]) + FAINT**2)
    value = 0.5 * jnp.mean(error)
    return value, (stats, {"loss": value})


class Restorer(nn.Module):
    """A residual network on what is seen; from r·s² channels of each seen pixel to s×s pixels of r channels.

    Attributes:
        outputs: channels of the restored image.
        scale: s, of the corruption; a power of two.
        channels: width of the hidden layers.
        num_blocks: residual blocks.
        patches: work on 2×2 patches of what is seen (even sides): sees twice as far for the same work.
        relative: work on `standardized` images, and multiply the result by their contrast: x̂(ay + b) = a·x̂(y) + b.
            Then smooth images, whose trivial restoration is all but exact, stay so. Not for noise, whose size is known,
            nor for colours, which go by brightness.
    """

    outputs: int
    scale: int = 1
    channels: int = 32
    num_blocks: int = 3
    patches: bool = False
    relative: bool = False

    @nn.compact
    def __call__(self, y: Any, *, train: bool = False) -> Any:
        """(batch, height/s, width/s, features) -> (batch, height, width, outputs); zero before any learning."""
        y, contrast = standardized(y, self.outputs) if self.relative else (y, None)
        net = ResNet(self.channels, self.num_blocks, self.outputs * self.scale**2, patches=self.patches)
        out, scale = net(y, train=train), self.scale
        while scale > 1:
            out, scale = unsqueeze(out), scale // 2
        return out if contrast is None else contrast * out


def standardized(y: Any, num_channels: int) -> tuple[Any, Any]:
    """(each image minus its channels' means, divided by its contrast; that contrast, (batch, 1, 1, 1)).

    The contrast is the root mean square of the differences between neighbouring pixels, which is small where bicubic
    interpolation or a mean are good, as in a smooth sky; the standard deviation is not. A mask may follow the channels
    of the image; it stays, and hidden pixels do not count and are 0.
    """
    image, mask = y[..., :num_channels], y[..., num_channels:]
    weight = mask if mask.shape[-1] else jnp.ones_like(image[..., :1])
    mean = jnp.sum(weight * image, axis=(1, 2), keepdims=True) / jnp.sum(weight, axis=(1, 2), keepdims=True)
    # One pair more than there are: without any seen neighbours the contrast is 0 and not 0/0.
    squares, pairs = jnp.zeros((len(y), 1, 1, 1)), jnp.ones((len(y), 1, 1, 1))
    for one, other in ((y[:, 1:], y[:, :-1]), (y[:, :, 1:], y[:, :, :-1])):
        both = one[..., num_channels:] * other[..., num_channels:] if mask.shape[-1] else jnp.ones_like(one[..., :1])
        change = both * jnp.square(one[..., :num_channels] - other[..., :num_channels])
        squares = squares + jnp.mean(jnp.sum(change, axis=(1, 2), keepdims=True), axis=3, keepdims=True)
        pairs = pairs + jnp.sum(both, axis=(1, 2), keepdims=True)
    contrast = jnp.sqrt(squares / pairs + FLAT**2)
    return jnp.concatenate([weight * (image - mean) / contrast, mask], axis=-1), contrast


def model(
    network: nn.Module,
    corruption: Corruption,
    optimizer: optax.GradientTransformation,
    *,
    balanced: bool = False,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """Restoration learned from clean data {"x": (batch, height, width, channels)} in [0, 1]; no distribution of x.

    Noise alone takes data of any shape. Of the metrics, `log_mse` is log10 of the mean squared error and 1e-6: a tenth
    of minus the PSNR, finite where nothing is wrong.

    Args:
        network: r, a Flax module: `corruption.features(observation)` -> what is added to the trivial restoration; it
            is called with the keyword `train`. `Restorer` is one.
        corruption: of `jgen.latent.corruptions`.
        optimizer: any optax optimizer.
        balanced: divide each image's squared error by the square of its contrast (see `standardized`; and of a level of
            8 bits), so that smooth images count as much as the others, as they do in a mean of PSNRs. A weight that
            depends on y alone leaves the best x̂(y) where it is, at E[x|y]. Not for grey seen of colours.
        axis_name: the mapped axis over which gradients are averaged.
    """

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        init_key, corruption_key = jax.random.split(key)
        _, seen = _seen(corruption_key, batch, corruption)
        params, stats = linen.init(network, init_key, corruption.features(seen), train=False)
        restore(params, stats, seen, network=network, corruption=corruption)
        return params, stats

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        x, seen = _seen(key, batch, corruption)
        restored = restore(state.params, state.stats, seen, network=network, corruption=corruption)
        error, size = squared_error(restored, x), x[0].size
        return {
            "squared_error": error,
            "trivial_squared_error": squared_error(corruption.trivial(seen), x),
            "log_mse": jnp.log10(error / size + 1e-6),
        }

    return gradient(
        init,
        functools.partial(loss, network=network, corruption=corruption, balanced=balanced),
        optimizer,
        evaluate=evaluate,
        axis_name=axis_name,
    )


def _seen(key: Key, batch: Batch, corruption: Corruption) -> tuple[Any, Observation]:
    random.batch_size(batch)
    x = jnp.asarray(batch["x"], jnp.float32)
    return x, corruption.observe(key, {**batch, "x": x})


def _restore(
    params: Params, stats: Params, seen: Observation, network: nn.Module, corruption: Corruption, key: Key | None
) -> tuple[Any, Params]:
    trivial = corruption.trivial(seen)
    features = corruption.features(seen)
    change, stats = linen.run(network, params, stats, features, key=key)
    if change.shape != trivial.shape:
        raise ValueError(f"`network` must return shape {trivial.shape} for this corruption, got {change.shape}.")
    return corruption.agree(trivial + change, seen), stats
