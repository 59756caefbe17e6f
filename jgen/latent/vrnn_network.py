"""The parts of a VRNN: networks of one frame, a recurrent state between frames, and what a whole sequence is given.

    g_t = φ_z(z_t),   c = [content, s]: what is said, and a style s ~ N(0, I) of the whole sequence
    filtering  (VRNN):  p(z_t | h_{t−1}, c),           h_t = cell(φ_x(x_t), c, g_t, h_{t−1}),
                        q(z_t | φ_x(x_t), h_{t−1}, c)
    smoothing  (SRNN):  p(z_t | g_{t−1}, h_{t−1}, c),  h_t = cell(φ_x(x_t), c, h_{t−1}),
                        q(z_t | a_t, g_{t−1}, c),      a_t = cell([φ_x(x_t), h_{t−1}], a_{t+1});
                        the mean of q is that of p plus what its network returns
    both:               p(x_t | g_t, h_{t−1}, c)

Smoothing may be exact where the latents are a Markov chain of their own; a posterior that filters cannot be.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jgen import _checks, linen
from jgen._types import Key, Params
from jgen.latent import gaussian
from jgen.latent.gaussian import Gaussian
from jgen.math import framewise
from jgen.math.likelihoods import Likelihood
from jgen.nets import recurrent
from jgen.nets.encoders import Decoder
from jgen.nets.mlp import MLP


@dataclasses.dataclass(frozen=True)
class Network:
    """The parts that are the user's, Flax modules called on rows, and the sizes.

    Attributes:
        likelihood: p(x_t | raw_t).
        features: φ_x, (n, values of a frame's features) -> (n, any).
        latent_features: φ_z, (n, latent_size) -> (n, any).
        prior: (n, any) -> (n, 2·latent_size), mean and log standard deviation.
        posterior: the same, of its own inputs.
        decoder: (n, any) -> (n, *frame, likelihood.num_parameters).
        latent_size: of z_t; 0 leaves z out: a plain recurrent network, whose likelihood is exact.
        num_units: of h.
        cell: "vanilla", "gru" or "lstm".
        smoothing: the posterior sees the frames to come (SRNN).
        num_contents: classes of the batch's "label", which everything is given; 0 leaves it unread.
        style: (n, any) -> (n, 2·style_size), of a recurrent summary of the sequence; None where `style_size` is 0.
        style_size: of s.

    Raises:
        ValueError: `cell` is unknown, a size is out of its range, or `style` and `style_size` do not go together.
    """

    likelihood: Likelihood
    features: nn.Module
    latent_features: nn.Module
    prior: nn.Module
    posterior: nn.Module
    decoder: nn.Module
    latent_size: int = 32
    num_units: int = 128
    cell: str = "lstm"
    smoothing: bool = False
    num_contents: int = 0
    style: nn.Module | None = None
    style_size: int = 0

    def __post_init__(self) -> None:
        _checks.one_of("cell", self.cell, tuple(recurrent.CELLS))
        for name, low in (("latent_size", 0), ("num_units", 1), ("num_contents", 0), ("style_size", 0)):
            _checks.at_least(name, getattr(self, name), low)
        if (self.style is None) != (self.style_size == 0):
            raise ValueError(f"`style` must be given where `style_size` is above 0, got {self.style_size}.")
        if self.smoothing and not self.latent_size:
            raise ValueError("`smoothing` must be False without latents, got True.")

    @property
    def layer(self) -> recurrent.Recurrent:
        """The recurrent layers, of frames, of frames backwards, and of the style's summary."""
        return recurrent.Recurrent(self.cell, self.num_units)

    @property
    def exact(self) -> bool:
        """There is nothing latent."""
        return not self.latent_size and not self.style_size


class Memory(NamedTuple):
    """What of the past a frame is given: the recurrent state, and g of the frame before."""

    state: recurrent.State
    g: Float[Array, "batch any"]


def dense(
    likelihood: Likelihood,
    frame_shape: tuple[int, ...],
    latent_size: int,
    *,
    hidden_size: int = 128,
    num_units: int = 128,
    style_size: int = 0,
    **sizes: Any,
) -> Network:
    """A `Network` of one hidden layer everywhere; `sizes` are those of `Network`."""
    _checks.at_least("latent_size", latent_size, 0)
    _checks.at_least("style_size", style_size, 0)
    hidden = (hidden_size,)
    return Network(
        likelihood,
        MLP(hidden, activate_last=True),
        MLP(hidden, activate_last=True),
        MLP((*hidden, 2 * latent_size)) if latent_size else MLP(()),
        MLP((*hidden, 2 * latent_size)) if latent_size else MLP(()),
        Decoder(tuple(frame_shape), likelihood.num_parameters, hidden),
        latent_size,
        num_units,
        style=MLP((*hidden, 2 * style_size)) if style_size else None,
        style_size=style_size,
        **sizes,
    )


def initialize(network: Network, key: Key, x: Num[Array, "batch time ..."], mask: Float[Array, "batch time"]) -> Params:
    """First values of every part; "offset" is the likelihood's, of the frames that count.

    Raises:
        ValueError: a module returns another shape than `Network` asks for.
    """
    keys = iter(jax.random.split(key, 9))
    params: dict[str, Any] = {"offset": framewise.offset(network.likelihood, x, mask)}

    def rows(name: str, size: int) -> int:
        params[name], _ = linen.init(getattr(network, name), next(keys), jnp.zeros((1, size)))
        return linen.apply(getattr(network, name), params[name], {}, jnp.zeros((1, size))).shape[-1]

    def layer(name: str, size: int) -> None:
        zero = recurrent.zero_state(network.cell, 1, network.num_units)
        params[name], _ = linen.init(network.layer, next(keys), jnp.zeros((1, 1, size)), zero)

    num_features = rows("features", framewise.features(network.likelihood, x).shape[-1])
    num_g = rows("latent_features", network.latent_size) if network.latent_size else 0
    units, given = network.num_units, network.num_contents + network.style_size
    layer("cell", num_features + given + (0 if network.smoothing else num_g))
    if network.latent_size:
        rows("prior", units + given + (num_g if network.smoothing else 0))
        rows("posterior", units + given + (num_g if network.smoothing else num_features))
    if network.smoothing:
        layer("backward", num_features + units)
    if network.style_size:
        layer("summary", num_features)
        rows("style", units + network.num_contents)
    rows("decoder", num_g + units + given)
    decode(network, params, jnp.zeros((1, 1, num_g + units + given)))
    return params


def embed(network: Network, params: Params, x: Num[Array, "batch time ..."]) -> Float[Array, "batch time any"]:
    """φ_x(x_t) of every frame."""
    return _rows(network.features, params["features"], framewise.features(network.likelihood, x))


def decode(network: Network, params: Params, inputs: Float[Array, "batch time any"]) -> Float[Array, "batch time ..."]:
    """raw_t of every frame.

    Raises:
        ValueError: the decoder's output has another shape than the data and the likelihood ask for.
    """
    raw, offset = _rows(network.decoder, params["decoder"], inputs), params["offset"]
    if raw.shape[2:] != offset.shape:
        raise ValueError(f"`decoder` must return shape (n, {offset.shape}) for this data, got (n, {raw.shape[2:]}).")
    return raw + offset[None, None]


def first(network: Network, params: Params, num: int) -> Memory:
    """The memory before the first frame: a state of zeros, and z of zeros."""
    state = recurrent.zero_state(network.cell, num, network.num_units)
    return Memory(state, g_of(network, params, jnp.zeros((num, network.latent_size))))


def g_of(network: Network, params: Params, z: Float[Array, "*batch latent"]) -> Float[Array, "*batch any"]:
    """φ_z(z); nothing where there is no z."""
    return linen.apply(network.latent_features, params["latent_features"], {}, z) if network.latent_size else z


def prior(network: Network, params: Params, h: Any, g: Any, condition: Any) -> Gaussian:
    """p(z_t | the past, c); `h` may be dropped out."""
    inputs = [h, condition, g] if network.smoothing else [h, condition]
    return _gaussian(network, network.prior, params["prior"], inputs)


def posterior(network: Network, params: Params, evidence: Any, h: Any, g: Any, condition: Any, p: Gaussian) -> Gaussian:
    """q(z_t | ·); `evidence` is φ_x(x_t), or a_t where it smooths."""
    if not network.smoothing:
        return _gaussian(network, network.posterior, params["posterior"], [evidence, h, condition])
    q = _gaussian(network, network.posterior, params["posterior"], [evidence, g, condition])
    return Gaussian(p.mean + q.mean, q.log_std)


def advance(network: Network, params: Params, memory: Memory, feature: Any, condition: Any, g: Any) -> Memory:
    """The memory after a frame of features φ_x(x_t) and latents g_t."""
    return advance_with(network, params, memory, into(params, read(feature, condition)), g)


def advance_with(network: Network, params: Params, memory: Memory, pre: Any, g: Any) -> Memory:
    """`advance` where the product with the frame is `pre`, from `into`."""
    own, state = params["cell"], memory.state
    if network.latent_size and not network.smoothing:
        pre = pre + g @ own["input"][-g.shape[-1] :]
    return Memory(recurrent.CELLS[network.cell][0](pre, state[0] @ own["recurrent"], state), g)


def read(features: Float[Array, "batch *time size"], condition: Float[Array, "batch given"]) -> Any:
    """[φ_x(x_t), c], what the cell reads of frames beside g_t."""
    c = condition.reshape(len(condition), *(1,) * (features.ndim - 2), condition.shape[-1])
    return jnp.concatenate([features, jnp.broadcast_to(c, (*features.shape[:-1], c.shape[-1]))], axis=-1)


def into(params: Params, read: Float[Array, "*batch any"]) -> Float[Array, "*batch gates"]:
    """What the cell's gates are given of what is read."""
    bias = params["cell"]["bias"]
    return read @ params["cell"]["input"][: read.shape[-1]] + bias.reshape((1,) * (read.ndim - 1) + (-1,))


def condition(network: Network, batch: Any, style: Any = None) -> Float[Array, "batch any"]:
    """c of every sequence: its label as a unit vector, and s.

    Raises:
        ValueError: there is no "label" where the network reads it, or one outside its classes.
    """
    num = len(next(iter(batch.values())))
    return jnp.concatenate([content(network, batch.get("label"), num), *([] if style is None else [style])], axis=-1)


def content(network: Network, label: Any, num: int) -> Float[Array, "batch contents"]:
    """Unit vectors (num, num_contents)."""
    if not network.num_contents:
        return jnp.zeros((num, 0))
    if label is None:
        raise ValueError(f"`label` must be given, one of {network.num_contents} contents for each sequence, got none.")
    _checks.integers("label", label, network.num_contents)
    return jax.nn.one_hot(jnp.asarray(label, jnp.int32), network.num_contents)


def style(network: Network, params: Params, x: Any, mask: Any, contents: Any) -> Gaussian:
    """q(s | x, content), of the mean over the frames that count of a recurrent network's states."""
    if network.style is None:
        raise ValueError("`style_size` must be at least 1 for a style, got 0.")
    zero = recurrent.zero_state(network.cell, len(x), network.num_units)
    features = jnp.swapaxes(embed(network, params, x), 0, 1)
    states = jnp.swapaxes(linen.apply(network.layer, params["summary"], {}, features, zero)[0], 0, 1)
    summary = framewise.total(states, mask) / jnp.sum(mask, axis=1)[:, None]
    inputs = jnp.concatenate([summary, contents], axis=-1)
    return gaussian.from_raw(linen.apply(network.style, params["style"], {}, inputs))


def _gaussian(network: Network, module: nn.Module, params: Params, inputs: list[Any]) -> Gaussian:
    raw = linen.apply(module, params, {}, jnp.concatenate(inputs, axis=-1))
    if raw.shape[-1] != 2 * network.latent_size:
        raise ValueError(f"`prior` and `posterior` must return {2 * network.latent_size} values, got {raw.shape[-1]}.")
    return gaussian.from_raw(raw)


def _rows(module: nn.Module, params: Params, x: Any) -> Any:
    out = linen.apply(module, params, {}, x.reshape(-1, x.shape[-1]))
    return out.reshape(*x.shape[:2], *out.shape[1:])
