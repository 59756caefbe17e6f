"""Latent class model: a mixture of independent categories by expectation-maximization; of two levels, of Bernoullis.

    p(x) = Σ_c α_c Π_d p_cd(x_d),      r_c(x) = α_c Π_d p_cd(x_d) / p(x)

E: responsibilities r. M: α_c = mean r_c, p_cd(k) = (mean of r_c [x_d = k] + s)/(α_c + s·levels). With s > 0 it climbs
the mean of log p(x) + s Σ log p_cd(k), and no level that was not seen gets probability 0.
Lazarsfeld and Henry: Latent Structure Analysis, 1968. Bishop: Pattern Recognition and Machine Learning, 2006, 9.3.3.
Differs from the book: the pseudo-counts s.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics, Scalar
from jgen.classical.classifier import Tables, class_log_prob, log_evidence, sample
from jgen.classical.mixture import plus_plus
from jgen.learners import EMState, em
from jgen.model import Model


class Statistics(NamedTuple):
    """Means over the data: `mass` (classes,) of r_c, and `levels` (classes, dim, levels) of r_c [x_d = k]."""

    mass: Any
    levels: Any


def expect(params: Tables, x: Int[Array, "batch dim"]) -> Statistics:
    """The E-step: r_c(x) = p(c|x), and the means over the data under it."""
    r = jnp.exp(class_log_prob(params, x))
    seen = jax.nn.one_hot(x, params.log_probs.shape[2])
    shares = jnp.einsum("nc,ndk->cdk", r, seen, precision=jax.lax.Precision.HIGHEST) / x.shape[0]
    return Statistics(jnp.mean(r, axis=0), shares)


def maximize(statistics: Statistics, *, smoothing: float = 1e-4) -> Tables:
    """The M-step.

    Args:
        smoothing: s > 0, as a share of all examples.
    """
    smooth = statistics.levels + smoothing
    log_probs = jnp.log(smooth) - jnp.log(jnp.sum(smooth, axis=2, keepdims=True))
    mass = jnp.maximum(statistics.mass, jnp.finfo(statistics.mass.dtype).tiny)
    return Tables(jnp.log(mass / jnp.sum(mass)), log_probs)


def objective(params: Tables, x: Int[Array, "batch dim"], *, smoothing: float = 1e-4) -> Scalar:
    """What a round of EM never lowers: the mean of log p(x), and s Σ log p_cd(k)."""
    return jnp.mean(log_evidence(params, x)) + smoothing * jnp.sum(params.log_probs)


def start(key: Key, x: Int[Array, "batch dim"], num_components: int, levels: int) -> Tables:
    """Equal weights; each class the data's shares, with half of its mass on one example, chosen by k-means++."""
    chosen = plus_plus(key, x.astype(jnp.float32), num_components).astype(jnp.int32)
    shares = jnp.mean(jax.nn.one_hot(x, levels), axis=0)
    probs = 0.25 * shares[None] + 0.5 * jax.nn.one_hot(chosen, levels) + 0.25 / levels
    return Tables(jnp.full(num_components, -jnp.log(float(num_components))), jnp.log(probs))


def model(
    num_components: int, *, levels: int = 2, smoothing: float = 1e-4, axis_name: str | None = None
) -> Model[EMState]:
    """Over batches {"x": (batch, dim)} of 0..levels-1; with the whole data set as batch an update is a round of EM.

    Args:
        num_components: how many classes.
        levels: of every column.
        smoothing: s, as a share of all examples.
        axis_name: the mapped axis over which statistics are averaged.

    Raises:
        ValueError: an argument is out of its range, or the data are.
    """
    _checks.at_least("num_components", num_components, 1)
    _checks.at_least("levels", levels, 2)
    _checks.positive("smoothing", smoothing)

    def rows(batch: Batch) -> Any:
        random.batch_size(batch)
        _checks.rank("x", batch["x"], 2, "(batch, dim)")
        _checks.integers("x", batch["x"], levels)
        return jnp.asarray(batch["x"]).astype(jnp.int32)

    def expected(params: Tables, batch: Batch) -> tuple[Statistics, Metrics]:
        return expect(params, rows(batch)), {"nll": -jnp.mean(log_evidence(params, rows(batch)))}

    def drawn(key: Key, state: EMState, num: int) -> Batch:
        return {"x": sample(key, state.params, num)[0]}

    return em(
        lambda key, batch: start(key, rows(batch), num_components, levels),
        expected,
        lambda params, statistics: maximize(statistics, smoothing=smoothing),
        evaluate=lambda key, state, batch: {"nll": -log_evidence(state.params, rows(batch))},
        sample=drawn,
        log_prob=lambda state, batch: log_evidence(state.params, rows(batch)),
        axis_name=axis_name,
    )
