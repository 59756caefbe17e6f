"""RealNVP: an invertible map of affine coupling layers, with an exact density.

    log p(x) = log N(f(x); 0, I) + log |det df/dx|
    coupling with mask b: y = b·x + (1 - b)·(x·exp(s(b·x)) + t(b·x)), log |det| = Σ (1 - b)·s

Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP (2017). Tables alternate two halves of the columns;
images use checkerboard masks, squeeze, channel masks, and let half of the channels go after each level.

Differs from the paper: no batch normalization and no weight normalization; the log-scale is c·tanh(s/c) with a fixed c,
and s = t = 0 at the start, so the flow starts as the identity; residual blocks are 3×3 and 1×1, on 2×2 patches in
checkerboard layers; the L2 penalty on weight scales is left to the optimizer.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jgen import random
from jgen._checks import at_least
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.flows.coupling import Coupling, Flow, Layer, Split, Squeeze, forward, init, inverse
from jgen.learners import GradientState, gradient
from jgen.math import dequantization
from jgen.math.bijectors import checkerboard, inverse_logit, logit
from jgen.math.densities import standard_normal_log_prob
from jgen.model import Model
from jgen.nets.mlp import MLP
from jgen.nets.resnet import ResNet


def log_prob(flow: Flow, params: Params, x: Float[Array, "batch *event"]) -> Float[Array, " batch"]:
    """log p(x) = log N(f(x); 0, I) + log |det df/dx| in nats, for real x."""
    z, log_det = forward(flow, params, x)
    return standard_normal_log_prob(z) + log_det


def log_bound(
    key: Key, flow: Flow, params: Params, batch: Batch, *, levels: int, margin: float = 0.05, num_samples: int = 1
) -> Float[Array, " batch"]:
    """A bound from below on log P(x) in nats, for whole x in 0..levels-1 (see `jgen.math.dequantization`).

    Noise, the logit of pixels with its log-determinant, and the constant of the levels are all in here.

    Args:
        batch: {"x": (batch, *shape)}.
        margin: m of `bijectors.logit`; the paper's α = 0.05.
        num_samples: K; the bound rises with it.
    """

    def log_density(x: Array) -> Array:
        y, log_det = logit(x, margin)
        return log_prob(flow, params, y) + log_det

    keys = random.batch_keys(key, batch)
    return dequantization.log_bound(log_density, keys, batch["x"], levels, num_samples=num_samples)


def nll(
    key: Key,
    flow: Flow,
    params: Params,
    batch: Batch,
    *,
    levels: int | None = None,
    margin: float = 0.05,
    num_samples: int = 1,
) -> Metrics:
    """Of each example, {"loss": -log p(x) in nats}; for whole numbers its bound, and {"bits_per_dim"} beside it.

    Raises:
        ValueError: x has not the shape `flow.shape`, or is not whole numbers in 0..levels-1.
    """
    shape = tuple(jnp.shape(batch["x"])[1:])
    if shape != flow.shape:
        raise ValueError(f"`x` must have examples of shape {flow.shape}, got {shape}.")
    if levels is None:
        return {"loss": -log_prob(flow, params, batch["x"])}
    nats = log_bound(key, flow, params, batch, levels=levels, margin=margin, num_samples=num_samples)
    return {"loss": -nats, "bits_per_dim": dequantization.bits_per_dim(nats, math.prod(shape))}


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    flow: Flow,
    levels: int | None = None,
    margin: float = 0.05,
    train: bool = True,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """The mean of `nll` over the batch, (value, (stats, metrics))."""
    del train
    metrics = jax.tree.map(jnp.mean, nll(key, flow, params, batch, levels=levels, margin=margin))
    return metrics["loss"], (stats, metrics)


def sample(key: Key, flow: Flow, params: Params, num: int) -> Float[Array, "num *event"]:
    """f^-1(z) for z ~ N(0, I); example i depends on (key, i) alone."""
    keys = random.example_keys(key, num)
    z = jax.vmap(lambda own: jax.random.normal(own, (math.prod(flow.shape),)))(keys)
    return inverse(flow, params, z)[0]


def table_flow(
    num_columns: int, *, num_layers: int = 8, hidden_sizes: tuple[int, ...] = (64, 64), bound: float = 1.0
) -> Flow:
    """Couplings of MLPs that keep the first and the second half of the columns in turn.

    Raises:
        ValueError: fewer than two columns, or no layer.
    """
    at_least("num_columns", num_columns, 2)
    at_least("num_layers", num_layers, 1)
    first = np.arange(num_columns) < num_columns // 2
    net = MLP((*hidden_sizes, 2 * num_columns), activation=jax.nn.relu, zero_last=True)
    return Flow((num_columns,), tuple(Coupling(first ^ bool(i % 2), net, bound) for i in range(num_layers)))


def image_flow(
    shape: tuple[int, ...],
    *,
    num_levels: int = 2,
    channels: int = 32,
    growth: int = 2,
    num_blocks: int = 2,
    bound: float = 2.0,
) -> Flow:
    """The paper's multi-scale flow (section 3.6): each level is three checkerboard couplings, squeeze, three channel
    couplings, split; the last level is four checkerboard couplings.

    Args:
        shape: (height, width, channels) of an image.
        num_levels: scales.
        channels: of the residual networks before the first squeeze.
        growth: by how much they grow at each squeeze; the paper doubles them.
        num_blocks: residual blocks in each network.
        bound: the largest |log-scale|.

    Raises:
        ValueError: `shape` has not three axes, or a level would have to squeeze an odd height or width.
    """
    if len(shape) != 3:
        raise ValueError(f"`shape` must be (height, width, channels), got {shape}.")
    at_least("num_levels", num_levels, 1)
    layers: list[Layer] = []
    height, width, depth = shape
    for level in range(num_levels):
        last = level == num_levels - 1
        layers += _couplings("checkerboard", (height, width, depth), 4 if last else 3, channels, num_blocks, bound)
        if last:
            break
        if height % 2 or width % 2:
            raise ValueError(f"`num_levels` must be at most {level + 1} for images of shape {shape}, got {num_levels}.")
        height, width, depth, channels = height // 2, width // 2, 4 * depth, growth * channels
        layers += [Squeeze(), *_couplings("channel", (height, width, depth), 3, channels, num_blocks, bound), Split()]
        depth //= 2
    return Flow(tuple(shape), tuple(layers))


def _couplings(
    kind: str, shape: tuple[int, int, int], num: int, channels: int, num_blocks: int, bound: float
) -> list[Layer]:
    height, width, depth = shape
    board = np.broadcast_to(checkerboard(height, width)[..., None], shape)
    half = np.broadcast_to(np.arange(depth) < depth // 2, shape)
    patches = kind == "checkerboard" and height % 2 == 0 and width % 2 == 0
    net = ResNet(channels, num_blocks, 2 * depth, patches=patches)
    return [Coupling((board if kind == "checkerboard" else half) ^ bool(i % 2), net, bound) for i in range(num)]


def model(
    flow: Flow,
    *,
    optimizer: optax.GradientTransformation,
    levels: int | None = None,
    margin: float = 0.05,
    num_samples: int = 1,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """RealNVP by maximum likelihood.

    Args:
        flow: from `table_flow` or `image_flow`, or any other layers.
        optimizer: any optax optimizer.
        levels: None for real data, which has an exact `log_prob`; else data are whole numbers in 0..levels-1, which
            have a `log_bound`, and samples are whole numbers too.
        margin: of the logit that whole numbers go through.
        num_samples: K noises in `evaluate` and `log_bound`; learning takes one.
        axis_name: the mapped axis, as in `learners.gradient`.

    Raises:
        ValueError: `levels` is less than 2, or (when traced) x has not the shape `flow.shape`.
    """
    if levels is not None:
        at_least("levels", levels, 2)
    at_least("num_samples", num_samples, 1)
    measure = functools.partial(nll, flow=flow, levels=levels, margin=margin, num_samples=num_samples)

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        return measure(key, params=state.params, batch=batch)

    def log_likelihood(key: Key, state: GradientState, batch: Batch) -> Array:
        return -evaluate(key, state, batch)["loss"]

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        x = sample(key, flow, state.params, num)
        return {"x": x if levels is None else dequantization.quantize(inverse_logit(x, margin)[0], levels)}

    return gradient(
        lambda key, batch: (init(key, flow), {}),
        functools.partial(loss, flow=flow, levels=levels, margin=margin),
        optimizer,
        evaluate=evaluate,
        sample=draw,
        log_prob=(lambda state, batch: log_likelihood(jax.random.key(0), state, batch)) if levels is None else None,
        log_bound=log_likelihood if levels is not None else None,
        axis_name=axis_name,
    )
