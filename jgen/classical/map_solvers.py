"""The minima of `map_regression`'s energies over all examples at once: Newton's method and coordinate descent.

    F(w, b) = Σ_n ℓ(y_n, w·x_n + b) + λ R(w)

A Gaussian prior makes each Newton step a linear system: one step where the loss is squared (ridge), a few where it is
logistic. A Laplace prior makes it a lasso, solved by coordinate descent. Friedman, Hastie and Tibshirani,
"Regularization Paths for Generalized Linear Models via Coordinate Descent", 2010. Differs from the paper: a Newton step
that would raise the energy is halved, and λ is that of a sum over examples, not of a mean.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen import _checks
from jgen._types import Scalar
from jgen.classical import map_regression
from jgen.classical.map_regression import Linear

SMOOTH = ("squared", "logistic")
HALVINGS = 12  # of a Newton step
SMALLEST_CURVATURE = 1e-6  # of an example's loss: a saturated logistic has none in float32


def newton(
    params: Linear,
    x: Float[Array, "batch dims"],
    y: Float[Array, " batch"],
    *,
    loss: str,
    prior: str,
    strength: Any,
    num_sweeps: int = 100,
) -> Linear:
    """One step to the minimum of the losses' quadratic at `params` plus λR, halved until the energy does not rise.

    With s_n = ℓ″, x̄ the mean of x under s, G = Σ s (x − x̄)(x − x̄)ᵀ and g = Σ ℓ′ (x − x̄), the bias is solved for and
    what is left is ½ δᵀGδ + gᵀδ + λR(w + δ): a linear system, or `num_sweeps` of coordinate descent.

    Raises:
        ValueError: `loss` or `prior` is none that it knows; the perceptron's loss has no curvature.
    """
    _checks.one_of("loss", loss, SMOOTH)
    _checks.one_of("prior", prior, map_regression.PRIORS)
    f = map_regression.outputs(params, x)
    slope = f - y if loss == "squared" else jax.nn.sigmoid(f) - y
    curvature = jnp.ones_like(f) if loss == "squared" else jax.nn.sigmoid(f) * jax.nn.sigmoid(-f)
    curvature = jnp.maximum(curvature, SMALLEST_CURVATURE)
    total = jnp.sum(curvature)
    center = curvature @ x / total
    gap = x - center[None]
    gram, pull = (gap * curvature[:, None]).T @ gap, slope @ gap
    if prior == "gaussian":
        matrix = gram + strength * jnp.eye(len(gram))
        step = -jax.scipy.linalg.solve(matrix, pull + strength * params.weights, assume_a="pos")
    else:
        step = coordinate_descent(gram, pull, params.weights, strength, num_sweeps) - params.weights
    direction = Linear(step, -jnp.sum(slope) / total - center @ step)
    return _halved(
        params, direction, lambda at: map_regression.energy(at, x, y, loss=loss, prior=prior, strength=strength)
    )


def coordinate_descent(
    gram: Float[Array, "dims dims"],
    pull: Float[Array, " dims"],
    weights: Float[Array, " dims"],
    strength: Any,
    num_sweeps: int,
) -> Float[Array, " dims"]:
    """argmin_v ½(v − w)ᵀG(v − w) + gᵀ(v − w) + λ‖v‖₁: v_j ← S(G_jj v_j − slope_j, λ) / G_jj, one j after another."""

    def update(i: Any, v: Any) -> Any:
        j = i % len(v)
        slope = gram[j] @ (v - weights) + pull[j]
        moved = map_regression.soft_threshold(gram[j, j] * v[j] - slope, strength) / jnp.maximum(gram[j, j], 1e-12)
        return v.at[j].set(jnp.where(gram[j, j] > 0, moved, 0.0))

    return jax.lax.fori_loop(0, num_sweeps * len(weights), update, weights)


def _halved(params: Linear, direction: Linear, value: Any) -> Linear:
    """params + t·direction with the largest t in 1, ½, ¼, … that does not raise `value` by more than rounding."""
    sizes = jnp.append(0.5 ** jnp.arange(HALVINGS), 0.0)
    candidates = jax.vmap(lambda t: jax.tree.map(lambda p, d: p + t * d, params, direction))(sizes)
    before, values = value(params), jax.vmap(value)(candidates)
    fine = values <= before + 1e-5 * jnp.abs(before)
    return jax.tree.map(lambda leaf: leaf[jnp.argmax(fine)], candidates)


def fit(
    x: Float[Array, "batch dims"],
    y: Float[Array, " batch"],
    *,
    loss: str,
    prior: str,
    strength: Any,
    num_steps: int = 20,
    start: Linear | None = None,
) -> Linear:
    """The minimum of the energy over all examples at once, by `num_steps` of `newton`."""
    step = functools.partial(newton, x=x, y=y, loss=loss, prior=prior, strength=strength)
    start = map_regression.zeros(x.shape[1]) if start is None else start
    return jax.lax.fori_loop(0, num_steps, lambda _, params: step(params), start)


def path(
    x: Float[Array, "batch dims"],
    y: Float[Array, " batch"],
    strengths: Float[Array, " num"],
    *,
    loss: str,
    prior: str,
    num_steps: int = 20,
) -> Linear:
    """The minima for each λ in turn, each started from the one before; leaves have a leading axis (num,)."""

    def solve(params: Linear, strength: Any) -> tuple[Linear, Linear]:
        params = fit(x, y, loss=loss, prior=prior, strength=strength, num_steps=num_steps, start=params)
        return params, params

    return jax.lax.scan(solve, map_regression.zeros(x.shape[1]), strengths)[1]


def optimality_gap(
    params: Linear, x: Float[Array, "batch dims"], y: Float[Array, " batch"], *, loss: str, prior: str, strength: Any
) -> Scalar:
    """How far the Karush–Kuhn–Tucker conditions are from holding: 0 at the minimum, and only there.

    With g = ∇Σℓ: |∂b|, and for each weight |g + λw| of a Gaussian prior; of a Laplace prior |g + λ sign w| where
    w ≠ 0, else max(|g| − λ, 0).
    """
    slopes = jax.grad(lambda params: jnp.sum(map_regression.losses(map_regression.outputs(params, x), y, loss)))(params)
    w = params.weights
    if prior == "gaussian":
        gaps = jnp.abs(slopes.weights + strength * w)
    else:
        away = jnp.abs(slopes.weights + strength * jnp.sign(w))
        gaps = jnp.where(w != 0, away, jax.nn.relu(jnp.abs(slopes.weights) - strength))
    return jnp.maximum(jnp.max(gaps), jnp.abs(slopes.bias))
