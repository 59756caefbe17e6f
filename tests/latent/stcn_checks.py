"""Small STCNs with random weights, and the exact likelihood of one by quadrature."""

import jax
import jax.numpy as jnp

from jgen.latent import stcn, stcn_network
from jgen.math import framewise, likelihoods, quadrature
from jgen.nets.temporal import TemporalConv

REAL = stcn.Network(likelihoods.Gaussian(), TemporalConv(3, 2, 2), (2, 1), (4,), (4,))
BITS = stcn.Network(likelihoods.Bernoulli(), TemporalConv(3, 2, 2), (1, 1), (4,), (4,))
SKIP = stcn.Network(likelihoods.Bernoulli(), TemporalConv(3, 2, 2), (2, 1), (4,), (4,), dense=False, skip=True)


def params_of(network, num_dims=2, scale=0.6, seed=0):
    """Random weights everywhere, biases too."""
    x = jnp.zeros((1, 2, num_dims))
    shapes = jax.eval_shape(lambda key: stcn_network.initialize(network, key, x, jnp.ones((1, 2))), jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def real(num=1, time=9, dims=2, seed=5):
    return jax.random.normal(jax.random.key(seed), (num, time, dims))


def bits(num=1, time=9, dims=2, seed=5):
    return jax.random.bernoulli(jax.random.key(seed), 0.5, (num, time, dims)).astype(jnp.float32)


def exact(network, params, x):
    """log ∫ p(x_t | z_t) p(z_t | x_<t) dz_t summed over t, by the trapezoid rule over the noise of two latents."""
    before, _ = stcn_network.states(network, params, x)
    nodes = quadrature.box(-6.0, 6.0, 61, 2)

    def log_joint(point):
        noise = tuple(jnp.full((*x.shape[:2], 1), point[i]) for i in range(2))
        z = stcn_network.descend(network, params, noise, before).z
        each = framewise.log_prob(network.likelihood, stcn_network.decode(network, params, z, before), x)
        return each + jnp.sum(jax.scipy.stats.norm.logpdf(point))

    values = jax.lax.map(log_joint, nodes.points, batch_size=256)
    return jnp.sum(jax.nn.logsumexp(values + nodes.log_weights[:, None, None], axis=0), axis=1)
