"""Learning by stochastic gradients of one scalar loss."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from jgen import random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.model import Model


class GradientState(NamedTuple):
    """Parameters, what else the network keeps, and the optimizer's state.

    Attributes:
        params: what the gradient moves.
        stats: every other Flax collection (batch statistics); {} where there is none.
        opt_state: the state of the optax optimizer.
    """

    params: Params
    stats: Params
    opt_state: optax.OptState


@runtime_checkable
class Loss(Protocol):
    """(key, params, stats, batch, *, train) -> (value, (stats, metrics))."""

    def __call__(
        self, key: Key, params: Params, stats: Params, batch: Batch, /, *, train: bool
    ) -> tuple[Scalar, tuple[Params, Metrics]]: ...


def gradient(
    init: Callable[[Key, Batch], tuple[Params, Params]],
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    evaluate: Callable[[Key, GradientState, Batch], Metrics] | None = None,
    sample: Callable[[Key, GradientState, int], Batch] | None = None,
    log_prob: Callable[[GradientState, Batch], Any] | None = None,
    log_bound: Callable[[Key, GradientState, Batch], Any] | None = None,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The model that descends `loss` with `optimizer`.

    Args:
        init: (key, batch) -> (params, stats).
        loss: (key, params, stats, batch, *, train) -> (value, (stats, metrics)); the value is a mean over examples.
        optimizer: any optax optimizer. Those that look along their direction, such as `optax.lbfgs`, are given the
            loss, its gradient and the loss as a function of the parameters (batch and key fixed).
        evaluate: held-out metrics; by default those of `loss` with `train=False`.
        axis_name: the mapped axis over which gradients, statistics and metrics are averaged, under `jax.pmap` or
            `shard_map`. Under `jax.jit` with sharded batches leave it None.
    """
    move = optax.with_extra_args_support(optimizer).update

    def init_state(key: Key, batch: Batch) -> GradientState:
        random.batch_size(batch)  # raises where this is no batch
        params, stats = init(key, batch)
        return GradientState(params, stats, optimizer.init(params))

    def update(key: Key, state: GradientState, batch: Batch) -> tuple[GradientState, Metrics]:
        random.batch_size(batch)  # raises where this is no batch
        batch = random.with_index(batch, axis_name)

        def objective(params: Params) -> tuple[Scalar, tuple[Params, Metrics]]:
            return loss(key, params, state.stats, batch, train=True)

        (value, (stats, metrics)), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        value, grads, stats, metrics = mean_over((value, grads, stats, metrics), axis_name)
        along = mean_value(lambda params: objective(params)[0], axis_name)
        extra = {"value": value, "grad": grads, "value_fn": along}
        updates, opt_state = move(grads, state.opt_state, state.params, **extra)
        return GradientState(optax.apply_updates(state.params, updates), stats, opt_state), metrics

    def measure(key: Key, state: GradientState, batch: Batch) -> Metrics:
        return loss(key, state.params, state.stats, batch, train=False)[1][1]

    return Model(init_state, update, evaluate or measure, sample, log_prob, log_bound)


def mean_value(function: Callable[[Params], Scalar], axis_name: str | None) -> Callable[[Params], Scalar]:
    """`function` averaged over the mapped axis `axis_name`, with a gradient that is averaged too.

    The gradient of a `jax.lax.pmean` alone is each shard's own, with which line searches would part ways.
    """
    if axis_name is None:
        return function

    @jax.custom_vjp
    def mean(params: Params) -> Scalar:
        return mean_over(function(params), axis_name)

    def forward(params: Params) -> tuple[Scalar, Params]:
        return mean_over(jax.value_and_grad(function)(params), axis_name)

    def backward(grads: Params, cotangent: Scalar) -> tuple[Params]:
        return (jax.tree.map(lambda leaf: cotangent * leaf, grads),)

    mean.defvjp(forward, backward)
    return mean


def mean_over(tree: Any, axis_name: str | None) -> Any:
    """Means of the leaves over the mapped axis `axis_name` (maxima of counters); `tree` itself where it is None."""
    if axis_name is None:
        return tree

    def reduce(leaf: Any) -> Any:
        return (jax.lax.pmean if jnp.issubdtype(leaf.dtype, jnp.inexact) else jax.lax.pmax)(leaf, axis_name)

    return jax.tree.map(reduce, tree)
