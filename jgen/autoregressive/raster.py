"""Images in raster order: what all autoregressive networks over pixels share.

    log p(x) = Σ_d log p(x_d | x_<d),        d through rows, columns, then channels (R before G before B)

A `Network` gives the logits of all conditionals in one pass, and draws one position after another with a cache of its
own. Likelihood, completion, class labels, sampling in three ways, and the `Model` follow from it here.
With class labels the model is p(x, y) = p(x | y) / num_classes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Num

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.autoregressive import fixed_order
from jgen.autoregressive.completion import prefix
from jgen.learners import GradientState, gradient
from jgen.math import discrete
from jgen.model import Model


@dataclasses.dataclass(frozen=True)
class Network:
    """An autoregressive network over images (height, width, channels) as three pure functions.

    Attributes:
        shape: of one image, (height, width, channels).
        levels: x are whole numbers in 0..levels-1.
        init: (key, x, label) -> params.
        logits: (params, x, label, key) -> (batch, height, width, channels, width of a conditional); those at d depend
            on x_<d alone. `key` is where dropout comes from; None switches it off.
        draw: (params, noise, known, mask, label) -> x. One position after another at the cost of one position each:
            x_d = known_d where `mask` (a NumPy constant) is True, else `discrete.draw(logits_d(x_<d), noise_d)`.
        num_classes: labels are 0..num_classes-1; None for a model without labels, whose `label` is None throughout.
        log_prob: (params, x, label, key) -> log p(x_d | x_<d), (batch, height, width, channels), for a network that
            has it for less than the logits of all levels; None takes it from `logits`.
    """

    shape: tuple[int, int, int]
    levels: int
    init: Callable[[Key, Any, Any], Params]
    logits: Callable[[Params, Any, Any, Key | None], Any]
    draw: Callable[[Params, Any, Any, np.ndarray, Any], Any]
    num_classes: int | None = None
    log_prob: Callable[[Params, Any, Any, Key | None], Any] | None = None


def log_prob(
    network: Network, params: Params, x: Num[Array, "batch h w c"], label: Int[Array, " batch"] | None = None
) -> Float[Array, " batch"]:
    """Exact log p(x), or log p(x | label), in nats."""
    return jnp.sum(conditional_log_prob(network, params, x, label), axis=(1, 2, 3))


def conditional_log_prob(
    network: Network,
    params: Params,
    x: Num[Array, "batch h w c"],
    label: Int[Array, " batch"] | None = None,
    key: Key | None = None,
) -> Float[Array, "batch h w c"]:
    """log p(x_d | x_<d) of every position, in nats; `key` is where dropout comes from."""
    if network.log_prob is not None:
        return network.log_prob(params, x, label, key)
    return discrete.log_prob(network.logits(params, x, label, key), x)


def sample(
    network: Network,
    key: Key,
    params: Params,
    num: int,
    *,
    label: Int[Array, " num"] | None = None,
    known: Any = None,
    mask: Any = None,
    method: str = "cached",
) -> Num[Array, "num h w c"]:
    """Exact draws; all methods give the same images from the same key, up to rounding of the logits.

    Args:
        label: the class of each image, for a network with classes.
        known: completes these images, a draw from p(missing | known).
        mask: (h, w, c) concrete booleans, True where a value is known; needed with `known`.
        method: "cached" works one position per position, "naive" does a full pass per position, "fixed_point" as many
            full passes as it takes until nothing changes.

    Raises:
        ValueError: `method` is unknown, a label is missing or too much, or a known value comes after a missing one.
    """
    flat = _in_order(network, label)
    known, mask = _flat(network, num, known, mask)
    return fixed_order.sample(flat, key, params, num, known=known, mask=mask, method=method).reshape(
        num, *network.shape
    )


def fixed_point(
    network: Network,
    key: Key,
    params: Params,
    num: int,
    *,
    label: Int[Array, " num"] | None = None,
    known: Any = None,
    mask: Any = None,
) -> tuple[Num[Array, "num h w c"], Int[Array, " num"]]:
    """The draws of `sample` by Jacobi sweeps over whole images, and the sweeps that each image took."""
    flat = _in_order(network, label)
    known, mask = _flat(network, num, known, mask)
    x, sweeps = fixed_order.fixed_point(flat, key, params, num, known=known, mask=mask)
    return x.reshape(num, *network.shape), sweeps


def _in_order(network: Network, label: Any) -> fixed_order.Network:
    """The network, given the labels, over vectors of its values in raster order."""
    if (label is None) != (network.num_classes is None):
        wanted = "absent" if network.num_classes is None else f"classes in 0..{network.num_classes - 1}"
        raise ValueError(f"`label` must be {wanted}, got {'none' if label is None else np.shape(label)}.")
    shape, size = network.shape, math.prod(network.shape)

    def images(x: Any) -> Any:
        return x.reshape(x.shape[0], *shape, *x.shape[2:])

    def outputs(params: Params, x: Any) -> Any:
        return network.logits(params, images(x), label, None).reshape(*x.shape, -1)

    def draw(params: Params, noise: Any, known: Any, mask: np.ndarray) -> Any:
        return network.draw(params, images(noise), images(known), mask.reshape(shape), label).reshape(known.shape)

    def init(key: Key, x: Any) -> Params:
        return network.init(key, images(x), label)

    return fixed_order.Network(tuple(range(size)), fixed_order.Levels(network.levels), init, outputs, draw)


def _flat(network: Network, num: int, known: Any, mask: Any) -> tuple[Any, Any]:
    """What is known and where, as vectors."""
    values, given = prefix(known, mask, num, network.shape)
    return (None, None) if known is None else (values.reshape(num, -1), given.ravel())


def loss(
    key: Key, params: Params, stats: Params, batch: Batch, /, *, train: bool, network: Network
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean −log p(x), or −log p(x | label), in nats per image."""
    x, label = examples(batch, network)
    each = conditional_log_prob(network, params, x, label, key if train else None)
    nll = -jnp.sum(each, axis=(1, 2, 3))
    value = jnp.mean(nll)
    return value, (stats, {"nll": value if train else nll})


def examples(batch: Batch, network: Network) -> tuple[Any, Any]:
    """(x, label or None) of a batch, checked.

    Raises:
        ValueError: `batch` is none, x has another shape or values, or a label is missing or out of range.
    """
    random.batch_size(batch)
    x = batch["x"]
    if np.shape(x)[1:] != network.shape:
        raise ValueError(f"`x` must have shape (batch, {', '.join(map(str, network.shape))}), got {np.shape(x)}.")
    _checks.integers("x", x, network.levels)
    if network.num_classes is None:
        return jnp.asarray(x), None
    if "label" not in batch:
        raise ValueError(f"`batch` must hold 'label' for a class-conditional model, got {sorted(batch)}.")
    _checks.integers("label", batch["label"], network.num_classes)
    return jnp.asarray(x), jnp.asarray(batch["label"])


def model(
    network: Network, optimizer: optax.GradientTransformation, *, axis_name: str | None = None
) -> Model[GradientState]:
    """Maximum likelihood over batches {"x": (batch, h, w, c)}, and "label": (batch,) where the network has classes.

    `log_prob` is log p(x), or log p(x, label) with uniform classes; `sample` draws the labels uniformly.

    Args:
        network: any network of this family.
        optimizer: any optax optimizer.
        axis_name: the mapped axis over which gradients and metrics are averaged.
    """

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        if (size := network.num_classes) is None:
            return {"x": sample(network, key, state.params, num)}
        classes = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, size))
        label = classes(random.example_keys(key, num))
        return {"x": sample(network, key, state.params, num, label=label), "label": label}

    def mass(state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        x, label = examples(batch, network)
        prior = 0.0 if network.num_classes is None else -float(np.log(network.num_classes))
        return log_prob(network, state.params, x, label) + prior

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        return network.init(key, *examples(batch, network)), {}

    objective = functools.partial(loss, network=network)
    return gradient(init, objective, optimizer, sample=draw, log_prob=mass, axis_name=axis_name)
