"""Boltzmann machine: binary units on any graph, visible and hidden, at inverse temperature β.

    E(s) = −Σ_i b_i s_i − Σ_(i,j) w_ij s_i s_j,  s = (v, h) in {0, 1}ᴺ,      p(s) = exp(−βE(s))/Z
    ∂/∂w_ij mean log p(v) = β(E[s_i s_j | v] − E[s_i s_j]) = −∂ KL(p_data ‖ p)/∂w_ij

Paper: Ackley, Hinton and Sejnowski, "A learning algorithm for Boltzmann machines", 1985.
Differs from the paper: units are drawn in groups without an edge inside, not one at a time; no annealing in a phase;
the exact gradient, where the sums can be taken. They list the states of all units but the largest such group, and sum
that one in closed form: an RBM of any size is exact if one of its layers is small.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jgen import _checks
from jgen._types import Batch, Key, Metrics, Scalar
from jgen.energy import graphs
from jgen.energy.graphs import Graph
from jgen.learners.contrastive import ContrastiveState, contrastive, fantasies
from jgen.learners.gradient import GradientState, gradient
from jgen.math import binary
from jgen.model import Model
from jgen.sampler import Sampler, run
from jgen.samplers import gibbs as block_gibbs

MAX_ENUMERATED = 25  # units whose 2^n states a sum visits
CHEAP_ENUMERATED = 16  # units up to which `model` has an exact log_prob


class Boltzmann(NamedTuple):
    """The parameters: a weight for each edge and a bias for each unit."""

    weights: Float[Array, " edges"]
    bias: Float[Array, " units"]


def couplings(params: Boltzmann, graph: Graph) -> Float[Array, "units units"]:
    """The symmetric matrix of weights, 0 where there is no edge."""
    rows, columns = graph.edges.T
    matrix = jnp.zeros((graph.num_units, graph.num_units), params.weights.dtype)
    return matrix.at[rows, columns].set(params.weights).at[columns, rows].set(params.weights)


def energy(params: Boltzmann, graph: Graph, s: Float[Array, "batch units"]) -> Float[Array, " batch"]:
    """E(s) = −b·s − ½ sᵀWs."""
    return -s @ params.bias - 0.5 * jnp.sum((s @ couplings(params, graph)) * s, axis=-1)


def free_energy(
    params: Boltzmann, graph: Graph, v: Float[Array, "batch visible"], *, beta: Any = 1.0
) -> Float[Array, " batch"]:
    """F(v) = −log Σ_h exp(−βE(v, h)), nats, exactly.

    Raises:
        ValueError: more than 25 hidden units would have to be listed.
    """
    return -_log_sum(params, graph, np.arange(graph.num_visible), v, beta)


def log_partition(params: Boltzmann, graph: Graph, *, beta: Any = 1.0) -> Scalar:
    """log Z = log Σ_s exp(−βE(s)), nats, exactly.

    Raises:
        ValueError: more than 25 units would have to be listed.
    """
    return _log_sum(params, graph, np.arange(0), jnp.zeros((1, 0)), beta)[0]


def log_prob(
    params: Boltzmann, graph: Graph, v: Float[Array, "batch visible"], *, beta: Any = 1.0
) -> Float[Array, " batch"]:
    """log p(v) = −F(v) − log Z, nats, exactly."""
    return -free_energy(params, graph, v, beta=beta) - log_partition(params, graph, beta=beta)


def moments(
    params: Boltzmann, graph: Graph, v: Float[Array, "batch visible"] | None = None, *, beta: Any = 1.0
) -> Boltzmann:
    """E[s_i s_j] of every edge and E[s_i] of every unit, exactly: ∂ log Z/∂(βw) and ∂ log Z/∂(βb).

    Args:
        v: visible units at which the machine is held; the moments are means over this batch. None lets it run free.
    """

    def total(params: Boltzmann) -> Scalar:
        return (
            log_partition(params, graph, beta=beta)
            if v is None
            else -jnp.mean(free_energy(params, graph, v, beta=beta))
        )

    return jax.tree.map(lambda leaf: leaf / beta, jax.grad(total)(params))


def learning_rule(params: Boltzmann, graph: Graph, v: Float[Array, "batch visible"], *, beta: Any = 1.0) -> Boltzmann:
    """β(moments held at the data − moments running free): −∇KL(p_data ‖ p), the direction of steepest ascent."""
    held, free = moments(params, graph, v, beta=beta), moments(params, graph, beta=beta)
    return jax.tree.map(lambda a, b: beta * (a - b), held, free)


def from_ising(graph: Graph, coupling: Any, field: Any) -> tuple[Boltzmann, Scalar]:
    """(parameters, offset) with −Σ J_ij σ_i σ_j − Σ h_i σ_i = E(s) + offset at spins σ = 2s − 1.

    Args:
        graph: of the spins.
        coupling: J, one for each edge or one for all.
        field: h, one for each spin or one for all.
    """
    coupling = jnp.broadcast_to(jnp.asarray(coupling, jnp.result_type(float)), (len(graph.edges),))
    field = jnp.broadcast_to(jnp.asarray(field, jnp.result_type(float)), (graph.num_units,))
    bias = 2 * field - 2 * _at_units(graph, coupling)
    return Boltzmann(4 * coupling, bias), jnp.sum(field) - jnp.sum(coupling)


def to_ising(params: Boltzmann, graph: Graph) -> tuple[Any, Any, Scalar]:
    """(J, h, offset), the inverse of `from_ising`: −Σ J_ij σ_i σ_j − Σ h_i σ_i = E(s) + offset at σ = 2s − 1."""
    coupling = params.weights / 4
    field = params.bias / 2 + _at_units(graph, coupling)
    return coupling, field, jnp.sum(field) - jnp.sum(coupling)


def gibbs(params: Boltzmann, graph: Graph, *, beta: Any = 1.0, units: Any = None) -> Sampler[block_gibbs.State]:
    """Gibbs sampling of a batch of chains, position (chains, units): one group of `graphs.colours` after the other.

    p(s_i = 1 | rest) = σ(β(b_i + Σ_j w_ij s_j)). That is block Gibbs for layers, a checkerboard for even lattices, and
    one unit at a time for a complete graph. Systematic, so it keeps p but is not reversible.

    Args:
        units: those that move, by default all; the others stay where they are.
    """
    groups = graphs.colours(graph, units)
    table = np.full((len(groups), max(map(len, groups), default=0)), graph.num_units)
    for row, group in zip(table, groups, strict=True):
        row[: len(group)] = group
    weights, bias, own = beta * couplings(params, graph), beta * params.bias, jnp.asarray(table)

    def draw(key: Key, s: Any, index: Any) -> Any:
        group = own[index]  # filled up with a unit that does not exist: read anywhere, written nowhere
        logits = bias.at[group].get(mode="clip")[None] + s @ weights.at[:, group].get(mode="clip")
        return s.at[:, group].set(binary.bernoulli(key, logits), mode="drop")

    return block_gibbs.sampler(block_gibbs.Blocks(len(groups), draw))


def hold(
    key: Key, params: Boltzmann, graph: Graph, v: Float[Array, "batch visible"], num_steps: int, *, beta: Any = 1.0
) -> Float[Array, "batch units"]:
    """(v, h) with h after `num_steps` sweeps from fair coins, v held; one is exact if no hidden units are joined."""
    hidden = np.arange(graph.num_visible, graph.num_units)
    start_key, run_key = jax.random.split(key)
    h = binary.bernoulli(start_key, jnp.zeros((v.shape[0], len(hidden))))
    start = jnp.concatenate([v, h], axis=1)
    if not len(hidden):
        return start
    return run(run_key, gibbs(params, graph, beta=beta, units=hidden), block_gibbs.State(start), num_steps)[0].position


def model(
    graph: Graph,
    optimizer: optax.GradientTransformation,
    *,
    exact: bool = False,
    num_chains: int = 100,
    num_steps: int = 1,
    num_held_steps: int = 10,
    beta: float = 1.0,
    num_sample_steps: int = 1_000,
    axis_name: str | None = None,
) -> Model[Any]:
    """A Boltzmann machine on rows x in {0, 1}.

    `log_prob` is there where the sums list at most 16 units, or where learning is exact.

    Args:
        graph: who is visible, who is joined.
        optimizer: moves weights and biases.
        exact: descend −mean log p(v) itself, summed over all states; else contrast hidden units drawn with v held with
            persistent chains.
        num_chains: persistent chains, of learning that is not exact.
        num_steps: their sweeps per update.
        num_held_steps: sweeps of the hidden units per update, v held.
        beta: inverse temperature.
        num_sample_steps: sweeps from the chains (from fair coins, where learning is exact) to a sample.
        axis_name: as in the learners.

    Raises:
        ValueError: a count is less than 1, beta is not positive, or an exact sum would list more than 25 units.
    """
    counts = {"num_chains": num_chains, "num_held_steps": num_held_steps, "num_sample_steps": num_sample_steps}
    _checks.positive("beta", beta)
    for name, value in counts.items():
        _checks.at_least(name, value, 1)
    listed = len(graphs.split(graph, np.arange(graph.num_units))[1])
    _check_listed(listed if exact else 0)

    def rows(batch: Batch) -> Any:
        return binary.rows(batch["x"], graph.num_visible)

    exact_log_prob = functools.partial(_exact, graph, rows, beta)
    known = exact_log_prob if exact or listed <= CHEAP_ENUMERATED else None
    shared = {
        "evaluate": None if known is None else lambda key, state, batch: {"nll": -exact_log_prob(state, batch)},
        "sample": functools.partial(_sample, graph, num_chains, num_sample_steps, beta),
        "log_prob": known,
        "axis_name": axis_name,
    }
    if exact:
        return _by_gradient(graph, rows, exact_log_prob, optimizer, **shared)
    return contrastive(
        functools.partial(_init, graph, rows, num_chains),
        lambda params, s: beta * energy(params, graph, s),
        lambda params: gibbs(params, graph, beta=beta),
        optimizer,
        num_steps=num_steps,
        data_position=rows,
        complete=lambda key, params, v: hold(key, params, graph, v, num_held_steps, beta=beta),
        **shared,
    )


def _exact(graph: Graph, rows: Callable[[Batch], Any], beta: float, state: Any, batch: Batch) -> Any:
    return log_prob(state.params, graph, rows(batch), beta=beta)


def _by_gradient(
    graph: Graph,
    rows: Callable[[Batch], Any],
    exact_log_prob: Callable[[Any, Batch], Any],
    optimizer: Any,
    **shared: Any,
) -> Model[GradientState]:
    def loss(key: Key, params: Any, stats: Any, batch: Batch, *, train: bool) -> tuple[Scalar, tuple[Any, Metrics]]:
        del key, train
        value = -jnp.mean(exact_log_prob(GradientState(params, stats, ()), batch))
        return value, (stats, {"nll": value})

    return gradient(lambda key, batch: (_init(graph, rows, 1, key, batch)[0], {}), loss, optimizer, **shared)


def _init(graph: Graph, rows: Callable[[Batch], Any], num_chains: int, key: Key, batch: Batch) -> tuple[Boltzmann, Any]:
    weight_key, chain_key = jax.random.split(key)
    mean = jnp.clip(jnp.mean(rows(batch), axis=0), 0.02, 0.98)
    hidden = jnp.zeros(graph.num_units - graph.num_visible)
    weights = 0.01 * jax.random.normal(weight_key, (len(graph.edges),))
    params = Boltzmann(weights, jnp.concatenate([jax.scipy.special.logit(mean), hidden]))
    return params, binary.bernoulli(chain_key, jnp.broadcast_to(params.bias[None], (num_chains, graph.num_units)))


def _sample(graph: Graph, num_chains: int, num_steps: int, beta: float, key: Key, state: Any, num: int) -> Batch:
    start_key, key = jax.random.split(key)
    if isinstance(state, ContrastiveState):
        starts = state.chains
    else:
        starts = binary.bernoulli(start_key, jnp.zeros((num_chains, graph.num_units)))
    units = fantasies(key, gibbs(state.params, graph, beta=beta), starts, num, num_steps)
    return {"x": units[:, : graph.num_visible]}


def _at_units(graph: Graph, values: Float[Array, " edges"]) -> Float[Array, " units"]:
    """Σ_j of the values at the edges (i, j) of each unit i."""
    rows, columns = graph.edges.T
    return jnp.zeros(graph.num_units, values.dtype).at[rows].add(values).at[columns].add(values)


def _check_listed(num: int) -> None:
    if num > MAX_ENUMERATED:
        raise ValueError(f"`graph` must leave at most {MAX_ENUMERATED} units to list, got {num}.")


def _log_sum(
    params: Boltzmann, graph: Graph, given: np.ndarray, values: Float[Array, "batch given"], beta: Any
) -> Float[Array, " batch"]:
    """log Σ exp(−βE) over all units but the `given` ones, which have `values`."""
    free, listed = graphs.split(graph, np.setdiff1d(np.arange(graph.num_units), given))
    _check_listed(len(listed))
    w, b = beta * couplings(params, graph), beta * params.bias
    fixed = values @ b[given] + 0.5 * jnp.sum((values @ w[np.ix_(given, given)]) * values, axis=-1)
    to_listed = b[listed][None] + values @ w[np.ix_(given, listed)]
    to_free = b[free][None] + values @ w[np.ix_(given, free)]

    def log_f(s: Any) -> Any:
        own = 0.5 * jnp.sum((s @ w[np.ix_(listed, listed)]) * s, axis=-1)
        inputs = to_free[:, None] + (s @ w[np.ix_(listed, free)])[None]
        return to_listed @ s.T + own[None] + jnp.sum(jax.nn.softplus(inputs), axis=-1)

    # About 2^14 states in all at a time, whatever the batch.
    return fixed + binary.log_sum(log_f, len(listed), block_units=max(0, 14 - len(values).bit_length()))
