"""A stack of layers with tied weights, for the chains of generative stochastic networks."""

import itertools

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


class TiedLayers(nn.Module):
    """A stack of tanh layers with tied weights, moved like a deep Boltzmann machine: odd layers, then even ones.

    Attributes:
        sizes: of h_1, h_2, …; with one, the network is a denoising autoencoder and keeps no state.
        noise_std: of the noise added before and after the tanh of h_2, h_3, …; h_1 has none, as in the papers' code.
    """

    sizes: tuple[int, ...]
    noise_std: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch inputs"], hidden: Float[Array, "batch hidden"], noise: Float[Array, "batch n"]
    ) -> tuple[Float[Array, "batch inputs"], Float[Array, "batch hidden"]]:
        """(logits, hidden) from corrupted inputs and the hidden values before; `noise` has two values for each."""
        widths = (x.shape[1], *self.sizes)
        weights = [
            self.param(f"weights_{i}", nn.initializers.glorot_uniform(), shape)
            for i, shape in enumerate(itertools.pairwise(widths))
        ]
        biases = [self.param(f"bias_{i}", nn.initializers.zeros, (size,)) for i, size in enumerate(widths)]
        cuts = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes) - 1)]
        values = [x, *jnp.split(hidden, cuts, axis=1)]
        before, after = (jnp.split(part, cuts, axis=1) for part in jnp.split(noise, 2, axis=1))
        for first in (1, 2):
            for i in range(first, len(widths), 2):
                total = values[i - 1] @ weights[i - 1] + biases[i][None]
                if i + 1 < len(widths):
                    total = total + values[i + 1] @ weights[i].T
                spread = self.noise_std if i > 1 else 0.0
                values[i] = jnp.tanh(total + spread * before[i - 1]) + spread * after[i - 1]
        return values[1] @ weights[0].T + biases[0][None], jnp.concatenate(values[1:], axis=1)
