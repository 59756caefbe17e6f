"""What latent dimensions know of known factors, and what a rate is made of.

    MIG = mean over factors v of (I(z_(1); v) − I(z_(2); v))/H(v),  z_(1), z_(2) the two dimensions that know most of v
    rate = E KL(q(z|x) ‖ p(z)) = I(x; z) + TC(z) + Σ_j KL(q(z_j) ‖ p(z_j)),  TC = KL(q(z) ‖ Π_j q(z_j))

q(z) = (1/N) Σ_n q(z|x_n) is the mixture of the posteriors of all N examples, diagonal Gaussians here, and p(z) is
N(0, I). Expectations are over every example and draws of its z; everything is in nats.

Chen, Li, Grosse and Duvenaud, "Isolating Sources of Disentanglement in Variational Autoencoders", 2018: the gap in
eq. 6, the parts of the rate in eq. 2, estimators from a minibatch in appendix C.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen import _checks
from jgen._types import Key, Scalar
from jgen.math.densities import normal_log_prob

CHUNK = 32
ESTIMATORS = ("stratified", "weighted")


class RateParts(NamedTuple):
    """Nats; their sum is the rate.

    Attributes:
        mutual_information: I(x; z), at most log N.
        total_correlation: KL(q(z) ‖ Π_j q(z_j)), 0 where the dimensions are independent.
        dimension_wise: Σ_j KL(q(z_j) ‖ N(0, 1)).
    """

    mutual_information: Scalar
    total_correlation: Scalar
    dimension_wise: Scalar


def mutual_information(
    key: Key,
    mean: Float[Array, "num latent"],
    log_std: Float[Array, "num latent"],
    factors: Int[Array, "num factors"],
    *,
    num_draws: int = 1,
) -> Float[Array, "factors latent"]:
    """I(z_j; v_k) = E log q(z_j|v_k)/q(z_j), nats, where (x, v) is uniform over the examples; time grows with N².

    Args:
        key: of the draws.
        mean: of the posterior q(z|x_n) of every example.
        log_std: of it.
        factors: the values v of every example, whole numbers.
        num_draws: of z per example.

    Raises:
        ValueError: `num_draws` is below 1.
    """
    return jnp.mean(_each_draw(key, mean, log_std, num_draws, lambda *found: _informed(factors, *found)), axis=0)


def entropy(factors: Int[Array, "num factors"]) -> Float[Array, " factors"]:
    """H(v_k) of the frequencies of each column, nats."""
    shares = [np.unique(column, return_counts=True)[1] / len(column) for column in np.asarray(factors).T]
    return jnp.asarray([-np.sum(share * np.log(share)) for share in shares], jnp.float32)


def mutual_information_gap(
    information: Float[Array, "factors latent"], entropies: Float[Array, " factors"]
) -> Float[Array, " factors"]:
    """(I_(1) − I_(2))/H(v) of each factor, in [0, 1]; their mean is the MIG.

    Raises:
        ValueError: there are fewer than two latent dimensions, or a factor has one value only.
    """
    _checks.at_least("information.shape[1]", information.shape[1], 2)
    _checks.positive("entropies", entropies)
    ordered = jnp.sort(information, axis=1)
    return (ordered[:, -1] - ordered[:, -2]) / entropies


def rate_parts(
    key: Key, mean: Float[Array, "num latent"], log_std: Float[Array, "num latent"], *, num_draws: int = 1
) -> RateParts:
    """The three parts of the rate of these posteriors against N(0, I); time grows with N².

    Raises:
        ValueError: `num_draws` is below 1.
    """

    def parts(row: Any, z: Any, log_q: Any) -> Any:
        own, all_of = jnp.sum(log_q[row]), np.log(len(log_q))
        joint = jax.nn.logsumexp(jnp.sum(log_q, axis=1)) - all_of
        product = jnp.sum(jax.nn.logsumexp(log_q, axis=0) - all_of)
        return jnp.stack([own - joint, joint - product, product - jnp.sum(normal_log_prob(z))])

    return RateParts(*jnp.mean(_each_draw(key, mean, log_std, num_draws, parts), axis=0))


def minibatch_log_prob(
    log_q: Float[Array, "batch batch *dims"], num_examples: int, *, estimator: str = "stratified"
) -> Float[Array, "batch *dims"]:
    """log q(z_i) from the densities log q(z_i|x_m) that one batch of B out of N examples gives, nats.

    "stratified" weighs the own example, whose density is certainly in the mixture, 1/N and the others
    (N − 1)/(N(B − 1)): what is inside the logarithm is then unbiased over batches. "weighted" weighs all 1/(N·B), which
    on average is below q(z_i).

    Args:
        log_q: [i, m] is log q(z_i|x_m), the own examples on the diagonal.
        num_examples: N.
        estimator: "stratified" or "weighted".

    Raises:
        ValueError: there is no such estimator, or the batch has one example, or more than `num_examples`.
    """
    _checks.one_of("estimator", estimator, ESTIMATORS)
    size = len(log_q)
    _checks.at_least("len(log_q)", size, 2)
    _checks.at_least("num_examples", num_examples, size)
    others = (num_examples - 1) / (num_examples * (size - 1)) if estimator == "stratified" else 1 / num_examples / size
    own = 1 / num_examples if estimator == "stratified" else others
    log_weight = jnp.log(jnp.where(jnp.eye(size, dtype=bool), own, others))
    log_weight = log_weight.reshape(size, size, *(1,) * (log_q.ndim - 2))
    return jax.nn.logsumexp(log_q + jnp.broadcast_to(log_weight, log_q.shape), axis=1)


def _each_draw(key: Key, mean: Any, log_std: Any, num_draws: int, function: Any) -> Any:
    """`function(row, z, log q(z_j|x_n) (num, latent))` at `num_draws` draws of every row's posterior, stacked."""
    _checks.at_least("num_draws", num_draws, 1)
    rows = jnp.tile(jnp.arange(len(mean)), num_draws)
    keys = jax.random.split(key, len(rows))

    def one(drawn: Any) -> Any:
        row, key = drawn
        z = mean[row] + jnp.exp(log_std[row]) * jax.random.normal(key, mean.shape[1:])
        return function(row, z, normal_log_prob(jnp.broadcast_to(z, mean.shape), mean, log_std))

    return jax.lax.map(one, (rows, keys), batch_size=CHUNK)


def _informed(factors: Any, row: Any, z: Any, log_q: Any) -> Any:
    """log q(z_j|v_k) − log q(z_j) for the values v of `row`, (factors, latent)."""
    del z
    share = jnp.exp(log_q - jnp.max(log_q, axis=0, keepdims=True))
    alike = (factors == factors[row][None]).astype(log_q.dtype)
    within = jnp.log(jnp.matmul(alike.T, share, precision="highest")) - jnp.log(jnp.sum(alike, axis=0))[:, None]
    return within - jnp.log(jnp.mean(share, axis=0))[None]
