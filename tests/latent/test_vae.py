"""The ELBO against exact log-likelihoods: a linear-Gaussian model, and quadrature over a one-dimensional latent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import linen as nn
from linear_gaussian import SIGMA, Linear, exact, moved

from jgen import linen
from jgen.latent import gaussian, representation, vae, warm_up
from jgen.math import likelihoods

ADAM = optax.adam(1e-2)


def test_every_weight_is_the_likelihood_at_the_exact_posterior():
    networks, params, stats, x, log_p = exact()
    for num in (1, 4):
        bound = vae.iwae_bound(jax.random.key(0), params, stats, {"x": x}, networks=networks, num_samples=num)
        np.testing.assert_allclose(bound, log_p, atol=1e-4)


def test_elbo_is_the_likelihood_at_the_optimum():
    networks, params, stats, x, log_p = exact()
    many = {"x": np.repeat(x, 100, axis=0)}
    elbo = vae.elbo(jax.random.key(1), params, stats, many, networks=networks)
    difference = np.asarray(elbo) - np.repeat(log_p, 100)
    assert abs(difference.mean()) < 5 * difference.std() / np.sqrt(len(difference))


def test_any_other_posterior_is_below_by_its_divergence():
    networks, params, stats, x, log_p = exact()
    right = vae.encode(params, stats, x, networks=networks)
    wrong = vae.encode(moved(params), stats, x, networks=networks)
    ratio = jnp.exp(2 * (wrong.log_std - right.log_std))
    gap = (wrong.mean - right.mean) ** 2 * jnp.exp(-2 * right.log_std)
    divergence = np.asarray(0.5 * jnp.sum(ratio - 1 - jnp.log(ratio) + gap, axis=-1))
    many = {"x": np.repeat(x, 200, axis=0)}
    elbo = vae.elbo(jax.random.key(2), moved(params), stats, many, networks=networks)
    found = np.repeat(log_p, 200) - np.asarray(elbo)
    assert abs(found.mean() - divergence.mean()) < 5 * found.std() / np.sqrt(len(found))
    assert found.mean() > 0.05


def test_bound_rises_with_the_number_of_samples():
    networks, params, stats, x, log_p = exact()
    batch, wrong = {"x": np.repeat(x, 20, axis=0)}, moved(params)
    means = [
        float(vae.iwae_bound(jax.random.key(3), wrong, stats, batch, networks=networks, num_samples=k).mean())
        for k in (1, 4, 256)
    ]
    assert means[0] < means[1] - 0.02 < means[2]
    assert abs(means[2] - log_p.mean()) < 0.02


def test_bound_does_not_depend_on_the_chunks():
    networks, params, stats, x, _ = exact()
    values = [
        vae.iwae_bound(
            jax.random.key(0), moved(params), stats, {"x": x}, networks=networks, num_samples=12, chunk_size=size
        )
        for size in (1, 5, 12)
    ]
    np.testing.assert_allclose(values[0], values[1], atol=1e-4)
    np.testing.assert_allclose(values[0], values[2], atol=1e-4)


def test_reusing_one_draw_for_all_samples_would_be_seen(monkeypatch):
    # The mutant "one key for every k" makes L_K equal to L_1.
    networks, params, stats, x, _ = exact()
    batch = {"x": np.repeat(x, 20, axis=0)}

    def bound(num):
        values = vae.iwae_bound(jax.random.key(3), moved(params), stats, batch, networks=networks, num_samples=num)
        return float(values.mean())

    right = bound(16) - bound(1)
    monkeypatch.setattr(gaussian, "sample", lambda keys, q: q.mean + 0.1 * jnp.exp(q.log_std))
    assert right > 0.05
    assert abs(bound(16) - bound(1)) < 1e-4


def test_divergence_is_that_of_quadrature_and_never_negative():
    posterior = gaussian.Gaussian(jnp.array([[0.3, -1.0, 0.0]]), jnp.array([[0.2, -0.5, 5e-5]]))
    grid = np.linspace(-12, 12, 200_001)
    for value, mean, log_std in zip(
        gaussian.kl_to_standard_normal(posterior)[0], posterior.mean[0], posterior.log_std[0], strict=True
    ):
        q = scipy.stats.norm(float(mean), float(np.exp(log_std)))
        expected = np.trapezoid(q.pdf(grid) * (q.logpdf(grid) - scipy.stats.norm.logpdf(grid)), grid)
        np.testing.assert_allclose(value, expected, atol=1e-6)
        assert value >= 0


def test_flipped_sign_of_the_rate_breaks_the_bound(monkeypatch):
    networks, params, stats, x, log_p = exact()
    right = gaussian.kl_to_standard_normal
    monkeypatch.setattr(gaussian, "kl_to_standard_normal", lambda posterior: -right(posterior))
    elbo = vae.elbo(jax.random.key(1), params, stats, {"x": x}, networks=networks)
    assert float(elbo.mean()) > log_p.mean() + 0.5


def test_learning_reaches_the_likelihood_of_probabilistic_pca():
    networks, _, _, x, _ = exact()
    covariance, mean = np.cov(x.T, bias=True), x.mean(0)
    values, vectors = np.linalg.eigh(covariance)
    kept = vectors[:, 1:] * np.sqrt(np.maximum(values[1:] - SIGMA**2, 0))
    best = scipy.stats.multivariate_normal(mean, kept @ kept.T + SIGMA**2 * np.eye(3)).logpdf(x).mean()
    model = vae.model(networks, optax.adam(optax.cosine_decay_schedule(5e-2, 6000)))
    state = model.init(jax.random.key(0), {"x": x})

    def step(state, t):
        return model.update(jax.random.fold_in(jax.random.key(2), t), state, {"x": jnp.asarray(x)})

    state, metrics = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(6000)))(state)
    assert np.all(np.isfinite(metrics["loss"]))
    bound = vae.iwae_bound(
        jax.random.key(1), state.params, state.stats, {"x": x}, networks=networks, num_samples=200
    ).mean()
    assert abs(float(bound) - best) < 0.03


def test_warm_up_changes_the_objective_and_not_the_report():
    networks, _, _, x, _ = exact()
    model = vae.model(networks, ADAM, warm_up_steps=10)
    state = model.init(jax.random.key(0), {"x": x})
    first = state
    state, metrics = model.update(jax.random.key(1), state, {"x": x})
    np.testing.assert_allclose(metrics["loss"], metrics["distortion"], rtol=1e-6)
    assert int(state.stats[warm_up.STEP]) == 1
    plain = vae.model(networks, ADAM).evaluate(jax.random.key(2), first, {"x": x})
    warm = model.evaluate(jax.random.key(2), first, {"x": x})
    np.testing.assert_array_equal(plain["negative_elbo"], warm["negative_elbo"])


def test_uses_of_a_trained_model():
    networks, params, stats, x, _ = exact()
    again = representation.reconstruct(params, stats, x, networks=networks)
    assert float(jnp.mean((again - x) ** 2)) < SIGMA**2
    path = representation.interpolate(params, stats, x[0], x[1], 5, networks=networks)
    np.testing.assert_allclose(path[0], again[0], atol=1e-5)
    np.testing.assert_allclose(path[-1], again[1], atol=1e-5)
    assert int(representation.active_units(params, stats, x, networks=networks)) == 2


def test_dropping_the_statistics_would_be_seen():
    class Normalized(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return nn.Dense(4)(nn.BatchNorm(use_running_average=not train)(x))

    networks = vae.Networks(Normalized(), Linear(3, (3, 1)), likelihoods.Gaussian(SIGMA), 2)
    model = vae.model(networks, ADAM)
    x = np.random.default_rng(0).normal(3.0, 1.0, (64, 3)).astype(np.float32)
    state = model.init(jax.random.key(0), {"x": x})
    after, _ = model.update(jax.random.key(1), state, {"x": x})
    mean = after.stats["encoder"]["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.01 * x.mean(0), rtol=1e-4)
    still = linen.apply(networks.encoder, after.params["encoder"], after.stats["encoder"], x, train=False)
    assert np.all(np.isfinite(still))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"beta": -1.0}, "`beta` must be at least 0"),
        ({"warm_up_steps": -1}, "`warm_up_steps` must be at least 0"),
        ({"num_bound_samples": 0}, "`num_bound_samples` must be at least 1"),
    ],
)
def test_bad_arguments_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        vae.model(exact()[0], ADAM, **keywords)


def test_bad_batches_are_refused():
    bernoulli = vae.dense((4,), likelihoods.Bernoulli(), 2, hidden_sizes=(8,))
    model = vae.model(bernoulli, ADAM)
    with pytest.raises(ValueError, match="`batch` must be a dict"):
        model.init(jax.random.key(0), np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"`x` must lie in \[0, 1\]"):
        model.init(jax.random.key(0), {"x": np.full((3, 4), 2.0)})
    with pytest.raises(ValueError, match="`x` must be whole numbers"):
        model.init(jax.random.key(0), {"x": np.full((3, 4), 0.5)})
    with pytest.raises(ValueError, match="`decoder` must return shape"):
        model.init(jax.random.key(0), {"x": np.zeros((3, 5))})
    narrow = vae.Networks(Linear(3), Linear(4, (4, 1)), likelihoods.Bernoulli(), 2)
    with pytest.raises(ValueError, match="`encoder` must return shape"):
        vae.encode(*_plain_init(narrow), np.zeros((3, 4)), networks=narrow)


def _plain_init(networks):
    encoder, stats = linen.init(networks.encoder, jax.random.key(0), jnp.zeros((3, 4)))
    return {"encoder": encoder}, {"encoder": stats}
