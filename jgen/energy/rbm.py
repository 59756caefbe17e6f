"""Restricted Boltzmann machine with binary units, at inverse temperature β.

    E(v, h) = −b·v − c·h − vᵀWh,                          p(v, h) = exp(−β E(v, h)) / Z
    F(v) = −log Σ_h exp(−βE) = −β b·v − Σ_j softplus(β(c_j + (vᵀW)_j)),    p(v) = exp(−F(v)) / Z

Papers: Hinton, "Training products of experts by minimizing contrastive divergence", 2002 (CD-k); Tieleman, 2008 (PCD);
Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks", 2008 (log Z by annealing).
Differs from the papers: the negative phase samples both layers, and probabilities stand in the statistics only.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jgen import _checks, random
from jgen._types import Batch, Key, Keys, Metrics, Scalar
from jgen.learners.contrastive import ContrastiveState, contrastive, decay, fantasies
from jgen.math import binary
from jgen.model import Model
from jgen.sampler import Sampler
from jgen.samplers import annealed_importance, tempering

MAX_ENUMERATED = 25  # units of a layer whose 2^n states `log_partition` visits
CHEAP_ENUMERATED = 16  # units of a layer up to which `model` has an exact log_prob


class RBM(NamedTuple):
    """The parameters W, b and c."""

    weights: Float[Array, "visible hidden"]
    visible_bias: Float[Array, " visible"]
    hidden_bias: Float[Array, " hidden"]


class GibbsState(NamedTuple):
    """The visible units of every chain, 0 or 1."""

    position: Float[Array, "chains visible"]


class GibbsInfo(NamedTuple):
    """The hidden units that the sweep drew on its way."""

    hidden: Float[Array, "chains hidden"]


def init_params(key: Key, x: Float[Array, "batch visible"], hidden_size: int) -> RBM:
    """W ~ N(0, 0.01²), c = 0 and b = logit of the data's mean, clipped to [0.02, 0.98]."""
    mean = jnp.clip(jnp.mean(x, axis=0), 0.02, 0.98)
    weights = 0.01 * jax.random.normal(key, (x.shape[1], hidden_size))
    return RBM(weights, jax.scipy.special.logit(mean), jnp.zeros(hidden_size))


def energy(params: RBM, v: Float[Array, "batch visible"], h: Float[Array, "batch hidden"]) -> Float[Array, " batch"]:
    """E(v, h) = −b·v − c·h − vᵀWh."""
    return -v @ params.visible_bias - h @ params.hidden_bias - jnp.sum((v @ params.weights) * h, axis=-1)


def free_energy(params: RBM, v: Float[Array, "batch visible"], *, beta: Any = 1.0) -> Float[Array, " batch"]:
    """F(v) = −β b·v − Σ_j softplus(β(c_j + (vᵀW)_j)), nats, so that p(v) = exp(−F(v))/Z."""
    return -beta * (v @ params.visible_bias) - jnp.sum(jax.nn.softplus(hidden_logits(params, v, beta=beta)), axis=-1)


def hidden_logits(params: RBM, v: Float[Array, "batch visible"], *, beta: Any = 1.0) -> Float[Array, "batch hidden"]:
    """β(c + vᵀW): p(h_j = 1|v) is its sigmoid."""
    return beta * (params.hidden_bias[None] + v @ params.weights)


def visible_logits(params: RBM, h: Float[Array, "batch hidden"], *, beta: Any = 1.0) -> Float[Array, "batch visible"]:
    """β(b + Wh): p(v_i = 1|h) is its sigmoid."""
    return beta * (params.visible_bias[None] + h @ params.weights.T)


def reconstruct(params: RBM, v: Float[Array, "batch visible"], *, beta: Any = 1.0) -> Float[Array, "batch visible"]:
    """p(v'|E[h|v]): one mean-field step to the hidden units and back."""
    hidden = jax.nn.sigmoid(hidden_logits(params, v, beta=beta))
    return jax.nn.sigmoid(visible_logits(params, hidden, beta=beta))


def gibbs(params: RBM, *, beta: Any = 1.0) -> Sampler[GibbsState]:
    """Block Gibbs over a batch of chains: all h given v, then all v given h. One key moves all chains."""
    return _block_gibbs(
        functools.partial(hidden_logits, params, beta=beta), functools.partial(visible_logits, params, beta=beta)
    )


def tempered(params: RBM, betas: Sequence[float], *, beta: float = 1.0) -> Sampler[tempering.State]:
    """Parallel tempering of `gibbs`: positions (replicas, chains, visible) at β·betas, the first the model's own.

    A coin says which pairs are the first to swap, so that runs of one step serve all of them.
    """
    inner = tempering.sampler(
        lambda v, t: -free_energy(params, v, beta=t), lambda t: gibbs(params, beta=t), beta * np.asarray(betas)
    )

    def init(key: Key, position: Any) -> tempering.State:
        start_key, coin_key = jax.random.split(key)
        return inner.init(start_key, position)._replace(step=jax.random.bernoulli(coin_key).astype(jnp.int32))

    return Sampler(init, inner.step)


def pseudo_log_likelihood(
    keys: Keys, params: RBM, v: Float[Array, "batch visible"], *, beta: Any = 1.0
) -> Float[Array, " batch"]:
    """D·log p(v_i|v_rest) at one random unit i per example: unbiased for Σ_i log p(v_i|v_rest), nats.

    Args:
        keys: one per example.
    """
    size = v.shape[1]
    unit = jax.vmap(lambda key: jax.random.randint(key, (), 0, size))(keys)
    flipped = jnp.where(jax.nn.one_hot(unit, size) > 0, 1 - v, v)
    return size * jax.nn.log_sigmoid(free_energy(params, flipped, beta=beta) - free_energy(params, v, beta=beta))


def log_partition(params: RBM, *, beta: Any = 1.0) -> Scalar:
    """log Z = log Σ_v exp(−F(v)), nats, exactly, by visiting every state of the smaller layer.

    Raises:
        ValueError: both layers have more than 25 units.
    """
    if params.weights.shape[0] > params.weights.shape[1]:  # an RBM read from its other side is an RBM
        params = RBM(params.weights.T, params.hidden_bias, params.visible_bias)
    num = params.weights.shape[0]
    if num > MAX_ENUMERATED:
        raise ValueError(f"`params` must have a layer of at most {MAX_ENUMERATED} units to enumerate, got {num}.")
    return binary.log_sum(lambda states: -free_energy(params, states, beta=beta), num)


def log_prob(
    params: RBM, v: Float[Array, "batch visible"], log_z: Scalar | float | None = None, *, beta: Any = 1.0
) -> Float[Array, " batch"]:
    """log p(v) = −F(v) − log Z, nats; exact as far as `log_z` is, by default from `log_partition`."""
    return -free_energy(params, v, beta=beta) - (log_partition(params, beta=beta) if log_z is None else log_z)


def base_bias(x: Any) -> Float[Array, " visible"]:
    """The visible biases of the RBM without weights that fits binary rows x: log((n₁ + 1)/(n₀ + 1)) of each unit."""
    _checks.integers("x", x, 2)
    ones = jnp.sum(jnp.asarray(x, jnp.float32), axis=0)
    return jnp.log(ones + 1) - jnp.log(len(x) - ones + 1)


def annealing_path(params: RBM, base: Float[Array, " visible"], *, beta: Any = 1.0) -> annealed_importance.Path:
    """log f_t(v) = ((1 − t)·base + tβ b)·v + Σ_j softplus(tβ(c_j + (vᵀW)_j)), t from 0 (base rates) to 1 (p).

    log Z₀ = Σ_i softplus(base_i) + H log 2.
    """

    def increment(v: Any, old: Any, new: Any) -> Any:
        logits = hidden_logits(params, v, beta=beta)
        linear = v @ (beta * params.visible_bias - base)
        return (new - old) * linear + jnp.sum(jax.nn.softplus(new * logits) - jax.nn.softplus(old * logits), axis=-1)

    def kernel(t: Any) -> Sampler[GibbsState]:
        return _block_gibbs(
            lambda v: hidden_logits(params, v, beta=t * beta),
            lambda h: (1 - t) * base[None] + visible_logits(params, h, beta=t * beta),
        )

    return annealed_importance.Path(increment, kernel)


def annealed_log_partition(
    key: Key, params: RBM, base: Float[Array, " visible"], particles: Float[Array, "chains visible"], betas: Any,
    *, beta: Any = 1.0,
) -> annealed_importance.Sandwich:  # fmt: skip
    """log Z by annealing forward from the base rates and in reverse from `particles`, with the gap between them.

    Args:
        key: of both walks.
        params: the model's, at inverse temperature `beta`.
        base: visible biases of the start, from `base_bias` of the training data.
        particles: draws of the model, one per chain; those of long chains make the upper bound approximate.
        betas: temperatures of the walk, from `annealed_importance.temperatures`.
    """
    draw_key, walk_key = jax.random.split(key)
    start = binary.bernoulli(draw_key, jnp.broadcast_to(base[None], particles.shape))
    log_z = jnp.sum(jax.nn.softplus(base)) + params.hidden_bias.shape[0] * jnp.log(2.0)
    path = annealing_path(params, base, beta=beta)
    return annealed_importance.sandwich(walk_key, path, start, particles, betas, log_base_normalizer=log_z)


def sample(
    key: Key, params: RBM, starts: Float[Array, "chains visible"], num: int, num_steps: int, *, beta: Any = 1.0
) -> Float[Array, "num visible"]:
    """`num` chains, each from a random row of `starts`, after `num_steps` sweeps; row i depends on (key, i) alone."""
    return fantasies(key, gibbs(params, beta=beta), starts, num, num_steps)


def model(
    visible_size: int,
    hidden_size: int,
    optimizer: optax.GradientTransformation,
    *,
    num_chains: int = 100,
    num_steps: int = 1,
    persistent: bool = True,
    temperatures: Sequence[float] | None = None,
    beta: float = 1.0,
    weight_decay: float = 0.0,
    num_sample_steps: int = 1_000,
    axis_name: str | None = None,
) -> Model[ContrastiveState]:
    """An RBM on rows x in {0, 1}, learned by contrastive divergence.

    `log_prob` is there where one layer has at most 16 units, and enumerates; `annealed_log_partition` serves the rest.

    Args:
        visible_size: columns of x.
        hidden_size: hidden units.
        optimizer: moves W, b and c.
        num_chains: persistent chains; plain CD has one per example instead.
        num_steps: k, sweeps per update.
        persistent: PCD-k, or CD-k.
        temperatures: inverse ones, falling from 1, of replicas of the persistent chains that swap (`tempered`); only
            the first stands for the model, and `state.chains` has a leading axis of replicas.
        beta: inverse temperature.
        weight_decay: λ of the penalty λ/2·ΣW².
        num_sample_steps: sweeps from the chains to a sample.
        axis_name: as in `contrastive`.

    Raises:
        ValueError: a size or count is less than 1, beta is not positive, weight_decay negative, temperatures not such.
    """
    counts = {"num_chains": num_chains, "num_sample_steps": num_sample_steps}
    for name, value in {"visible_size": visible_size, "hidden_size": hidden_size, **counts}.items():
        _checks.at_least(name, value, 1)
    _checks.at_least("weight_decay", weight_decay, 0.0)
    _checks.positive("beta", beta)
    kernel, coldest = _chains(temperatures, persistent, beta)
    exact = min(visible_size, hidden_size) <= CHEAP_ENUMERATED

    def rows(batch: Batch) -> Any:
        return binary.rows(batch["x"], visible_size)

    def draw(key: Key, state: ContrastiveState, num: int) -> Batch:
        return {"x": sample(key, state.params, coldest(state.chains), num, num_sample_steps, beta=beta)}

    return contrastive(
        functools.partial(_init, rows, hidden_size, num_chains if persistent else None, temperatures),
        functools.partial(free_energy, beta=beta),
        kernel,
        optimizer,
        num_steps=num_steps,
        persistent=persistent,
        data_position=rows,
        negatives=coldest,
        penalty=decay(weight_decay),
        evaluate=functools.partial(_evaluate, rows, coldest, beta, exact),
        sample=draw,
        log_prob=(lambda state, batch: log_prob(state.params, rows(batch), beta=beta)) if exact else None,
        axis_name=axis_name,
    )


def _chains(temperatures: Sequence[float] | None, persistent: bool, beta: float) -> tuple[Any, Callable[[Any], Any]]:
    """(parameters -> kernel, positions -> those that stand for the model)."""
    if temperatures is None:
        return functools.partial(gibbs, beta=beta), lambda chains: chains
    if not persistent or temperatures[0] != 1:
        raise ValueError(f"`temperatures` must start at 1 and be of persistent chains, got {tuple(temperatures)}.")
    return functools.partial(tempered, betas=temperatures, beta=beta), lambda chains: chains[0]


def _init(
    rows: Callable[[Batch], Any], hidden_size: int, num_chains: int | None, temperatures: Any, key: Key, batch: Batch
) -> tuple[RBM, Any]:
    weight_key, chain_key = jax.random.split(key)
    x = rows(batch)
    params = init_params(weight_key, x, hidden_size)
    shape = (*([] if temperatures is None else [len(temperatures)]), num_chains or len(x), x.shape[1])
    return params, binary.bernoulli(chain_key, jnp.broadcast_to(params.visible_bias, shape))


def _evaluate(rows: Any, coldest: Any, beta: float, exact: bool, key: Key, state: Any, batch: Batch) -> Metrics:
    v, params = rows(batch), state.params
    model_energy = jnp.mean(free_energy(params, coldest(state.chains), beta=beta))
    metrics = {
        "energy_gap": free_energy(params, v, beta=beta) - model_energy,
        "reconstruction_error": jnp.mean(jnp.abs(v - reconstruct(params, v, beta=beta)), axis=-1),
        "pseudo_log_likelihood": pseudo_log_likelihood(random.batch_keys(key, batch), params, v, beta=beta),
    }
    return {**metrics, "nll": -log_prob(params, v, beta=beta)} if exact else metrics


def _block_gibbs(to_hidden: Callable[[Any], Any], to_visible: Callable[[Any], Any]) -> Sampler[GibbsState]:
    def step(key: Key, state: GibbsState) -> tuple[GibbsState, GibbsInfo]:
        hidden_key, visible_key = jax.random.split(key)
        hidden = binary.bernoulli(hidden_key, to_hidden(state.position))
        return GibbsState(binary.bernoulli(visible_key, to_visible(hidden))), GibbsInfo(hidden)

    return Sampler(lambda key, position: GibbsState(position), step)
