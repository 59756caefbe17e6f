"""Paths of a VRNN's latents through sequences: z_t drawn from the posterior frame after frame, forward or smoothing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen import linen
from jgen._types import Batch, Keys, Params
from jgen.latent import gaussian
from jgen.latent import vrnn_network as parts
from jgen.latent.gaussian import Gaussian
from jgen.latent.vrnn_network import Memory, Network
from jgen.math import framewise
from jgen.nets import recurrent


class Path(NamedTuple):
    """The latents of sequences, arrays (batch, time, any); `inputs` is what the decoder is given."""

    z: Array
    q: Gaussian
    p: Gaussian
    inputs: Array
    last: Memory


class Terms(NamedTuple):
    """One value per sequence, in nats; elbo = −(rate + style_rate + distortion).

    Attributes:
        elbo: the evidence lower bound.
        rate: Σ_t KL(q(z_t|·) ‖ p(z_t|·)), each in closed form given one draw of what was before.
        style_rate: KL(q(s|x) ‖ N(0, I)).
        distortion: −log p(x|z, s) at one draw.
    """

    elbo: Float[Array, " batch"]
    rate: Float[Array, " batch"]
    style_rate: Float[Array, " batch"]
    distortion: Float[Array, " batch"]


def follow(
    network: Network, params: Params, noise: Any, x: Any, mask: Any, condition: Any, *, dropout: Any = None
) -> Path:
    """z_t = µ_q + σ_q·noise_t for all t, in order.

    Args:
        noise: (batch, time, latent_size).
        condition: c, (batch, any).
        dropout: (batch, num_units), what h is multiplied by where a frame is given it; the recurrence keeps all of it.
    """
    features, start = parts.embed(network, params, x), parts.first(network, params, len(x))
    if network.latent_size and not network.smoothing:
        return _filter(network, params, noise, features, condition, dropout, start)
    read = parts.read(features, condition)
    states, last = linen.apply(network.layer, params["cell"], {}, _swap(read), start.state)
    h = _swap(jnp.concatenate([start.state[0][None], states[:-1]]))
    h = h if dropout is None else h * dropout[:, None]
    if network.latent_size:
        evidence = _from_the_future(network, params, jnp.concatenate([features, h], axis=-1), mask)
        z, q, p, g = _smooth(network, params, noise, evidence, h, condition, start.g)
    else:
        z, q, p, g = noise, Gaussian(noise, noise), Gaussian(noise, noise), noise
    each = jnp.broadcast_to(condition[:, None], (*mask.shape, condition.shape[-1]))
    return Path(z, q, p, jnp.concatenate([g, h, each], axis=-1), Memory(last, g[:, -1]))


def style(params: Params, batch: Batch, *, network: Network) -> Gaussian:
    """q(s | x, label) of each sequence.

    Raises:
        ValueError: the network has no style, or as `terms`.
    """
    x, mask = framewise.examples(batch, network.likelihood)
    return parts.style(network, params, x, mask, parts.content(network, batch.get("label"), len(x)))


def drawn(
    keys: Keys, params: Params, batch: Batch, network: Network, dropout: Any = None
) -> tuple[Path, Gaussian, Float[Array, "batch style"]]:
    """A path through each sequence, q(s | x), and a draw of s; frame t draws from (an example's key, t) alone."""
    x, mask = framewise.examples(batch, network.likelihood)
    pairs = jax.vmap(jax.random.split)(keys)
    q = (
        style(params, batch, network=network)
        if network.style_size
        else gaussian.standard(jnp.zeros((len(x), network.style_size)))
    )
    s = gaussian.sample(pairs[:, 0], q)
    draw = jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (network.latent_size,))))
    noise = draw(framewise.keys_at(pairs[:, 1], jnp.arange(x.shape[1])))
    path = follow(network, params, noise, x, mask, parts.condition(network, batch, s), dropout=dropout)
    return path, q, s


def evaluated(keys: Keys, params: Params, batch: Batch, network: Network, dropout: Any = None) -> Terms:
    """The terms of each sequence from one draw, with one key for each."""
    x, mask = framewise.examples(batch, network.likelihood)
    path, q, _ = drawn(keys, params, batch, network, dropout)
    raw = parts.decode(network, params, path.inputs)
    distortion = -framewise.total(framewise.log_prob(network.likelihood, raw, x), mask)
    rate = framewise.total(jnp.sum(gaussian.kl(path.q, path.p), axis=-1), mask)
    style_rate = jnp.sum(gaussian.kl_to_standard_normal(q), axis=-1)
    return Terms(-(rate + style_rate + distortion), rate, style_rate, distortion)


def _filter(
    network: Network, params: Params, noise: Any, features: Any, condition: Any, dropout: Any, start: Memory
) -> Path:
    # Products with the frames are of all frames at once, before the scan; those with h and z have to be inside.
    def step(memory: Memory, now: Any) -> Any:
        feature, pre, noise = now
        h = memory.state[0] if dropout is None else memory.state[0] * dropout
        p = parts.prior(network, params, h, memory.g, condition)
        q = parts.posterior(network, params, feature, h, memory.g, condition, p)
        z = q.mean + jnp.exp(q.log_std) * noise
        g = parts.g_of(network, params, z)
        inputs = jnp.concatenate([g, h, condition], axis=-1)
        return parts.advance_with(network, params, memory, pre, g), (z, q, p, inputs)

    pre = parts.into(params, parts.read(features, condition))
    last, out = jax.lax.scan(step, start, (_swap(features), _swap(pre), _swap(noise)))
    z, q, p, inputs = jax.tree.map(_swap, out)
    return Path(z, q, p, inputs, last)


def _from_the_future(network: Network, params: Params, inputs: Any, mask: Any) -> Any:
    """a_t of all t, from the last frame that counts backwards."""
    zero = recurrent.zero_state(network.cell, len(inputs), network.num_units)
    backwards = linen.apply(network.layer, params["backward"], {}, _swap(reverse(inputs, mask)), zero)[0]
    return reverse(_swap(backwards), mask)


def _smooth(
    network: Network, params: Params, noise: Any, evidence: Any, h: Any, condition: Any, start: Any
) -> tuple[Any, Gaussian, Gaussian, Any]:
    """(z, q, p, g) of all frames."""

    def step(g: Any, now: Any) -> Any:
        evidence, h, noise = now
        p = parts.prior(network, params, h, g, condition)
        q = parts.posterior(network, params, evidence, h, g, condition, p)
        z = q.mean + jnp.exp(q.log_std) * noise
        g = parts.g_of(network, params, z)
        return g, (z, q, p, g)

    return jax.tree.map(_swap, jax.lax.scan(step, start, (_swap(evidence), _swap(h), _swap(noise)))[1])


def reverse(x: Float[Array, "batch time any"], mask: Float[Array, "batch time"]) -> Float[Array, "batch time any"]:
    """The frames that count, last one first; padding stays behind them."""
    length, t = jnp.sum(mask, axis=1).astype(jnp.int32)[:, None], jnp.arange(x.shape[1])[None]
    return jnp.take_along_axis(x, jnp.where(t < length, length - 1 - t, t)[..., None], axis=1)


def _swap(x: Any) -> Any:
    return jnp.swapaxes(x, 0, 1)
