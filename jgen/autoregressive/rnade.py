"""RNADE: NADE for real values, every conditional a mixture whose parameters a shared hidden layer gives.

    a_1 = c,      a_{i+1} = a_i + W_i x_i,      h_i = relu(ρ_i a_i),      ρ_i learned, from 1
    p(x_i | x_<i) = Σ_k α_ik f(x_i; µ_ik, s_ik),      (log α, µ, log s)_i = b_i + V_i h_i,      f Gaussian or Laplace

Uria, Murray, Larochelle: RNADE: The real-valued neural autoregressive density-estimator, 2013.

Differs from the paper: means start evenly over the range of the first batch, and scales at the spacing of the means;
scales may have a floor; gradients of the means are not multiplied by the scales (Adam scales each parameter itself).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen import _checks
from jgen._types import Key
from jgen.autoregressive import nade
from jgen.autoregressive.fixed_order import Network, permutation

COMPONENTS = ("gaussian", "laplace")
LOG_SCALE_BOUND = 20.0
"""|log s| beyond it is cut: a scale of e^−20 of standardized data is a point."""


class Parameters(NamedTuple):
    """An RNADE's parameters, by position in the order.

    Attributes:
        weights: W, c, V, b; V and b give (log α, µ, log s), 3K outputs.
        scale: ρ, (D,).
    """

    weights: nade.Weights
    scale: Any


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A mixture of K densities on the line from outputs (…, 3K): unnormalized log-weights, means, log-scales.

    Attributes:
        num_components: K.
        component: "gaussian", f = N(µ, s²), or "laplace", f = e^{−|x − µ|/s}/2s.
        floor: added to every scale: repeated values in the data then cannot drive the likelihood to infinity.
    """

    num_components: int
    component: str = "gaussian"
    floor: float = 0.0

    def __post_init__(self) -> None:
        _checks.at_least("num_components", self.num_components, 1)
        _checks.one_of("component", self.component, COMPONENTS)
        _checks.at_least("floor", self.floor, 0.0)

    @property
    def dtype(self) -> Any:
        """float32."""
        return jnp.float32

    def check(self, x: Any) -> None:
        """x must be finite."""
        _checks.within("x", x, -1e30, 1e30)

    def parts(
        self, outputs: Float[Array, "*shape width"]
    ) -> tuple[Float[Array, "*shape components"], Float[Array, "*shape components"], Float[Array, "*shape components"]]:
        """(log α, µ, log s), the weights normalized."""
        log_weights, means, log_scales = jnp.split(outputs, 3, axis=-1)
        log_scales = jnp.clip(log_scales, -LOG_SCALE_BOUND, LOG_SCALE_BOUND)
        if self.floor:
            log_scales = jnp.logaddexp(log_scales, math.log(self.floor))
        return jax.nn.log_softmax(log_weights), means, log_scales

    def log_prob(self, outputs: Float[Array, "*shape width"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """log Σ_k α_k f(x; µ_k, s_k), nats."""
        log_weights, means, log_scales = self.parts(outputs)
        z = (x[..., None] - means) * jnp.exp(-log_scales)
        if self.component == "gaussian":
            log_density = -0.5 * jnp.square(z) - 0.5 * math.log(2 * math.pi)
        else:
            log_density = -jnp.abs(z) - math.log(2)
        return jax.nn.logsumexp(log_weights + log_density - log_scales, axis=-1)

    def noise(self, key: Key, size: int) -> Float[Array, "size width"]:
        """Gumbel noise, which chooses the component, and one standard draw of f."""
        choose, move = jax.random.split(key)
        standard = jax.random.normal if self.component == "gaussian" else jax.random.laplace
        gumbel = jax.random.gumbel(choose, (size, self.num_components))
        return jnp.concatenate([gumbel, standard(move, (size, 1))], axis=-1)

    def draw(self, outputs: Float[Array, "*shape width"], noise: Float[Array, "*shape n"]) -> Float[Array, "*shape"]:
        """µ_k + s_k ε of the component k = argmax(log α + Gumbel)."""
        log_weights, means, log_scales = self.parts(outputs)
        chosen = jnp.argmax(log_weights + noise[..., :-1], axis=-1)[..., None]
        mean, log_scale = (jnp.take_along_axis(leaf, chosen, axis=-1)[..., 0] for leaf in (means, log_scales))
        return mean + jnp.exp(log_scale) * noise[..., -1]

    def start(self, x: Float[Array, "batch dims"]) -> Float[Array, "dims width"]:
        """Outputs with equal weights, means evenly over the range of each variable, and scales of their spacing."""
        low, high = jnp.min(x, axis=0)[:, None], jnp.max(x, axis=0)[:, None]
        step = jnp.where(high > low, (high - low) / max(self.num_components - 1, 1), 1.0)
        at = jnp.linspace(0.0, 1.0, self.num_components) if self.num_components > 1 else jnp.array([0.5])
        means = low + (high - low) * at[None]
        return jnp.concatenate([jnp.zeros_like(means), means, jnp.broadcast_to(jnp.log(step), means.shape)], axis=-1)


def hidden(a: Float[Array, "batch H"], scale: Float[Array, ""]) -> Float[Array, "batch H"]:
    """h = relu(ρ a) of one position."""
    return jax.nn.relu(scale * a)


def network(
    num_dims: int,
    *,
    component: str = "gaussian",
    num_components: int = 10,
    hidden_size: int = 50,
    floor: float = 0.0,
    order: int | Sequence[int] | None = None,
) -> Network:
    """RNADE over real vectors, best standardized ones, for `fixed_order.model`.

    Args:
        num_dims: D.
        component: "gaussian" or "laplace".
        num_components: K, of each conditional.
        hidden_size: H.
        floor: added to every scale; above 0 where values repeat, for else the likelihood has no bound.
        order: the seed of a random order, a permutation, or None for the variables as they come.

    Raises:
        ValueError: a size is too small, `component` is unknown, `floor` is below 0, or `order` is no permutation.
    """
    _checks.at_least("hidden_size", hidden_size, 1)
    law = Mixture(num_components, component, floor)

    def init(key: Key, x: Any) -> Parameters:
        return Parameters(nade.initial(key, 1, hidden_size, law.start(x)), jnp.ones(num_dims))

    def outputs(params: Parameters, x: Any) -> Any:
        return nade.conditionals(params.weights, x, hidden, params.scale)

    def draw(params: Parameters, noise: Any, known: Any, mask: Any) -> Any:
        return nade.draw(params.weights, noise, known, mask, law, hidden, params.scale)

    return Network(permutation(order, num_dims), law, init, outputs, draw)
