"""Deep Boltzmann machine: layers of binary units x_0 = v, x_1, …, x_L, each joined to its neighbours, undirected.

    E(x) = −Σ_l b_l·x_l − Σ_l x_lᵀ W_l x_{l+1},      p(x) = exp(−E(x))/Z
    log p(v) ≥ −E(v, μ) + H(μ) − log Z,    μ_l = σ(b_l + W_{l−1}ᵀ μ_{l−1} + W_l μ_{l+1}),  l = 1, …, L in turn

E is linear in every unit, so E(v, μ) is the mean of E under the factorial posterior with means μ.
Paper: Salakhutdinov and Hinton, "Deep Boltzmann machines", 2009.
Differs from the paper: hidden biases of the greedy RBMs are averaged with those of the layer above as its visible ones;
no sparsity, no labels; the annealing runs over every second layer, the rest summed out, and in reverse as well.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jgen import _checks
from jgen._types import Batch, Key, Metrics, Scalar
from jgen.energy import boltzmann, graphs, rbm, stack
from jgen.energy.rbm import RBM
from jgen.energy.stack import Layer, StackState
from jgen.learners.contrastive import ContrastiveState, contrastive, decay, fantasies
from jgen.math import binary
from jgen.model import Model
from jgen.sampler import Sampler

CHEAP_ENUMERATED = boltzmann.CHEAP_ENUMERATED


class DBM(NamedTuple):
    """The parameters: W_l, and b_l of each layer, the visible one first."""

    weights: tuple[Float[Array, "below above"], ...]
    biases: tuple[Any, ...]


class GibbsState(NamedTuple):
    """The units of every chain: one array (chains, size) per layer, the visible one first."""

    position: tuple[Any, ...]


class GibbsInfo(NamedTuple):
    """A sweep has nothing to tell."""


def energy(params: DBM, units: Sequence[Any]) -> Float[Array, " batch"]:
    """E of units (batch, size) of every layer; of means, the mean of E."""
    total = jnp.zeros(())
    for x, bias in zip(units, params.biases, strict=True):
        total = total - x @ bias
    for low, high, weights in zip(units, units[1:], params.weights, strict=False):
        total = total - jnp.sum((low @ weights) * high, axis=-1)
    return total


def logits(params: DBM, units: Sequence[Any], layer: int) -> Float[Array, "batch size"]:
    """b_l + x_{l−1} W_{l−1} + x_{l+1} W_lᵀ: p(x_l = 1 | its neighbours) is its sigmoid. Other layers may be None."""
    total = params.biases[layer][None]
    if layer > 0:
        total = total + units[layer - 1] @ params.weights[layer - 1]
    if layer < len(params.weights):
        total = total + units[layer + 1] @ params.weights[layer].T
    return total


def gibbs(params: DBM) -> Sampler[GibbsState]:
    """Block Gibbs over a batch of chains: all odd layers given the even ones, then all even layers given the odd."""

    def step(key: Key, state: GibbsState) -> tuple[GibbsState, GibbsInfo]:
        units = draw_parity(key, 1, state.position, functools.partial(logits, params))
        return GibbsState(draw_parity(key, 0, units, functools.partial(logits, params))), GibbsInfo()

    return Sampler(lambda key, position: GibbsState(tuple(position)), step)


def draw_parity(
    key: Key, parity: int, units: Sequence[Any], inputs: Callable[[Sequence[Any], int], Any]
) -> tuple[Any, ...]:
    """`units` with the odd (1) or the even (0) layers drawn anew; `inputs` (units, layer) -> logits."""

    def draw(layer: int) -> Any:
        return binary.bernoulli(jax.random.fold_in(key, layer), inputs(units, layer))

    return tuple(draw(layer) if layer % 2 == parity else units[layer] for layer in range(len(units)))


def mean_field(params: DBM, v: Float[Array, "batch visible"], num_sweeps: int) -> tuple[Any, ...]:
    """Logits of μ_1, …, μ_L after `num_sweeps` over the layers, from an upward pass with doubled weights.

    Each layer's step maximizes the bound over its own μ, so the bound never falls.
    """
    units, start, num = [v], [], len(params.weights)
    for layer in range(1, num + 1):  # what comes from above is taken to be as much as what comes from below
        scale = 1.0 if layer == num else 2.0
        start.append(params.biases[layer][None] + scale * (units[-1] @ params.weights[layer - 1]))
        units.append(jax.nn.sigmoid(start[-1]))

    def sweep(_: Any, found: tuple[Any, ...]) -> tuple[Any, ...]:
        found_logits, means = list(found), [v, *map(jax.nn.sigmoid, found)]
        for layer in range(1, num + 1):
            found_logits[layer - 1] = logits(params, means, layer)
            means[layer] = jax.nn.sigmoid(found_logits[layer - 1])
        return tuple(found_logits)

    return jax.lax.fori_loop(0, num_sweeps, sweep, tuple(start))


def bound(
    params: DBM, v: Float[Array, "batch visible"], num_sweeps: int, log_z: Scalar | float | None = None
) -> Float[Array, " batch"]:
    """−E(v, μ) + H(μ) − log Z ≤ log p(v), nats; `log_z` by default by enumeration."""
    found = mean_field(params, v, num_sweeps)
    means = (v, *map(jax.nn.sigmoid, found))
    entropy = sum(jnp.sum(binary.entropy(layer), axis=-1) for layer in found)
    return entropy - energy(params, means) - (log_partition(params) if log_z is None else log_z)


def as_boltzmann(params: DBM) -> tuple[boltzmann.Boltzmann, graphs.Graph]:
    """The same machine on its graph, whose edges stand layer by layer."""
    graph = graphs.layered([len(bias) for bias in params.biases])
    weights = jnp.concatenate([jnp.ravel(weights) for weights in params.weights])
    return boltzmann.Boltzmann(weights, jnp.concatenate(params.biases)), graph


def log_partition(params: DBM) -> Scalar:
    """log Z, nats, exactly, listing the states of the odd or of the even layers, whichever are fewer.

    Raises:
        ValueError: these have more than 25 units.
    """
    return boltzmann.log_partition(*as_boltzmann(params))


def log_prob(
    params: DBM, v: Float[Array, "batch visible"], log_z: Scalar | float | None = None
) -> Float[Array, " batch"]:
    """log p(v), nats, exactly, as far as `log_z` is; ValueError where more than 25 units would be listed."""
    log_z = log_partition(params) if log_z is None else log_z
    return -boltzmann.free_energy(*as_boltzmann(params), v) - log_z


def doubled(params: RBM, *, visible: bool, hidden: bool) -> RBM:
    """The RBM that sees its visible units twice, its hidden ones twice, or both, with the same weights for each copy.

    Greedy learning gives the lowest layer its data twice and the highest its hidden units twice, those between both:
    so each layer's inputs are as large by itself as they will be between two neighbours.
    """
    tiled = jnp.tile(params.weights, (1 + visible, 1 + hidden))
    return RBM(tiled, jnp.tile(params.visible_bias, 1 + visible), jnp.tile(params.hidden_bias, 1 + hidden))


def from_rbms(rbms: Sequence[RBM]) -> DBM:
    """The machine of greedily learned RBMs; a layer between two of them takes the mean of their biases for it."""
    inner = [(below.hidden_bias + above.visible_bias) / 2 for below, above in itertools.pairwise(rbms)]
    return DBM(tuple(machine.weights for machine in rbms), (rbms[0].visible_bias, *inner, rbms[-1].hidden_bias))


def model(
    visible_size: int,
    layers: Sequence[Layer],
    optimizer: optax.GradientTransformation,
    *,
    num_chains: int = 100,
    num_steps: int = 1,
    num_mean_field: int = 10,
    weight_decay: float = 0.0,
    num_sample_steps: int = 1_000,
    axis_name: str | None = None,
) -> Model[StackState]:
    """A deep Boltzmann machine on rows x in {0, 1}: greedy layers, then all of it by mean field against chains.

    `log_bound` and `log_prob` are there where the odd or the even layers have at most 16 units.

    Args:
        visible_size: columns of x.
        layers: two or more hidden layers, the lowest first; with no updates of their own nothing is greedy.
        optimizer: of the whole.
        num_chains: persistent chains, of each layer and of the whole.
        num_steps: k, sweeps per update.
        num_mean_field: sweeps of mean field per update and in the bound.
        weight_decay: λ of the penalty λ/2·ΣW².
        num_sample_steps: sweeps from the chains to a sample.
        axis_name: as in the learners.

    Raises:
        ValueError: there are fewer than two layers, or a size or count is too small.
    """
    stack.check(visible_size, layers)
    counts = {"num_chains": num_chains, "num_mean_field": num_mean_field, "num_sample_steps": num_sample_steps}
    for name, value in counts.items():
        _checks.at_least(name, value, 1)
    sizes = [visible_size, *(layer.hidden_size for layer in layers)]
    cheap = min(sum(sizes[0::2]), sum(sizes[1::2])) <= CHEAP_ENUMERATED
    shared = {"num_steps": num_steps, "axis_name": axis_name, "penalty": decay(weight_decay)}

    def rows(batch: Batch) -> Any:
        return binary.rows(batch["x"], visible_size)

    def log_bound(key: Key, state: StackState, batch: Batch) -> Any:
        del key
        return bound(state.params, rows(batch), num_mean_field)

    def sample(key: Key, state: StackState, num: int) -> Batch:
        starts = state.tuning.chains
        return {"x": fantasies(key, gibbs(state.params), starts, num, num_sample_steps)[0]}

    greedy = [_greedy(index, len(layers), layer, num_chains, shared) for index, layer in enumerate(layers)]
    whole = _tuning(rows, optimizer, num_chains, num_mean_field, shared)
    num_updates, lift = [layer.num_updates for layer in layers], functools.partial(_lift, len(layers))
    init, update = stack.stacked(greedy, num_updates, lift, from_rbms, whole, axis_name=axis_name)
    exact = functools.partial(_exact, rows) if cheap else None
    evaluate = functools.partial(_evaluate, rows, num_mean_field, log_bound if cheap else None)
    return Model(init, update, evaluate, sample, exact, log_bound if cheap else None)


def _greedy(index: int, num: int, layer: Layer, num_chains: int, shared: dict[str, Any]) -> Model[ContrastiveState]:
    """The RBM that learns layer `index` by itself."""
    copies = {"visible": index < num - 1, "hidden": index > 0}

    def twice(batch: Batch) -> Any:
        return jnp.tile(jnp.asarray(batch["x"], jnp.float32), (1, 1 + copies["visible"]))

    def init(key: Key, batch: Batch) -> tuple[RBM, Any]:
        weight_key, chain_key = jax.random.split(key)
        params = rbm.init_params(weight_key, jnp.asarray(batch["x"], jnp.float32), layer.hidden_size)
        bias = doubled(params, **copies).visible_bias
        return params, binary.bernoulli(chain_key, jnp.broadcast_to(bias[None], (num_chains, len(bias))))

    return contrastive(
        init,
        lambda params, x: rbm.free_energy(doubled(params, **copies), x),
        lambda params: rbm.gibbs(doubled(params, **copies)),
        layer.optimizer,
        data_position=twice,
        **shared,
    )


def _lift(num: int, key: Key, index: int, params: RBM, x: Any) -> Any:
    scale = 2.0 if index < num - 1 else 1.0
    return binary.bernoulli(key, params.hidden_bias[None] + scale * (jnp.asarray(x, jnp.float32) @ params.weights))


def _tuning(
    rows: Callable[[Batch], Any], optimizer: Any, num_chains: int, num_mean_field: int, shared: dict[str, Any]
) -> stack.Tuning:
    """Mean field with v held, against chains: the mean of E is E of the means, so `energy` serves both."""

    def complete(key: Key, params: DBM, v: Any) -> Any:
        del key
        return (v, *map(jax.nn.sigmoid, mean_field(params, v, num_mean_field)))

    def whole(params: DBM | None = None) -> Model[ContrastiveState]:
        def init(key: Key, batch: Batch) -> tuple[Any, Any]:
            del batch
            biases = [] if params is None else params.biases
            tiled = [jnp.broadcast_to(bias[None], (num_chains, len(bias))) for bias in biases]
            keys = jax.random.split(key, len(tiled))
            return params, tuple(binary.bernoulli(k, bias) for k, bias in zip(keys, tiled, strict=True))

        return contrastive(init, energy, gibbs, optimizer, data_position=rows, complete=complete, **shared)

    def start(key: Key, params: DBM, batch: Batch) -> Any:
        model = whole(params)
        return model.init(key, batch)._replace(params=())

    def update(key: Key, state: StackState, batch: Batch) -> tuple[StackState, Metrics]:
        new, metrics = whole().update(key, state.tuning._replace(params=state.params), batch)
        return state._replace(params=new.params, tuning=new._replace(params=())), metrics

    return stack.Tuning(start, update)


def _exact(rows: Callable[[Batch], Any], state: StackState, batch: Batch) -> Any:
    return log_prob(state.params, rows(batch))


def _evaluate(
    rows: Callable[[Batch], Any], num_sweeps: int, log_bound: Any, key: Key, state: StackState, batch: Batch
) -> Metrics:
    v, params = rows(batch), state.params
    means = (v, *map(jax.nn.sigmoid, mean_field(params, v, num_sweeps)))
    again = jax.nn.sigmoid(logits(params, means, 0))
    gap = jnp.mean(energy(params, means)) - jnp.mean(energy(params, state.tuning.chains))
    metrics = {"energy_gap": gap, "reconstruction_error": jnp.mean(jnp.abs(v - again), axis=-1)}
    return metrics if log_bound is None else {**metrics, "nll_bound": -log_bound(key, state, batch)}
