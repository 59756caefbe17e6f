"""A VRNN frame by frame: what it reads, `step`, and what it says, `sample` and `continue_from`."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jgen import _checks, random
from jgen._types import Key, Keys, Params
from jgen.latent import gaussian
from jgen.latent import vrnn_network as parts
from jgen.latent.vrnn_network import Memory, Network
from jgen.latent.vrnn_path import Terms, drawn
from jgen.math import framewise


def start(params: Params, num: int, *, network: Network) -> Memory:
    """What `step` goes on from before the first frame of `num` sequences."""
    return parts.first(network, params, num)


def step(
    keys: Keys,
    params: Params,
    memory: Memory,
    frame: Num[Array, "batch ..."],
    *,
    network: Network,
    condition: Float[Array, "batch any"] | None = None,
) -> tuple[Memory, Terms]:
    """The memory with one frame more, and the frame's terms, from one draw of q(z_t | x_t, h_{t−1}).

    Args:
        keys: one for each sequence.
        condition: of `vrnn_network.condition`, where there is a label or a style.

    Raises:
        ValueError: the posterior of the network needs the frames to come.
    """
    if network.smoothing:
        raise ValueError("`network` must filter to take frame by frame, got one that smooths.")
    c = jnp.zeros((len(frame), 0)) if condition is None else condition
    h, feature = memory.state[0], parts.embed(network, params, frame[:, None])[:, 0]
    if network.latent_size:
        p = parts.prior(network, params, h, memory.g, c)
        q = parts.posterior(network, params, feature, h, memory.g, c, p)
        rate, g = jnp.sum(gaussian.kl(q, p), axis=-1), parts.g_of(network, params, gaussian.sample(keys, q))
    else:
        rate, g = jnp.zeros(len(frame)), memory.g
    raw = parts.decode(network, params, jnp.concatenate([g, h, c], axis=-1)[:, None])
    distortion = -framewise.log_prob(network.likelihood, raw, frame[:, None])[:, 0]
    found = Terms(-(rate + distortion), rate, jnp.zeros_like(rate), distortion)
    return parts.advance(network, params, memory, feature, c, g), found


def sample(
    key: Key, params: Params, num: int, length: int, *, network: Network, label: Any = None, style: Any = None
) -> Num[Array, "num length ..."]:
    """Draws `num` sequences of `length` frames; example i draws frame t from (key, i, t).

    Args:
        label: what to say, (num,); where the network reads one.
        style: s, (num, style_size); drawn from N(0, I) where it is not given.

    Raises:
        ValueError: `length` is less than 1, or a label is missing or none of the contents.
    """
    style_key, key = jax.random.split(key)
    if style is None:
        style = gaussian.sample(
            random.example_keys(style_key, num), gaussian.standard(jnp.zeros((num, network.style_size)))
        )
    contents = parts.content(network, label, num)
    c = jnp.concatenate([contents, style], axis=-1)
    return _go_on(key, params, parts.first(network, params, num), c, 0, length, network)


def continue_from(
    key: Key, params: Params, prefix: Num[Array, "batch time ..."], num: int, *, network: Network, label: Any = None
) -> Num[Array, "batch num ..."]:
    """`num` frames after those of `prefix`, whose latents (and style) are drawn from their posterior.

    Raises:
        ValueError: `num` is less than 1, or `prefix` outside the likelihood's support.
    """
    read_key, key = jax.random.split(key)
    batch = {"x": prefix} if label is None else {"x": prefix, "label": label}
    path, _, s = drawn(random.batch_keys(read_key, batch), params, batch, network)
    return _go_on(key, params, path.last, parts.condition(network, batch, s), prefix.shape[1], num, network)


def _go_on(key: Key, params: Params, memory: Memory, c: Any, first: int, num: int, network: Network) -> Any:
    _checks.at_least("length", num, 1)
    keys = random.example_keys(key, len(c))

    def draw(memory: Memory, t: Any) -> tuple[Memory, Any]:
        pairs, g, h = jax.vmap(jax.random.split)(framewise.keys_at(keys, t)), memory.g, memory.state[0]
        if network.latent_size:
            p = parts.prior(network, params, h, memory.g, c)
            g = parts.g_of(network, params, gaussian.sample(pairs[:, 0], p))
        raw = parts.decode(network, params, jnp.concatenate([g, h, c], axis=-1)[:, None])[:, 0]
        frame = network.likelihood.sample(pairs[:, 1], raw)
        feature = parts.embed(network, params, frame[:, None])[:, 0]
        return parts.advance(network, params, memory, feature, c, g), frame

    return jnp.swapaxes(jax.lax.scan(draw, memory, jnp.arange(first, first + num))[1], 0, 1)
