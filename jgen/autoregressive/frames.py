"""Sequences of binary frames, such as the notes that sound in each beat: a recurrent network with a law per frame.

    log p(x) = Σ_t log p(v_t | v_<t),        u_t = cell(v_t, u_{t−1}),        b_t = b + W_1 u_{t−1}
    "independent":  p(v_t | v_<t) = Π_d Bernoulli(v_td; σ(b_td))
    "nade":         a NADE over the bits of the frame, its biases b_t and c_t = c + W_2 u_{t−1}

What sounds together belongs together: the NADE head models it, independent bits cannot. Sequences of different lengths
share a batch: `mask` is 1 on the frames that count, which come first; the model is p(x | length).
Boulanger-Lewandowski, Bengio, Vincent: Modeling temporal dependencies in high-dimensional sequences, 2012 (RNN-NADE).

Differs from the paper: GRU or LSTM cells beside its vanilla one, dropout of what a frame is given, and any optax
optimizer where the paper's best results are from Hessian-free optimization.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Num

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.autoregressive import nade
from jgen.autoregressive.fixed_order import Levels
from jgen.learners import GradientState, gradient
from jgen.math import discrete
from jgen.model import Model
from jgen.nets import recurrent

HEADS = ("independent", "nade")
BITS = Levels(2)


@dataclasses.dataclass(frozen=True)
class Network:
    """The sizes of a network over frames.

    Attributes:
        num_dims: D, bits of a frame.
        head: "independent" or "nade", the law of a frame.
        cell: "vanilla", "gru" or "lstm".
        num_units: of u.
        hidden_size: of the NADE.

    Raises:
        ValueError: `head` or `cell` is unknown, or a size is less than 1.
    """

    num_dims: int
    head: str = "nade"
    cell: str = "lstm"
    num_units: int = 128
    hidden_size: int = 128

    def __post_init__(self) -> None:
        _checks.one_of("head", self.head, HEADS)
        _checks.one_of("cell", self.cell, tuple(recurrent.CELLS))
        for name in ("num_dims", "num_units", "hidden_size"):
            _checks.at_least(name, getattr(self, name), 1)

    @property
    def layer(self) -> recurrent.Recurrent:
        """The recurrent layer."""
        return recurrent.Recurrent(self.cell, self.num_units)


def init(network: Network, key: Key, x: Num[Array, "batch time dims"], mask: Float[Array, "batch time"]) -> Params:
    """Small weights; b at the log-odds of each bit in the frames that count, the state before the first frame zero."""
    keys = jax.random.split(key, 4)
    zero = recurrent.zero_state(network.cell, 1, network.num_units)
    layer, _ = linen.init(network.layer, keys[0], jnp.zeros((1, 1, network.num_dims)), zero)
    scale = 1.0 / np.sqrt(network.num_units)
    ones, num = jnp.sum(x * mask[..., None], axis=(0, 1)), jnp.sum(mask)
    bias = jnp.log(ones + 0.5) - jnp.log(num - ones + 0.5)
    params = {
        "layer": layer,
        "start": tuple(state[0] for state in zero),
        "kernel": 0.1 * scale * jax.random.normal(keys[1], (network.num_units, network.num_dims)),
        "bias": bias,
    }
    if network.head == "independent":
        return params
    weights = nade.initial(keys[2], 1, network.hidden_size, bias[:, None])
    into = scale * jax.random.normal(keys[3], (network.num_units, network.hidden_size))
    own = {"encoder": weights.encoder, "decoder": weights.decoder, "hidden_bias": weights.hidden_bias}
    return {**params, **own, "hidden_kernel": into}


def first_state(network: Network, params: Params, num: int) -> recurrent.State:
    """The learned state before the first frame, for `num` sequences."""
    return tuple(jnp.broadcast_to(state[None], (num, network.num_units)) for state in params["start"])


def states(
    network: Network, params: Params, x: Num[Array, "batch time dims"]
) -> tuple[Float[Array, "batch time units"], recurrent.State]:
    """u_{t−1}, what frame t is given, for all t, and the state after the last frame."""
    before = first_state(network, params, x.shape[0])
    frames = jnp.swapaxes(x, 0, 1).astype(jnp.float32)
    after, last = linen.apply(network.layer, params["layer"], {}, frames, before)
    return jnp.swapaxes(jnp.concatenate([before[0][None], after[:-1]]), 0, 1), last


def frame_log_prob(
    network: Network, params: Params, u: Float[Array, "num units"], v: Num[Array, "num dims"]
) -> Float[Array, " num"]:
    """log p(v | u) of single frames, in nats."""
    bias = params["bias"][None] + u @ params["kernel"]
    if network.head == "nade":
        bias = bias + nade.conditionals(_weights(params, u), v, _hidden)[..., 0]
    return jnp.sum(BITS.log_prob(bias[..., None], v), axis=-1)


def log_prob_each(
    network: Network, params: Params, x: Num[Array, "batch time dims"], dropout: Any = None
) -> Float[Array, "batch time"]:
    """log p(v_t | v_<t) of every frame, in nats; all frames of all sequences side by side.

    Args:
        dropout: multiplies u, (batch, units), as `recurrent.dropout_masks` gives it.
    """
    u = states(network, params, x)[0]
    u = u if dropout is None else u * dropout[:, None]
    each = frame_log_prob(network, params, u.reshape(-1, u.shape[-1]), x.reshape(-1, x.shape[-1]))
    return each.reshape(x.shape[:2])


def log_prob(
    network: Network, params: Params, x: Num[Array, "batch time dims"], mask: Float[Array, "batch time"]
) -> Float[Array, " batch"]:
    """log p(x | length) in nats."""
    return jnp.sum(log_prob_each(network, params, x) * mask, axis=1)


def sample(
    network: Network, key: Key, params: Params, num: int, length: int, *, prompt: Any = None
) -> Float[Array, "num length dims"]:
    """Draws frame after frame, the recurrent state being the cache, and bit after bit in a frame.

    Args:
        key: example i draws from (key, i).
        num: sequences.
        length: frames to draw.
        prompt: (num, any, dims) frames that the sequences begin with; they are not returned.

    Raises:
        ValueError: `length` is less than 1, or `prompt` has another shape.
    """
    _checks.at_least("length", length, 1)
    state, keys = first_state(network, params, num), random.example_keys(key, num)
    if prompt is not None:
        if np.ndim(prompt) != 3 or prompt.shape[::2] != (num, network.num_dims):
            raise ValueError(f"`prompt` must be frames ({num}, any, {network.num_dims}), got {np.shape(prompt)}.")
        state = states(network, params, prompt)[1]

    def step(state: Any, t: Any) -> Any:
        noise = jax.vmap(lambda key: discrete.noise(jax.random.fold_in(key, t), (network.num_dims,), 2))(keys)
        v = draw_frame(network, params, state[0], noise)
        _, state = linen.apply(network.layer, params["layer"], {}, v[None], state)
        return state, v

    return jnp.swapaxes(jax.lax.scan(step, state, jnp.arange(length))[1], 0, 1)


def draw_frame(
    network: Network, params: Params, u: Float[Array, "num units"], noise: Float[Array, "num dims width"]
) -> Float[Array, "num dims"]:
    """One frame per state, a function of logistic noise."""
    bias = params["bias"][None] + u @ params["kernel"]
    if network.head == "independent":
        return BITS.draw(bias[..., None], noise)
    known, mask = jnp.zeros((u.shape[0], network.num_dims)), np.zeros(network.num_dims, bool)
    # A bit is logit + bias > noise, so that each example's own bias may move its noise instead.
    return nade.draw(_weights(params, u), noise - bias[..., None], known, mask, BITS, _hidden)


def _weights(params: Params, u: Any) -> nade.Weights:
    """The NADE of each state, without the bias of its outputs."""
    hidden_bias = params["hidden_bias"][None] + u @ params["hidden_kernel"]
    return nade.Weights(params["encoder"], hidden_bias, params["decoder"], jnp.zeros((len(params["bias"]), 1)))


def _hidden(a: Any, own: Any) -> Any:
    del own
    return jax.nn.sigmoid(a)


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    /,
    *,
    train: bool,
    network: Network,
    dropout_rate: float = 0.0,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean −log p(v_t | v_<t) in nats over the frames of the batch that count."""
    x, mask = examples(batch, network)
    keys = random.batch_keys(key, batch)
    dropout = recurrent.dropout_masks(keys, 1, network.num_units, dropout_rate) if train else None
    each = log_prob_each(network, params, x, None if dropout is None else dropout[0])
    nll, num = -jnp.sum(each * mask, axis=1), jnp.sum(mask, axis=1)
    value = jnp.sum(nll) / jnp.sum(num)
    if train:
        return value, (stats, {"nats_per_frame": value})
    return value, (stats, {"nll": nll, "nats_per_frame": nll / num})


def examples(batch: Batch, network: Network) -> tuple[Num[Array, "batch time dims"], Float[Array, "batch time"]]:
    """(x, mask) of a batch, checked; a batch without a mask counts every frame.

    Raises:
        ValueError: `batch` is none, x has another shape or is not binary, or the mask does not begin with ones, or has
            ones after a zero.
    """
    random.batch_size(batch)
    x = batch["x"]
    if np.ndim(x) != 3 or np.shape(x)[2] != network.num_dims:
        raise ValueError(f"`x` must have shape (batch, time, {network.num_dims}), got {np.shape(x)}.")
    _checks.integers("x", x, 2)
    if "mask" not in batch:
        return jnp.asarray(x), jnp.ones(np.shape(x)[:2])
    mask = batch["mask"]
    if np.shape(mask) != np.shape(x)[:2]:
        raise ValueError(f"`mask` must have shape {np.shape(x)[:2]}, got {np.shape(mask)}.")
    _checks.integers("mask", mask, 2)
    if not isinstance(mask, Tracer):
        ones = np.asarray(mask)
        if not (np.all(ones[:, 0] == 1) and np.all(ones[:, 1:] <= ones[:, :-1])):
            raise ValueError("`mask` must be ones, then zeros, in each row, got another.")
    return jnp.asarray(x), jnp.asarray(mask, jnp.float32)


def model(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    length: int = 100,
    dropout_rate: float = 0.0,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """Maximum likelihood over batches {"x": (batch, time, D)}, and "mask": (batch, time) where lengths differ.

    Args:
        network: its sizes.
        optimizer: any optax optimizer.
        length: frames that `sample` draws.
        dropout_rate: of u, where a frame is given it; the recurrence keeps all of it.
        axis_name: the mapped axis over which gradients and metrics are averaged.

    Raises:
        ValueError: `length` is less than 1, or `dropout_rate` outside [0, 1).
    """
    _checks.at_least("length", length, 1)
    if not 0.0 <= dropout_rate < 1.0:
        raise ValueError(f"`dropout_rate` must be in [0, 1), got {dropout_rate}.")
    return gradient(
        lambda key, batch: (init(network, key, *examples(batch, network)), {}),
        functools.partial(loss, network=network, dropout_rate=dropout_rate),
        optimizer,
        sample=lambda key, state, num: {"x": sample(network, key, state.params, num, length)},
        log_prob=lambda state, batch: log_prob(network, state.params, *examples(batch, network)),
        axis_name=axis_name,
    )
