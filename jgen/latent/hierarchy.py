"""Several layers of latent variables: the user's parts, and one pass over all of them as one Linen module."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from jgen import _checks
from jgen.latent import gaussian
from jgen.latent.gaussian import Gaussian
from jgen.latent.priors import STANDARD_NORMAL, Prior, Vamp
from jgen.math.likelihoods import Likelihood
from jgen.nets.encoders import Decoder, Encoder

INFERENCES = ("bottom_up", "ladder")


@dataclasses.dataclass(frozen=True)
class Hierarchy:
    """The user's parts. All modules are called with the keyword `train`; sizes are those of the last axis.

    Attributes:
        encoders: one module per layer. bottom_up: x's features, then z_1, …, z_{L−1} -> 2·latent size of the next.
            ladder: x's features, then the output of the module before -> at least 2·latent size, of which the first
            are µ̂ and log σ̂.
        downs: L − 1 modules, z_{l+1} -> 2·latent size of z_l, the lowest first.
        decoder: z_1 -> raw (batch, *shape, likelihood.num_parameters).
        likelihood: p(x|raw).
        latent_sizes: of z_1, …, z_L.
        inference: "bottom_up" or "ladder".
        prior: p(z_L). Vamp's pseudo-inputs go up the encoders, so it needs a ladder: there q(z_L|x) draws nothing.
    """

    encoders: tuple[nn.Module, ...]
    downs: tuple[nn.Module, ...]
    decoder: nn.Module
    likelihood: Likelihood
    latent_sizes: tuple[int, ...]
    inference: str = "ladder"
    prior: Prior = STANDARD_NORMAL

    def __post_init__(self) -> None:
        _checks.one_of("inference", self.inference, INFERENCES)
        if isinstance(self.prior, Vamp) and self.inference != "ladder":
            raise ValueError(f"`prior` must not be Vamp where `inference` is not ladder, got {self.inference!r}.")
        sizes = len(self.encoders), len(self.downs) + 1, len(self.latent_sizes)
        if len(set(sizes)) != 1:
            raise ValueError(f"`encoders`, `downs` and one, and `latent_sizes` must be as many, got {sizes}.")


def dense(
    shape: Sequence[int],
    likelihood: Likelihood,
    latent_sizes: Sequence[int],
    hidden_sizes: Sequence[Sequence[int]],
    *,
    inference: str = "ladder",
    prior: Prior = STANDARD_NORMAL,
    **kwargs: Any,
) -> Hierarchy:
    """A `Hierarchy` of dense layers; layer l has the widths `hidden_sizes[l]`, on its way up and down.

    Further keywords go to all `Encoder`s and to the `Decoder`.

    Raises:
        ValueError: there are not as many layers of widths as of latents.
    """
    if len(hidden_sizes) != len(latent_sizes):
        raise ValueError(f"`hidden_sizes` must have {len(latent_sizes)} entries, got {hidden_sizes}.")
    carried = [sizes[-1] if inference == "ladder" else 0 for sizes in hidden_sizes]
    keywords = [{"hidden_sizes": tuple(sizes), "activation": nn.tanh, **kwargs} for sizes in hidden_sizes]
    outputs = [2 * size + more for size, more in zip(latent_sizes, carried, strict=True)]
    encoders = tuple(Encoder(size, **own) for size, own in zip(outputs, keywords, strict=True))
    downs = tuple(Encoder(2 * size, **own) for size, own in zip(latent_sizes[:-1], keywords[1:], strict=True))
    decoder = Decoder(tuple(shape), likelihood.num_parameters, **keywords[0])
    return Hierarchy(encoders, downs, decoder, likelihood, tuple(latent_sizes), inference, prior)


class Found(NamedTuple):
    """One pass: z_1, …, z_L, the Gaussians each was drawn from, those of p(z_l|z_{l+1}) for l < L, and the raw output.

    All have K·batch rows, the first draws of all examples first.
    """

    z: tuple[Array, ...]
    q: tuple[Gaussian, ...]
    p: tuple[Gaussian, ...]
    raw: Array


class Pass(nn.Module):
    """A whole pass over a `Hierarchy` as one module, so that the statistics of its parts have one place."""

    encoders: tuple[nn.Module, ...]
    downs: tuple[nn.Module, ...]
    decoder: nn.Module
    latent_sizes: tuple[int, ...]
    inference: str

    def __call__(self, features: Any, noise: Sequence[Any], z: Sequence[Any] | None = None, *, train: bool) -> Found:
        """Draws z with `noise`, leaves (K, batch, latent), or takes z as given, leaves (K·batch, latent)."""
        num = len(noise[0])
        flat = [jnp.reshape(leaf, (-1, leaf.shape[-1])) for leaf in noise]

        def draw(layer: int, q: Gaussian) -> Any:
            return q.mean + jnp.exp(q.log_std) * flat[layer] if z is None else z[layer]

        infer = self._ladder if self.inference == "ladder" else self._bottom_up
        z_all, q, p = infer(features, num, draw, train)
        return Found(z_all, q, p, self.decoder(z_all[0], train=train))

    def _bottom_up(self, features: Any, num: int, draw: Any, train: bool) -> Any:
        q = [_tiled(gaussian.from_raw(self.encoders[0](features, train=train)), num)]
        z = [draw(0, q[0])]
        for layer in range(1, len(self.latent_sizes)):
            q.append(gaussian.from_raw(self.encoders[layer](z[-1], train=train)))
            z.append(draw(layer, q[-1]))
        p = [self._down(layer, above, train) for layer, above in enumerate(z[1:])]
        return tuple(z), tuple(q), tuple(p)

    def _ladder(self, features: Any, num: int, draw: Any, train: bool) -> Any:
        ups = [_tiled(up, num) for up in self._ups(features, train)]
        q, p = [ups[-1]], []
        z = [draw(len(ups) - 1, q[0])]
        for layer in reversed(range(len(ups) - 1)):
            p.insert(0, self._down(layer, z[0], train))
            q.insert(0, gaussian.product(ups[layer], p[0]))
            z.insert(0, draw(layer, q[0]))
        return tuple(z), tuple(q), tuple(p)

    def _ups(self, features: Any, train: bool) -> list[Gaussian]:
        ups, h = [], features
        for encoder, size in zip(self.encoders, self.latent_sizes, strict=True):
            h = encoder(h, train=train)
            ups.append(gaussian.from_raw(h[..., : 2 * size]))
        return ups

    def top(self, features: Any) -> Gaussian:
        """q(z_L|x) of a ladder."""
        return self._ups(features, train=False)[-1]

    def _down(self, layer: int, z: Any, train: bool) -> Gaussian:
        return gaussian.from_raw(self.downs[layer](z, train=train))

    def generate(self, z: Any, noise: Sequence[Any]) -> Array:
        """The decoder's raw output below z_L = z, (num, latent), from `noise` of the layers below, alike."""
        for layer in reversed(range(len(self.downs))):
            p = self._down(layer, z, train=False)
            z = p.mean + jnp.exp(p.log_std) * noise[layer]
        return self.decoder(z, train=False)


def network(hierarchy: Hierarchy) -> Pass:
    """The module of a hierarchy; its variables are `params["network"]` and `stats["network"]`."""
    parts = hierarchy.encoders, hierarchy.downs, hierarchy.decoder
    return Pass(*parts, hierarchy.latent_sizes, hierarchy.inference)


def _tiled(own: Gaussian, num: int) -> Gaussian:
    return Gaussian(*(jnp.tile(leaf, (num, 1)) for leaf in own))
