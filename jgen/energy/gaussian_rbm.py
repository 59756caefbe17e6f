"""Restricted Boltzmann machine with Gaussian visible and binary hidden units, at inverse temperature β.

    E(v, h) = Σ_i (v_i − b_i)²/(2σ_i²) − c·h − Σ_ij v_i W_ij h_j/σ_i²,      p(v, h) = exp(−βE)/Z
    v | h ~ N(b + Wh, σ²/β),      p(h_j = 1 | v) = σ(β(c_j + Σ_i v_i W_ij/σ_i²))

So p(v) is a mixture of 2^H Gaussians of one covariance, and log Z a sum over the states of h alone.
Paper: Cho, Ilin and Raiko, "Improved learning of Gaussian-Bernoulli restricted Boltzmann machines", 2011.
Differs from the paper: plain gradients of W, b, c and log σ, without their enhanced ones; log Z from both sides.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jgen import _checks
from jgen._types import Batch, Key, Metrics, Scalar
from jgen.energy import rbm
from jgen.learners.contrastive import ContrastiveState, contrastive, decay, fantasies
from jgen.math import binary
from jgen.math.densities import normal_log_prob
from jgen.model import Model
from jgen.sampler import Sampler
from jgen.samplers import annealed_importance


class GaussianRBM(NamedTuple):
    """The parameters W, b, c and log σ."""

    weights: Float[Array, "visible hidden"]
    visible_bias: Float[Array, " visible"]
    hidden_bias: Float[Array, " hidden"]
    log_std: Float[Array, " visible"]


class Base(NamedTuple):
    """Independent Gaussians, from which annealing starts."""

    mean: Float[Array, " visible"]
    std: Float[Array, " visible"]


def init_params(key: Key, x: Float[Array, "batch visible"], hidden_size: int) -> GaussianRBM:
    """W ~ N(0, (0.1 σ)²/visible), c = 0, b and σ those of the data."""
    mean, std = fit_base(x)
    weights = 0.1 * std[:, None] * jax.random.normal(key, (x.shape[1], hidden_size)) / jnp.sqrt(x.shape[1])
    return GaussianRBM(weights, mean, jnp.zeros(hidden_size), jnp.log(std))


def energy(
    params: GaussianRBM, v: Float[Array, "batch visible"], h: Float[Array, "batch hidden"]
) -> Float[Array, " batch"]:
    """E(v, h)."""
    scaled = (v - params.visible_bias[None]) * jnp.exp(-params.log_std)[None]
    pull = jnp.sum((v * jnp.exp(-2 * params.log_std)[None]) @ params.weights * h, axis=-1)
    return 0.5 * jnp.sum(jnp.square(scaled), axis=-1) - h @ params.hidden_bias - pull


def free_energy(params: GaussianRBM, v: Float[Array, "batch visible"], *, beta: Any = 1.0) -> Float[Array, " batch"]:
    """F(v) = β Σ_i (v_i − b_i)²/(2σ_i²) − Σ_j softplus(β(c_j + Σ_i v_i W_ij/σ_i²)), so that p(v) = exp(−F(v))/Z."""
    scaled = (v - params.visible_bias[None]) * jnp.exp(-params.log_std)[None]
    softplus = jax.nn.softplus(hidden_logits(params, v, beta=beta))
    return 0.5 * beta * jnp.sum(jnp.square(scaled), axis=-1) - jnp.sum(softplus, axis=-1)


def hidden_logits(
    params: GaussianRBM, v: Float[Array, "batch visible"], *, beta: Any = 1.0
) -> Float[Array, "batch hidden"]:
    """β(c + (v/σ²)W): p(h_j = 1|v) is its sigmoid."""
    return beta * (params.hidden_bias[None] + (v * jnp.exp(-2 * params.log_std)[None]) @ params.weights)


def visible_mean(params: GaussianRBM, h: Float[Array, "batch hidden"]) -> Float[Array, "batch visible"]:
    """b + Wh; the standard deviation of v given h is σ/√β."""
    return params.visible_bias[None] + h @ params.weights.T


def gibbs(params: GaussianRBM, *, beta: Any = 1.0) -> Sampler[rbm.GibbsState]:
    """Block Gibbs over a batch of chains: all h given v, then all v given h."""
    std = jnp.exp(params.log_std)[None] / jnp.sqrt(beta)
    return _block_gibbs(functools.partial(hidden_logits, params, beta=beta), lambda h: (visible_mean(params, h), std))


def component_log_weight(
    params: GaussianRBM, h: Float[Array, "batch hidden"], *, beta: Any = 1.0
) -> Float[Array, " batch"]:
    """log ∫ exp(−βE(v, h)) dv = β(c·h + Σ_i ((b + Wh)_i² − b_i²)/(2σ_i²)) + Σ_i ½ log(2πσ_i²/β), nats."""
    shift = h @ params.weights.T
    squares = shift * (shift + 2 * params.visible_bias[None]) * jnp.exp(-2 * params.log_std)[None] / 2
    log_volume = jnp.sum(params.log_std) + 0.5 * len(params.log_std) * jnp.log(2 * jnp.pi / beta)
    return beta * (h @ params.hidden_bias + jnp.sum(squares, axis=-1)) + log_volume


def log_partition(params: GaussianRBM, *, beta: Any = 1.0) -> Scalar:
    """log Z = log Σ_h ∫ exp(−βE(v, h)) dv, nats, exactly.

    Raises:
        ValueError: there are more than 25 hidden units.
    """
    num = len(params.hidden_bias)
    if num > rbm.MAX_ENUMERATED:
        raise ValueError(f"`params` must have at most {rbm.MAX_ENUMERATED} hidden units to enumerate, got {num}.")
    return binary.log_sum(lambda h: component_log_weight(params, h, beta=beta), num)


def log_prob(
    params: GaussianRBM, v: Float[Array, "batch visible"], log_z: Scalar | float | None = None, *, beta: Any = 1.0
) -> Float[Array, " batch"]:
    """log p(v) = −F(v) − log Z, nats; exact as far as `log_z` is, by default from `log_partition`."""
    return -free_energy(params, v, beta=beta) - (log_partition(params, beta=beta) if log_z is None else log_z)


def fit_base(x: Float[Array, "batch visible"]) -> Base:
    """The independent Gaussians of rows x; no standard deviation is below 1e-3."""
    return Base(jnp.mean(x, axis=0), jnp.maximum(jnp.std(x, axis=0), 1e-3))


def annealing_path(params: GaussianRBM, base: Base, *, beta: Any = 1.0) -> annealed_importance.Path:
    """log f_t(v) = (1 − t) log N(v; base) − tβ Σ(v − b)²/(2σ²) + Σ_j softplus(t·logit_j(v)): log Z₀ = H log 2."""

    def increment(v: Any, old: Any, new: Any) -> Any:
        scaled = (v - params.visible_bias[None]) * jnp.exp(-params.log_std)[None]
        start = normal_log_prob((v - base.mean[None]) / base.std[None]) - jnp.log(base.std)[None]
        linear = jnp.sum(-0.5 * beta * jnp.square(scaled) - start, axis=-1)
        logits = hidden_logits(params, v, beta=beta)
        return (new - old) * linear + jnp.sum(jax.nn.softplus(new * logits) - jax.nn.softplus(old * logits), axis=-1)

    def kernel(t: Any) -> Sampler[rbm.GibbsState]:
        here, there = (1 - t) / jnp.square(base.std), t * beta * jnp.exp(-2 * params.log_std)

        def to_visible(h: Any) -> Any:
            mean = (here * base.mean)[None] + there[None] * visible_mean(params, h)
            return mean / (here + there)[None], 1 / jnp.sqrt(here + there)[None]

        return _block_gibbs(lambda v: hidden_logits(params, v, beta=t * beta), to_visible)

    return annealed_importance.Path(increment, kernel)


def annealed_log_partition(
    key: Key, params: GaussianRBM, base: Base, particles: Float[Array, "chains visible"], betas: Any, *, beta: Any = 1.0
) -> annealed_importance.Sandwich:
    """log Z by annealing forward from `base` and in reverse from `particles`, as `rbm.annealed_log_partition` does."""
    draw_key, walk_key = jax.random.split(key)
    start = base.mean[None] + base.std[None] * jax.random.normal(draw_key, particles.shape)
    log_z = len(params.hidden_bias) * jnp.log(2.0)
    path = annealing_path(params, base, beta=beta)
    return annealed_importance.sandwich(walk_key, path, start, particles, betas, log_base_normalizer=log_z)


def model(
    visible_size: int,
    hidden_size: int,
    optimizer: optax.GradientTransformation,
    *,
    num_chains: int = 100,
    num_steps: int = 1,
    persistent: bool = True,
    beta: float = 1.0,
    weight_decay: float = 0.0,
    num_sample_steps: int = 1_000,
    axis_name: str | None = None,
) -> Model[ContrastiveState]:
    """A Gaussian RBM on real rows x, learned by contrastive divergence.

    `log_prob` is there up to 16 hidden units, and enumerates; `annealed_log_partition` serves the rest.

    Args:
        visible_size: columns of x.
        hidden_size: hidden units.
        optimizer: moves W, b, c and log σ.
        num_chains: as in `rbm.model`; so are the others.

    Raises:
        ValueError: a size or count is less than 1, beta is not positive, or weight_decay is negative.
    """
    counts = {"num_chains": num_chains, "num_sample_steps": num_sample_steps}
    for name, value in {"visible_size": visible_size, "hidden_size": hidden_size, **counts}.items():
        _checks.at_least(name, value, 1)
    _checks.at_least("weight_decay", weight_decay, 0.0)
    _checks.positive("beta", beta)
    rows = functools.partial(_rows, visible_size)
    exact = functools.partial(_exact, rows, beta) if hidden_size <= rbm.CHEAP_ENUMERATED else None

    def draw(key: Key, state: ContrastiveState, num: int) -> Batch:
        return {"x": fantasies(key, gibbs(state.params, beta=beta), state.chains, num, num_sample_steps)}

    return contrastive(
        functools.partial(_init, rows, hidden_size, num_chains if persistent else None),
        functools.partial(free_energy, beta=beta),
        functools.partial(gibbs, beta=beta),
        optimizer,
        num_steps=num_steps,
        persistent=persistent,
        data_position=rows,
        penalty=decay(weight_decay),
        evaluate=functools.partial(_evaluate, rows, beta, exact),
        sample=draw,
        log_prob=exact,
        axis_name=axis_name,
    )


def _rows(visible_size: int, batch: Batch) -> Float[Array, "batch visible"]:
    x = batch["x"]
    _checks.rank("x", x, 2, "(batch, visible)")
    if x.shape[1] != visible_size:
        raise ValueError(f"`x` must have {visible_size} columns, got shape {x.shape}.")
    return jnp.asarray(x, jnp.float32)


def _init(rows: Any, hidden_size: int, num_chains: int | None, key: Key, batch: Batch) -> tuple[GaussianRBM, Any]:
    weight_key, chain_key = jax.random.split(key)
    x = rows(batch)
    params = init_params(weight_key, x, hidden_size)
    noise = jax.random.normal(chain_key, (num_chains or len(x), x.shape[1]))
    return params, params.visible_bias[None] + jnp.exp(params.log_std)[None] * noise


def _exact(rows: Any, beta: float, state: ContrastiveState, batch: Batch) -> Float[Array, " batch"]:
    return log_prob(state.params, rows(batch), beta=beta)


def _evaluate(rows: Any, beta: float, exact: Any, key: Key, state: ContrastiveState, batch: Batch) -> Metrics:
    del key
    free, chains = (free_energy(state.params, v, beta=beta) for v in (rows(batch), state.chains))
    metrics = {"energy_gap": free - jnp.mean(chains)}
    return metrics if exact is None else {**metrics, "nll": -exact(state, batch)}


def _block_gibbs(to_hidden: Any, to_visible: Any) -> Sampler[rbm.GibbsState]:
    """From v -> logits of h, and h -> (mean, standard deviation) of v."""

    def step(key: Key, state: rbm.GibbsState) -> tuple[rbm.GibbsState, rbm.GibbsInfo]:
        hidden_key, visible_key = jax.random.split(key)
        hidden = binary.bernoulli(hidden_key, to_hidden(state.position))
        mean, std = to_visible(hidden)
        return rbm.GibbsState(mean + std * jax.random.normal(visible_key, mean.shape)), rbm.GibbsInfo(hidden)

    return Sampler(lambda key, position: rbm.GibbsState(position), step)
