"""Fully connected networks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


class MLP(nn.Module):
    """x_{k+1} = activation(W_k x_k + b_k); the last layer is affine, without an activation.

    Attributes:
        sizes: the width of every layer, the output's last; `()` is the identity.
        activation: what follows every layer but the last.
        zero_last: starts the last layer at zero, so that the whole network does.
        activate_last: puts the activation after the last layer too.
        dropout_rate: the share of hidden units that is dropped when `train`; needs a key in `linen.apply`.
        dtype: the precision of the layers; parameters stay in float32.

    Raises:
        ValueError: a size is less than 1.
    """

    sizes: tuple[int, ...]
    activation: Callable[[Array], Array] = nn.relu
    zero_last: bool = False
    activate_last: bool = False
    dropout_rate: float = 0.0
    dtype: jnp.dtype | None = None

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.sizes):
            raise ValueError(f"`sizes` must be at least 1, got {self.sizes}.")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"], *, train: bool = False) -> Float[Array, "*batch outputs"]:
        last = len(self.sizes) - 1
        for i, size in enumerate(self.sizes):
            zero = self.zero_last and i == last
            kernel_init = jax.nn.initializers.zeros if zero else nn.linear.default_kernel_init
            x = nn.Dense(size, kernel_init=kernel_init, dtype=self.dtype)(x)
            if i < last or self.activate_last:
                x = self.activation(x)
            if i < last and self.dropout_rate > 0:
                x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        return x
