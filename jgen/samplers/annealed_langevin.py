"""Annealed Langevin dynamics: the same score-driven walk at noise levels that fall from wide to narrow.

    x ← x + ε_l·s(x, σ_l) + √(2ε_l)·ξ,  ξ ~ N(0, I),   ε_l = step_size·σ_l²/σ_L²,   σ_1 > … > σ_L,

`steps_per_level` times at each level, where s(x, σ) = ∇ log p_σ(x) is the score of the data blurred by N(0, σ²I). At a
wide level the modes overlap, so that walkers reach all of them in their proportions before the levels part them.

Papers: Song and Ermon, "Generative modeling by estimating gradients of the data distribution", 2019, Algorithm 1;
"Improved techniques for training score-based generative models", 2020 (the last denoising step, the rule for ε).
Differs from the papers: step_size is their ε/2, as in `langevin`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen._checks import at_least, positive
from jgen._types import Key, Scalar
from jgen.math import trees
from jgen.sampler import Sampler
from jgen.samplers import langevin

Score: TypeAlias = Callable[[Any, Any], Any]
"""(x, σ) -> ∇ log p_σ(x), of the form of x."""


class State(NamedTuple):
    """Where the walker stands.

    Attributes:
        position: x.
        step: how many steps it has taken; its level is that number over `steps_per_level`.
    """

    position: Any
    step: Int[Array, ""]


class Info(NamedTuple):
    """What moved the walker.

    Attributes:
        noise_level: σ_l of the step.
        score_norm: the norm of the score, over all leaves; about √dimensions/σ_l where the walk is in equilibrium.
    """

    noise_level: Scalar
    score_norm: Scalar


def noise_levels(widest: float, narrowest: float, num: int) -> Float[np.ndarray, " num"]:
    """σ_1 = widest > … > σ_num = narrowest in one ratio. The widest should be about the data's largest distance.

    Raises:
        ValueError: `num` is less than 1, or not widest > narrowest > 0 (widest = narrowest for one level).
    """
    at_least("num", num, 1)
    positive("narrowest", narrowest)
    if not (widest > narrowest if num > 1 else widest == narrowest):
        raise ValueError(f"`widest` must be above `narrowest`, or equal for one level, got {widest} and {narrowest}.")
    return np.geomspace(widest, narrowest, num)


def blurred_spread(levels: Any, step_size: float, steps_per_level: int) -> float:
    """Var x/σ² after all steps at a level that the walkers enter with the variance of the one before it.

    On data that are a point, each step multiplies x by 1 − η and adds variance 2η·σ² with η = step_size/σ_L²; levels of
    one ratio γ = σ_{l−1}/σ_l give  (1 − η)^{2T}·(γ² − V) + V  with  V = 2η/(1 − (1 − η)²).  A step_size for which this
    is near 1 suits the levels (2020, Proposition 3).

    Raises:
        ValueError: `levels` are fewer than two.
    """
    levels = np.asarray(levels, np.float64)
    at_least("levels", len(levels), 2)
    rate = step_size / levels[-1] ** 2
    kept = (1 - rate) ** 2
    settled = 2 * rate / (1 - kept)
    return float(kept**steps_per_level * ((levels[-2] / levels[-1]) ** 2 - settled) + settled)


def denoise(position: Any, score: Score, noise_level: Any) -> Any:
    """E[clean | x] = x + σ²·s(x, σ) (Tweedie): takes off the noise of the last level."""
    direction = score(position, noise_level)
    return jax.tree.map(lambda x, s: x + jnp.asarray(noise_level**2 * s, x.dtype), position, direction)


def sampler(score: Score, levels: Any, step_size: Any, *, steps_per_level: int = 100) -> Sampler[State]:
    """The walk of one walker; many by `jax.vmap`. It takes len(levels)·steps_per_level steps.

    Further steps stay at the last level. A network that wants a batch is called as `net(x[None], sigma[None])[0]`.

    Args:
        score: (x, σ) -> ∇ log p_σ(x); any pytree of floats.
        levels: σ_1 > … > σ_L > 0, as `noise_levels` gives them.
        step_size: ε at the last level, positive; it must stay below about σ_L².
        steps_per_level: steps at each level.

    Raises:
        ValueError: `levels` do not fall or are not positive, `step_size` is not positive, `steps_per_level` is not.
    """
    table = np.asarray(levels, np.float64)
    if table.ndim != 1 or not len(table) or table[-1] <= 0 or not np.all(np.diff(table) < 0):
        raise ValueError(f"`levels` must be positive and fall, along one axis, got {levels}.")
    positive("step_size", step_size)
    at_least("steps_per_level", steps_per_level, 1)
    sigmas, widths = (jnp.asarray(x, jnp.result_type(float)) for x in (table, (table / table[-1]) ** 2))

    def init(key: Key, position: Any) -> State:
        del key
        return State(position, jnp.zeros((), jnp.int32))

    def step(key: Key, state: State) -> tuple[State, Info]:
        level = jnp.minimum(state.step // steps_per_level, len(table) - 1)
        direction = score(state.position, sigmas[level])
        position = langevin.move(key, state.position, direction, step_size * widths[level])
        return State(position, state.step + 1), Info(sigmas[level], jnp.sqrt(trees.inner(direction, direction)))

    return Sampler(init, step)
