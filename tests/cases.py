"""Every model and every sampler, built tiny: one line each. The contract suites run over these lists."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgen import Model, Sampler
from jgen.autoregressive import made, rnn
from jgen.diffusion import ddpm, schedules
from jgen.diffusion.denoiser import Denoiser
from jgen.latent import vae
from jgen.learners import average
from jgen.math import likelihoods
from jgen.nets.time_mlp import TimeMLP
from jgen.nets.unet import UNet

ADAM = optax.adam(1e-2)
BATCH = 32


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """How to build a model tiny, and what is known of it.

    Attributes:
        name: unique.
        build: () -> Model.
        batch: () -> the batch of `BATCH` examples that it eats.
        space: () -> a batch with every point of its (small, discrete) space: Σ exp log_prob over it must be 1, and
            samples must follow it.
        bounds: (low, high) of a 1-D or 2-D real space over which exp log_prob must integrate to 1.
        exact: (state, batch) -> (batch,), the exact log p, where only a bound is in the contract.
    """

    name: str
    build: Callable[[], Model[Any]]
    batch: Callable[[], dict[str, Any]]
    space: Callable[[], dict[str, Any]] | None = None
    bounds: tuple[float, float] | None = None
    exact: Callable[[Any, Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class SamplerCase:
    """A sampler with a target that can be drawn from exactly.

    Attributes:
        name: unique.
        build: (log_density) -> Sampler for one chain; `log_density` is the target's, or a counting wrapper of it.
        log_density: (position) -> scalar, up to a constant.
        draw: (key, num) -> (num, ...) exact draws from the law that the sampler must keep (for unadjusted samplers
            their own biased stationary law).
        statistics: (positions (num, ...)) -> (num, k), functions whose means must be kept.
        reversible: the kernel satisfies detailed balance (pair exchange is tested).
        support: () -> (states, ...) every state of a small discrete space, else None.
    """

    name: str
    build: Callable[[Any], Sampler[Any]]
    log_density: Callable[[Any], Any]
    draw: Callable[[Any, int], Any]
    statistics: Callable[[Any], Any]
    reversible: bool = True
    support: Callable[[], Any] | None = None


def binary(num_dims: int, rate: float = 0.3) -> Callable[[], dict[str, Any]]:
    """Bernoulli rows."""
    return lambda: {"x": jax.random.bernoulli(jax.random.key(0), rate, (BATCH, num_dims)).astype(jnp.float32)}


def real(*shape: int) -> Callable[[], dict[str, Any]]:
    """Gaussian rows with mean 1 and standard deviation 1/2."""
    return lambda: {"x": jax.random.normal(jax.random.key(0), (BATCH, *shape)) * 0.5 + 1.0}


def levels(*shape: int, size: int) -> Callable[[], dict[str, Any]]:
    """Uniform whole numbers in 0..size-1."""
    return lambda: {"x": jax.random.randint(jax.random.key(0), (BATCH, *shape), 0, size)}


def tokens(length: int, size: int) -> Callable[[], dict[str, Any]]:
    """Uniform tokens."""
    return lambda: {"tokens": jax.random.randint(jax.random.key(0), (BATCH, length), 0, size)}


def stream(length: int, size: int) -> Callable[[], dict[str, Any]]:
    """Uniform tokens that go on where the batch before ended, in half of the rows."""
    return lambda: {**tokens(length, size)(), "previous": jnp.arange(BATCH) % 2 * size}


def every(num_dims: int, levels: int = 2, name: str = "x", dtype: Any = jnp.float32) -> Callable[[], dict[str, Any]]:
    """All levels^num_dims points."""
    rows = np.array(list(itertools.product(range(levels), repeat=num_dims)))
    return lambda: {name: jnp.asarray(rows, dtype)}


def _vae(likelihood: Any, latent_size: int = 2, **keywords: Any) -> Model[Any]:
    return vae.model(vae.dense((4,), likelihood, latent_size, hidden_sizes=(16,)), ADAM, **keywords)


def _vae_exact(state: Any, batch: Any) -> Any:
    """log ∫ p(x|z) p(z) dz over a one-dimensional z by the trapezoid rule."""
    networks = vae.dense((4,), likelihoods.Bernoulli(), 1, hidden_sizes=(16,))
    z, step = jnp.linspace(-8.0, 8.0, 2001, retstep=True)
    mean = vae.decode(state.params, state.stats, z[:, None], networks=networks)
    x = batch["x"][:, None]
    log_joint = jnp.sum(x * jnp.log(mean)[None] + (1 - x) * jnp.log1p(-mean)[None], axis=-1)
    return jax.nn.logsumexp(log_joint + jax.scipy.stats.norm.logpdf(z)[None], axis=1) + jnp.log(step)


MODELS: list[ModelCase] = [
    ModelCase("made", lambda: made.model(ADAM, hidden_sizes=(8, 6), num_masks=2), binary(4), every(4)),
    ModelCase(
        "made_categorical", lambda: made.model(ADAM, hidden_sizes=(8,), levels=3), levels(3, size=3), every(3, 3)
    ),
    ModelCase(
        "rnn_lstm",
        lambda: rnn.model(ADAM, 3, num_units=5, embedding_size=4, length=3, dropout_rate=0.2),
        tokens(3, 3),
        every(3, 3, "tokens", jnp.int32),
    ),
    ModelCase(
        "rnn_gru_carried",
        lambda: rnn.model(ADAM, 3, cell="gru", num_units=5, embedding_size=4, length=3, carried=True),
        stream(3, 3),
    ),
    ModelCase(
        "ddpm_averaged",
        lambda: average(
            ddpm.model(Denoiser(TimeMLP(16, 1), schedules.linear(20), variance="forward"), (2,), ADAM), 0.9
        ),
        real(2),
    ),
    ModelCase(
        "ddpm_unet_learned_variance",
        lambda: ddpm.model(
            Denoiser(UNet((4, 8), outputs_per_input=2), schedules.cosine(8), 5, variance="learned"), (4, 4, 1), ADAM
        ),
        lambda: {"x": levels(4, 4, 1, size=5)()["x"].astype(jnp.uint8)},
    ),
    ModelCase("vae", lambda: _vae(likelihoods.Bernoulli(), 1), binary(4), exact=_vae_exact),
    ModelCase(
        "vae_iwae_bound", lambda: _vae(likelihoods.Bernoulli(), 1, num_bound_samples=8), binary(4), exact=_vae_exact
    ),
    ModelCase("vae_categorical", lambda: _vae(likelihoods.Categorical(5)), levels(4, size=5)),
    ModelCase("vae_logistic", lambda: _vae(likelihoods.DiscretizedLogistic(5)), levels(4, size=5)),
    ModelCase("vae_gaussian_averaged", lambda: average(_vae(likelihoods.Gaussian()), 0.9), real(4)),
]

SAMPLERS: list[SamplerCase] = []
