"""WaveNet: dilated causal convolutions over sound, whose reach doubles with each layer.

    log p(x) = Σ_t log p(x_t | x_{t−R}, …, x_{t−1}),      R = 1 + num_stacks (2^num_layers − 1)
    z_i = tanh(W_f ∗ h_i + V_f c) ⊙ σ(W_g ∗ h_i + V_g c),   h_{i+1} = h_i + A_i z_i,
    logits = B_2 relu(B_1 relu(Σ_i S_i z_i)),      kernels W of two taps, d = 2^i apart

x_t is one of `levels` values (of sound: `jgen.math.companding`), c a class (a speaker, a word). Before the first value
there is START, and before START each layer sees zeros. A draw keeps, for each layer, the last d of its inputs in a
queue: one value costs one value, whatever the length.
van den Oord et al.: WaveNet: A Generative Model for Raw Audio, 2016. Queues: Le Paine et al.: Fast WaveNet, 2016.

Differs from the papers: the first layer embeds the value before (one tap, START included) instead of a convolution of
two, so that R is exactly 2^num_layers for one stack; the last layer has no residual branch, for nothing reads it; the
output bias starts at the values' log frequencies.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.autoregressive.decoding import Decoding, next_token, token_noise
from jgen.autoregressive.tokens import shifted, tokens_of
from jgen.learners import GradientState, gradient
from jgen.math import discrete
from jgen.model import Model
from jgen.nets import causal

METHODS = ("cached", "naive")


class WaveNet(nn.Module):
    """Logits of every value, (batch, time, levels), and what each layer read, for the queues.

    Attributes:
        levels: x are 0..levels−1; input `levels` is START.
        channels: of h, and of z.
        skip_channels: of what the head reads.
        num_layers: of a stack, with dilations 1, 2, …, 2^(num_layers − 1).
        num_stacks: that follow each other.
        num_classes: labels are 0..num_classes−1; None without labels.
    """

    levels: int
    channels: int = 32
    skip_channels: int = 64
    num_layers: int = 10
    num_stacks: int = 1
    num_classes: int | None = None

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of every layer, the first one first."""
        return tuple(2**i for i in range(self.num_layers)) * self.num_stacks

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "batch time"], label: Int[Array, " batch"] | None = None
    ) -> tuple[Float[Array, "batch time levels"], list[Float[Array, "batch time channels"]]]:
        """One pass over a whole sequence; the logits at t see tokens before t alone."""
        before = shifted(tokens, None, self.levels)
        start = nn.initializers.normal(1.0)
        h = nn.Embed(self.levels + 1, self.channels, embedding_init=start, name="embedding")(before)
        read, z, conditions = [], [], _by_layer(self, label)
        for i, dilation in enumerate(self.dilations):
            read.append(h)
            gates = causal.CausalConv(2 * self.channels, 2, dilation, name=f"gates_{i}")(h)
            z.append(causal.gated(gates if conditions is None else gates + conditions[:, None, i]))
            h = h if i + 1 == len(self.dilations) else h + nn.Dense(self.channels, name=f"residual_{i}")(z[-1])
        skip = nn.relu(nn.Dense(self.skip_channels, name="skip")(jnp.concatenate(z, axis=-1)))
        return nn.Dense(self.levels, name="logits")(nn.relu(nn.Dense(self.skip_channels, name="head")(skip))), read


def _by_layer(module: WaveNet, label: Int[Array, " batch"] | None) -> Any:
    """V_f c and V_g c of each layer, (batch, layers, 2·channels); None without labels."""
    if (num := module.num_classes) is None or label is None:
        return None
    size = 2 * module.channels * len(module.dilations)
    small = nn.initializers.normal(0.1)
    return nn.Embed(num, size, embedding_init=small, name="label")(label).reshape(len(label), -1, 2 * module.channels)


def receptive_field(module: WaveNet) -> int:
    """R: the logits at t depend on x_{t−R}, …, x_{t−1} and on nothing else."""
    return 1 + sum(module.dilations)


def token_log_prob(
    module: WaveNet, params: Params, tokens: Int[Array, "batch time"], label: Int[Array, " batch"] | None = None
) -> Float[Array, "batch time"]:
    """log p(x_t | x_<t), or log p(x_t | x_<t, label), of each value in nats."""
    return discrete.log_prob(linen.apply(module, params, {}, tokens, label)[0], tokens)


def queues(
    module: WaveNet, params: Params, tokens: Int[Array, "batch known"], label: Int[Array, " batch"] | None = None
) -> Float[Array, "batch slots channels"]:
    """The queues after the `known` tokens, from one pass over all but the last; all zeros after none."""
    num, time = tokens.shape
    if not time:
        return jnp.zeros((num, sum(module.dilations), module.channels))
    return causal.queues(linen.apply(module, params, {}, tokens, label)[1], module.dilations)


def step(
    module: WaveNet,
    params: Params,
    queue: Float[Array, "batch slots channels"],
    t: Int[Array, ""],
    token: Int[Array, " batch"],
    label: Int[Array, " batch"] | None = None,
) -> tuple[Float[Array, "batch slots channels"], Float[Array, "batch levels"]]:
    """(queues, logits of x_t) from the token before t: one gather, the layers, one scatter."""
    slots = causal.slots(module.dilations, t)
    old, h = queue[:, slots], params["embedding"]["embedding"][token]
    read, z = [], []
    num_layers = len(module.dilations)
    for i in range(num_layers):
        read.append(h)
        gates = causal.step(params[f"gates_{i}"], jnp.stack([old[:, i], h], axis=1))
        if module.num_classes is not None and label is not None:
            gates = gates + params["label"]["embedding"].reshape(module.num_classes, num_layers, -1)[label, i]
        z.append(causal.gated(gates))
        h = h if i + 1 == num_layers else h + _dense(params[f"residual_{i}"], z[-1])
    skip = nn.relu(_dense(params["skip"], jnp.concatenate(z, axis=-1)))
    logits = _dense(params["logits"], nn.relu(_dense(params["head"], skip)))
    return queue.at[:, slots].set(jnp.stack(read, axis=1)), logits


def _dense(params: Params, x: Float[Array, "batch inputs"]) -> Float[Array, "batch outputs"]:
    return x @ params["kernel"] + params["bias"][None]


def sample(
    module: WaveNet,
    key: Key,
    params: Params,
    num: int,
    length: int,
    *,
    label: Int[Array, " num"] | None = None,
    known: Any = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    method: str = "cached",
) -> Int[Array, "num length"]:
    """Draws value after value; example i draws x_t from (key, i, t), the same by both methods.

    Args:
        label: the class of each example, for a network with classes.
        known: (num, time) or (time,) first values, which stay: a draw from p(rest | known).
        temperature, top_k, top_p: of `Decoding`.
        method: "cached" works on one value per value, "naive" does a full pass per value.

    Raises:
        ValueError: `method` is unknown, a size or how to draw out of range, a label missing or too much, or `known`
            longer than `length`, of another shape, or out of range.
    """
    _checks.one_of("method", method, METHODS)
    _checks.at_least("length", length, 1)
    how = Decoding(temperature, top_k, top_p)
    _check_label(module, label)
    known = _known(known, num, length, module.levels)
    keys, start, ended = random.example_keys(key, num), known.shape[1], jnp.zeros(num, bool)

    def draw(t: Any, logits: Any) -> Any:
        return next_token(logits, token_noise(keys, t, module.levels), ended, how)[0]

    def whole(t: Any, x: Any) -> Any:
        return x.at[:, t].set(draw(t, linen.apply(module, params, {}, x, label)[0][:, t]))

    def forward(before: Any, t: Any) -> Any:
        queue, logits = step(module, params, before[0], t, before[1], label)
        token = draw(t, logits)
        return (queue, token), token

    if method == "naive":
        return jax.lax.fori_loop(start, length, whole, jnp.pad(known, ((0, 0), (0, length - start))))
    last = known[:, -1] if start else jnp.full((num,), module.levels, jnp.int32)
    first = (queues(module, params, known, label), last)
    return jnp.concatenate([known, jax.lax.scan(forward, first, jnp.arange(start, length))[1].T], axis=1)


def _check_label(module: WaveNet, label: Any) -> None:
    if (label is None) != (module.num_classes is None):
        wanted = "absent" if module.num_classes is None else f"classes in 0..{module.num_classes - 1}"
        raise ValueError(f"`label` must be {wanted}, got {'none' if label is None else np.shape(label)}.")
    if module.num_classes is not None:
        _checks.integers("label", label, module.num_classes)


def _known(known: Any, num: int, length: int, levels: int) -> Int[Array, "num known"]:
    if known is None:
        return jnp.zeros((num, 0), jnp.int32)
    shape = np.shape(known)
    if not 1 <= len(shape) <= 2 or shape[:-1] not in ((), (num,)) or shape[-1] > length:
        raise ValueError(f"`known` must have shape ({num}, time) or (time,), time at most {length}, got {shape}.")
    _checks.integers("known", known, levels)
    return jnp.broadcast_to(jnp.atleast_2d(jnp.asarray(known, jnp.int32)), (num, shape[-1]))


def examples(batch: Batch, module: WaveNet) -> tuple[Any, Any, Any]:
    """(tokens, label or None, mask) of a batch, checked; the mask is all ones where there is none.

    Raises:
        ValueError: `batch` is none, or an entry is missing, of another shape or out of range.
    """
    tokens = tokens_of(batch, module.levels)
    if module.num_classes is not None and "label" not in batch:
        raise ValueError(f"`batch` must hold 'label' for a model with classes, got {sorted(batch)}.")
    label = batch["label"] if module.num_classes is not None else None
    _check_label(module, label)
    mask = batch.get("mask", jnp.ones(tokens.shape))
    if np.shape(mask) != tokens.shape:
        raise ValueError(f"`mask` must have the shape of `tokens`, {tokens.shape}, got {np.shape(mask)}.")
    _checks.within("mask", mask, 0, 1)
    return tokens, label, jnp.asarray(mask, jnp.float32)


def loss(
    key: Key, params: Params, stats: Params, batch: Batch, /, *, train: bool, module: WaveNet
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean −log p(x_t | x_<t, label) in nats over the values that `batch["mask"]` counts."""
    del key
    tokens, label, mask = examples(batch, module)
    nll, num = -jnp.sum(token_log_prob(module, params, tokens, label) * mask, axis=1), jnp.sum(mask, axis=1)
    value = jnp.sum(nll) / jnp.maximum(jnp.sum(num), 1.0)
    return value, (stats, {"nats_per_token": value} if train else {"nll": nll, "counted": num})


def model(
    module: WaveNet, optimizer: optax.GradientTransformation, *, length: int, axis_name: str | None = None
) -> Model[GradientState]:
    """Maximum likelihood over batches {"tokens": (batch, time)}, and "label" (batch,) where there are classes.

    "mask", (batch, time), where it is given, counts values (1) or leaves them out (0): padding after the end of a
    recording, or the first R values of a window out of its middle, which lack their past. `log_prob` is log p(x), or
    log p(x, label) with uniform classes; `sample` draws the labels uniformly.

    Args:
        module: the net.
        optimizer: any optax optimizer.
        length: how many values `sample` draws.
        axis_name: the mapped axis over which gradients and metrics are averaged.

    Raises:
        ValueError: a size is out of its range.
    """
    lows = {"levels": 2, "channels": 1, "skip_channels": 1, "num_layers": 1, "num_stacks": 1}
    for name, low in lows.items():
        _checks.at_least(name, getattr(module, name), low)
    num_classes = module.num_classes or 0
    _checks.at_least("num_classes", 1 if module.num_classes is None else num_classes, 1)
    _checks.at_least("length", length, 1)

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        tokens, label, mask = examples(batch, module)
        params, _ = linen.init(module, key, tokens[:, :2], label)
        counts = jnp.zeros(module.levels).at[tokens].add(mask)
        bias = jnp.log(counts + 0.5) - jnp.log(jnp.sum(mask) + 0.5 * module.levels)
        return {**params, "logits": {**params["logits"], "bias": bias}}, {}

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        if not num_classes:
            return {"tokens": sample(module, key, state.params, num, length)}
        key, label_key = jax.random.split(key)
        classes = jax.vmap(lambda key: jax.random.randint(key, (), 0, num_classes))
        label = classes(random.example_keys(label_key, num))
        return {"tokens": sample(module, key, state.params, num, length, label=label), "label": label}

    def mass(state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        tokens, label, mask = examples(batch, module)
        each = token_log_prob(module, state.params, tokens, label)
        return jnp.sum(each * mask, axis=1) - float(np.log(max(num_classes, 1)))

    return gradient(
        init, functools.partial(loss, module=module), optimizer, sample=draw, log_prob=mass, axis_name=axis_name
    )
