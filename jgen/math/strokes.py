"""Pen strokes: the law of one move (dx, dy, pen), a mixture of bivariate Gaussians beside a choice of pen states.

    log p(x) = log Σ_k π_k N((dx, dy); µ_k, Σ_k) + log softmax(b)[pen],    Σ_k = [[σ₁², ρσ₁σ₂], [ρσ₁σ₂, σ₂²]]

Graves: Generating Sequences With Recurrent Neural Networks, 2013, equations 18 to 25. Differs from the paper: σ =
softplus(r) + floor instead of exp(r), |ρ| ≤ 0.99, and the pen may have a third state, the end of the drawing (as in
Ha and Eck, 2018). The floor bounds the density, which grows without a bound on offsets that are whole numbers: a number
is stated with the floor and with the noise that was added to the offsets.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jgen import _checks
from jgen._types import Keys
from jgen.math.densities import normal_log_prob

_CORRELATION = 0.99
_OFFSETS, _LOGITS = 2, 3


@dataclasses.dataclass(frozen=True)
class StrokeMixture:
    """x = (dx, dy, pen) on the last axis, pen ∈ {0, …, pen_states−1}: 0 draws on, 1 lifts, 2 ends the drawing.

    Raw has the shape (batch, ..., 3, 2·num + 1), one row for each entry of x as in every likelihood: the rows of dx and
    dy hold µ and r of each component, the row of pen log π and arctanh ρ; the last column is the logits of pen.

    Attributes:
        num: components.
        floor: the least σ, in the units of x.
        pen_states: 2, or 3 where drawings tell their end.
    """

    num: int
    floor: float = 1e-3
    pen_states: int = 2
    levels = None

    def __post_init__(self) -> None:
        _checks.at_least("num", self.num, 1)
        _checks.positive("floor", self.floor)
        _checks.one_of("pen_states", self.pen_states, (2, 3))

    @property
    def num_parameters(self) -> int:
        """2·num + 1 for each of the three entries of x."""
        return 2 * self.num + 1

    def check(self, x: Any) -> None:
        """x must end in (dx, dy, pen), finite, the pen a whole number."""
        if np.ndim(x) < 1 or np.shape(x)[-1] != _LOGITS:
            raise ValueError(f"`x` must end in an axis of 3 entries (dx, dy, pen), got shape {np.shape(x)}.")
        _checks.within("x", x, -1e30, 1e30)
        _checks.integers("x[..., 2]", x[..., _OFFSETS], self.pen_states)

    def features(self, x: Num[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
        """x itself: offsets are to come in units of their standard deviation."""
        return jnp.asarray(x, jnp.float32)

    def offset(self, x: Num[Array, "batch *shape 3"]) -> Float[Array, "*shape 3 parameters"]:
        """Components around the batch's mean at several scales, and the log-frequencies of the pen's states."""
        x = jnp.asarray(x, jnp.float32)
        mean, std = jnp.mean(x[..., :_OFFSETS], axis=0), jnp.std(x[..., :_OFFSETS], axis=0) + 10 * self.floor
        angle = 2 * math.pi * jnp.arange(self.num) / self.num
        around = 0.5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)]) * (self.num > 1)
        lead = (1,) * (mean.ndim - 1)
        centre = mean[..., None] + std[..., None] * jnp.reshape(around, (*lead, _OFFSETS, self.num))
        sizes = jnp.reshape(0.5 ** (jnp.arange(self.num) % 4), (*lead, 1, self.num))
        rough = _inverse_softplus(std[..., None] * sizes)
        counts = jnp.sum(jax.nn.one_hot(x[..., _OFFSETS].astype(jnp.int32), _LOGITS), axis=0)
        mixture = jnp.concatenate([centre, rough], axis=-1)
        mixture = jnp.concatenate([mixture, jnp.zeros((*mixture.shape[:-2], 1, 2 * self.num))], axis=-2)
        return jnp.concatenate([mixture, jnp.log(counts + 0.5)[..., None]], axis=-1)

    def log_prob(self, raw: Float[Array, "batch *shape 3 parameters"], x: Num[Array, "batch *shape 3"]) -> Any:
        """log of the mixture's density at (dx, dy), plus that of the pen's mass; (batch,), nats."""
        x = jnp.asarray(x, jnp.float32)
        weight, mean, std, correlation, pen = self._parts(raw)
        first = (x[..., 0, None] - mean[0]) / std[0]
        free = jnp.sqrt(1 - jnp.square(correlation))
        second = ((x[..., 1, None] - mean[1]) / std[1] - correlation * first) / free
        both = normal_log_prob(first) + normal_log_prob(second) - jnp.log(std[0] * std[1] * free)
        each = jax.nn.logsumexp(weight + both, axis=-1)
        state = x[..., _OFFSETS].astype(jnp.int32)
        each = each + jnp.take_along_axis(pen, state[..., None], axis=-1)[..., 0]
        return jnp.sum(each, axis=tuple(range(1, each.ndim)))

    def mean(self, raw: Float[Array, "batch *shape 3 parameters"]) -> Float[Array, "batch *shape 3"]:
        """Σ_k π_k µ_k, and the mean number of the pen's state."""
        weight, mean, _, _, pen = self._parts(raw)
        offsets = [jnp.sum(jnp.exp(weight) * part, axis=-1) for part in mean]
        state = jnp.exp(pen) @ jnp.arange(self.pen_states, dtype=pen.dtype)
        return jnp.stack([*offsets, state], axis=-1)

    def sample(self, keys: Keys, raw: Float[Array, "batch *shape 3 parameters"]) -> Float[Array, "batch *shape 3"]:
        """One draw per example; the pen's state as a float."""
        return jax.vmap(self._draw)(keys, raw)

    def _draw(self, key: Any, raw: Any) -> Any:
        keys = jax.random.split(key, 3)
        weight, mean, std, correlation, pen = self._parts(raw)
        which = jax.random.categorical(keys[0], weight)[..., None]
        noise = jax.random.normal(keys[1], (_OFFSETS, *which.shape))
        mean, std = ([jnp.take_along_axis(part, which, axis=-1) for part in parts] for parts in (mean, std))
        rho = jnp.take_along_axis(correlation, which, axis=-1)
        dx = mean[0] + std[0] * noise[0]
        dy = mean[1] + std[1] * (rho * noise[0] + jnp.sqrt(1 - jnp.square(rho)) * noise[1])
        state = jax.random.categorical(keys[2], pen)[..., None]
        return jnp.concatenate([dx, dy, state.astype(dx.dtype)], axis=-1)

    def _parts(self, raw: Any) -> tuple[Any, Any, Any, Any, Any]:
        """(log π, µ of both offsets, σ of both, ρ, log-masses of the pen), float32."""
        first, second = raw[..., : self.num].astype(jnp.float32), raw[..., self.num : -1].astype(jnp.float32)
        std = jax.nn.softplus(second[..., :_OFFSETS, :]) + self.floor
        pen = jax.nn.log_softmax(raw[..., : self.pen_states, -1].astype(jnp.float32))
        weight = jax.nn.log_softmax(first[..., _OFFSETS, :])
        correlation = _CORRELATION * jnp.tanh(second[..., _OFFSETS, :])
        return weight, (first[..., 0, :], first[..., 1, :]), (std[..., 0, :], std[..., 1, :]), correlation, pen


def _inverse_softplus(value: Any) -> Any:
    return value + jnp.log(-jnp.expm1(-value))
