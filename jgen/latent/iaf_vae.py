"""VAE with an inverse autoregressive flow as its posterior.

    z_0 = µ(x) + σ(x)·ε;   z_t = s_t ⊙ z_{t−1} + (1 − s_t) ⊙ m_t,   (m_t, logit s_t) = AR_t(z_{t−1}, h(x)),   t = 1..T
    log q(z_T|x) = −Σ_i (½ε_i² + ½ log 2π + log σ_i + Σ_t log s_{t,i})

Paper: Kingma et al., "Improving Variational Inference with Inverse Autoregressive Flow", 2016, eqs. 9 to 14 and
algorithm 1. Differs from the paper: the autoregressive networks are MADEs with natural and reversed order in turn and
connectivity from a seed, in a dense model; the deep residual image model is not built here.

In AR_t output i sees z_1..z_{i−1} only (or z_{i+1}.. in reversed steps), so the Jacobian is triangular. A draw costs T
passes; the density of a given z costs T·latent_size, since the flow is inverted one dimension at a time.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import _checks, linen
from jgen._types import Key, Keys, Params
from jgen.latent import gaussian, vae
from jgen.latent.gaussian import Gaussian
from jgen.latent.networks import Networks
from jgen.latent.posteriors import Draw
from jgen.learners import GradientState
from jgen.model import Model
from jgen.nets.masked import Degrees, MaskedDense, degree_mask, degrees

GATE_BIAS = 1.5
"""Added to logit s: at first the steps keep most of z."""
FARTHEST = 40.0
"""Inverting a closed gate multiplies by 1/s: points that come from beyond e⁴⁰ or 2⁴⁰ have no mass, and stay finite."""


class Flow(NamedTuple):
    """q(z|x): the Gaussian of z_0, and h(x), (batch, context_size), which every step reads."""

    base: Gaussian
    context: Array


class Step(nn.Module):
    """(z, h) -> (m, logit s − bias) by masked dense layers; h reaches every hidden unit.

    Attributes:
        degrees: of the inputs and hidden units.
    """

    degrees: Degrees

    @nn.compact
    def __call__(self, z: Float[Array, "batch latent"], context: Float[Array, "batch context"]) -> Any:
        """(batch, latent) each."""
        inputs, hidden = jax.tree.map(jnp.asarray, self.degrees)
        before, h = inputs, z
        for i, after in enumerate(hidden):
            own = MaskedDense(len(after), name=f"hidden_{i}")(h, degree_mask(before, after))
            h = nn.elu(own + nn.Dense(len(after), use_bias=False, name=f"context_{i}")(context))
            before = after
        ends, small = inputs, nn.initializers.normal(1e-2)
        mask = degree_mask(before, ends, strict=True)
        return tuple(MaskedDense(len(ends), kernel_init=small, name=name)(h, mask) for name in ("shift", "gate"))


@dataclasses.dataclass(frozen=True)
class InverseAutoregressive:
    """The posterior family of this file, for `Networks.posterior`.

    The encoder's outputs are µ, log σ (bounded smoothly to ±6) and h, (batch, 2·latent_size + context_size).

    Attributes:
        num_steps: T; with 0 the posterior is diagonal.
        hidden_sizes: of every AR_t.
        context_size: of h.
        seed: of the connectivity.
    """

    num_steps: int = 2
    hidden_sizes: Sequence[int] = (320,)
    context_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        _checks.at_least("num_steps", self.num_steps, 0)
        _checks.at_least("context_size", self.context_size, 1)
        if not self.hidden_sizes:
            raise ValueError(f"`hidden_sizes` must name at least one layer, got {self.hidden_sizes}.")

    def num_outputs(self, latent_size: int) -> int:
        """2·latent_size + context_size."""
        return 2 * latent_size + self.context_size

    def init(self, key: Key, latent_size: int) -> Params:
        """One entry for every step."""
        z, context = jnp.zeros((1, latent_size)), jnp.zeros((1, self.context_size))
        keys = jax.random.split(key, max(self.num_steps, 1))
        steps = enumerate(self.steps(latent_size))
        return {f"step_{t}": linen.init(step, keys[t], z, context)[0] for t, step in steps}

    def steps(self, latent_size: int) -> list[Step]:
        """AR_1, …, AR_T: natural and reversed order in turn."""
        found = []
        for t in range(self.num_steps):
            wiring = degrees(self.seed + t, latent_size, self.hidden_sizes, order="natural")
            inputs, hidden = wiring.inputs[0], tuple(rows[0] for rows in wiring.hidden)
            found.append(Step(Degrees(inputs[::-1] if t % 2 else inputs, hidden)))
        return found

    def read(self, raw: Float[Array, "batch outputs"], latent_size: int) -> Flow:
        """The Gaussian of z_0, and h."""
        return Flow(gaussian.from_raw(raw[:, : 2 * latent_size]), raw[:, 2 * latent_size :])

    def draw(self, keys: Keys, params: Params, q: Flow) -> Draw:
        """z_T, and log q by dimension."""
        z = gaussian.sample(keys, q.base)
        last, log_det = self.forward(params, z, q.context)
        return Draw(last, gaussian.log_prob(z, q.base) - log_det)

    def forward(self, params: Params, z: Float[Array, "batch latent"], context: Any) -> tuple[Any, Any]:
        """(z_T, Σ_t log s_t by dimension) from z_0."""
        log_det = jnp.zeros_like(z)
        for t, step in enumerate(self.steps(z.shape[-1])):
            shift, log_gate, log_rest = _step(step, params[f"step_{t}"], z, context)
            z, log_det = jnp.exp(log_gate) * z + jnp.exp(log_rest) * shift, log_det + log_gate
        return z, log_det

    def inverse(self, params: Params, z: Float[Array, "batch latent"], context: Any) -> tuple[Any, Any]:
        """(z_0, Σ_t log s_t by dimension) from z_T; each step is inverted one dimension at a time, in its order."""
        log_det, size = jnp.zeros_like(z), z.shape[-1]
        for t, step in reversed(list(enumerate(self.steps(size)))):
            own, last = params[f"step_{t}"], z

            def solve(r: Any, z: Any, step: Step = step, own: Any = own, last: Any = last) -> Any:
                # Those before dimension r are right, so its own m and s are; the others stay finite.
                shift, log_gate, log_rest = _step(step, own, z, context)
                here = jnp.asarray(step.degrees.inputs)[None] == r + 1
                solved = (last - jnp.exp(log_rest) * shift) * jnp.exp(-jnp.maximum(log_gate, -FARTHEST))
                return jnp.where(here, jnp.clip(solved, -(2.0**FARTHEST), 2.0**FARTHEST), z)

            z = jax.lax.fori_loop(0, size, solve, last)
            log_det = log_det + _step(step, own, z, context)[1]
        return z, log_det

    def log_prob(self, params: Params, q: Flow, z: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        """log N(z_0; µ, σ²) − Σ_t log s_t of each dimension, z_0 by inversion."""
        first, log_det = self.inverse(params, z, q.context)
        return gaussian.log_prob(first, q.base) - log_det

    def kl(self, q: Flow) -> None:
        """None: the rate is estimated at the draw."""
        del q

    def center(self, params: Params, q: Flow) -> Float[Array, "batch latent"]:
        """z_T of z_0 = µ."""
        return self.forward(params, q.base.mean, q.context)[0]


def _step(step: Step, params: Params, z: Any, context: Any) -> tuple[Any, Any, Any]:
    """(m, log s, log(1 − s))."""
    shift, raw = linen.apply(step, params, {}, z, context)
    logit = raw.astype(jnp.float32) + GATE_BIAS
    return shift.astype(jnp.float32), jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)


def model(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    *,
    beta: float = 1.0,
    warm_up_steps: int = 0,
    free_bits: float = 0.0,
    num_bound_samples: int = 1,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The VAE of `networks`, whose posterior is an `InverseAutoregressive`; arguments as in `vae.model`.

    Raises:
        ValueError: the posterior is another one, or an argument is out of its range.
    """
    if not isinstance(networks.posterior, InverseAutoregressive):
        raise ValueError(f"`networks.posterior` must be InverseAutoregressive, got {networks.posterior}.")
    return vae.model(
        networks,
        optimizer,
        beta=beta,
        warm_up_steps=warm_up_steps,
        free_bits=free_bits,
        num_bound_samples=num_bound_samples,
        axis_name=axis_name,
    )
