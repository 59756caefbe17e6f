"""Likelihoods p(x|raw) of decoders: raw are unconstrained outputs, (batch, *shape, num_parameters).

Every one sums or integrates to 1 over x, and every log-probability is a sum over `shape`, one value per example, in
nats. Means over pixels, which silently weight a KL term, do not exist here.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from jgen import _checks
from jgen._types import Keys
from jgen.math import logistic


@runtime_checkable
class Likelihood(Protocol):
    """What a latent-variable model needs of p(x|raw)."""

    @property
    def num_parameters(self) -> int:
        """The length of raw's last axis."""
        ...

    @property
    def levels(self) -> int | None:
        """How many whole-number levels x has; None where x is real."""
        ...

    def check(self, x: Any) -> None:
        """Raises ValueError where `x` is outside the support; traced values pass."""
        ...

    def features(self, x: Any) -> Any:
        """x as floats of order 1, (batch, *shape): what an encoder reads."""
        ...

    def offset(self, x: Any) -> Any:
        """First values of raw, (*shape, num_parameters), that fit the marginals of a batch."""
        ...

    def log_prob(self, raw: Any, x: Any) -> Any:
        """log p(x|raw), (batch,), nats."""
        ...

    def mean(self, raw: Any) -> Any:
        """E[x|raw], (batch, *shape)."""
        ...

    def sample(self, keys: Keys, raw: Any) -> Any:
        """One draw per example, with one key per example."""
        ...


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """x ∈ {0, 1}; raw = logits a: log p = x·a − softplus(a)."""

    num_parameters = 1
    levels = 2

    def check(self, x: Any) -> None:
        """x must be 0 or 1: a cross-entropy on grey values is no likelihood."""
        _checks.integers("x", x, 2)

    def features(self, x: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """The bits themselves, as float32."""
        return jnp.asarray(x, jnp.float32)

    def offset(self, x: Num[Array, "batch ..."]) -> Float[Array, "... 1"]:
        """Smoothed log-odds log((n₁ + ½)/(n₀ + ½)) of each bit in the batch."""
        ones = jnp.sum(jnp.asarray(x, jnp.float32), axis=0)
        return (jnp.log(ones + 0.5) - jnp.log(len(x) - ones + 0.5))[..., None]

    def log_prob(self, raw: Float[Array, "batch ... 1"], x: Num[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Σ x·a − softplus(a)."""
        logits = raw[..., 0].astype(jnp.float32)
        return _sum(jnp.asarray(x, jnp.float32) * logits - jax.nn.softplus(logits))

    def mean(self, raw: Float[Array, "batch ... 1"]) -> Float[Array, "batch ..."]:
        """sigmoid(a)."""
        return jax.nn.sigmoid(raw[..., 0])

    def sample(self, keys: Keys, raw: Float[Array, "batch ... 1"]) -> Float[Array, "batch ..."]:
        """Bits as float32."""
        return jax.vmap(jax.random.bernoulli)(keys, self.mean(raw)).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Categorical:
    """x ∈ {0, …, levels−1}; raw = one logit per level: log p = log_softmax(raw)[x]."""

    levels: int

    def __post_init__(self) -> None:
        _checks.at_least("levels", self.levels, 2)

    @property
    def num_parameters(self) -> int:
        """One logit per level."""
        return self.levels

    def check(self, x: Any) -> None:
        """x must be whole numbers in 0..levels-1."""
        _checks.integers("x", x, self.levels)

    def features(self, x: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """2x/(levels−1) − 1."""
        return _scale(x, self.levels)

    def offset(self, x: Num[Array, "batch ..."]) -> Float[Array, "... levels"]:
        """Smoothed log-frequencies of each level at each position in the batch."""
        counts = jnp.sum(jax.nn.one_hot(jnp.asarray(x, jnp.int32), self.levels), axis=0)
        return jnp.log(counts + 1 / self.levels) - jnp.log(jnp.asarray(len(x) + 1.0))

    def log_prob(self, raw: Float[Array, "batch ... levels"], x: Num[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Σ log_softmax(raw)[x]."""
        table = jax.nn.log_softmax(raw.astype(jnp.float32))
        return _sum(jnp.take_along_axis(table, jnp.asarray(x, jnp.int32)[..., None], axis=-1)[..., 0])

    def mean(self, raw: Float[Array, "batch ... levels"]) -> Float[Array, "batch ..."]:
        """Σ_k k·softmax(raw)_k, in levels."""
        return jax.nn.softmax(raw) @ jnp.arange(self.levels, dtype=raw.dtype)

    def sample(self, keys: Keys, raw: Float[Array, "batch ... levels"]) -> Num[Array, "batch ..."]:
        """Levels as int32."""
        return jax.vmap(jax.random.categorical)(keys, raw)


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """x real; raw = the mean, and where `std` is None an unconstrained scale too: σ = softplus(r) + 1e-3.

    Attributes:
        std: a fixed standard deviation, stated with every number; None learns one per dimension and example.
    """

    std: float | None = None
    levels = None

    def __post_init__(self) -> None:
        if self.std is not None and not self.std > 0:
            raise ValueError(f"`std` must be positive or None, got {self.std}.")

    @property
    def num_parameters(self) -> int:
        """1 with a fixed scale, else 2."""
        return 2 if self.std is None else 1

    def check(self, x: Any) -> None:
        """x must be finite."""
        _checks.within("x", x, -1e30, 1e30)

    def features(self, x: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """x itself."""
        return jnp.asarray(x, jnp.float32)

    def offset(self, x: Num[Array, "batch ..."]) -> Float[Array, "... parameters"]:
        """The batch's mean, and a scale of 1."""
        mean = jnp.mean(jnp.asarray(x, jnp.float32), axis=0)
        one = jnp.full_like(mean, jnp.log(jnp.expm1(1.0 - 1e-3)))
        return jnp.stack([mean, one][: self.num_parameters], axis=-1)

    def log_prob(self, raw: Float[Array, "batch ... parameters"], x: Num[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Σ log N(x; µ, σ²)."""
        mean, std = self._moments(raw)
        return _sum(jax.scipy.stats.norm.logpdf(jnp.asarray(x, jnp.float32), mean, std))

    def mean(self, raw: Float[Array, "batch ... parameters"]) -> Float[Array, "batch ..."]:
        """µ."""
        return raw[..., 0]

    def sample(self, keys: Keys, raw: Float[Array, "batch ... parameters"]) -> Float[Array, "batch ..."]:
        """µ + σ·ε."""
        mean, std = self._moments(raw)
        noise = jax.vmap(lambda key, like: jax.random.normal(key, like.shape))(keys, mean)
        return mean + std * noise

    def _moments(self, raw: Any) -> tuple[Any, Any]:
        raw = raw.astype(jnp.float32)
        mean = raw[..., 0]
        return mean, jnp.full_like(mean, self.std) if self.std is not None else jax.nn.softplus(raw[..., 1]) + 1e-3


@dataclasses.dataclass(frozen=True)
class DiscretizedLogistic:
    """x ∈ {0, …, levels−1}, a logistic of mean µ and scale s on [−1, 1] cut into bins of width Δ = 2/(levels−1).

    With a = (x' + Δ/2 − µ)/s and b = (x' − Δ/2 − µ)/s: log P = log σ(a) + log σ(−b) + log(1 − e^{−Δ/s}) exactly;
    the first level is log σ(a) and the last log σ(−b). Raw = (µ, log s), log s bounded to [−7, 5].
    """

    levels: int
    num_parameters = 2

    def __post_init__(self) -> None:
        _checks.at_least("levels", self.levels, 2)

    def check(self, x: Any) -> None:
        """x must be whole numbers in 0..levels-1."""
        _checks.integers("x", x, self.levels)

    def features(self, x: Num[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """2x/(levels−1) − 1."""
        return _scale(x, self.levels)

    def offset(self, x: Num[Array, "batch ..."]) -> Float[Array, "... 2"]:
        """The batch's mean and the log of its standard deviation."""
        scaled = self.features(x)
        spread = jnp.maximum(jnp.std(scaled, axis=0), 1 / self.levels)
        return jnp.stack([jnp.mean(scaled, axis=0), jnp.log(spread)], axis=-1)

    def log_prob(self, raw: Float[Array, "batch ... 2"], x: Num[Array, "batch ..."]) -> Float[Array, " batch"]:
        """Σ log P(x), the bins' exact masses."""
        mean, log_scale = self._parameters(raw)
        return _sum(logistic.log_mass(jnp.asarray(x), mean, log_scale, self.levels))

    def mean(self, raw: Float[Array, "batch ... 2"]) -> Float[Array, "batch ..."]:
        """µ in levels, clipped to them (the median of the undiscretized law)."""
        return jnp.clip((self._parameters(raw)[0] + 1) * (self.levels - 1) / 2, 0, self.levels - 1)

    def sample(self, keys: Keys, raw: Float[Array, "batch ... 2"]) -> Num[Array, "batch ..."]:
        """µ + s·logistic, rounded to the nearest level; int32."""
        mean, log_scale = self._parameters(raw)
        noise = jax.vmap(lambda key, like: jax.random.logistic(key, like.shape))(keys, mean)
        scaled = (mean + jnp.exp(log_scale) * noise + 1) * (self.levels - 1) / 2
        return jnp.clip(jnp.round(scaled), 0, self.levels - 1).astype(jnp.int32)

    def _parameters(self, raw: Any) -> tuple[Any, Any]:
        raw = raw.astype(jnp.float32)
        return raw[..., 0], jnp.clip(raw[..., 1], logistic.LOWEST, logistic.HIGHEST)


def _sum(per_dim: Any) -> Any:
    return jnp.sum(per_dim, axis=tuple(range(1, per_dim.ndim)))


def _scale(x: Any, levels: int) -> Any:
    return jnp.asarray(x, jnp.float32) * (2 / (levels - 1)) - 1
