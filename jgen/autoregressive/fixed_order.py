"""Vectors in one fixed but arbitrary order: what FVSBN, NADE and RNADE share.

    log p(x) = Σ_i log p(x_{o_i} | x_{o_1}, …, x_{o_{i−1}}),        o a permutation of the D variables

A `Network` sees vectors that already stand in the order: position i holds variable o_i. Likelihood, completion,
sampling in three ways, and the `Model`, which sees vectors as the data have them, follow from it here.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Num

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.autoregressive.completion import prefix
from jgen.autoregressive.fixed_point import jacobi
from jgen.learners import GradientState, gradient
from jgen.math import discrete
from jgen.model import Model

METHODS = ("cached", "naive", "fixed_point")


@runtime_checkable
class Conditional(Protocol):
    """The law of one variable given a network's outputs for it, (..., width)."""

    @property
    def dtype(self) -> Any:
        """Of the samples."""
        ...

    def check(self, x: Any) -> None:
        """Raises ValueError where `x` is outside the support; traced values pass."""
        ...

    def log_prob(self, outputs: Any, x: Any) -> Any:
        """log p of each variable, in nats."""
        ...

    def noise(self, key: Key, size: int) -> Any:
        """What `draw` needs for `size` variables, (size, any)."""
        ...

    def draw(self, outputs: Any, noise: Any) -> Any:
        """The sample that outputs and noise determine."""
        ...


@dataclasses.dataclass(frozen=True)
class Levels:
    """Whole numbers in 0..levels-1: a Bernoulli's logit for two levels, else one logit per level."""

    levels: int = 2

    def __post_init__(self) -> None:
        _checks.at_least("levels", self.levels, 2)

    @property
    def dtype(self) -> Any:
        """float32 for two levels, else int32."""
        return jnp.float32 if self.levels == 2 else jnp.int32

    def check(self, x: Any) -> None:
        """x must be whole numbers in 0..levels-1."""
        _checks.integers("x", x, self.levels)

    def log_prob(self, outputs: Float[Array, "*shape width"], x: Num[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Log-mass from logits."""
        return discrete.log_prob(outputs, x)

    def noise(self, key: Key, size: int) -> Float[Array, "size width"]:
        """Logistic or Gumbel noise."""
        return discrete.noise(key, (size,), self.levels)

    def draw(self, outputs: Float[Array, "*shape width"], noise: Float[Array, "*shape width"]) -> Num[Array, "*shape"]:
        """1[logit > noise], or the argmax of logits + noise."""
        return discrete.draw(outputs, noise)


@dataclasses.dataclass(frozen=True)
class Network:
    """An autoregressive network over vectors in its order, as three pure functions.

    Attributes:
        order: the variable at each position, a permutation of 0..D-1.
        conditional: the law of a variable given the outputs for it.
        init: (key, x) -> params.
        outputs: (params, x) -> (batch, D, width); those at position i depend on positions before i alone.
        draw: (params, noise, known, mask) -> x. One position after another at the cost of one position each:
            x_i = known_i where `mask` (a NumPy constant) is True, else `conditional.draw(outputs_i(x_<i), noise_i)`.
    """

    order: tuple[int, ...]
    conditional: Conditional
    init: Callable[[Key, Any], Params]
    outputs: Callable[[Params, Any], Any]
    draw: Callable[[Params, Any, Any, np.ndarray], Any]


def permutation(order: int | Sequence[int] | None, num_dims: int) -> tuple[int, ...]:
    """The order that a model's argument `order` says: None as the variables come, a seed, or a permutation itself.

    Raises:
        ValueError: `num_dims` is below 1, or `order` is no permutation of 0..num_dims-1.
    """
    _checks.at_least("num_dims", num_dims, 1)
    if order is None:
        return tuple(range(num_dims))
    if isinstance(order, int | np.integer):
        _checks.at_least("order", int(order), 0)
        return tuple(int(i) for i in np.random.default_rng(int(order)).permutation(num_dims))
    found = tuple(int(i) for i in order)
    if sorted(found) != list(range(num_dims)):
        raise ValueError(f"`order` must be a seed or a permutation of 0..{num_dims - 1}, got {order}.")
    return found


def log_prob_each(network: Network, params: Params, x: Num[Array, "batch dims"]) -> Float[Array, "batch dims"]:
    """log p(x_d | what comes before it in the order), in nats, where x has it."""
    ordered = x[:, np.array(network.order)]
    return network.conditional.log_prob(network.outputs(params, ordered), ordered)[:, _inverse(network)]


def log_prob(network: Network, params: Params, x: Num[Array, "batch dims"]) -> Float[Array, " batch"]:
    """Exact log p(x), in nats."""
    return jnp.sum(log_prob_each(network, params, x), axis=-1)


def outputs(network: Network, params: Params, x: Num[Array, "batch dims"]) -> Float[Array, "batch dims width"]:
    """The outputs for each variable, such as its logits, where x has it."""
    return network.outputs(params, x[:, np.array(network.order)])[:, _inverse(network)]


def sample(
    network: Network,
    key: Key,
    params: Params,
    num: int,
    *,
    known: Any = None,
    mask: Any = None,
    method: str = "cached",
) -> Num[Array, "num dims"]:
    """Exact draws; all methods give the same vectors from the same key, up to rounding of the outputs.

    Args:
        known: completes these vectors, a draw from p(missing | known).
        mask: (D,) concrete booleans, True where a value is known; needed with `known`.
        method: "cached" works one position per position, "naive" does a full pass per position, "fixed_point" as many
            full passes as it takes until nothing changes.

    Raises:
        ValueError: `method` is unknown, or a known value comes after a missing one in the order.
    """
    _checks.one_of("method", method, METHODS)
    if method == "fixed_point":
        return fixed_point(network, key, params, num, known=known, mask=mask)[0]
    noise, values, given = _start(network, key, num, known, mask)
    draw = network.draw if method == "cached" else functools.partial(naive, network)
    return draw(params, noise, values, given)[:, _inverse(network)]


def fixed_point(
    network: Network, key: Key, params: Params, num: int, *, known: Any = None, mask: Any = None
) -> tuple[Num[Array, "num dims"], Int[Array, " num"]]:
    """The draws of `sample` by Jacobi sweeps over whole vectors, and the sweeps that each vector took."""
    noise, values, given = _start(network, key, num, known, mask)

    def sweep(x: Any) -> Any:
        return jnp.where(given[None], values, network.conditional.draw(network.outputs(params, x), noise))

    x, sweeps = jacobi(sweep, values)
    return x[:, _inverse(network)], sweeps


def naive(network: Network, params: Params, noise: Any, known: Any, mask: np.ndarray) -> Any:
    """One full pass per position: the definition that caches are tested and timed against."""
    given = jnp.asarray(mask)

    def body(i: Any, x: Any) -> Any:
        drawn = network.conditional.draw(network.outputs(params, x)[:, i], noise[:, i])
        return x.at[:, i].set(jnp.where(given[i], x[:, i], drawn))

    return jax.lax.fori_loop(0, known.shape[1], body, jnp.where(mask[None], known, jnp.zeros_like(known)))


def _inverse(network: Network) -> np.ndarray:
    return np.argsort(np.array(network.order))


def _start(network: Network, key: Key, num: int, known: Any, mask: Any) -> tuple[Any, Any, np.ndarray]:
    """Noise, known values and mask in the order; example i draws its noise from (key, i)."""
    order, law = np.array(network.order), network.conditional
    values, given = prefix(known, mask, num, (len(order),), order=order, dtype=law.dtype)
    noise = jax.vmap(lambda key: law.noise(key, len(order)))(random.example_keys(key, num))
    return noise, values[:, order], given[order]


def loss(
    key: Key, params: Params, stats: Params, batch: Batch, /, *, train: bool, network: Network
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean −log p(x) in nats: teacher forcing, every conditional sees the data's own values before it."""
    del key
    nll = -log_prob(network, params, examples(batch, network))
    value = jnp.mean(nll)
    return value, (stats, {"nll": value if train else nll})


def examples(batch: Batch, network: Network) -> Num[Array, "batch dims"]:
    """x of a batch, checked.

    Raises:
        ValueError: `batch` is none, or x has another shape or values.
    """
    random.batch_size(batch)
    x = batch["x"]
    if np.shape(x)[1:] != (len(network.order),):
        raise ValueError(f"`x` must have shape (batch, {len(network.order)}), got {np.shape(x)}.")
    network.conditional.check(x)
    return jnp.asarray(x)


def model(
    network: Network, optimizer: optax.GradientTransformation, *, axis_name: str | None = None
) -> Model[GradientState]:
    """Maximum likelihood over batches {"x": (batch, D)}.

    Args:
        network: any network of this kind.
        optimizer: any optax optimizer.
        axis_name: the mapped axis over which gradients and metrics are averaged.
    """

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        return network.init(key, examples(batch, network)[:, np.array(network.order)]), {}

    return gradient(
        init,
        functools.partial(loss, network=network),
        optimizer,
        sample=lambda key, state, num: {"x": sample(network, key, state.params, num)},
        log_prob=lambda state, batch: log_prob(network, state.params, examples(batch, network)),
        axis_name=axis_name,
    )
