"""Deep belief net: directed layers of binary units under an RBM, x_0 = v.

    p(x_0, …, x_n) = Π_l p(x_l | x_{l+1}) · exp(−F(x_n))/Z,    p(x_l | x_{l+1}) = Bernoulli(σ(b_l + W_l x_{l+1}))
    log p(v) ≥ E_q[log p(v, x_1, …, x_n) − log q(x_1, …, x_n | v)],    q(x_{l+1} | x_l) = Bernoulli(σ(c_l + x_l R_l))

F is the free energy of the RBM, whose own hidden units are summed out. Layers are learned greedily as RBMs (R = W, and
each better RBM over x_n raises the bound); then up–down learning, the contrastive form of wake–sleep, unties R from W.
Papers: Hinton, Osindero and Teh, "A fast learning algorithm for deep belief nets", 2006 (appendix B: up–down);
Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks", 2008 (the bound with log Z by AIS).
Differs from the papers: no labels at the top; persistent chains there, unless told otherwise.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jgen import random
from jgen._types import Batch, Key, Keys, Metrics, Scalar
from jgen.energy import rbm, stack
from jgen.energy.rbm import RBM
from jgen.energy.stack import Layer, StackState
from jgen.learners.contrastive import ContrastiveState, fantasies
from jgen.learners.gradient import mean_over
from jgen.math import binary
from jgen.model import Model


class Connection(NamedTuple):
    """Weights between two neighbouring layers, and the biases of the one that is predicted."""

    weights: Float[Array, "below above"]
    bias: Any


class DBN(NamedTuple):
    """The parameters.

    Attributes:
        generative: W_l and b_l of each directed layer, the lowest first.
        recognition: R_l and c_l.
        top: the RBM over x_n.
    """

    generative: tuple[Connection, ...]
    recognition: tuple[Connection, ...]
    top: RBM


def from_rbms(rbms: Sequence[RBM]) -> DBN:
    """The net of RBMs on top of each other: all but the last become directed, with recognition weights tied to them."""
    generative = tuple(Connection(machine.weights, machine.visible_bias) for machine in rbms[:-1])
    recognition = tuple(Connection(machine.weights, machine.hidden_bias) for machine in rbms[:-1])
    return DBN(generative, recognition, rbms[-1])


def tied(key: Key, below: ContrastiveState, own: ContrastiveState) -> ContrastiveState:
    """`own` as the RBM below upside down, W = W_belowᵀ, its chains drawn above theirs: p(v) stays the same.

    Hidden units of `own` past the visible ones of the RBM below keep their weights U. In mean they add U·1/2 to the
    visible biases, which is taken off: what is left is of second order.
    """
    machine, extra = below.params, own.params.weights[:, below.params.weights.shape[0] :]
    weights = jnp.concatenate([machine.weights.T, extra], axis=1)
    hidden_bias = jnp.concatenate([machine.visible_bias, own.params.hidden_bias[machine.weights.shape[0] :]])
    chains = binary.bernoulli(key, rbm.hidden_logits(machine, below.chains))
    return own._replace(
        params=RBM(weights, machine.hidden_bias - 0.5 * jnp.sum(extra, axis=1), hidden_bias), chains=chains
    )


def up_logits(connection: Connection, x: Float[Array, "batch below"]) -> Float[Array, "batch above"]:
    """c + xR, of q(x_{l+1} | x_l)."""
    return connection.bias[None] + x @ connection.weights


def down_logits(connection: Connection, x: Float[Array, "batch above"]) -> Float[Array, "batch below"]:
    """b + Wx, of p(x_l | x_{l+1})."""
    return connection.bias[None] + x @ connection.weights.T


def recognize(key: Key, params: DBN, v: Float[Array, "batch visible"]) -> tuple[Any, ...]:
    """(v, x_1, …, x_n) drawn upwards from q."""
    units = [v]
    for index, connection in enumerate(params.recognition):
        units.append(binary.bernoulli(jax.random.fold_in(key, index), up_logits(connection, units[-1])))
    return tuple(units)


def generate(key: Key, params: DBN, top: Float[Array, "batch top"]) -> tuple[Any, ...]:
    """(x_0, …, x_n = top) drawn downwards from p."""
    units = [top]
    for index, connection in reversed(list(enumerate(params.generative))):
        units.insert(0, binary.bernoulli(jax.random.fold_in(key, index), down_logits(connection, units[0])))
    return tuple(units)


def log_weights(
    keys: Keys, params: DBN, v: Float[Array, "batch visible"], num_samples: int, log_z: Scalar | float | None = None
) -> Float[Array, "batch samples"]:
    """log p(v, x) − log q(x | v) at draws x ~ q, nats: their mean is the variational bound in mean.

    log mean exp of them is in mean a higher bound, which grows to log p(v) with their number.

    Args:
        keys: one per example.
        params: the model's.
        v: binary rows.
        num_samples: draws per example.
        log_z: of the RBM on top; by default by enumeration.
    """
    log_z = rbm.log_partition(params.top) if log_z is None else log_z

    def one(key: Key, row: Any) -> Any:
        units = recognize(key, params, jnp.tile(row[None], (num_samples, 1)))
        total = -rbm.free_energy(params.top, units[-1])
        for low, high, down, up in zip(units, units[1:], params.generative, params.recognition, strict=False):
            total += jnp.sum(binary.log_prob(down_logits(down, high), low), axis=-1)
            total -= jnp.sum(binary.log_prob(up_logits(up, low), high), axis=-1)
        return total

    return jax.vmap(one)(keys, v) - log_z


def bound(
    keys: Keys, params: DBN, v: Float[Array, "batch visible"], num_samples: int, log_z: Scalar | float | None = None
) -> Float[Array, " batch"]:
    """The variational bound on log p(v), an average over `num_samples` draws of q, nats."""
    return jnp.mean(log_weights(keys, params, v, num_samples, log_z), axis=1)


def log_prob(
    params: DBN, v: Float[Array, "batch visible"], log_z: Scalar | float | None = None
) -> Float[Array, " batch"]:
    """log p(v), nats, by listing every state of x_1, …, x_n; exact as far as `log_z` is, by default by enumeration.

    Raises:
        ValueError: x_1, …, x_n have more than 25 units together, or both layers of the RBM have more.
    """
    sizes = [connection.weights.shape[1] for connection in params.generative]
    if sum(sizes) > rbm.MAX_ENUMERATED:
        raise ValueError(f"`params` must have at most {rbm.MAX_ENUMERATED} units to enumerate, got {sizes}.")

    def log_f(states: Any) -> Any:
        units = jnp.split(states, np.cumsum(sizes)[:-1], axis=1)
        logits = down_logits(params.generative[0], units[0])
        total = -rbm.free_energy(params.top, units[-1]) - jnp.sum(jax.nn.softplus(logits), axis=-1)
        for low, high, connection in zip(units, units[1:], params.generative[1:], strict=False):
            total += jnp.sum(binary.log_prob(down_logits(connection, high), low), axis=-1)
        return v @ logits.T + total[None]

    log_z = rbm.log_partition(params.top) if log_z is None else log_z
    return binary.log_sum(log_f, sum(sizes)) - log_z


def up_down_loss(params: DBN, wake: Sequence[Any], dream: Sequence[Any]) -> Scalar:
    """−mean Σ_l log p(x_l | x_{l+1}) of units recognized from data − mean Σ_l log q(x_{l+1} | x_l) of generated ones.

    Its gradient by W and b is the wake phase, by R and c the sleep phase; it does not see the RBM.
    """
    loss = jnp.zeros(())
    for low, high, connection in zip(wake, wake[1:], params.generative, strict=False):
        loss -= jnp.mean(jnp.sum(binary.log_prob(down_logits(connection, high), low), axis=-1))
    for low, high, connection in zip(dream, dream[1:], params.recognition, strict=False):
        loss -= jnp.mean(jnp.sum(binary.log_prob(up_logits(connection, low), high), axis=-1))
    return loss


def sample(
    key: Key, params: DBN, starts: Float[Array, "chains top"], num: int, num_steps: int
) -> Float[Array, "num visible"]:
    """Chains of the RBM on top, each from a random row of `starts`, drawn downwards after `num_steps` sweeps."""
    run_key, down_key = jax.random.split(key)
    top = fantasies(run_key, rbm.gibbs(params.top), starts, num, num_steps)

    def down(key: Key, row: Any) -> Any:
        return generate(key, params, row[None])[0][0]

    return jax.vmap(down)(random.example_keys(down_key, num), top)


def model(
    visible_size: int,
    layers: Sequence[Layer],
    *,
    tuning: optax.GradientTransformation | None = None,
    start_tied: bool = False,
    num_chains: int = 100,
    num_steps: int = 1,
    persistent: bool = True,
    weight_decay: float = 0.0,
    num_bound_samples: int = 10,
    num_sample_steps: int = 1_000,
    axis_name: str | None = None,
) -> Model[StackState]:
    """A deep belief net on rows x in {0, 1}: greedy layers, then up–down learning where `tuning` is given.

    `log_bound` is there where a layer of the RBM has at most 16 units, `log_prob` where x_1, …, x_n have too.

    Args:
        visible_size: columns of x.
        layers: two or more, the lowest first; the last is the RBM's hidden one.
        tuning: moves W, b, R and c in up–down learning; the RBM goes on with its own optimizer.
        start_tied: starts each RBM but the first as the one below upside down, so that learning it goes on from there.
        num_chains: as in `rbm.model`, of each layer's RBM; so are num_steps, persistent and weight_decay.
        num_bound_samples: draws of q in the bound.
        num_sample_steps: sweeps of the RBM from its chains to a sample.
        axis_name: as in the learners.

    Raises:
        ValueError: there are fewer than two layers, or a size or count is too small; with `start_tied`, a layer is
            smaller than the one two below it.
    """
    stack.check(visible_size, layers)
    sizes = [visible_size, *(layer.hidden_size for layer in layers)]
    chains = {"num_chains": num_chains, "num_steps": num_steps, "persistent": persistent}
    chains |= {"weight_decay": weight_decay, "num_sample_steps": num_sample_steps, "axis_name": axis_name}
    machines = [
        rbm.model(size, layer.hidden_size, layer.optimizer, **chains)
        for size, layer in zip(sizes, layers, strict=False)
    ]
    whole = None if tuning is None else _tuning(machines[-1], tuning, axis_name)
    num_updates = [layer.num_updates for layer in layers]
    init, update = stack.stacked(
        machines, num_updates, _lift, from_rbms, whole, begin=_tied(sizes) if start_tied else None, axis_name=axis_name
    )
    has_bound = min(sizes[-2:]) <= rbm.CHEAP_ENUMERATED
    has_exact = has_bound and sum(sizes[1:-1]) <= rbm.CHEAP_ENUMERATED

    def rows(batch: Batch) -> Any:
        return binary.rows(batch["x"], visible_size)

    def log_bound(key: Key, state: StackState, batch: Batch) -> Any:
        return bound(random.batch_keys(key, batch), state.params, rows(batch), num_bound_samples)

    return Model(
        init,
        update,
        functools.partial(_evaluate, rows, log_bound if has_bound else None),
        lambda key, state, num: {"x": sample(key, state.params, state.layers[-1].chains, num, num_sample_steps)},
        (lambda state, batch: log_prob(state.params, rows(batch))) if has_exact else None,
        log_bound if has_bound else None,
    )


def _tied(sizes: Sequence[int]) -> Any:
    if any(high < low for low, high in zip(sizes, sizes[2:], strict=False)):
        raise ValueError(f"`layers` must not be smaller than the one two below to start tied to it, got sizes {sizes}.")
    return tied


def _lift(key: Key, index: int, params: RBM, x: Any) -> Any:
    del index
    return binary.bernoulli(key, rbm.hidden_logits(params, jnp.asarray(x, jnp.float32)))


def _tuning(top: Model[Any], optimizer: optax.GradientTransformation, axis_name: str | None) -> stack.Tuning:
    def init(key: Key, params: DBN, batch: Batch) -> Any:
        del key, batch
        return optimizer.init(params._replace(top=()))

    def update(key: Key, state: StackState, batch: Batch) -> tuple[StackState, Metrics]:
        top_key, key = jax.random.split(key)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        wake_key, sleep_key = jax.random.split(key)
        directed = state.params._replace(top=())
        wake = recognize(wake_key, directed, jnp.asarray(batch["x"], jnp.float32))
        layer, metrics = top.update(top_key, state.layers[-1], {"x": wake[-1]})
        dream = generate(sleep_key, directed, layer.chains)
        grads = mean_over(jax.grad(up_down_loss)(directed, wake, dream), axis_name)
        moves, opt_state = optimizer.update(grads, state.tuning, directed)
        moved: Any = optax.apply_updates(directed, moves)
        params = moved._replace(top=layer.params)
        return StackState(params, (*state.layers[:-1], layer), opt_state, state.step), metrics

    return stack.Tuning(init, update)


def _evaluate(rows: Any, log_bound: Any, key: Key, state: StackState, batch: Batch) -> Metrics:
    v, params = rows(batch), state.params
    means = v
    for connection in params.recognition:
        means = jax.nn.sigmoid(up_logits(connection, means))
    gap = jnp.mean(rbm.free_energy(params.top, means)) - jnp.mean(rbm.free_energy(params.top, state.layers[-1].chains))
    for connection in reversed(params.generative):
        means = jax.nn.sigmoid(down_logits(connection, means))
    metrics = {"energy_gap": gap, "reconstruction_error": jnp.mean(jnp.abs(v - means), axis=-1)}
    return metrics if log_bound is None else {**metrics, "nll_bound": -log_bound(key, state, batch)}
