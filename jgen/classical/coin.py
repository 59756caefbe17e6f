"""The coin: a Bernoulli variable whose rate θ is itself unknown, with a Beta prior.

    p(D | θ) = θ^h (1 − θ)^t,        p(θ | D) = Beta(θ; a + h, b + t),
    p(D) = B(a + h, b + t) / B(a, b),        p(heads next | D) = (a + h) / (a + b + h + t)

The maximum a posteriori estimate is (a + h − 1)/(a + b + h + t − 2), with a flat prior a = b = 1 the maximum of the
likelihood h/(h + t). Bayes, "An Essay towards solving a Problem in the Doctrine of Chances", 1763. Differs from it:
any Beta prior, and many independent coins at once: every function works on arrays of coins.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy import special
from jaxtyping import Array, Float, Num

from jgen import _checks, random
from jgen._types import Batch, Key, Metrics
from jgen.learners import CountingState, counting
from jgen.model import Model

HALVINGS = 30  # of the bracket in `quantile`: below float32's spacing everywhere


class Beta(NamedTuple):
    """Beta(a, b) over each coin's rate, density θ^{a−1} (1 − θ)^{b−1} / B(a, b): a heads and b tails, as if seen.

    Attributes:
        a: (*coins), positive.
        b: (*coins), positive.
    """

    a: Any
    b: Any


class Flips(NamedTuple):
    """What was seen: the sufficient statistics.

    Attributes:
        heads: (*coins), h.
        tails: (*coins), t.
    """

    heads: Any
    tails: Any


def log_likelihood(rate: Float[Array, "*coins"], flips: Flips) -> Float[Array, "*coins"]:
    """log p(D | θ) = h log θ + t log(1 − θ) of the flips in their order, nats; 0 log 0 = 0."""
    return special.xlogy(flips.heads, rate) + special.xlog1py(flips.tails, -rate)


def log_orders(flips: Flips) -> Float[Array, "*coins"]:
    """log C(h + t, h): in how many orders the flips could have come, nats."""
    return -special.betaln(flips.heads + 1.0, flips.tails + 1.0) - jnp.log1p(flips.heads + flips.tails)


def log_binomial(rate: Float[Array, "*coins"], flips: Flips) -> Float[Array, "*coins"]:
    """log C(h + t, h) θ^h (1 − θ)^t: the number of heads among h + t flips, whatever their order, nats."""
    return log_orders(flips) + log_likelihood(rate, flips)


def posterior(prior: Beta, flips: Flips) -> Beta:
    """Beta(a + h, b + t)."""
    return Beta(prior.a + flips.heads, prior.b + flips.tails)


def log_evidence(prior: Beta, flips: Flips) -> Float[Array, "*coins"]:
    """log p(D) = log ∫ p(D | θ) p(θ) dθ = log B(a + h, b + t) − log B(a, b) of the flips in their order, nats."""
    after = posterior(prior, flips)
    return special.betaln(after.a, after.b) - special.betaln(prior.a, prior.b)


def log_beta_binomial(prior: Beta, flips: Flips) -> Float[Array, "*coins"]:
    """log p(h heads among h + t flips) with θ integrated out, nats."""
    return log_orders(flips) + log_evidence(prior, flips)


def log_density(beta: Beta, rate: Float[Array, "*coins"]) -> Float[Array, "*coins"]:
    """log Beta(θ; a, b), nats."""
    power = special.xlogy(beta.a - 1.0, rate) + special.xlog1py(beta.b - 1.0, -rate)
    return power - special.betaln(beta.a, beta.b)


def mean(beta: Beta) -> Float[Array, "*coins"]:
    """E θ = a / (a + b); of the posterior, the probability that the next flip is heads."""
    return beta.a / (beta.a + beta.b)


def variance(beta: Beta) -> Float[Array, "*coins"]:
    """a b / ((a + b)² (a + b + 1))."""
    return mean(beta) * (1 - mean(beta)) / (beta.a + beta.b + 1)


def mode(beta: Beta) -> Float[Array, "*coins"]:
    """argmax of the density; of the posterior, the maximum a posteriori estimate.

    (a − 1)/(a + b − 2) where a, b ≥ 1 and not both are 1. A density that grows towards one end has its mode there. With
    a = b = 1 every θ is a mode, and ½ is given; with a, b < 1 both ends are, and NaN is given.
    """
    up, down = beta.a - 1.0, beta.b - 1.0
    total = jnp.where((up >= 0) & (down >= 0) & (up + down > 0), up + down, 1.0)
    edges = jnp.where(up < 0, jnp.where(down < 0, jnp.nan, 0.0), 1.0)
    inner = jnp.where(up + down > 0, up / total, 0.5)
    return jnp.where((up >= 0) & (down >= 0), inner, edges)


def cdf(beta: Beta, rate: Float[Array, "*coins"]) -> Float[Array, "*coins"]:
    """P(θ ≤ rate), the regularized incomplete beta function."""
    return special.betainc(beta.a, beta.b, rate)


def quantile(beta: Beta, u: Float[Array, "*coins"]) -> Float[Array, "*coins"]:
    """The rate below which a share u of the mass lies, by bisection of `cdf`; (quantile(0.025), quantile(0.975)) is
    the equal-tailed credible interval of 95 %."""

    def halve(_: Any, bracket: Any) -> Any:
        low, high = bracket
        middle = 0.5 * (low + high)
        below = cdf(beta, middle) < u
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    start = jnp.zeros_like(u * beta.a)
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (start, start + 1.0))
    return 0.5 * (low + high)


def count(x: Num[Array, "batch coins"]) -> Flips:
    """Heads (1) and tails (0) of each coin; rows are flips."""
    heads = jnp.sum(x, axis=0).astype(jnp.float32)
    return Flips(heads, x.shape[0] - heads)


def log_prob(beta: Beta, x: Num[Array, "batch coins"]) -> Float[Array, " batch"]:
    """log p(x | D) of one flip of every coin, θ integrated out, nats: each row beside the same posterior."""
    total = jnp.log(beta.a + beta.b)
    return jnp.sum(jnp.where(x > 0.5, jnp.log(beta.a)[None], jnp.log(beta.b)[None]) - total[None], axis=1)


def sample(key: Key, beta: Beta, num: int) -> Float[Array, "num coins"]:
    """θ ~ Beta(a, b), x ~ Bernoulli(θ), for each example anew."""

    def one(key: Key) -> Any:
        rate_key, flip_key = jax.random.split(key)
        return jax.random.bernoulli(flip_key, jax.random.beta(rate_key, beta.a, beta.b)).astype(jnp.float32)

    return jax.vmap(one)(random.example_keys(key, num))


def model(*, prior: tuple[float, float] = (1.0, 1.0), axis_name: str | None = None) -> Model[CountingState]:
    """Coins over batches {"x": (batch, coins)}; an update adds the batch's flips, and `params` is the posterior.

    Args:
        prior: (a, b) of every coin; (1, 1) is flat.
        axis_name: the mapped axis over which the flips are added.

    Raises:
        ValueError: `prior` is not positive.
    """
    _checks.positive("prior", prior)

    def start(batch: Batch) -> Flips:
        return jax.tree.map(jnp.zeros_like, count(_examples(batch)))

    def evaluate(key: Key, state: CountingState, batch: Batch) -> Metrics:
        del key
        return {"nll": -log_prob(state.params, _examples(batch))}

    return counting(
        start,
        lambda batch: count(_examples(batch)),
        lambda flips: posterior(Beta(*prior), flips),
        evaluate=evaluate,
        sample=lambda key, state, num: {"x": sample(key, state.params, num)},
        log_prob=lambda state, batch: log_prob(state.params, _examples(batch)),
        axis_name=axis_name,
    )


def _examples(batch: Batch) -> Any:
    random.batch_size(batch)
    _checks.rank("x", batch["x"], 2, "(batch, coins)")
    _checks.integers("x", batch["x"], 2)
    return jnp.asarray(batch["x"])
