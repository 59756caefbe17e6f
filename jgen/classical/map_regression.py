"""Linear models as energies: what is learned is the maximum of a posterior, the minimum of loss plus regularizer.

    −log p(w, b | D) = Σ_n ℓ(y_n, f_n) + λ R(w) + constant,        f = w·x + b

| loss ℓ | p(y | f) ∝ e^{−ℓ} | | prior on w | R(w) |
|---|---|---|---|---|
| squared, ½(y − f)², in units of σ² | N(y; f, σ²) | | gaussian N(0, τ²) | ½‖w‖², λ = σ²/τ²: ridge |
| logistic, softplus(−±f) | σ(±f) | | laplace, scale τ | ‖w‖₁, λ = σ²/τ: lasso |
| perceptron, max(0, −±f) | none: its sum over y depends on f | | | |

± is + for y = 1 and − for y = 0, and σ² = 1 where the loss is not squared; b has a flat prior. This file has the
energies and learns them by gradients; `map_solvers` finds the minima to the last digit. Papers: Hoerl and Kennard, 1970
(ridge); Tibshirani, 1996 (lasso); Rosenblatt, 1958, and Novikoff, 1962 (perceptron). Differs from them: nothing but
that classes are 0 and 1.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jgen import _checks, random
from jgen._types import Batch, Key, Params, Scalar
from jgen.learners import GradientState, gradient
from jgen.math.densities import normal_log_prob
from jgen.model import Model

LOSSES = ("squared", "logistic", "perceptron")
PRIORS = ("gaussian", "laplace")


class Linear(NamedTuple):
    """f = w·x + b.

    Attributes:
        weights: (dims,), w.
        bias: scalar, b.
    """

    weights: Any
    bias: Any


def outputs(params: Linear, x: Float[Array, "batch dims"]) -> Float[Array, " batch"]:
    """f of each example."""
    return x @ params.weights + params.bias


def losses(f: Float[Array, " batch"], y: Float[Array, " batch"], loss: str) -> Float[Array, " batch"]:
    """ℓ(y, f) of each example."""
    if loss == "squared":
        return 0.5 * (y - f) ** 2
    margin = jnp.where(y > 0.5, f, -f)
    if loss == "logistic":
        return jax.nn.softplus(-margin)
    return jnp.where(margin <= 0, -margin, 0.0)  # its slope at 0 is the rule's, which corrects ties


def regularizer(weights: Float[Array, " dims"], prior: str) -> Scalar:
    """R(w): ½‖w‖² or ‖w‖₁."""
    return 0.5 * jnp.sum(weights**2) if prior == "gaussian" else jnp.sum(jnp.abs(weights))


def energy(
    params: Linear, x: Float[Array, "batch dims"], y: Float[Array, " batch"], *, loss: str, prior: str, strength: Any
) -> Scalar:
    """Σ_n ℓ(y_n, f_n) + λ R(w), with `strength` λ."""
    return jnp.sum(losses(outputs(params, x), y, loss)) + strength * regularizer(params.weights, prior)


def strength(prior: str, scale: float, noise: float = 1.0) -> float:
    """λ of a prior of scale τ (standard deviation, or Laplace's scale) and noise σ: σ²/τ², or σ²/τ."""
    return noise**2 / (scale**2 if prior == "gaussian" else scale)


def log_likelihood(
    params: Linear, x: Float[Array, "batch dims"], y: Float[Array, " batch"], *, loss: str, noise: float = 1.0
) -> Float[Array, " batch"]:
    """log p(y | x) in nats, of the squared loss a Gaussian's of standard deviation σ."""
    f = outputs(params, x)
    return normal_log_prob(y, f, math.log(noise)) if loss == "squared" else -losses(f, y, loss)


def log_prior(weights: Float[Array, " dims"], prior: str, scale: float) -> Scalar:
    """log p(w) in nats."""
    if prior == "gaussian":
        return jnp.sum(normal_log_prob(weights, 0.0, math.log(scale)))
    return -jnp.sum(jnp.abs(weights)) / scale - weights.size * math.log(2 * scale)


def perceptron(
    x: Float[Array, "batch dims"], y: Float[Array, " batch"], num_epochs: int
) -> tuple[Linear, Int[Array, ""], Bool[Array, ""]]:
    """Rosenblatt's rule, example by example: where ±f ≤ 0, w ← w ± x and b ← b ± 1.

    Returns:
        The parameters, how many mistakes were corrected, and whether the last pass had none. Where some unit (w, b)
        has ±f ≥ γ for all examples, the corrections are at most max(‖x‖² + 1)/γ², and the rule stops.
    """

    def look(carry: Any, example: Any) -> tuple[Any, Any]:
        params, (x, y) = carry, example
        sign = jnp.where(y > 0.5, 1.0, -1.0)
        wrong = sign * (x @ params.weights + params.bias) <= 0
        move = jnp.where(wrong, sign, 0.0)
        return Linear(params.weights + move * x, params.bias + move), wrong

    def epoch(carry: Any) -> Any:
        params, mistakes, _, epochs = carry
        params, wrong = jax.lax.scan(look, params, (x, y))
        return params, mistakes + jnp.sum(wrong), jnp.any(wrong), epochs + 1

    begin = (zeros(x.shape[1]), jnp.array(0), jnp.array(True), 0)
    params, mistakes, wrong, _ = jax.lax.while_loop(lambda carry: carry[2] & (carry[3] < num_epochs), epoch, begin)
    return params, mistakes, ~wrong


def zeros(num_dims: int) -> Linear:
    """w = 0, b = 0."""
    return Linear(jnp.zeros(num_dims), jnp.zeros(()))


def soft_threshold(v: Float[Array, "*shape"], threshold: Any) -> Float[Array, "*shape"]:
    """argmin_w ½(w − v)² + t|w|: v moved towards 0 by t, and 0 where |v| ≤ t."""
    return jnp.sign(v) * jax.nn.relu(jnp.abs(v) - threshold)


def proximal_gradient(step_size: float, prior: str, strength: float) -> optax.GradientTransformation:
    """Descent of a smooth loss plus λR: w ← argmin_v ½‖v − (w − η∇)‖² + ηλR(v), b ← b − η∇.

    Weights of a Laplace prior become exactly 0. It converges for η below 2 over the largest curvature of the loss.
    """

    def update(updates: Any, state: optax.OptState, params: Any = None) -> tuple[Any, optax.OptState]:
        if params is None:
            raise ValueError("`params` must be given to a proximal step, got None.")
        moved, t = params.weights - step_size * updates.weights, step_size * strength
        moved = moved / (1 + t) if prior == "gaussian" else soft_threshold(moved, t)
        return Linear(moved - params.weights, -step_size * updates.bias), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def model(
    optimizer: optax.GradientTransformation | float,
    *,
    num_examples: int,
    loss: str = "squared",
    prior: str = "gaussian",
    strength: float = 1.0,
    noise: float = 1.0,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """A linear model of y given x over batches {"x": (batch, dims), "y": (batch,)}; it draws nothing.

    Args:
        optimizer: what follows the gradient of mean loss + (λ/N) R, or the step size of `proximal_gradient`.
        num_examples: N, so that a batch's mean loss and the prior have the weights of the whole posterior.
        loss: "squared", "logistic", or "perceptron", which has no likelihood. The latter two take y in {0, 1}.
        prior: "gaussian" or "laplace".
        strength: λ.
        noise: σ of `log_prob` for the squared loss; the minimum does not depend on it.
        axis_name: the mapped axis over which gradients are averaged.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check(loss, prior, num_examples, strength, noise)
    proximal = not isinstance(optimizer, optax.GradientTransformation)
    if proximal:
        _checks.positive("optimizer", optimizer)
    inner = proximal_gradient(optimizer, prior, strength / num_examples) if proximal else optimizer
    name = "loss" if loss == "perceptron" else "nll"

    def each(params: Linear, batch: Batch) -> Any:
        x, y = _pairs(batch, loss)
        return losses(outputs(params, x), y, loss) if name == "loss" else -log_prob(params, batch)

    def log_prob(params: Linear, batch: Batch) -> Any:
        return log_likelihood(params, *_pairs(batch, loss), loss=loss, noise=noise)

    def objective(key: Key, params: Linear, stats: Params, batch: Batch, *, train: bool) -> Any:
        del key, train
        x, y = _pairs(batch, loss)
        value = jnp.mean(losses(outputs(params, x), y, loss))
        penalty = strength / num_examples * regularizer(params.weights, prior)
        return (value if proximal else value + penalty), (stats, {"energy": value + penalty})

    return gradient(
        lambda key, batch: (zeros(_pairs(batch, loss)[0].shape[1]), {}),
        objective,
        inner,
        evaluate=lambda key, state, batch: {name: each(state.params, batch)},
        log_prob=None if name == "loss" else lambda state, batch: log_prob(state.params, batch),
        axis_name=axis_name,
    )


def _check(loss: str, prior: str, num_examples: int, strength: float, noise: float) -> None:
    _checks.one_of("loss", loss, LOSSES)
    _checks.one_of("prior", prior, PRIORS)
    _checks.at_least("num_examples", num_examples, 1)
    _checks.at_least("strength", strength, 0.0)
    _checks.positive("noise", noise)


def _pairs(batch: Batch, loss: str) -> tuple[Any, Any]:
    random.batch_size(batch)
    _checks.rank("x", batch["x"], 2, "(batch, dims)")
    _checks.rank("y", batch["y"], 1, "(batch,)")
    if loss != "squared":
        _checks.integers("y", batch["y"], 2)
    return jnp.asarray(batch["x"]).astype(jnp.float32), jnp.asarray(batch["y"]).astype(jnp.float32)
