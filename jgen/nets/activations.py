"""Activations by name, and the one that is random in training: randomized leaky ReLU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jgen._checks import one_of

PLAIN: dict[str, Callable[[Any], Any]] = {
    "sigmoid": nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "swish": nn.swish,
}
NAMES = (*PLAIN, "randomized_leaky_relu")


class RandomizedLeakyReLU(nn.Module):
    """x where x ≥ 0, else a·x, with a ~ U(low, high) anew for every entry in training, and its mean at test time.

    The output is linear in a, so that at test time it is exactly the mean of those in training. Xu, Wang, Chen, Li:
    Empirical Evaluation of Rectified Activations in Convolution Network, 2015. Differs from the paper: the slope is
    uniform, not one over a uniform number in (3, 8).

    Attributes:
        low: the least slope.
        high: the largest slope.

    Raises:
        ValueError: `low` is above `high`.
    """

    low: float = 1 / 8
    high: float = 1 / 3

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"`low` must be at most `high`, got {self.low} and {self.high}.")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "..."], *, train: bool = False) -> Float[Array, "..."]:
        """Needs the key of `linen.apply` when `train`."""
        if train:
            slope = jax.random.uniform(self.make_rng("dropout"), x.shape, x.dtype, self.low, self.high)
        else:
            slope = jnp.asarray((self.low + self.high) / 2, x.dtype)
        return jnp.where(x >= 0, x, slope * x)


class Trunk(nn.Module):
    """Flattens, then (Dense → BatchNorm → activation → dropout) for every size.

    At test time BatchNorm takes its running averages, dropout is the identity, and a randomized activation its mean.

    Attributes:
        sizes: the width of every layer; the last is that of the features.
        activation: one of `NAMES`.
        batch_norm: whether layers are normalized; a Dense before it has no bias, which it would take away again.
        dropout_rate: the share of units that is dropped in training.
        momentum: the share of the old value that a running average keeps in a step.

    Raises:
        ValueError: there is no such activation.
    """

    sizes: tuple[int, ...]
    activation: str = "relu"
    batch_norm: bool = True
    dropout_rate: float = 0.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        one_of("activation", self.activation, NAMES)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], *, train: bool = False) -> Float[Array, "batch features"]:
        x = jnp.reshape(x, (x.shape[0], -1))
        for size in self.sizes:
            x = nn.Dense(size, use_bias=not self.batch_norm)(x)
            if self.batch_norm:
                x = nn.BatchNorm(use_running_average=not train, momentum=self.momentum)(x)
            plain = PLAIN.get(self.activation)
            x = RandomizedLeakyReLU()(x, train=train) if plain is None else plain(x)
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return x
