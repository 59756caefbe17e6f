"""Priors p(z) of latent-variable models: standard normal, a learned mixture, and the VampPrior."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen._checks import at_least, one_of
from jgen._types import Key, Keys, Params
from jgen.math.densities import normal_log_prob

Encode = Callable[[Any], Any]
"""features (num, *shape) -> Gaussian: the model's own encoder, as it is now."""


@runtime_checkable
class Prior(Protocol):
    """What a latent-variable model needs of p(z)."""

    def init(self, key: Key, features: Any, latent_size: int) -> Params:
        """First parameters; `features` are a batch of what the encoder reads."""
        ...

    def law(self, params: Params, encode: Encode) -> Any:
        """What the two functions below need, computed once however many z they see."""
        ...

    def log_prob(self, law: Any, z: Any) -> Any:
        """log p(z), nats: (batch, latent) where the dimensions are independent, else (batch, 1)."""
        ...

    def sample(self, keys: Keys, law: Any, latent_size: int) -> Any:
        """(num, latent), with one key per draw."""
        ...


@dataclasses.dataclass(frozen=True)
class StandardNormal:
    """p(z) = N(0, I)."""

    def init(self, key: Key, features: Any, latent_size: int) -> Params:
        """{}."""
        del key, features, latent_size
        return {}

    def law(self, params: Params, encode: Encode) -> None:
        """None."""
        del params, encode

    def log_prob(self, law: None, z: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """log N(z; 0, 1) of each dimension."""
        del law
        return normal_log_prob(z)

    def sample(self, keys: Keys, law: None, latent_size: int) -> Float[Array, "num latent"]:
        """ε."""
        del law
        return jax.vmap(lambda key: jax.random.normal(key, (latent_size,)))(keys)


STANDARD_NORMAL = StandardNormal()


class Components(NamedTuple):
    """Gaussians N(mean, exp(2·log_std)), both (components, latent), and the logits of their weights (components,)."""

    mean: Array
    log_std: Array
    logits: Array


@dataclasses.dataclass(frozen=True)
class Mixture:
    """p(z) = Σ_c π_c N(z; µ_c, diag σ_c²), all learned.

    Attributes:
        num_components: C.
    """

    num_components: int

    def __post_init__(self) -> None:
        at_least("num_components", self.num_components, 1)

    def init(self, key: Key, features: Any, latent_size: int) -> Components:
        """Means from N(0, I), scales and weights equal."""
        del features
        mean = jax.random.normal(key, (self.num_components, latent_size))
        return Components(mean, jnp.zeros_like(mean), jnp.zeros(self.num_components))

    def law(self, params: Components, encode: Encode) -> Components:
        """The components."""
        del encode
        return params

    def log_prob(self, law: Components, z: Float[Array, "batch latent"]) -> Float[Array, "batch 1"]:
        """log Σ_c π_c N(z; µ_c, σ_c²)."""
        return mixture_log_prob(z, law)

    def sample(self, keys: Keys, law: Components, latent_size: int) -> Float[Array, "num latent"]:
        """A component, then a point of it."""
        del latent_size
        return mixture_sample(keys, law)


@dataclasses.dataclass(frozen=True)
class Vamp:
    """p(z) = (1/C) Σ_c q(z|u_c), the posteriors of learned pseudo-inputs u_c.

    Tomczak and Welling, "VAE with a VampPrior", 2018, eq. 9. Differs from the paper: pseudo-inputs are real numbers in
    the units of the encoder's features, without a hard bound. Needs a diagonal posterior.

    Attributes:
        num_components: C.
        start: "data" takes u_c from the first batch, with noise; "mean" is .05 + .01·ε, as the paper's code has it for
            binary images.
    """

    num_components: int
    start: str = "data"

    def __post_init__(self) -> None:
        at_least("num_components", self.num_components, 1)
        one_of("start", self.start, ("data", "mean"))

    def init(self, key: Key, features: Any, latent_size: int) -> Params:
        """The pseudo-inputs, (C, *shape)."""
        del latent_size
        choice_key, noise_key = jax.random.split(key)
        shape = (self.num_components, *features.shape[1:])
        noise = 0.01 * jax.random.normal(noise_key, shape)
        if self.start == "mean":
            return 0.05 + noise
        return features[jax.random.randint(choice_key, (self.num_components,), 0, len(features))] + noise

    def law(self, params: Params, encode: Encode) -> Components:
        """The posteriors of the pseudo-inputs, with equal weights."""
        posteriors = encode(params)
        return Components(posteriors.mean, posteriors.log_std, jnp.zeros(self.num_components))

    def log_prob(self, law: Components, z: Float[Array, "batch latent"]) -> Float[Array, "batch 1"]:
        """log (1/C) Σ_c q(z|u_c)."""
        return mixture_log_prob(z, law)

    def sample(self, keys: Keys, law: Components, latent_size: int) -> Float[Array, "num latent"]:
        """A pseudo-input, then a draw of its posterior."""
        del latent_size
        return mixture_sample(keys, law)


def mixture_log_prob(z: Float[Array, "batch latent"], law: Components) -> Float[Array, "batch 1"]:
    """log Σ_c π_c Π_j N(z_j; µ_cj, σ_cj²), nats."""
    apart = jax.vmap(jax.vmap(normal_log_prob, (None, 0, 0)), (0, None, None))(z, law.mean, law.log_std)
    each = jnp.sum(apart, axis=-1)
    return jax.nn.logsumexp(each + jax.nn.log_softmax(law.logits)[None], axis=-1, keepdims=True)


def mixture_sample(keys: Keys, law: Components) -> Float[Array, "num latent"]:
    """One draw per key: a component, then a point of it."""

    def one(key: Key) -> Float[Array, " latent"]:
        which_key, noise_key = jax.random.split(key)
        which = jax.random.categorical(which_key, law.logits)
        noise = jax.random.normal(noise_key, law.mean.shape[1:])
        return law.mean[which] + jnp.exp(law.log_std[which]) * noise

    return jax.vmap(one)(keys)
