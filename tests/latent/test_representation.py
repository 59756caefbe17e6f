"""Uses of a trained VAE, on the linear-Gaussian model whose conditionals are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_gaussian import SIGMA, WEIGHTS, exact, moved

from jgen.latent import iaf_vae, representation, vae
from jgen.math import likelihoods


def _conditional(x):
    """Mean and standard deviation of the third value given the first two."""
    covariance = WEIGHTS.T @ WEIGHTS + SIGMA**2 * np.eye(3)
    gain = covariance[2, :2] @ np.linalg.inv(covariance[:2, :2])
    return x[:2] @ gain, np.sqrt(covariance[2, 2] - gain @ covariance[:2, 2])


def _completed(params, *, exactly, steps=60, num=4000):
    networks, _, stats, *_ = exact()
    row = np.array([1.0, 1.5, 0.0], np.float32)
    rows, mask = np.tile(row, (num, 1)), np.tile([True, True, False], (num, 1))
    drawn = jax.jit(
        lambda rows: representation.complete(
            jax.random.key(0), params, stats, rows, mask, steps, networks=networks, exact=exactly
        )
    )(rows)
    np.testing.assert_array_equal(drawn[:, :2], rows[:, :2])
    return np.asarray(drawn[:, 2]), *_conditional(row)


def test_completions_follow_the_exact_conditional_even_with_a_wrong_posterior():
    drawn, mean, std = _completed(moved(exact().params), exactly=True)
    assert abs(drawn.mean() - mean) < 4 * std / np.sqrt(len(drawn))
    assert abs(drawn.std() / std - 1) < 4 / np.sqrt(2 * len(drawn))


def test_without_rejections_a_wrong_posterior_shows():
    networks, params, *_ = exact()
    del networks
    encoder = params["encoder"]["Dense_0"]
    wrong = {**params, "encoder": {"Dense_0": {**encoder, "bias": encoder["bias"] + jnp.array([0.0, 0.5, 0.0, 0.0])}}}
    drawn, mean, std = _completed(wrong, exactly=False)
    assert abs(drawn.mean() - mean) > 8 * std / np.sqrt(len(drawn))


def test_paths_end_where_they_should():
    networks, params, stats, x, _ = exact()
    again = representation.reconstruct(params, stats, x, networks=networks)
    for spherical in (False, True):
        path = representation.interpolate(params, stats, x[0], x[1], 5, networks=networks, spherical=spherical)
        np.testing.assert_allclose(path[0], again[0], atol=1e-4)
        np.testing.assert_allclose(path[-1], again[1], atol=1e-4)
    still = representation.interpolate(params, stats, x[0], x[0], 3, networks=networks, spherical=True)
    np.testing.assert_allclose(still, np.tile(again[0], (3, 1)), atol=1e-4)


def test_an_arc_keeps_the_norm():
    networks, params, stats, *_ = exact()
    ends = np.array([[2.0, 0.0, 0.0], [0.0, 1.2, 1.6]], np.float32)
    path = representation.interpolate(params, stats, *ends, 9, networks=networks, spherical=True)
    codes = np.asarray(path) @ np.linalg.pinv(WEIGHTS)
    norms = np.linalg.norm(codes, axis=1)
    first, last = norms[0], norms[-1]
    assert np.all(norms > min(first, last) - 1e-4)
    straight = np.asarray(representation.interpolate(params, stats, *ends, 9, networks=networks)) @ np.linalg.pinv(
        WEIGHTS
    )
    assert np.linalg.norm(straight, axis=1)[4] < min(first, last)


def test_traversals_move_one_unit():
    networks, params, stats, x, _ = exact()
    z = representation.code(params, stats, x[:1], networks=networks)[0]
    values = jnp.array([-1.0, 0.0, 2.0])
    found = np.asarray(representation.traverse(params, stats, z, 1, values, networks=networks))
    np.testing.assert_allclose(found, np.outer(values, WEIGHTS[1]) + float(z[0]) * WEIGHTS[0], atol=1e-5)
    with pytest.raises(ValueError, match="`unit` must be one of"):
        representation.traverse(params, stats, z, 2, values, networks=networks)


def test_anomaly_scores_are_high_where_the_density_is_low():
    networks, params, stats, x, log_p = exact()
    found = representation.anomaly_score(jax.random.key(0), params, stats, {"x": x}, networks=networks)
    np.testing.assert_allclose(found, -log_p, atol=1e-4)


def test_dead_units_are_not_counted():
    networks, params, stats, x, _ = exact()
    assert int(representation.active_units(params, stats, x, networks=networks)) == 2
    encoder = params["encoder"]["Dense_0"]
    dead = {**encoder, "kernel": encoder["kernel"].at[:, 1].set(0.0)}
    params = {**params, "encoder": {"Dense_0": dead}}
    assert int(representation.active_units(params, stats, x, networks=networks)) == 1


def test_bad_arguments_are_refused():
    networks, params, stats, x, _ = exact()
    with pytest.raises(ValueError, match="`num` must be at least 2"):
        representation.interpolate(params, stats, x[0], x[1], 1, networks=networks)
    with pytest.raises(ValueError, match="`num_steps` must be at least 1"):
        representation.complete(jax.random.key(0), params, stats, x, x > 0, 0, networks=networks)


def test_a_flow_can_complete_too():
    posterior = iaf_vae.InverseAutoregressive(1, (8,), 2)
    networks = vae.dense((3,), likelihoods.Bernoulli(), 2, posterior=posterior, hidden_sizes=(8,))
    x = np.ones((4, 3), np.float32)
    state = iaf_vae.model(networks, optax.adam(1e-2)).init(jax.random.key(0), {"x": x})
    mask = np.tile([True, False, False], (4, 1))
    drawn = representation.complete(jax.random.key(1), state.params, state.stats, x, mask, 3, networks=networks)
    assert np.all(np.isin(drawn, [0.0, 1.0]))
    assert np.all(np.asarray(drawn)[:, 0] == 1.0)


def test_the_best_std_is_that_of_the_model_and_no_other_gives_more():
    networks, params, stats, *_ = exact()
    x = vae.sample(jax.random.key(0), params, stats, 20_000, networks=networks)
    best = float(representation.optimal_std(jax.random.key(1), params, stats, {"x": x}, networks=networks))
    # Under the exact posterior E(x − µ)² = σ²; the mean of 60,000 squares is 0.6 % off at one standard error.
    np.testing.assert_allclose(best, SIGMA, rtol=0.02)

    def elbo(std):
        own = dataclasses.replace(networks, likelihood=likelihoods.Gaussian(std))
        return float(jnp.mean(vae.elbo(jax.random.key(1), params, stats, {"x": x}, networks=own)))

    assert elbo(best) > max(elbo(best * 0.9), elbo(best * 1.1))


def test_the_best_std_does_not_depend_on_the_one_before():
    networks, params, stats, *_ = exact()
    batch = {"x": np.random.default_rng(0).normal(0.0, 3.0, (50, *params["offset"].shape[:-1]))}
    found = [
        representation.optimal_std(jax.random.key(1), params, stats, batch, networks=own)
        for own in (networks, dataclasses.replace(networks, likelihood=likelihoods.Gaussian(7.0)))
    ]
    assert found[0] == found[1]
    learned = dataclasses.replace(networks, likelihood=likelihoods.Gaussian())
    with pytest.raises(ValueError, match="`networks` must have a Gaussian likelihood of fixed std"):
        representation.optimal_std(jax.random.key(1), params, stats, batch, networks=learned)
