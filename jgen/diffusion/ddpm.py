"""Denoising diffusion probabilistic models.

    p(x_{t−1} | x_t) = N(c_t x̂_θ(x_t, t) + d_t x_t, Σ_t),    p(x_T) = N(0, 1)
    log p(x_0) ≥ −L_T − Σ_{t=2}^{T} KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) + log p(x_0 | x_1)

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models" (2020); Nichol and Dhariwal, "Improved Denoising
Diffusion Probabilistic Models" (2021), for learned variances.

Differs from the papers: the network may predict x_0, v or the score as well as ε; steps are drawn by a low-discrepancy
sequence by default, which leaves the loss's mean as it is; real data have the Gaussian density p(x_0 | x_1) as decoder.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jgen import linen, random
from jgen._checks import at_least, one_of
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.diffusion import process, samplers
from jgen.diffusion.denoiser import Denoiser, denoise, respace
from jgen.diffusion.process import Data, Gaussian, Steps
from jgen.diffusion.samplers import DiffusionState, Estimate
from jgen.learners.gradient import GradientState, Loss, gradient
from jgen.model import Model
from jgen.sampler import Sampler

OBJECTIVES = ("simple", "hybrid", "bound")


def bound_term(
    x_start: Data, x_noisy: Data, estimate: Estimate, t: Steps, *, denoiser: Denoiser
) -> Float[Array, " batch"]:
    """L_{t−1}: KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) for t > 1, −log p(x_0 | x_1) for t = 1, in nats.

    The means of the two Gaussians differ by c_t (x_0 − x̂_0), which is used as it stands: subtracting the means would
    lose half the digits.
    """
    schedule, ndim = denoiser.schedule, x_start.ndim
    gap = process.at(schedule.posterior.start, t, ndim) * (x_start - estimate.start)
    log_ratio = process.at(schedule.log_posterior_variance, t, ndim) - estimate.log_variance
    divergence = 0.5 * (jnp.expm1(log_ratio) - log_ratio + gap**2 * jnp.exp(-estimate.log_variance))
    terms = jnp.where(
        jnp.expand_dims(t == 1, tuple(range(1, ndim))), decoder_nll(x_start, estimate, denoiser), divergence
    )
    return jnp.sum(terms, axis=range(1, ndim))


def decoder_nll(x_start: Data, estimate: Estimate, denoiser: Denoiser) -> Data:
    """−log p(x_0 | x_1) per dimension, in nats: a discretized Gaussian, or a density where the data are real."""
    gaussian = Gaussian(estimate.start, estimate.log_variance)
    if denoiser.levels is not None:
        return -process.discretized_log_prob(x_start, gaussian, denoiser.levels)
    squares = (x_start - gaussian.mean) ** 2 * jnp.exp(-gaussian.log_variance)
    return 0.5 * (squares + gaussian.log_variance + math.log(2 * math.pi))


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    denoiser: Denoiser,
    objective: str = "simple",
    stratified: bool = True,
    hybrid_weight: float = 0.001,
    train: bool,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """L_simple = E |prediction − target|² (eq. 14), or a bound in nats per dimension, at one step t per example.

    Args:
        objective: "simple"; "bound", T·L_{t−1}; "hybrid", L_simple + `hybrid_weight`·T·L_{t−1}, where the bound moves
            the variance only: its gradient is stopped at x̂_0 (Nichol and Dhariwal, 2021, section 3.1).
        stratified: draw the steps by a low-discrepancy sequence over the examples, else independently.
    """
    step_key, noise_key, dropout_key = jax.random.split(key, 3)
    x_start, num_steps = process.scale(batch["x"], denoiser.levels), denoiser.schedule.num_steps
    t = _steps(process.uniforms(step_key, batch, stratified=stratified)[:, 0], num_steps)
    noise = process.normals(random.batch_keys(noise_key, batch), x_start.shape[1:])
    x_noisy = process.diffuse(x_start, noise, t, denoiser.schedule)
    estimate, (out, stats) = denoise(params, stats, x_noisy, t, denoiser=denoiser, key=dropout_key, train=train)
    alpha, sigma = (process.at(table, t, x_start.ndim) for table in (denoiser.schedule.alpha, denoiser.schedule.sigma))
    target = process.prediction_target(denoiser.prediction, x_start, noise, alpha, sigma)
    simple = jnp.mean((out - target) ** 2)
    if objective == "simple":
        return simple, (stats, {"loss": simple})
    if objective == "hybrid":
        estimate = estimate._replace(start=jax.lax.stop_gradient(estimate.start))
    bound = (
        num_steps
        * jnp.mean(bound_term(x_start, x_noisy, estimate, t, denoiser=denoiser))
        / math.prod(x_start.shape[1:])
    )
    value = bound if objective == "bound" else simple + hybrid_weight * bound
    return value, (stats, {"loss": value, "simple": simple, "bound": bound})


def elbo(
    key: Key, params: Params, stats: Params, x: Array, *, denoiser: Denoiser, num_terms: int | None = None
) -> Float[Array, " batch"]:
    """The evidence lower bound −L_T − Σ_t L_{t−1} of each example, in nats, with one noise draw per term.

    Args:
        x: whole numbers where `denoiser.levels` is given: the bound is then on the log-mass of the whole numbers.
        num_terms: steps to draw (low-discrepancy) for an unbiased estimate of the sum; None sums all T.

    Raises:
        ValueError: `x` is outside its levels, or `num_terms` is less than 1.
    """
    step_key, noise_key = jax.random.split(key)
    x_start, num_steps, size = process.scale(x, denoiser.levels), denoiser.schedule.num_steps, x.shape[0]
    noise_keys = random.example_keys(noise_key, size)
    if num_terms is None:
        steps = jnp.broadcast_to(jnp.arange(1, num_steps + 1)[:, None], (num_steps, size))
    else:
        at_least("num_terms", num_terms, 1)
        steps = _steps(process.uniforms(step_key, {"x": x}, num_terms), num_steps).T

    def add(total: Float[Array, " batch"], t: Steps) -> tuple[Float[Array, " batch"], None]:
        noise = process.normals(jax.vmap(jax.random.fold_in)(noise_keys, t), x_start.shape[1:])
        x_noisy = process.diffuse(x_start, noise, t, denoiser.schedule)
        estimate, _ = denoise(params, stats, x_noisy, t, denoiser=denoiser)
        return total + bound_term(x_start, x_noisy, estimate, t, denoiser=denoiser), None

    total, _ = jax.lax.scan(add, jnp.zeros(size, x_start.dtype), steps)
    return -process.prior_kl(x_start, denoiser.schedule) - total * (num_steps / len(steps))


def sampler(
    params: Params, stats: Params, *, denoiser: Denoiser, eta: float | None = None, condition: Any = None
) -> Sampler[DiffusionState]:
    """The reverse process as a sampler of scaled data: ancestral, or DDIM where `eta` is given."""

    def estimate(x: Data, t: Steps) -> Estimate:
        return denoise(params, stats, x, t, denoiser=denoiser, condition=condition)[0]

    if eta is None:
        return samplers.ancestral(estimate, denoiser.schedule)
    return samplers.ddim(estimate, denoiser.schedule, eta=eta)


def sample(
    key: Key,
    params: Params,
    stats: Params,
    num: int,
    *,
    denoiser: Denoiser,
    shape: tuple[int, ...],
    eta: float | None = None,
    num_steps: int | None = None,
) -> Array:
    """`num` draws of `shape`, (num, *shape): whole numbers where `denoiser.levels` is given.

    Args:
        eta: None samples ancestrally; otherwise DDIM with this share of noise.
        num_steps: of an evenly spaced sub-sequence; all T by default.
    """
    denoiser = respace(denoiser, num_steps)
    kernel = sampler(params, stats, denoiser=denoiser, eta=eta)
    x, _ = samplers.sample(key, kernel, num, shape=shape, num_steps=denoiser.schedule.num_steps)
    return process.unscale(x, denoiser.levels)


def model(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    *,
    objective: str | None = None,
    stratified: bool = True,
    eta: float | None = None,
    sample_steps: int | None = None,
    bound_terms: int | None = None,
    eval_terms: int = 4,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """A diffusion model; `learners.average` around it gives the averaged parameters that the paper samples with.

    Args:
        denoiser: network, schedule and parameterization.
        shape: of one example.
        optimizer: any optax optimizer.
        objective: "simple", "hybrid" or "bound"; by default "hybrid" where the variance is learned, else "simple".
        stratified: as in `loss`.
        eta: as in `sample`.
        sample_steps: as `num_steps` in `sample`.
        bound_terms: as `num_terms` in `elbo`, for `log_bound`.
        eval_terms: the same, for the validation metric `elbo`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: `objective` is unknown, or "hybrid" without a learned variance.
    """
    objective = objective or ("hybrid" if denoiser.variance == "learned" else "simple")
    one_of("objective", objective, OBJECTIVES)
    if objective == "hybrid" and denoiser.variance != "learned":
        raise ValueError('`objective` must be "simple" or "bound" where the variance is fixed, got "hybrid".')
    learn = functools.partial(loss, denoiser=denoiser, objective=objective, stratified=stratified)

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        args = (key, state.params, state.stats, num)
        return {"x": sample(*args, denoiser=denoiser, shape=shape, eta=eta, num_steps=sample_steps)}

    return gradient(
        functools.partial(_init, denoiser),
        learn,
        optimizer,
        evaluate=functools.partial(_evaluate, learn, functools.partial(_bound, denoiser, eval_terms)),
        sample=draw,
        log_bound=functools.partial(_bound, denoiser, bound_terms),
        axis_name=axis_name,
    )


def _init(denoiser: Denoiser, key: Key, batch: Batch) -> tuple[Params, Params]:
    x = process.scale(batch["x"], denoiser.levels)
    return linen.init(denoiser.module, key, x, jnp.zeros(x.shape[0]), train=False)


def _bound(denoiser: Denoiser, num_terms: int | None, key: Key, state: GradientState, batch: Batch) -> Array:
    return elbo(key, state.params, state.stats, batch["x"], denoiser=denoiser, num_terms=num_terms)


def _evaluate(learn: Loss, bound: Any, key: Key, state: GradientState, batch: Batch) -> Metrics:
    loss_key, bound_key = jax.random.split(key)
    _, (_, metrics) = learn(loss_key, state.params, state.stats, batch, train=False)
    return {**metrics, "elbo": bound(bound_key, state, batch)}


def _steps(uniform: Float[Array, "*batch"], num_steps: int) -> Array:
    """Steps 1..T from draws of [0, 1)."""
    return jnp.minimum((uniform * num_steps).astype(jnp.int32), num_steps - 1) + 1
