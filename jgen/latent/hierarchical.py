"""VAE with several layers of latent variables.

    p(x, z) = p(x|z_1) Π_{l<L} p(z_l|z_{l+1}) p(z_L),   p(z_L) = N(0, I) or `Hierarchy.prior`
    p(z_l|z_{l+1}), q(z_l|·): diagonal Gaussians
    bottom_up:  q(z|x) = q(z_1|x) Π_l q(z_{l+1}|z_l)
    ladder:     q(z|x) = q(z_L|x) Π_l q(z_l|z_{l+1}, x),   q(z_l|z_{l+1}, x) ∝ N(z_l; µ̂_l(x), σ̂_l²(x)) p(z_l|z_{l+1})

Papers: bottom_up, and the bound of K draws: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", 2016,
section 3; ladder: Sønderby et al., "Ladder Variational Autoencoders", 2016, eqs. 8 to 13.
Differs from the papers: the encoder's gradient is doubly reparameterized for K > 1 (`weights`), there is no batch
normalization unless the user's modules have it, and the decoder's output has a learned offset (`vae`).

One draw of each z_{l+1} serves the posterior below it, the prior below it, and everything under that.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Keys, Metrics, Params, Scalar
from jgen.latent import gaussian, warm_up, weights
from jgen.latent.gaussian import Gaussian
from jgen.latent.hierarchy import Found, Hierarchy, network
from jgen.latent.hierarchy import dense as dense
from jgen.latent.priors import STANDARD_NORMAL
from jgen.learners import GradientState, gradient
from jgen.model import Model


class Terms(NamedTuple):
    """One value per example, in nats; elbo = −(rate + distortion).

    Attributes:
        elbo: the evidence lower bound, from one draw.
        rate: Σ_l rate_per_layer.
        distortion: −log p(x|z_1).
        rate_per_layer: KL(q(z_l|·) ‖ p(z_l|z_{l+1})) in closed form (ladder), or log q − log p at the draw; of z_L,
            in closed form for a standard normal prior.
    """

    elbo: Float[Array, " batch"]
    rate: Float[Array, " batch"]
    distortion: Float[Array, " batch"]
    rate_per_layer: Float[Array, "batch layers"]


def infer(
    keys: Keys,
    params: Params,
    stats: Params,
    x: Any,
    num: int,
    *,
    hierarchy: Hierarchy,
    z: Sequence[Any] | None = None,
    key: Key | None = None,
) -> tuple[Found, Params]:
    """One pass with `num` draws for each example, and the statistics after it.

    Args:
        keys: one per example; draw k of layer l comes from fold_in(fold_in(key, k), l).
        params: the model's.
        stats: the model's.
        x: (batch, *shape).
        num: K.
        hierarchy: the user's parts.
        z: takes these latents instead of drawing.
        key: given in training alone, for dropout.
    """
    features, module = hierarchy.likelihood.features(jnp.asarray(x)), network(hierarchy)
    inputs = features, _noise(keys, hierarchy.latent_sizes, num), z
    found, own = linen.run(module, params["network"], stats["network"], *inputs, key=key)
    return found, {**stats, "network": own}


def prior_law(params: Params, stats: Params, hierarchy: Hierarchy) -> Any:
    """p(z_L) as it is now: what `Hierarchy.prior` needs, however many z it sees."""
    up = functools.partial(linen.apply, network(hierarchy), params["network"], stats["network"], method="top")
    return hierarchy.prior.law(params["prior"], up)


def log_joint(params: Params, law: Any, found: Found, x: Any, *, hierarchy: Hierarchy) -> tuple[Any, Any]:
    """(log p(x|z_1), Σ_l log p(z_l|z_{l+1}) + log p(z_L)), both (K, batch), nats; `law` is that of `prior_law`."""
    num = len(found.raw) // len(x)
    raw = jnp.reshape(found.raw + params["offset"][None], (num, len(x), *found.raw.shape[1:]))
    log_likelihood = jax.vmap(hierarchy.likelihood.log_prob, (0, None))(raw, jnp.asarray(x))
    log_prior = _log_prob(found.z[:-1], found.p) + jnp.sum(hierarchy.prior.log_prob(law, found.z[-1]), axis=-1)
    return log_likelihood, jnp.reshape(log_prior, (num, len(x)))


def terms(key: Key, params: Params, stats: Params, batch: Batch, *, hierarchy: Hierarchy) -> Terms:
    """ELBO, rates and distortion of each example, nats, from one draw of every layer."""
    x, keys = _checked(batch, hierarchy), random.batch_keys(key, batch)
    law = prior_law(params, stats, hierarchy)
    return _terms(infer(keys, params, stats, x, 1, hierarchy=hierarchy)[0], params, law, x, hierarchy)


def iwae_bound(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    hierarchy: Hierarchy,
    num_samples: int,
    chunk_size: int = 50,
) -> Float[Array, " batch"]:
    """log (1/K) Σ_k p(x, z_k)/q(z_k|x), nats, in memory that does not grow with K; as `vae.iwae_bound`."""
    x, keys = _checked(batch, hierarchy), random.batch_keys(key, batch)
    law = prior_law(params, stats, hierarchy)

    def log_weight(k: Any) -> Float[Array, " batch"]:
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, k)
        found = infer(own, params, stats, x, 1, hierarchy=hierarchy)[0]
        log_likelihood, log_prior = log_joint(params, law, found, x, hierarchy=hierarchy)
        return (log_likelihood + log_prior)[0] - _log_prob(found.z, found.q)

    return weights.log_mean(log_weight, num_samples, len(x), chunk_size=chunk_size)


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    hierarchy: Hierarchy,
    num_samples: int = 1,
    estimator: str = "dreg",
    beta: float = 1.0,
    warm_up_steps: int = 0,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """−mean L_K, nats, with log w_k = log p(x|z) − w·β (log q(z|x) − log p(z)); metrics of weight 1 as in `iwae.loss`.

    With one draw, and "plain", the ELBO's rates are in closed form where they can be.
    """
    x, weight = _checked(batch, hierarchy), beta * warm_up.weight(stats, warm_up_steps)
    noise_key, dropout_key = jax.random.split(key)
    keys, kept = random.batch_keys(noise_key, batch), dropout_key if train else None
    first, after = infer(keys, params, stats, x, num_samples, hierarchy=hierarchy, key=kept)
    law, after = prior_law(params, stats, hierarchy), {**after, **warm_up.counted(stats, train=train)}
    if num_samples == 1:
        values = _terms(first, params, law, x, hierarchy)
        objective = jnp.mean(values.distortion + weight * values.rate)
        return objective, (after, jax.tree.map(jnp.mean, {"loss": objective, **_reported(values)}))

    def log_weight(z: Any) -> Any:
        rows = jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, leaf.shape[-1])), z)
        again = functools.partial(infer, keys, stats=stats, x=x, num=num_samples, hierarchy=hierarchy, z=rows, key=kept)
        log_likelihood, log_prior = log_joint(params, law, again(params)[0], x, hierarchy=hierarchy)
        own = params if estimator == "plain" else jax.lax.stop_gradient(params)
        rate = jnp.reshape(_log_prob(rows, again(own)[0].q), log_prior.shape) - log_prior
        return log_likelihood - weight * rate, (log_likelihood, rate)

    z = jax.tree.map(lambda leaf: jnp.reshape(leaf, (num_samples, len(x), -1)), first.z)
    found = log_weight(z) if estimator == "plain" else weights.path_weights(log_weight, z, estimator)
    objective = -jnp.mean(weights.log_mean_of(found[0]))
    return objective, (after, weights.report(objective, *found[1]))


def sample(key: Key, params: Params, stats: Params, num: int, *, hierarchy: Hierarchy) -> Array:
    """`num` draws x ~ p(x|z_1), z ~ p(z); draw i depends on (key, i) alone."""
    latent_key, data_key = jax.random.split(key)
    *below, top = hierarchy.latent_sizes
    keys = random.example_keys(latent_key, num)
    z = hierarchy.prior.sample(_layer_keys(keys, 0, len(below)), prior_law(params, stats, hierarchy), top)
    noise = [leaf[0] for leaf in _noise(keys, below, 1)]
    raw = linen.apply(network(hierarchy), params["network"], stats["network"], z, noise, method="generate")
    return hierarchy.likelihood.sample(random.example_keys(data_key, num), raw + params["offset"][None])


def reconstruct(key: Key, params: Params, stats: Params, x: Any, *, hierarchy: Hierarchy) -> Array:
    """E[x|z_1] at one draw z ~ q(z|x), (batch, *shape)."""
    found, _ = infer(random.example_keys(key, len(x)), params, stats, x, 1, hierarchy=hierarchy)
    return hierarchy.likelihood.mean(found.raw + params["offset"][None])


def model(
    hierarchy: Hierarchy,
    optimizer: optax.GradientTransformation,
    *,
    num_samples: int = 1,
    estimator: str = "dreg",
    beta: float = 1.0,
    warm_up_steps: int = 0,
    num_bound_samples: int | None = None,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The hierarchical VAE that maximizes the bound of `num_samples` draws (1: the ELBO).

    Args:
        hierarchy: the user's parts.
        optimizer: any optax optimizer.
        num_samples: K in training.
        estimator: of the gradient through q where K > 1: "plain", "stl" (biased) or "dreg".
        beta: the weight of the rates in the objective; reported ELBOs always have weight 1.
        warm_up_steps: the weight rises linearly from 0 to β over these updates.
        num_bound_samples: K of `log_bound`, by default `num_samples`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: an argument is out of its range.
    """
    _checks.at_least("num_samples", num_samples, 1)
    _checks.at_least("beta", beta, 0)
    _checks.at_least("warm_up_steps", warm_up_steps, 0)
    _checks.one_of("estimator", estimator, weights.ESTIMATORS)
    num_bound_samples = num_samples if num_bound_samples is None else num_bound_samples
    _checks.at_least("num_bound_samples", num_bound_samples, 1)
    settings = {"num_samples": num_samples, "estimator": estimator, "beta": beta, "warm_up_steps": warm_up_steps}

    def bound(key: Key, state: GradientState, batch: Batch, num: int = num_bound_samples) -> Float[Array, " batch"]:
        return iwae_bound(key, state.params, state.stats, batch, hierarchy=hierarchy, num_samples=num)

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        one, many = jax.random.split(key)
        values = _reported(terms(one, state.params, state.stats, batch, hierarchy=hierarchy))
        return {"negative_bound": -bound(many, state, batch, num_samples), **values}

    return gradient(
        functools.partial(_init, hierarchy),
        functools.partial(loss, hierarchy=hierarchy, **settings),
        optimizer,
        evaluate=evaluate,
        sample=lambda key, state, num: {"x": sample(key, state.params, state.stats, num, hierarchy=hierarchy)},
        log_bound=bound,
        axis_name=axis_name,
    )


def _init(hierarchy: Hierarchy, key: Key, batch: Batch) -> tuple[Params, Params]:
    random.batch_size(batch)
    x = _checked(batch, hierarchy)
    features = hierarchy.likelihood.features(x)
    noise = [jnp.zeros((1, len(x), size)) for size in hierarchy.latent_sizes]
    params, stats = linen.init(network(hierarchy), key, features, noise, train=False)
    prior = hierarchy.prior.init(jax.random.fold_in(key, 2), features, hierarchy.latent_sizes[-1])
    first = {"network": params, "offset": hierarchy.likelihood.offset(x), "prior": prior}
    return first, {"network": stats, **warm_up.start()}


def _checked(batch: Batch, hierarchy: Hierarchy) -> Any:
    hierarchy.likelihood.check(batch["x"])
    return jnp.asarray(batch["x"])


def _noise(keys: Keys, sizes: Sequence[int], num: int) -> list[Any]:
    """Standard normal (num, batch, size) for every layer."""

    def draw(k: Any, layer: int, size: int) -> Any:
        return jax.vmap(lambda key: jax.random.normal(key, (size,)))(_layer_keys(keys, k, layer))

    over = jax.vmap(draw, (0, None, None))
    return [over(jnp.arange(num), layer, size) for layer, size in enumerate(sizes)]


def _layer_keys(keys: Keys, k: Any, layer: int) -> Keys:
    fold = jax.vmap(jax.random.fold_in, (0, None))
    return fold(fold(keys, k), layer)


def _log_prob(z: Sequence[Any], of: Sequence[Gaussian]) -> Any:
    """Σ over layers and dimensions of log N(z; of), (rows,)."""
    return sum(jnp.sum(gaussian.log_prob(own, law), axis=-1) for own, law in zip(z, of, strict=True))


def _terms(found: Found, params: Params, law: Any, x: Any, hierarchy: Hierarchy) -> Terms:
    def rate(z: Any, q: Gaussian, p: Gaussian) -> Any:
        closed = hierarchy.inference == "ladder"
        return jnp.sum(gaussian.kl(q, p) if closed else gaussian.log_prob(z, q) - gaussian.log_prob(z, p), axis=-1)

    *below, z, q = *zip(found.z[:-1], found.q[:-1], found.p, strict=True), found.z[-1], found.q[-1]
    rates = [rate(*layer) for layer in below]
    if hierarchy.prior == STANDARD_NORMAL:
        rates.append(rate(z, q, gaussian.standard(z)))
    else:
        rates.append(jnp.sum(gaussian.log_prob(z, q), axis=-1) - jnp.sum(hierarchy.prior.log_prob(law, z), axis=-1))
    each = jnp.stack(rates, axis=-1)
    total, distortion = jnp.sum(each, axis=-1), -log_joint(params, law, found, x, hierarchy=hierarchy)[0][0]
    return Terms(-(total + distortion), total, distortion, each)


def _reported(values: Terms) -> Metrics:
    return {"negative_elbo": -values.elbo, "rate": values.rate, "distortion": values.distortion}
