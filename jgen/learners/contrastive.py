"""Learning an energy by contrasting data with chains of a sampler: contrastive divergence, persistent or not."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgen import random
from jgen._checks import at_least
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.learners.gradient import mean_over
from jgen.model import Model
from jgen.sampler import Sampler, run


class ContrastiveState(NamedTuple):
    """What persists.

    Attributes:
        params: the parameters of the energy.
        chains: positions of the fantasy particles, leading axis `num_chains`; of plain CD, the last negatives.
        opt_state: the state of the optax optimizer.
    """

    params: Params
    chains: Any
    opt_state: optax.OptState


def contrastive(
    init: Callable[[Key, Batch], tuple[Params, Any]],
    energy: Callable[[Params, Any], Any],
    kernel: Callable[[Params], Sampler[Any]],
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int = 1,
    persistent: bool = True,
    data_position: Callable[[Batch], Any] = lambda batch: batch["x"],
    complete: Callable[[Key, Params, Any], Any] | None = None,
    negatives: Callable[[Any], Any] = lambda chains: chains,
    penalty: Callable[[Params], Any] = lambda params: 0.0,
    extra: Callable[[Params, Batch, Any, Any], tuple[Any, Metrics]] = lambda *args: (0.0, {}),
    evaluate: Callable[[Key, ContrastiveState, Batch], Metrics] | None = None,
    sample: Callable[[Key, ContrastiveState, int], Batch] | None = None,
    log_prob: Callable[[ContrastiveState, Batch], Any] | None = None,
    axis_name: str | None = None,
) -> Model[ContrastiveState]:
    """The model that descends mean energy(data) − mean energy(chains), the chains held fixed.

    With exact draws for chains its gradient is that of the likelihood: −∇ log p = E_data ∇E − E_model ∇E.

    Args:
        init: (key, batch) -> (params, chains).
        energy: (params, positions) -> (n,), the energy (free energy, where units are summed out) of each position.
        kernel: (params) -> a Sampler whose position is a batch of positions.
        num_steps: k, steps of the kernel per update.
        persistent: chains go on from where they stood (PCD), or start anew at the data in each update (CD-k).
        data_position: the part of a batch that the energy sees.
        complete: (key, params, data position) -> positions: fills in what data leave open, such as hidden units, by
            draws or, where the energy is linear in each of them, by means. No gradient passes through it.
        negatives: the part of the chains that stands for the model, such as the coldest of tempered chains.
        penalty: (params) -> a scalar added to the objective, such as weight decay.
        extra: (params, batch, energies of the data, energies of the negatives) -> (a scalar added to the objective,
            metrics), such as a classification loss.
        axis_name: the mapped axis over which gradients and metrics are averaged; each shard keeps its own chains.

    Raises:
        ValueError: `num_steps` is less than 1.
    """
    at_least("num_steps", num_steps, 1)

    def init_state(key: Key, batch: Batch) -> ContrastiveState:
        random.batch_size(batch)  # raises where this is no batch
        params, chains = init(key, batch)
        return ContrastiveState(params, chains, optimizer.init(params))

    def positives(key: Key, params: Params, batch: Batch) -> Any:
        data = data_position(batch)
        return data if complete is None else jax.lax.stop_gradient(complete(key, params, data))

    gap = functools.partial(_gap, energy, negatives, penalty, extra)

    def update(key: Key, state: ContrastiveState, batch: Batch) -> tuple[ContrastiveState, Metrics]:
        random.batch_size(batch)  # raises where this is no batch
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        init_key, run_key, data_key = jax.random.split(key, 3)
        sampler, data = kernel(state.params), positives(data_key, state.params, batch)
        start = state.chains if persistent else data
        chain, _ = run(run_key, sampler, sampler.init(init_key, start), num_steps)
        chains = jax.lax.stop_gradient(chain.position)
        grads, metrics = mean_over(jax.grad(gap, has_aux=True)(state.params, batch, data, chains), axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return ContrastiveState(optax.apply_updates(state.params, updates), chains, opt_state), metrics

    def measure(key: Key, state: ContrastiveState, batch: Batch) -> Metrics:
        return gap(state.params, batch, positives(key, state.params, batch), state.chains)[1]

    return Model(init_state, update, evaluate or measure, sample, log_prob)


def _gap(
    energy: Callable[[Params, Any], Any],
    negatives: Callable[[Any], Any],
    penalty: Callable[[Params], Any],
    extra: Callable[[Params, Batch, Any, Any], tuple[Any, Metrics]],
    params: Params,
    batch: Batch,
    data: Any,
    chains: Any,
) -> tuple[Scalar, Metrics]:
    """The objective, and its parts as metrics."""
    known, drawn = energy(params, data), energy(params, negatives(chains))
    positive, negative = jnp.mean(known), jnp.mean(drawn)
    added, metrics = extra(params, batch, known, drawn)
    metrics = {"energy_gap": positive - negative, "energy_data": positive, "energy_model": negative, **metrics}
    return positive - negative + penalty(params) + added, metrics


def decay(weight_decay: float) -> Callable[[Params], Any]:
    """(params) -> λ/2·ΣW² over the leaves of params.weights; nothing is computed where λ is 0."""
    if weight_decay == 0:
        return lambda params: 0.0
    return lambda params: 0.5 * weight_decay * optax.tree.norm(params.weights, squared=True)


def fantasies(key: Key, kernel: Sampler[Any], starts: Any, num: int, num_steps: int) -> Any:
    """Positions of `num` chains, each from a random one of `starts`, after `num_steps`; chain i depends on (key, i).

    Args:
        key: of all chains.
        kernel: a Sampler over a batch of chains.
        starts: positions; every leaf has a leading axis of chains.
        num: how many chains.
        num_steps: steps of the kernel.
    """

    def one(key: Key) -> Any:
        start_key, init_key, run_key = jax.random.split(key, 3)
        row = jax.random.randint(start_key, (), 0, jax.tree.leaves(starts)[0].shape[0])
        state = kernel.init(init_key, jax.tree.map(lambda leaf: leaf[row][None], starts))
        return jax.tree.map(lambda leaf: leaf[0], run(run_key, kernel, state, num_steps)[0].position)

    return jax.vmap(one)(random.example_keys(key, num))
