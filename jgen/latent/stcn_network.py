"""The parts of an STCN: states of a temporal convolution network, and Gaussian latents of each frame above them.

    p(z_t^l | z_t^{l+1}, x_<t) = N(f_p^l(z_t^{l+1}, d_{t−1}^l))
    q(z_t^l | z_t^{l+1}, x_≤t) ∝ p(z_t^l | z_t^{l+1}, x_<t) · N(z_t^l; f_q^l(z_t^{l+1}, d_t^l))        (precisions add)
    p(x_t | z_t) with raw_t = f_x(z_t^1), or f_x(z_t^1, …, z_t^L) where `dense`

d_t^l is the state after block l, of x_{≤t}. One draw of z_t^{l+1} serves the prior, the posterior and the decoder.
Given x, the latents of different frames are independent of each other, in the prior and in the posterior: the past
reaches a frame through d alone.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jgen import linen
from jgen._checks import at_least
from jgen._types import Key, Keys, Params
from jgen.latent import gaussian
from jgen.latent.gaussian import Gaussian
from jgen.math import framewise
from jgen.math.likelihoods import Likelihood
from jgen.nets import temporal
from jgen.nets.mlp import MLP


@dataclasses.dataclass(frozen=True)
class Network:
    """The likelihood of a frame and the sizes.

    Attributes:
        likelihood: p(x_t | raw_t).
        convolutions: over time, with one block for each layer of latents.
        latent_sizes: of z^1, …, z^L; z^1 is above the first block, which reaches back least.
        hidden_sizes: of every f_p^l and f_q^l.
        decoder_sizes: of f_x.
        dense: the decoder sees all layers of latents ("STCN-dense"), not z^1 alone.
        skip: the decoder sees d_{t−1} of all blocks too, so that frames need not pass through the latents.
        dropout_rate: of the f; that of the convolutions is their own.

    Raises:
        ValueError: no or an empty layer of latents, or not as many as blocks.
    """

    likelihood: Likelihood
    convolutions: temporal.TemporalConv
    latent_sizes: tuple[int, ...] = (32, 16, 8, 4, 2)
    hidden_sizes: tuple[int, ...] = (64,)
    decoder_sizes: tuple[int, ...] = (64, 64)
    dense: bool = True
    skip: bool = False
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        at_least("latent_sizes", min(self.latent_sizes, default=0), 1)
        if len(self.latent_sizes) != self.convolutions.num_blocks:
            num = self.convolutions.num_blocks
            raise ValueError(f"`latent_sizes` must be {num}, one for each block, got {self.latent_sizes}.")

    def head(self, level: int) -> MLP:
        """f_p and f_q of one layer: mean and log standard deviation."""
        return MLP((*self.hidden_sizes, 2 * self.latent_sizes[level]), dropout_rate=self.dropout_rate)

    def decoder(self, num_outputs: int) -> MLP:
        """f_x."""
        return MLP((*self.decoder_sizes, num_outputs), dropout_rate=self.dropout_rate)


class Descent(NamedTuple):
    """A pass down the layers; each entry has z^1's first, arrays are (*batch, latent).

    Attributes:
        z: the draws.
        q: what they were drawn from.
        p: the priors, given the draws above.
    """

    z: tuple[Array, ...]
    q: tuple[Gaussian, ...]
    p: tuple[Gaussian, ...]


def initialize(network: Network, key: Key, x: Num[Array, "batch time ..."], mask: Float[Array, "batch time"]) -> Params:
    """Weights, and the raw values that f_x's are added to: those of the marginals of the frames that count."""
    keys, module, sizes = jax.random.split(key, 3), network.convolutions, (*network.latent_sizes, 0)
    offset = framewise.offset(network.likelihood, x, mask)

    def heads(key: Key) -> list[Params]:
        inputs = [jnp.zeros((1, module.channels + above)) for above in sizes[1:]]
        own = jax.random.split(key, len(inputs))
        return [linen.init(network.head(level), own[level], zeros)[0] for level, zeros in enumerate(inputs)]

    width = sum(sizes) if network.dense else sizes[0]
    width += module.num_blocks * module.channels * network.skip
    prior_key, posterior_key = jax.random.split(keys[1])
    return {
        "convolutions": linen.init(module, keys[0], framewise.features(network.likelihood, x[:1, :1]))[0],
        "prior": heads(prior_key),
        "posterior": heads(posterior_key),
        "decoder": linen.init(network.decoder(offset.size), keys[2], jnp.zeros((1, width)))[0],
        "offset": offset,
    }


def states(
    network: Network, params: Params, x: Num[Array, "batch time ..."], *, key: Key | None = None
) -> tuple[Float[Array, "batch time blocks channels"], Float[Array, "batch time blocks channels"]]:
    """(d_{t−1}, d_t) for all t; `key`, for dropout, is given in training alone."""
    inputs = framewise.features(network.likelihood, x)
    d = temporal.states(network.convolutions, params["convolutions"], inputs, key=key)
    return temporal.before(d), d


def noise(network: Network, keys: Keys) -> tuple[Array, ...]:
    """ε (*batch, latent) of every layer, z = µ + σ·ε, from one key for each frame; `keys` have the batch's axes."""
    sizes = network.latent_sizes
    draw = jax.vmap(lambda key: jax.random.normal(key, (sum(sizes),)))(keys.reshape(-1))
    ends = list(itertools.accumulate(sizes))
    return tuple(jnp.split(draw.reshape(*keys.shape, -1), ends[:-1], axis=-1))


def prior(network: Network, params: Params, level: int, above: Any, before: Any, *, key: Key | None = None) -> Gaussian:
    """p(z_t^l | z_t^{l+1}, x_<t) from the draw above (None at the top) and d_{t−1}, (*batch, blocks, channels)."""
    return _head(network, params["prior"], level, above, before, key)


def posterior(
    network: Network, params: Params, level: int, above: Any, now: Any, prior: Gaussian, *, key: Key | None = None
) -> Gaussian:
    """q(z_t^l | z_t^{l+1}, x_≤t): the prior times what d_t tells, precisions added."""
    return gaussian.product(prior, _head(network, params["posterior"], level, above, now, key))


def _head(network: Network, heads: Any, level: int, above: Any, d: Any, key: Key | None) -> Gaussian:
    inputs = d[..., level, :] if above is None else jnp.concatenate([d[..., level, :], above], axis=-1)
    raw = linen.apply(network.head(level), heads[level], {}, inputs, key=key, train=key is not None)
    return gaussian.from_raw(raw)


def descend(
    network: Network,
    params: Params,
    noise: tuple[Array, ...],
    before: Float[Array, "*batch blocks channels"],
    now: Float[Array, "*batch blocks channels"] | None = None,
    *,
    key: Key | None = None,
) -> Descent:
    """Draws from the top layer down: of the posterior where `now` (d_t) is given, else of the prior.

    With a noise of zeros every draw is its mean. `key`, for dropout, is given in training alone.
    """
    above, found = None, []
    for level in reversed(range(len(network.latent_sizes))):
        one, two = (None, None) if key is None else jax.random.split(jax.random.fold_in(key, level))
        p = prior(network, params, level, above, before, key=one)
        q = p if now is None else posterior(network, params, level, above, now, p, key=two)
        above = q.mean + jnp.exp(q.log_std) * noise[level]
        found.append((above, q, p))
    return Descent(*zip(*reversed(found), strict=True))


def decode(
    network: Network,
    params: Params,
    z: tuple[Array, ...],
    before: Float[Array, "*batch blocks channels"],
    *,
    key: Key | None = None,
) -> Float[Array, "..."]:
    """raw_t from the latents; from d_{t−1} too where `network.skip`. `key`, for dropout, in training alone."""
    seen = [*(z if network.dense else z[:1]), *([before.reshape(*before.shape[:-2], -1)] if network.skip else [])]
    offset, inputs = params["offset"], jnp.concatenate(seen, axis=-1)
    module = network.decoder(offset.size)
    out = linen.apply(module, params["decoder"], {}, inputs, key=key, train=key is not None)
    return (out + offset.reshape(*[1] * (out.ndim - 1), -1)).reshape(*out.shape[:-1], *offset.shape)
