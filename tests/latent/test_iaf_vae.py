"""The inverse autoregressive posterior: its log-determinant by autodiff, its mass by quadrature, what it gains."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from linear_gaussian import Linear

from jgen.latent import gaussian, iaf_vae, vae
from jgen.math import likelihoods


def _flow(size, num_steps=2, seed=1):
    """(family, params with weights of order 1, q of one example)."""
    family = iaf_vae.InverseAutoregressive(num_steps, (16,), 3)
    params = family.init(jax.random.key(0), size)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    params = jax.tree.unflatten(
        structure, [0.5 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )
    raw = 0.3 * jax.random.normal(jax.random.key(2), (1, family.num_outputs(size)))
    return family, params, family.read(raw, size)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_log_det_is_that_of_the_jacobian(num_steps):
    family, params, q = _flow(4, num_steps)

    def forward(z):
        return family.forward(params, z[None], q.context)[0][0]

    z = jax.random.normal(jax.random.key(3), (4,))
    _, expected = np.linalg.slogdet(np.asarray(jax.jacfwd(forward)(z), np.float64))
    found = float(jnp.sum(family.forward(params, z[None], q.context)[1]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(found) > 0.1


def test_each_step_is_triangular_and_the_next_one_the_other_way():
    family, params, q = _flow(4)
    for t, step in enumerate(family.steps(4)):
        jacobian = jax.jacfwd(
            lambda z, t=t, step=step: iaf_vae._step(step, params[f"step_{t}"], z[None], q.context)[0][0]
        )(jnp.ones(4))
        upper = np.triu(jacobian) if t % 2 == 0 else np.tril(jacobian)
        np.testing.assert_array_equal(upper, 0.0)
        assert np.any(jacobian)


def test_density_of_a_draw_is_what_came_with_it():
    family, params, q = _flow(5)
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 50, axis=0), q)
    drawn = family.draw(jax.random.split(jax.random.key(4), 50), params, many)
    np.testing.assert_allclose(family.log_prob(params, many, drawn.z), drawn.log_prob, atol=2e-4)


def _mass(family, params, q):
    """∫ q(z|x) dz over a box in the plane."""
    line, step = np.linspace(-9, 9, 301, retstep=True)
    grid = jnp.asarray(np.stack(np.meshgrid(line, line), -1).reshape(-1, 2), jnp.float32)
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(grid), axis=0), q)
    return float(jnp.sum(jnp.exp(jnp.sum(jax.jit(family.log_prob)(params, many, grid), axis=-1))) * step**2)


def test_density_integrates_to_one_in_the_plane():
    assert abs(_mass(*_flow(2)) - 1) < 1e-3


def test_a_flipped_log_determinant_would_be_seen(monkeypatch):
    right = iaf_vae.InverseAutoregressive.inverse

    def flipped(self, params, z, context):
        first, log_det = right(self, params, z, context)
        return first, -log_det

    monkeypatch.setattr(iaf_vae.InverseAutoregressive, "inverse", flipped)
    assert abs(_mass(*_flow(2)) - 1) > 0.05


def test_without_steps_it_is_the_diagonal_posterior():
    family, params, q = _flow(3, 0)
    keys = jax.random.split(jax.random.key(0), 1)
    np.testing.assert_array_equal(family.draw(keys, params, q).z, gaussian.sample(keys, q.base))


def test_it_reaches_a_correlated_posterior_that_no_diagonal_one_can():
    # x = W z + σε with a fixed W of dependent columns: the exact posterior is correlated.
    weights, sigma = np.array([[1.0, 0.5], [0.9, -0.1]]), 0.5
    x = np.random.default_rng(0).normal(size=(256, 2)) @ weights + sigma * np.random.default_rng(1).normal(
        size=(256, 2)
    )
    covariance = weights.T @ weights + sigma**2 * np.eye(2)
    log_p = scipy.stats.multivariate_normal(np.zeros(2), covariance).logpdf(x).mean()
    precision = np.eye(2) + weights @ weights.T / sigma**2
    least = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])  # of the best diagonal one
    batch = {"x": jnp.asarray(x, jnp.float32)}

    def reached(posterior):
        networks = vae.Networks(
            Linear(posterior.num_outputs(2)), Linear(2, (2, 1)), likelihoods.Gaussian(sigma), 2, posterior=posterior
        )
        freeze = optax.multi_transform(
            {"moves": optax.adam(optax.cosine_decay_schedule(5e-2, 3000)), "stays": optax.set_to_zero()},
            {"encoder": "moves", "posterior": "moves", "prior": "moves", "decoder": "stays", "offset": "stays"},
        )
        model = vae.model(networks, freeze)
        state = model.init(jax.random.key(0), batch)
        decoder = {"Dense_0": {"kernel": jnp.asarray(weights, jnp.float32), "bias": jnp.zeros(2)}}
        fixed = {**state.params, "decoder": decoder, "offset": jnp.zeros((2, 1))}
        state = state._replace(params=fixed)

        def step(state, t):
            return model.update(jax.random.fold_in(jax.random.key(2), t), state, batch)

        _, metrics = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(3000)))(state)
        return log_p + float(metrics["negative_elbo"][-300:].mean())

    flow = reached(iaf_vae.InverseAutoregressive(1, (16,), 2))
    diagonal = reached(vae.parts.DIAGONAL)
    assert least > 0.15
    assert abs(diagonal - least) < 0.05
    assert -0.03 < flow < 0.05


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`num_steps` must be at least 0"):
        iaf_vae.InverseAutoregressive(-1)
    with pytest.raises(ValueError, match="`hidden_sizes` must name at least one layer"):
        iaf_vae.InverseAutoregressive(hidden_sizes=())
    with pytest.raises(ValueError, match="must be InverseAutoregressive"):
        iaf_vae.model(vae.dense((4,), likelihoods.Bernoulli(), 2), optax.adam(1e-2))
