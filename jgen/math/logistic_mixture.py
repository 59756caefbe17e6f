"""A mixture of discretized logistics for every value: the likelihood that a decoder of levels with several modes needs.

    log P(x) = log Σ_k π_k P(x; µ_k, s_k),    P a logistic cut into levels, as in `jgen.math.logistic`

Values are independent of each other given raw; the channels of a pixel are coupled in PixelCNN++ only.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jgen import _checks
from jgen._types import Keys
from jgen.math import logistic


@dataclasses.dataclass(frozen=True)
class LogisticMixture:
    """x ∈ {0, …, levels−1}; raw = log π, µ on [−1, 1] and log s of `num` components, log s bounded to [−7, 5]."""

    levels: int
    num: int = 5

    def __post_init__(self) -> None:
        _checks.at_least("levels", self.levels, 2)
        _checks.at_least("num", self.num, 1)

    @property
    def num_parameters(self) -> int:
        """3·num."""
        return logistic.num_parameters(1, self.num)

    def check(self, x: Any) -> None:
        """x must be whole numbers in 0..levels-1."""
        _checks.integers("x", x, self.levels)

    def features(self, x: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """2x/(levels−1) − 1."""
        return logistic.scale(jnp.asarray(x), self.levels)

    def offset(self, x: Num[Array, "batch ..."]) -> Float[Array, "... parameters"]:
        """Equal weights; means around the batch's, and scales from its standard deviation downwards."""
        scaled = self.features(x)
        mean, std = jnp.mean(scaled, axis=0), jnp.maximum(jnp.std(scaled, axis=0), 1 / self.levels)
        lead = (1,) * mean.ndim
        around = jnp.reshape(jnp.linspace(-1.0, 1.0, self.num) * (self.num > 1), (*lead, self.num))
        sizes = jnp.reshape(-0.7 * (jnp.arange(self.num) % 4), (*lead, self.num))
        centre = mean[..., None] + std[..., None] * around
        return jnp.concatenate([jnp.zeros_like(centre), centre, jnp.log(std)[..., None] + sizes], axis=-1)

    def log_prob(self, raw: Float[Array, "batch ... parameters"], x: Num[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Σ log P(x), the levels' exact masses; nats."""
        mixture = logistic.split(raw, 1, self.num)
        each = logistic.log_prob(mixture, jnp.asarray(x)[..., None], self.levels)
        return jnp.sum(each, axis=tuple(range(1, each.ndim)))

    def mean(self, raw: Float[Array, "batch ... parameters"]) -> Float[Array, "batch ..."]:
        """Σ_k π_k µ_k in levels, clipped to them."""
        mixture = logistic.split(raw, 1, self.num)
        centre = jnp.sum(jnp.exp(mixture.log_weight) * mixture.mean[..., 0, :], axis=-1)
        return jnp.clip((centre + 1) * (self.levels - 1) / 2, 0, self.levels - 1)

    def sample(self, keys: Keys, raw: Float[Array, "batch ... parameters"]) -> Num[Array, "batch ..."]:
        """A component, then µ + s·logistic rounded to the nearest level; int32."""
        return jax.vmap(self._draw)(keys, raw)

    def _draw(self, key: Any, raw: Any) -> Any:
        mixture = logistic.split(raw, 1, self.num)
        keys = jax.random.split(key)
        which = jax.random.categorical(keys[0], mixture.log_weight)[..., None]
        mean = jnp.take_along_axis(mixture.mean[..., 0, :], which, axis=-1)[..., 0]
        scale = jnp.exp(jnp.take_along_axis(mixture.log_scale[..., 0, :], which, axis=-1)[..., 0])
        scaled = (mean + scale * jax.random.logistic(keys[1], mean.shape) + 1) * (self.levels - 1) / 2
        return jnp.clip(jnp.round(scaled), 0, self.levels - 1).astype(jnp.int32)
