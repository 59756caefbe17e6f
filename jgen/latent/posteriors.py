"""Families of posteriors q(z|x): how an encoder's outputs become a law of z that can be drawn from and weighed."""

import dataclasses
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float

from jgen._types import Key, Keys, Params
from jgen.latent import gaussian
from jgen.latent.gaussian import Gaussian


class Draw(NamedTuple):
    """z ~ q(z|x) and log q(z|x), by latent dimension; both (batch, latent)."""

    z: Array
    log_prob: Array


@runtime_checkable
class Posterior(Protocol):
    """What a latent-variable model needs of q(z|x). `q` is whatever pytree `read` returns."""

    def num_outputs(self, latent_size: int) -> int:
        """How many outputs the encoder must have."""
        ...

    def init(self, key: Key, latent_size: int) -> Params:
        """What the family itself learns; {} where that is nothing."""
        ...

    def read(self, raw: Any, latent_size: int) -> Any:
        """q, of the encoder's outputs (batch, num_outputs)."""
        ...

    def draw(self, keys: Keys, params: Params, q: Any) -> Draw:
        """One reparameterized draw per example, with one key per example."""
        ...

    def log_prob(self, params: Params, q: Any, z: Any) -> Any:
        """log q(z|x) of given z, (batch, latent), nats; None where it has no closed form."""
        ...

    def kl(self, q: Any) -> Any:
        """KL(q ‖ N(0, I)) of each dimension, (batch, latent), nats; None where it has no closed form."""
        ...

    def center(self, params: Params, q: Any) -> Any:
        """The code that stands for x, (batch, latent): the mean of a Gaussian."""
        ...


@dataclasses.dataclass(frozen=True)
class Diagonal:
    """q(z|x) = N(µ(x), diag σ²(x)); the encoder's outputs are µ and log σ (bounded smoothly to ±6)."""

    def num_outputs(self, latent_size: int) -> int:
        """2·latent_size."""
        return 2 * latent_size

    def init(self, key: Key, latent_size: int) -> Params:
        """{}."""
        del key, latent_size
        return {}

    def read(self, raw: Float[Array, "batch outputs"], latent_size: int) -> Gaussian:
        """(µ, log σ)."""
        del latent_size
        return gaussian.from_raw(raw)

    def draw(self, keys: Keys, params: Params, q: Gaussian) -> Draw:
        """z = µ + σ·ε."""
        z = gaussian.sample(keys, q)
        return Draw(z, self.log_prob(params, q, z))

    def log_prob(self, params: Params, q: Gaussian, z: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """log N(z; µ, σ²)."""
        del params
        return gaussian.log_prob(z, q)

    def kl(self, q: Gaussian) -> Float[Array, "batch latent"]:
        """½(µ² + expm1(2 log σ) − 2 log σ)."""
        return gaussian.kl_to_standard_normal(q)

    def center(self, params: Params, q: Gaussian) -> Float[Array, "batch latent"]:
        """µ."""
        del params
        return q.mean


DIAGONAL = Diagonal()
