"""Bayes nets: discrete variables on a directed graph without cycles.

    p(x) = Π_i p(x_i | x_pa(i))

Each conditional is a table, learned by counting, or a small network that reads its parents, learned by gradients; both
are `Conditionals`, and inference (`bayes_inference`) asks for no more. Samples are ancestral: parents before children.
Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988. Differs from it: networks as conditionals.
"""

import dataclasses
import graphlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Num

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Metrics, Params
from jgen.learners import CountingState, GradientState, counting, gradient
from jgen.math import discrete
from jgen.model import Model
from jgen.nets.mlp import MLP

LARGEST_TABLE = 2**26


@dataclasses.dataclass(frozen=True)
class Graph:
    """Who depends on whom; columns of x are in the order of `names`, which need not put parents first.

    Attributes:
        names: of the variables.
        levels: how many values each has.
        parents: the columns of each one's parents.
        order: the columns, parents before children.
    """

    names: tuple[str, ...]
    levels: tuple[int, ...]
    parents: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]

    def rows(self, i: int) -> int:
        """How many values the parents of variable i have together."""
        return math.prod(self.levels[j] for j in self.parents[i])

    def children(self, i: int) -> tuple[int, ...]:
        """The columns of the variables that variable i is a parent of."""
        return tuple(j for j, parents in enumerate(self.parents) if i in parents)

    def column(self, name: str) -> int:
        """The column of a variable.

        Raises:
            ValueError: there is none of this name.
        """
        _checks.one_of("name", name, self.names)
        return self.names.index(name)


def graph(parents: Mapping[str, Sequence[str]], levels: Mapping[str, int] | int = 2) -> Graph:
    """The graph of {name: names of its parents}, each variable with as many values as `levels` says.

    Raises:
        ValueError: a parent is no variable, or twice the same; a variable has fewer than two values; or there is a
            cycle, which the message names.
    """
    names = tuple(parents)
    _checks.at_least("parents", len(names), 1)
    for name, own in parents.items():
        for parent in own:
            if parent not in names:
                raise ValueError(f"`parents` of {name!r} must be among {names}, got {parent!r}.")
        if len(set(own)) != len(own):
            raise ValueError(f"`parents` of {name!r} must differ, got {tuple(own)}.")
    sizes = tuple(levels if isinstance(levels, int) else levels[name] for name in names)
    _checks.at_least("levels", min(sizes), 2)
    try:
        order = tuple(graphlib.TopologicalSorter({name: sorted(own) for name, own in parents.items()}).static_order())
    except graphlib.CycleError as error:
        raise ValueError(f"`parents` must have no cycle, got {' -> '.join(error.args[1])}.") from error
    columns = {name: i for i, name in enumerate(names)}
    own = tuple(tuple(columns[parent] for parent in parents[name]) for name in names)
    return Graph(names, sizes, own, tuple(columns[name] for name in order))


@dataclasses.dataclass(frozen=True)
class Conditionals:
    """p(x_i | x_pa(i)) for every variable of a graph, whatever computes them.

    Attributes:
        graph: who depends on whom.
        log_probs: (params, i, x (batch, variables)) -> (batch, L_i), log p of every value of variable i given the
            columns of its parents; the other columns are not read.
    """

    graph: Graph
    log_probs: Callable[[Params, int, Any], Any]


def tables(graph: Graph) -> Conditionals:
    """Tables: params[i] is p(x_i | row of the parents), (rows, L_i), rows numbered by `discrete.row`."""

    def log_probs(params: Params, i: int, x: Any) -> Any:
        return jnp.log(params[i])[_row(graph, i, x)]

    return Conditionals(graph, log_probs)


def _row(graph: Graph, i: int, x: Any) -> Any:
    return discrete.row(x[:, jnp.asarray(graph.parents[i], int)], [graph.levels[j] for j in graph.parents[i]])


def network(graph: Graph, i: int, hidden_sizes: Sequence[int]) -> nn.Module:
    """The network of variable i: its parents, encoded, to one logit per value (or one in all for two values)."""
    return MLP((*(hidden_sizes if graph.parents[i] else ()), discrete.width(graph.levels[i])))


def neural(graph: Graph, hidden_sizes: Sequence[int] = (16,)) -> Conditionals:
    """Networks: params[i] belong to `network(graph, i, hidden_sizes)`; a variable without parents has biases alone."""

    def log_probs(params: Params, i: int, x: Any) -> Any:
        module = network(graph, i, hidden_sizes)
        logits = linen.apply(module, params[i], {}, _inputs(graph, i, x))
        return jnp.stack([discrete.log_prob(logits, jnp.full(len(x), k)) for k in range(graph.levels[i])], axis=1)

    return Conditionals(graph, log_probs)


def _inputs(graph: Graph, i: int, x: Any) -> Any:
    """(batch, inputs) of variable i's network: its parents, centered bits or one-hot."""
    parts = [discrete.encode(x[:, j], graph.levels[j]) for j in graph.parents[i]]
    return jnp.concatenate(
        [2 * part - 1 if part.shape[1] == 1 else part for part in parts] or [jnp.zeros((len(x), 1))], 1
    )


def count(graph: Graph, x: Num[Array, "batch variables"]) -> tuple[Any, ...]:
    """How often each value came with each row of its parents, (rows, L_i) for every variable."""

    def table(i: int) -> Any:
        return jnp.zeros((graph.rows(i), graph.levels[i])).at[_row(graph, i, x), x[:, i].astype(jnp.int32)].add(1.0)

    return tuple(table(i) for i in range(len(graph.names)))


def log_prob(net: Conditionals, params: Params, x: Num[Array, "batch variables"]) -> Float[Array, " batch"]:
    """log p(x) in nats; −inf where the probability is zero."""
    return jnp.sum(jnp.stack([chosen(net, params, i, x) for i in range(len(net.graph.names))]), axis=0)


def chosen(net: Conditionals, params: Params, i: int, x: Num[Array, "batch variables"]) -> Float[Array, " batch"]:
    """log p(x_i | x_pa(i)) of variable i, nats."""
    return jnp.take_along_axis(net.log_probs(params, i, x), x[:, i].astype(jnp.int32)[:, None], axis=1)[:, 0]


def sample(
    net: Conditionals, key: Key, params: Params, num: int, *, evidence: Mapping[str, Any] | None = None
) -> tuple[Num[Array, "num variables"], Float[Array, " num"]]:
    """Ancestral draws with the variables of `evidence` held, and the log-weight Σ log p(evidence | parents) of each.

    Without evidence the weights are 0 and the draws are from p. Variable i of example j draws from (key, j, i).

    Raises:
        ValueError: evidence about no variable, or of no value of it.
    """
    own, keys = columns(net.graph, evidence), random.example_keys(key, num)
    x, log_weight = jnp.zeros((num, len(net.graph.names)), jnp.int32), jnp.zeros(num)
    for i in net.graph.order:
        log_probs = net.log_probs(params, i, x)
        if i in own:
            x = x.at[:, i].set(own[i])
            log_weight = log_weight + log_probs[:, own[i]]
        else:
            draw = jax.vmap(lambda key, row, i=i: jax.random.categorical(jax.random.fold_in(key, i), row))
            x = x.at[:, i].set(draw(keys, log_probs))
    return discrete.as_data(x, net.graph.levels), log_weight


def columns(graph: Graph, evidence: Mapping[str, Any] | None) -> dict[int, Any]:
    """{column: value} of {name: value}.

    Raises:
        ValueError: a name is no variable, or a value none of its values.
    """
    found = {}
    for name, value in (evidence or {}).items():
        found[graph.column(name)] = value
        _checks.integers(name, value, graph.levels[graph.column(name)])
    return found


def model(graph: Graph, *, smoothing: float = 1.0, axis_name: str | None = None) -> Model[CountingState]:
    """Tables learned by counting, over batches {"x": (batch, variables)}; an update adds the batch's counts.

    Args:
        graph: who depends on whom.
        smoothing: α, what every count of every table starts with.
        axis_name: the mapped axis over which the counts are added.

    Raises:
        ValueError: `smoothing` is negative, or a table has more than 2^26 entries.
    """
    _checks.at_least("smoothing", smoothing, 0.0)
    largest = max(graph.rows(i) * size for i, size in enumerate(graph.levels))
    if largest > LARGEST_TABLE:
        raise ValueError(f"`graph` must have tables of at most 2^26 entries, got {largest}.")
    net = tables(graph)
    return counting(
        lambda batch: jax.tree.map(jnp.zeros_like, count(graph, _examples(graph, batch))),
        lambda batch: count(graph, _examples(graph, batch)),
        lambda counts: tuple(discrete.frequencies(table, smoothing) for table in counts),
        evaluate=lambda key, state, batch: {"nll": -log_prob(net, state.params, _examples(graph, batch))},
        sample=lambda key, state, num: {"x": sample(net, key, state.params, num)[0]},
        log_prob=lambda state, batch: log_prob(net, state.params, _examples(graph, batch)),
        axis_name=axis_name,
    )


def neural_model(
    graph: Graph,
    optimizer: optax.GradientTransformation,
    *,
    hidden_sizes: Sequence[int] = (16,),
    axis_name: str | None = None,
) -> Model[GradientState]:
    """Networks learned by the gradient of the mean −log p(x), over batches {"x": (batch, variables)}.

    Args:
        graph: who depends on whom.
        optimizer: any optax optimizer.
        hidden_sizes: of every network; () makes every conditional a (multinomial) logistic regression.
        axis_name: the mapped axis over which gradients are averaged.
    """
    net = neural(graph, hidden_sizes)

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        x = _examples(graph, batch)
        modules = [network(graph, i, hidden_sizes) for i in range(len(graph.names))]
        keys = [jax.random.fold_in(key, i) for i in range(len(modules))]
        return tuple(linen.init(m, keys[i], _inputs(graph, i, x))[0] for i, m in enumerate(modules)), {}

    def loss(key: Key, params: Params, stats: Params, batch: Batch, *, train: bool) -> Any:
        del key, train
        value = -jnp.mean(log_prob(net, params, _examples(graph, batch)))
        return value, (stats, {"nll": value})

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        del key
        return {"nll": -log_prob(net, state.params, _examples(graph, batch))}

    return gradient(
        init,
        loss,
        optimizer,
        evaluate=evaluate,
        sample=lambda key, state, num: {"x": sample(net, key, state.params, num)[0]},
        log_prob=lambda state, batch: log_prob(net, state.params, _examples(graph, batch)),
        axis_name=axis_name,
    )


def _examples(graph: Graph, batch: Batch) -> Any:
    random.batch_size(batch)
    _checks.columns("x", batch["x"], graph.levels)
    return jnp.asarray(batch["x"])
