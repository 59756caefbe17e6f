"""Inference in Bayes nets: p(query | evidence), exact or sampled, for any `bayes_net.Conditionals`.

    p(q | e) = Σ_h p(q, h, e) / p(e)

Exact: enumeration of all hidden points, or variable elimination, which sums one hidden variable at a time out of the
product of the factors that hold it. Sampled: rejection (ancestral draws that happen to have the evidence), likelihood
weighting (draws that are held to it, weighted by Π p(e_i | parents)), and Gibbs sampling of one hidden variable after
another given its Markov blanket. Zhang and Poole, 1994 (elimination); Henrion, 1988 (rejection); Fung and Chang, 1989
(weighting); Pearl, 1987 (Gibbs). Differs from them: nothing. Sums are of logarithms, so that no mass underflows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jgen import _checks
from jgen._types import Key, Params, Scalar
from jgen.classical import bayes_net
from jgen.classical.bayes_net import Conditionals, Graph
from jgen.math import discrete
from jgen.samplers import gibbs

LARGEST_SPACE = 2**22

Evidence = Mapping[str, Any]


class Answer(NamedTuple):
    """p(query | evidence).

    Attributes:
        probs: an axis for each queried variable, in the order asked; NaN where the evidence is impossible.
        log_evidence: log p(evidence), exact or estimated, nats.
        support: how many draws it rests on: kept ones of rejection, effective ones of weighting, infinitely many where
            it is exact.
    """

    probs: Any
    log_evidence: Any
    support: Any


class Factor(NamedTuple):
    """A function of some variables.

    Attributes:
        columns: of the variables, one for each axis.
        log_values: their table.
    """

    columns: tuple[int, ...]
    log_values: Any


def by_enumeration(net: Conditionals, params: Params, query: Sequence[str], evidence: Evidence | None = None) -> Answer:
    """Exact, by the mass of every point that has the evidence.

    Raises:
        ValueError: there are more than 2^22 of them, or names or values are none.
    """
    asked, own = _asked(net.graph, query, evidence)
    free = [*asked, *(i for i in range(len(net.graph.names)) if i not in own and i not in asked)]
    levels = [net.graph.levels[i] for i in free]
    if math.prod(levels) > LARGEST_SPACE:
        raise ValueError(f"`net` must have at most 2^22 points beside the evidence, got {math.prod(levels)}.")
    x = jnp.zeros((math.prod(levels), len(net.graph.names)), jnp.int32)
    x = x.at[:, jnp.asarray(free, int)].set(discrete.points(levels))
    for i, value in own.items():
        x = x.at[:, i].set(value)
    log_mass = bayes_net.log_prob(net, params, x).reshape(*(net.graph.levels[i] for i in asked), -1)
    return _normalized(jax.nn.logsumexp(log_mass, axis=-1))


def by_elimination(net: Conditionals, params: Params, query: Sequence[str], evidence: Evidence | None = None) -> Answer:
    """Exact, by variable elimination; the variable whose product of factors is smallest goes first.

    Raises:
        ValueError: names or values are none.
    """
    asked, own = _asked(net.graph, query, evidence)
    left = [_restricted(factor, own) for factor in factors(net, params)]
    hidden = set(range(len(net.graph.names))) - set(asked) - set(own)
    while hidden:
        least = min(hidden, key=lambda i: _cost(net.graph, left, i))
        touched = [factor for factor in left if least in factor.columns]
        rest = tuple(sorted({j for factor in touched for j in factor.columns} - {least}))
        summed = jax.nn.logsumexp(product(touched, (*rest, least)), axis=-1)
        left = [factor for factor in left if least not in factor.columns] + [Factor(rest, summed)]
        hidden.remove(least)
    log_mass = product(left, tuple(asked))
    return _normalized(jnp.broadcast_to(log_mass, [net.graph.levels[i] for i in asked]))


def factors(net: Conditionals, params: Params) -> list[Factor]:
    """log p(x_i | x_pa(i)) of every variable as a table over its parents and itself."""
    found = []
    for i, parents in enumerate(net.graph.parents):
        levels = [net.graph.levels[j] for j in parents]
        x = jnp.zeros((net.graph.rows(i), len(net.graph.names)), jnp.int32)
        x = x.at[:, jnp.asarray(parents, int)].set(discrete.points(levels))
        table = net.log_probs(params, i, x).reshape(*levels, net.graph.levels[i])
        found.append(Factor((*parents, i), table))
    return found


def product(parts: Sequence[Factor], columns: tuple[int, ...]) -> Float[Array, "..."]:
    """The sum of the factors' log-values, with an axis for each of `columns`, of length 1 where no factor has it."""
    total = jnp.zeros((1,) * len(columns))
    for own, log_values in parts:
        axes = sorted(range(len(own)), key=lambda axis: columns.index(own[axis]))
        sizes = {own[axis]: log_values.shape[axis] for axis in axes}
        total = total + jnp.transpose(log_values, axes).reshape([sizes.get(column, 1) for column in columns])
    return total


def _restricted(factor: Factor, own: Mapping[int, Any]) -> Factor:
    index = tuple(own.get(i, slice(None)) for i in factor.columns)
    return Factor(tuple(i for i in factor.columns if i not in own), factor.log_values[index])


def _cost(graph: Graph, parts: Sequence[Factor], i: int) -> int:
    """The size of the table that eliminating variable i makes."""
    return math.prod(graph.levels[j] for j in {j for part in parts if i in part.columns for j in part.columns})


def rejection(
    net: Conditionals, key: Key, params: Params, query: Sequence[str], evidence: Evidence, *, num: int
) -> Answer:
    """From those of `num` ancestral draws that have the evidence; NaN where none has.

    Raises:
        ValueError: names or values are none, or `num` is less than 1.
    """
    _checks.at_least("num", num, 1)
    asked, own = _asked(net.graph, query, evidence)
    x, _ = bayes_net.sample(net, key, params, num)
    kept = jnp.ones(num, bool)
    for i, value in own.items():
        kept = kept & (x[:, i] == value)
    return _weighted(net.graph, asked, x, jnp.where(kept, 0.0, -jnp.inf))


def likelihood_weighting(
    net: Conditionals, key: Key, params: Params, query: Sequence[str], evidence: Evidence, *, num: int
) -> Answer:
    """From `num` draws that are held to the evidence, each with weight Π p(e_i | parents).

    Raises:
        ValueError: names or values are none, or `num` is less than 1.
    """
    _checks.at_least("num", num, 1)
    asked, _ = _asked(net.graph, query, evidence)
    return _weighted(net.graph, asked, *bayes_net.sample(net, key, params, num, evidence=evidence))


def gibbs_blocks(net: Conditionals, params: Params, evidence: Evidence | None = None) -> gibbs.Blocks:
    """One block for each hidden variable of a position (variables,), for `gibbs.sampler`.

    Variable i is drawn from p(x_i | rest) ∝ p(x_i | x_pa(i)) Π_{children c} p(x_c | x_pa(c)). Start where p > 0 with
    the evidence in place, as draws of `bayes_net.sample` are; where some are 0 a chain may not reach all points.

    Raises:
        ValueError: no variable is hidden, or names or values are none.
    """
    own = bayes_net.columns(net.graph, evidence)

    def block(i: int) -> gibbs.Conditional:
        def draw(key: Key, position: Any) -> Any:
            return position.at[i].set(jax.random.categorical(key, blanket(net, params, i, position)))

        return draw

    return gibbs.blocks([block(i) for i in net.graph.order if i not in own])


def blanket(net: Conditionals, params: Params, i: int, position: Int[Array, " variables"]) -> Float[Array, " levels"]:
    """log p(x_i | all others) of each value, up to a constant: from its parents, children and their other parents."""
    x = jnp.tile(position[None], (net.graph.levels[i], 1)).at[:, i].set(jnp.arange(net.graph.levels[i]))
    return sum((bayes_net.chosen(net, params, j, x) for j in (i, *net.graph.children(i))), jnp.zeros(()))


def _asked(graph: Graph, query: Sequence[str], evidence: Evidence | None) -> tuple[list[int], dict[int, Any]]:
    """(columns of the query, {column: value} of the evidence)."""
    asked, own = [graph.column(name) for name in query], bayes_net.columns(graph, evidence)
    if len(set(asked)) != len(asked) or set(asked) & set(own):
        raise ValueError(f"`query` must be different variables without evidence, got {tuple(query)}.")
    return asked, own


def _weighted(graph: Graph, asked: Sequence[int], x: Any, log_weight: Any) -> Answer:
    """The weighted frequencies of the queried variables; support is (Σw)² / Σw²."""
    levels = [graph.levels[i] for i in asked]
    row = discrete.row(x[:, jnp.asarray(asked, int)], levels)
    highest = jnp.max(log_weight)
    weight = jnp.exp(log_weight - jnp.where(jnp.isfinite(highest), highest, 0.0))
    mass = jnp.zeros(math.prod(levels)).at[row].add(weight)
    total, squares = jnp.sum(weight), jnp.sum(weight**2)
    probs = jnp.where(total > 0, mass / jnp.where(total > 0, total, 1.0), jnp.nan).reshape(levels)
    support = jnp.where(total > 0, total**2 / jnp.where(squares > 0, squares, 1.0), 0.0)
    return Answer(probs, jax.nn.logsumexp(log_weight) - math.log(len(x)), support)


def _normalized(log_mass: Any) -> Answer:
    log_evidence: Scalar = jax.nn.logsumexp(log_mass)
    return Answer(jnp.exp(log_mass - log_evidence), log_evidence, jnp.inf)
