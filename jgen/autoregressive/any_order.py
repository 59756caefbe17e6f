"""Any order of the variables: what networks that take any subset of them as given share.

    p_o(x) = Π_t p(x_{o_t} | x_{o_1}, …, x_{o_{t−1}}),      p(x) = (1/R) Σ_r p_{o_r}(x)

One pass over x ⊙ m and m, the mask of what is known, gives p(x_k | x_m) for every k outside m at once. Training asks
one random subset per example and step: with |m| uniform on {0, …, D−1} and m uniform among those of that size,

    E_o[−log p_o(x)] = E_m[ D/(D − |m|) Σ_{k∉m} −log p(x_k | x_m) ],      o uniform on all orders.

Each p_o sums to 1, hence so does every mixture; but different orders are different distributions. Likelihood,
conditionals, in-painting of any subset, sampling and the `Model` follow here from a `Network`.
Uria, Murray, Larochelle: A Deep and Tractable Density Estimator, 2014, eqs. 10 to 13.
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
from jaxtyping import Array, Bool, Float, Int, Num

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.learners import GradientState, gradient
from jgen.math import discrete
from jgen.model import Model


@dataclasses.dataclass(frozen=True)
class Network:
    """p(x_k | x_m) for every k and m, in one pass, and from a cache that grows by one variable at a time.

    The functions of the cache are of one example; positions d count through `shape` in row-major order.

    Attributes:
        shape: of one example: (D,), or (height, width, channels).
        levels: x are whole numbers in 0..levels-1.
        init: (key, x) -> params.
        logits: (params, x, mask) -> (batch, *shape, width); x counts only where `mask` (batch, *shape) is True.
        start: (params, x, mask) -> the cache of what `mask` (*shape) says is known.
        push: (params, cache, d, value) -> the cache once x_d is known too.
        at: (params, cache, d) -> (width,), the logits of x_d.
        block: how many positions to compute at once; bounds the memory of an exact likelihood.
    """

    shape: tuple[int, ...]
    levels: int
    init: Callable[[Key, Any], Params]
    logits: Callable[[Params, Any, Any], Any]
    start: Callable[[Params, Any, Any], Any]
    push: Callable[[Params, Any, Any, Any], Any]
    at: Callable[[Params, Any, Any], Any]
    block: int = 1

    @property
    def size(self) -> int:
        """D, the number of variables."""
        return math.prod(self.shape)


def orders(seed: int, size: int, num: int) -> np.ndarray:
    """`num` orders of `size` variables, (num, size); order r is a function of (seed, r) alone."""
    return np.stack([np.random.default_rng((seed, r)).permutation(size) for r in range(num)]).astype(np.int32)


def subsets(key: Key, shape: tuple[int, ...], num: int) -> Bool[Array, "num *shape"]:
    """`num` masks of what is known: |m| uniform on {0, …, D−1}, then m uniform among the subsets of that size.

    One variable, uniform, is missing; each other one is known with the same probability t ~ U(0, 1), which makes |m|
    uniform. The t of the masks are stratified, so that a mean over them varies less.
    """
    missing_key, rate_key, key = jax.random.split(key, 3)
    size = math.prod(shape)
    missing = jax.random.randint(missing_key, (num, 1), 0, size)
    rate = (jnp.arange(num) + jax.random.uniform(rate_key)) / num
    known = jax.random.uniform(key, (num, size)) < rate[:, None]
    return (known & (jnp.arange(size)[None] != missing)).reshape(num, *shape)


def scaled_nll(
    network: Network, params: Params, x: Num[Array, "batch *shape"], mask: Bool[Array, "batch *shape"]
) -> Float[Array, " batch"]:
    """D/(D − |m|) Σ_{k∉m} −log p(x_k | x_m), nats: over random m, the mean of −log p_o(x) over all orders."""
    each = discrete.log_prob(network.logits(params, x, mask), x).reshape(x.shape[0], -1)
    missing = ~mask.reshape(x.shape[0], -1)
    count = jnp.sum(missing, axis=1)
    return -jnp.sum(jnp.where(missing, each, 0.0), axis=1) * network.size / jnp.maximum(count, 1)


def conditionals(
    network: Network, params: Params, x: Num[Array, "batch *shape"], mask: Bool[Array, "batch *shape"]
) -> Float[Array, "batch *shape levels"]:
    """p(x_k = v | x_m) for every k and v by one pass; all mass on the known value where k is known."""
    logits = network.logits(params, x, mask)
    if network.levels == 2:
        logits = jnp.concatenate([-logits, logits], axis=-1) / 2
    known = jax.nn.one_hot(x.astype(jnp.int32), network.levels, dtype=logits.dtype)
    return jnp.where(mask[..., None], known, jax.nn.softmax(logits))


def order_log_prob(
    network: Network, params: Params, orders: Int[np.ndarray | Array, "orders dims"], x: Num[Array, "batch *shape"]
) -> Float[Array, "orders batch"]:
    """log p_o(x) of each order, exact, in nats: one order and `network.block` positions at a time."""
    flat, size = x.reshape(x.shape[0], -1), network.size
    num_blocks = -(-size // network.block)
    counts = (jnp.arange(num_blocks * network.block) < size).reshape(num_blocks, -1)
    empty = jax.vmap(lambda row: network.start(params, row, jnp.zeros(network.shape, bool)))(x)

    def grow(cache: Any, d: Any) -> tuple[Any, Any]:
        pushed = jax.vmap(lambda own, value: network.push(params, own, d, value))(cache, flat[:, d])
        return pushed, cache

    def block(cache: Any, now: Any) -> tuple[Any, Any]:
        positions, count = now
        cache, before = jax.lax.scan(grow, cache, positions)
        at = jax.vmap(functools.partial(network.at, params), (0, None))
        logits = jax.vmap(at)(before, positions)
        each = discrete.log_prob(logits, flat[:, positions].T)
        return cache, jnp.sum(jnp.where(count[:, None], each, 0.0), axis=0)

    def one(order: Any) -> Any:
        padded = jnp.pad(order, (0, counts.size - size)).reshape(num_blocks, -1)
        return jnp.sum(jax.lax.scan(block, empty, (padded, counts))[1], axis=0)

    return jax.lax.map(one, jnp.asarray(orders))


def log_prob(
    network: Network, params: Params, orders: Int[np.ndarray | Array, "orders dims"], x: Num[Array, "batch *shape"]
) -> Float[Array, " batch"]:
    """log p(x) of the ensemble, log-mean-exp over its orders: exact, in nats."""
    each = order_log_prob(network, params, orders, x)
    return jax.nn.logsumexp(each, axis=0) - jnp.log(each.shape[0])


def sample(
    network: Network,
    key: Key,
    params: Params,
    num: int,
    *,
    orders: Any = None,
    known: Any = None,
    mask: Any = None,
) -> Num[Array, "num *shape"]:
    """Exact draws, one variable at a time; example i draws its order and one noise per variable from (key, i).

    Args:
        orders: (R, D): each example draws one of them, so that the draws follow `log_prob` of this ensemble; by
            default any order of the variables, uniformly.
        known: completes these examples: the known ones move to the front of the order, the missing ones follow in it.
            (*shape), or (num, *shape).
        mask: booleans, *any* subset, True where a value is known, the same for all, (*shape), or (num, *shape); needed
            with `known`.

    Raises:
        ValueError: one of `known` and `mask` is missing, or has another shape, or `known` is no value of x.
    """
    values, given = _given(network, num, known, mask)

    def one(key: Key, values: Any, given: Any) -> Any:
        return _draw(network, key, params, orders, values, given, first)

    first = jnp.min(jnp.sum(given.reshape(num, -1), axis=1))
    return jax.vmap(one)(random.example_keys(key, num), values, given)


def _draw(network: Network, key: Key, params: Params, orders: Any, values: Any, given: Any, first: Any) -> Any:
    """One example; all examples of a batch know the first `first` variables of their orders."""
    order_key, noise_key = jax.random.split(key)
    order = _order(order_key, orders, network.size)
    known = given.ravel()
    order = order[jnp.argsort(~known[order], stable=True)]
    noise = discrete.noise(noise_key, (network.size,), network.levels)

    def step(t: Any, carry: Any) -> Any:
        x, cache = carry
        d = order[t]
        value = jnp.where(known[d], x[d], discrete.draw(network.at(params, cache, d), noise[d]).astype(x.dtype))
        pushed = network.push(params, cache, d, value)
        return x.at[d].set(value), jax.tree.map(lambda new, old: jnp.where(known[d], old, new), pushed, cache)

    start = (values.ravel(), network.start(params, values, given))
    return jax.lax.fori_loop(first, network.size, step, start)[0].reshape(network.shape)


def _order(key: Key, orders: Any, size: int) -> Any:
    if orders is None:
        return jax.random.permutation(key, size)
    return jnp.asarray(orders)[jax.random.randint(key, (), 0, len(orders))]


def _given(network: Network, num: int, known: Any, mask: Any) -> tuple[Any, Any]:
    """(values, mask), both (num, *shape); zeros and False where nothing is known."""
    if (known is None) != (mask is None):
        raise ValueError("`known` and `mask` must be given together, got only one of them.")
    full, dtype = (num, *network.shape), jnp.float32 if network.levels == 2 else jnp.int32
    if known is None:
        return jnp.zeros(full, dtype), jnp.zeros(full, bool)
    for name, value in (("known", known), ("mask", mask)):
        if np.shape(value) not in (full, network.shape):
            raise ValueError(f"`{name}` must have shape {full} or {network.shape}, got {np.shape(value)}.")
    _checks.integers("known", known, network.levels)
    given = jnp.broadcast_to(jnp.asarray(mask, bool), full)
    return jnp.where(given, jnp.broadcast_to(jnp.asarray(known, dtype), full), jnp.zeros(full, dtype)), given


def examples(batch: Batch, network: Network) -> Any:
    """x of a batch, checked.

    Raises:
        ValueError: `batch` is none, or x has another shape or values.
    """
    random.batch_size(batch)
    if np.shape(batch["x"])[1:] != network.shape:
        shape = ", ".join(map(str, network.shape))
        raise ValueError(f"`x` must have shape (batch, {shape}), got {np.shape(batch['x'])}.")
    _checks.integers("x", batch["x"], network.levels)
    return jnp.asarray(batch["x"])


def loss(
    key: Key, params: Params, stats: Params, batch: Batch, /, *, train: bool, network: Network, num_draws: int = 1
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """`scaled_nll` of random subsets, in nats: an unbiased estimate of the mean over all orders of −log p_o(x).

    Args:
        num_draws: subsets per example; in training always one.
    """
    x, num = examples(batch, network), 1 if train else num_draws
    masks = jax.vmap(lambda own: subsets(own, network.shape, num))(random.batch_keys(key, batch))
    if train:  # not inside a loop, where the weight gradient of a convolution is slow on CPU
        nll = scaled_nll(network, params, x, masks[:, 0])
    else:
        each = jax.lax.map(lambda mask: scaled_nll(network, params, x, mask), jnp.moveaxis(masks, 1, 0))
        nll = jnp.mean(each, axis=0)
    value = jnp.mean(nll)
    return value, (stats, {"order_nll": value if train else nll})


def model(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    num_orders: int = 8,
    order_seed: int = 0,
    num_draws: int | None = None,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """Order-agnostic learning over batches {"x": (batch, *shape)}; `log_prob` and `sample` are those of one ensemble.

    Args:
        network: any network of this family.
        optimizer: any optax optimizer.
        num_orders: R, the orders of the ensemble.
        order_seed: the seed of the orders.
        num_draws: with None `evaluate` gives "nll", −log p(x) of the ensemble; with a number "order_nll", the one-pass
            estimate of the mean over all orders from so many subsets per example, for where exact takes too long.
        axis_name: the mapped axis over which gradients and metrics are averaged.

    Raises:
        ValueError: `num_orders` or `num_draws` is below 1.
    """
    _checks.at_least("num_orders", num_orders, 1)
    _checks.at_least("num_draws", 1 if num_draws is None else num_draws, 1)
    ensemble = orders(order_seed, network.size, num_orders)

    def mass(state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        return log_prob(network, state.params, ensemble, examples(batch, network))

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        if num_draws is None:
            return {"nll": -mass(state, batch)}
        return loss(key, state.params, state.stats, batch, train=False, network=network, num_draws=num_draws)[1][1]

    return gradient(
        lambda key, batch: (network.init(key, examples(batch, network)), {}),
        functools.partial(loss, network=network),
        optimizer,
        evaluate=evaluate,
        sample=lambda key, state, num: {"x": sample(network, key, state.params, num, orders=ensemble)},
        log_prob=mass,
        axis_name=axis_name,
    )
