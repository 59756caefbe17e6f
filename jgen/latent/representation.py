"""What a trained VAE is used for: codes, reconstructions, paths, traversals, completions, anomaly scores, its best σ.

All are functions of (params, stats) of any model that `vae.Networks` describes, however it was trained.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen import _checks, random
from jgen._types import Batch, Key, Params, Scalar
from jgen.latent import networks as parts
from jgen.latent import vae
from jgen.latent.networks import Networks
from jgen.math.likelihoods import Gaussian


def code(
    params: Params, stats: Params, x: Any, *, networks: Networks, label: Any = None
) -> Float[Array, "batch latent"]:
    """The z that stands for x: the mean of a Gaussian posterior, under a flow the image of its base's mean."""
    return networks.posterior.center(params["posterior"], vae.encode(params, stats, x, networks=networks, label=label))


def reconstruct(params: Params, stats: Params, x: Any, *, networks: Networks, label: Any = None) -> Array:
    """E[x|z] at the `code` of x."""
    z = code(params, stats, x, networks=networks, label=label)
    return vae.decode(params, stats, z, networks=networks, label=label)


def path(
    first: Float[Array, " latent"], last: Float[Array, " latent"], num: int, *, spherical: bool = False
) -> Float[Array, "num latent"]:
    """`num` codes on the way from one to another, both ends among them.

    Args:
        first: where it starts.
        last: where it ends.
        num: points.
        spherical: along the arc sin((1−t)θ)/sin θ·a + sin(tθ)/sin θ·b instead of the straight line, which passes
            through norms that N(0, I) hardly has.

    Raises:
        ValueError: `num` is below 2.
    """
    _checks.at_least("num", num, 2)
    t = jnp.linspace(0.0, 1.0, num)[:, None]
    left, right = 1 - t, t
    if spherical:
        cosine = jnp.dot(first, last) / jnp.maximum(jnp.linalg.norm(first) * jnp.linalg.norm(last), 1e-12)
        angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
        wide = jnp.sin(angle) > 1e-4
        safe = jnp.where(wide, angle, 1.0)
        left = jnp.where(wide, jnp.sin((1 - t) * safe) / jnp.sin(safe), left)
        right = jnp.where(wide, jnp.sin(t * safe) / jnp.sin(safe), right)
    return left * first[None] + right * last[None]


def varied(z: Float[Array, " latent"], unit: int, values: Any) -> Float[Array, "values latent"]:
    """`z` with one dimension set to each of `values`, the others as they are.

    Raises:
        ValueError: there is no such unit.
    """
    _checks.one_of("unit", unit, range(z.shape[0]))
    values = jnp.asarray(values)
    return jnp.tile(z[None], (len(values), 1)).at[:, unit].set(values)


def interpolate(
    params: Params, stats: Params, a: Any, b: Any, num: int, *, networks: Networks, spherical: bool = False
) -> Array:
    """(num, *shape) means decoded along the `path` from one example's code to another's; without classes."""
    ends = code(params, stats, jnp.stack([a, b]), networks=networks)
    return vae.decode(params, stats, path(ends[0], ends[1], num, spherical=spherical), networks=networks)


def traverse(
    params: Params,
    stats: Params,
    z: Float[Array, " latent"],
    unit: int,
    values: Any,
    *,
    networks: Networks,
    label: Any = None,
) -> Array:
    """(values, *shape) means with one latent dimension of `z` `varied`; all of one `label` where there are classes."""
    rows = varied(z, unit, values)
    repeated = None if label is None else jnp.full(len(rows), label)
    return vae.decode(params, stats, rows, networks=networks, label=repeated)


def optimal_std(key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks) -> Scalar:
    """σ* = (mean over examples and dimensions of (x − µ(z))²)^½, one draw z ~ q(z|x) each.

    With `Gaussian(σ)` for a likelihood, these decoder and encoder, and these draws, no other σ gives a higher ELBO:
    −D log σ − Σ (x − µ)²/(2σ²) has its maximum there. So a fixed σ need not be guessed: learn with any, put
    `Gaussian(float(optimal_std(...)))` in its place, go on.

    Source: Rybkin, Daniilidis and Levine, "Simple and Effective VAE Training with Calibrated Decoders", 2021, eq. 6.

    Raises:
        ValueError: the likelihood is no Gaussian of fixed σ.
    """
    if not isinstance(networks.likelihood, Gaussian) or networks.likelihood.std is None:
        raise ValueError(f"`networks` must have a Gaussian likelihood of fixed std, got {networks.likelihood}.")
    x, label = parts.examples(batch, networks)
    q = vae.encode(params, stats, x, networks=networks, label=label)
    z = networks.posterior.draw(random.batch_keys(key, batch), params["posterior"], q).z
    mean = vae.decode(params, stats, z, networks=networks, label=label)
    return jnp.sqrt(jnp.mean(jnp.square(jnp.asarray(x, jnp.float32) - mean)))


def complete(
    key: Key,
    params: Params,
    stats: Params,
    x: Any,
    mask: Any,
    num_steps: int,
    *,
    networks: Networks,
    label: Any = None,
    exact: bool = True,
) -> Any:
    """Draws of the missing values given the known ones, by `num_steps` of Metropolis within Gibbs; as x.

    Each step proposes z' ~ q(z|x̃) for the completed x̃, accepts it with probability min(1, w(z')/w(z)), w = p(x̃, z)/
    q(z|x̃), and draws the missing values from p(x|z): a chain that keeps p(z, missing | known). Without the acceptance
    (pseudo-Gibbs, Rezende, Mohamed and Wierstra, 2014) its law depends on how good q is.
    Mattei and Frellsen, "Leveraging the Exact Likelihood of Deep Latent Variable Models", 2018, algorithm 1.

    Args:
        key: example i draws from fold_in(key, i).
        params: the model's.
        stats: the model's.
        x: (batch, *shape); what stands at missing values is where the chain starts.
        mask: (batch, *shape) booleans, True where a value is known.
        num_steps: of the chain.
        networks: with a posterior whose density is known, where `exact`.
        label: (batch,), where there are classes.
        exact: whether proposals may be rejected.

    Raises:
        ValueError: `num_steps` is below 1, or `exact` asks for the density of a posterior that has none.
    """
    _checks.at_least("num_steps", num_steps, 1)
    keys, law = random.example_keys(key, len(x)), parts.prior_law(params, stats, networks)

    def propose(keys: Any, filled: Any) -> Any:
        q = vae.encode(params, stats, filled, networks=networks, label=label)
        return q, networks.posterior.draw(keys, params["posterior"], q).z

    def log_weight(z: Any, filled: Any, q: Any) -> Any:
        log_q = networks.posterior.log_prob(params["posterior"], q, z)
        if log_q is None:
            raise ValueError("`exact` must be False for a posterior without a closed density, got True.")
        raw = parts.run_decoder(params, stats, z, networks, label=label)[0]
        log_prior = jnp.sum(networks.prior.log_prob(law, z), axis=-1)
        return networks.likelihood.log_prob(raw, filled) + log_prior - jnp.sum(log_q, axis=-1)

    def step(carry: Any, t: Any) -> Any:
        filled, z = carry
        each = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, t), 3))(keys)
        q, new = propose(each[:, 0], filled)
        if exact:
            ratio = log_weight(new, filled, q) - log_weight(z, filled, q)
            accepted = jnp.log(jax.vmap(jax.random.uniform)(each[:, 1])) < ratio
            new = jnp.where(accepted[:, None], new, z)
        raw = parts.run_decoder(params, stats, new, networks, label=label)[0]
        drawn = networks.likelihood.sample(each[:, 2], raw).astype(filled.dtype)
        return (jnp.where(mask, filled, drawn), new), None

    start = propose(jax.vmap(jax.random.fold_in, (0, None))(keys, num_steps), x)[1]
    return jax.lax.scan(step, (jnp.asarray(x), start), jnp.arange(num_steps))[0][0]


def anomaly_score(
    key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks, num_samples: int = 1
) -> Float[Array, " batch"]:
    """−L_K(x), nats: how many it takes to tell x; high where x is unlike what was learned."""
    return -vae.iwae_bound(key, params, stats, batch, networks=networks, num_samples=num_samples)


def active_units(
    params: Params, stats: Params, x: Any, *, networks: Networks, label: Any = None, threshold: float = 0.01
) -> Array:
    """The number of latent dimensions whose code varies over `x` by more than `threshold` (a variance).

    Burda, Grosse and Salakhutdinov, 2016, section 5.2.
    """
    return jnp.sum(jnp.var(code(params, stats, x, networks=networks, label=label), axis=0) > threshold)
