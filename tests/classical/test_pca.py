"""PCA and probabilistic PCA: SciPy, scikit-learn, the closed form of the likelihood, EM, the linear autoencoder."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from stat_checks import check_mean

from jgen.classical import pca
from jgen.math import linear_algebra, moments

IRIS = np.asarray(load_iris(return_X_y=True)[0])
X = jnp.asarray(IRIS, jnp.float32)
KEY = jax.random.key(0)


def fitted(x=X, num=2):
    return jax.jit(lambda x: pca.solve(moments.moments(x), num))(x)


def covariance(params):
    """C in float64."""
    mixing = np.asarray(pca.weights(params), np.float64)
    return mixing @ mixing.T + float(params.noise) * np.eye(len(mixing))


@pytest.fixture(scope="module", name="params")
def _params():
    return fitted()


@pytest.mark.parametrize("num", [1, 2, 3])
def test_axes_and_variances_equal_scikit_learn(num):
    theirs: Any = PCA(num).fit(IRIS)
    ours = fitted(num=num)
    np.testing.assert_allclose(np.abs(ours.axes.T @ theirs.components_.T), np.eye(num), atol=1e-4)
    scale = (len(IRIS) - 1) / len(IRIS)  # scikit-learn divides by n − 1
    np.testing.assert_allclose(ours.variances, theirs.explained_variance_ * scale, rtol=1e-4)
    np.testing.assert_allclose(ours.noise, theirs.noise_variance_ * scale, rtol=1e-3)
    rebuilt = theirs.inverse_transform(theirs.transform(IRIS))
    np.testing.assert_allclose(pca.decode(ours, pca.encode(ours, X)), rebuilt, atol=1e-4)
    np.testing.assert_allclose(pca.squared_error(ours, X), np.sum((IRIS - rebuilt) ** 2, axis=1), atol=1e-3)


def test_log_prob_equals_scipys_gaussian(params):
    law: Any = scipy.stats.multivariate_normal
    exact = law(np.asarray(params.mean), covariance(params)).logpdf(IRIS)
    np.testing.assert_allclose(pca.log_prob(params, X), exact, rtol=1e-4, atol=1e-4)


def likelihoods(params, num=2):
    """The mean log-likelihood, and its closed form at the optimum."""
    variances = np.linalg.eigvalsh(np.cov(IRIS.T, bias=True))[::-1].astype(np.float32)
    best = pca.best_log_likelihood(jnp.asarray(variances), num)
    return float(jnp.mean(pca.log_prob(params, X))), float(best)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_the_optimum_has_its_closed_form(num):
    ours, best = likelihoods(fitted(num=num), num)
    assert ours == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("wrong", [
    lambda p: p._replace(noise=2 * p.noise),  # the sum of the variances left out, not their mean
    lambda p: p._replace(variances=p.variances + p.noise),  # W = U Λ^½
    lambda p: p._replace(axes=p.axes[:, ::-1]),
])  # fmt: skip
def test_broken_solutions_are_below_the_optimum(wrong, params):
    ours, best = likelihoods(wrong(params))
    assert ours < best - 1e-3


def test_posterior_is_the_gaussian_conditional(params):
    mixing, c = np.asarray(pca.weights(params), np.float64), covariance(params)
    gain = mixing.T @ np.linalg.inv(c)
    mean, variances = pca.posterior(params, X)
    np.testing.assert_allclose(mean, (IRIS - np.asarray(params.mean)) @ gain.T, atol=1e-4)
    np.testing.assert_allclose(np.diag(variances), np.eye(2) - gain @ mixing, atol=1e-4)


def test_samples_have_the_models_moments(params):
    x = np.asarray(jax.jit(lambda key: pca.sample(key, params, 40_000))(KEY), np.float64) - np.asarray(params.mean)
    check_mean(x, 0.0, sees=0.3)
    rows, columns = np.triu_indices(4)
    check_mean(x[:, rows] * x[:, columns], covariance(params)[rows, columns], sees=0.6)


def em_rounds(params, num, maximize=pca.maximize):
    def step(params, _):
        return maximize(params, pca.expect(params, X)), jnp.mean(pca.log_prob(params, X))

    return jax.jit(lambda params: jax.lax.scan(step, params, None, num))(params)


def test_em_rises_to_the_closed_form():
    found, steps = em_rounds(pca.start(KEY, X, 2), 300)
    assert np.all(np.diff(steps) > -1e-4)
    assert steps[0] < likelihoods(found)[1] - 1.0
    exact = fitted()
    assert float(linear_algebra.principal_angles(found.axes, exact.axes)[0]) < 1e-2
    np.testing.assert_allclose(found.variances, exact.variances, rtol=1e-3)
    np.testing.assert_allclose(found.noise, exact.noise, rtol=1e-3)
    assert likelihoods(found)[0] == pytest.approx(likelihoods(found)[1], abs=1e-4)


def test_em_finds_the_mean_from_afar():
    far = pca.start(KEY, X, 2)._replace(mean=jnp.asarray([50.0, 0.0, -20.0, 3.0]))
    found, steps = em_rounds(far, 300)
    np.testing.assert_allclose(found.mean, IRIS.mean(0), atol=1e-4)
    assert np.all(np.diff(steps) > -1e-4)
    assert likelihoods(found)[0] == pytest.approx(likelihoods(found)[1], abs=1e-3)


def test_an_m_step_without_the_posteriors_variance_is_caught():
    def broken(params, statistics):
        second = statistics.second - jnp.diag(pca.posterior(params, X)[1])
        return pca.maximize(params, statistics._replace(second=second))

    found, _ = em_rounds(pca.start(KEY, X, 2), 300, broken)
    assert abs(likelihoods(found)[0] - likelihoods(found)[1]) > 1e-3


def trained(num=2):
    """The linear autoencoder after 2,000 steps of Adam on all rows."""
    model = pca.autoencoder(num, optax.adam(optax.cosine_decay_schedule(0.03, 2_000)))
    state = model.init(KEY, {"x": X})

    def step(state, _):
        state, metrics = model.update(KEY, state, {"x": X})
        return state, metrics["squared_error"]

    return jax.jit(lambda state: jax.lax.scan(step, state, None, 2_000))(state)


def test_the_linear_autoencoder_spans_the_same_subspace():
    state, errors = trained()
    axes = jnp.asarray(np.linalg.svd(IRIS - IRIS.mean(0), full_matrices=False)[2][:2].T, jnp.float32)
    for own in (state.params.encoder, state.params.decoder.T):
        assert float(linear_algebra.principal_angles(own, axes)[0]) < 1e-2
    least = float(jnp.mean(pca.squared_error(fitted(), X)))
    assert errors[-1] == pytest.approx(least, rel=1e-3)
    # The same subspace, but with axes of its own.
    alone = linear_algebra.principal_angles(state.params.decoder[:1].T, axes[:, :1])
    assert float(alone[0]) > 0.05


def test_updates_over_batches_give_the_whole_and_survive_an_offset():
    model = pca.model(2)
    state = model.init(KEY, {"x": X[:50]})
    update = jax.jit(model.update)
    for first in (0, 50, 100):
        state, metrics = update(KEY, state, {"x": X[first : first + 50] + 1e3})
    exact = fitted()
    np.testing.assert_allclose(state.params.variances, exact.variances, rtol=1e-3)
    np.testing.assert_allclose(state.params.noise, exact.noise, rtol=2e-2)  # 1e3 + x has three digits left
    assert np.isfinite(metrics["nll"])


def test_degenerate_data_stay_finite():
    for x in (jnp.zeros((5, 3)), jnp.ones((1, 3)), jnp.asarray([[1.0, 2.0, 3.0]] * 4 + [[2.0, 4.0, 6.0]])):
        params = fitted(x, 1)
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in params)
        assert jnp.all(jnp.isfinite(pca.log_prob(params, x)))
        found = pca.maximize(*(lambda p: (p, pca.expect(p, x)))(pca.start(KEY, x, 1)))
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in found)


@pytest.mark.parametrize("build", [pca.model, pca.em_model, lambda num: pca.autoencoder(num, optax.sgd(0.1))])
def test_bad_input_is_refused(build):
    with pytest.raises(ValueError, match="`num_components` must be at least 1, got 0"):
        build(0)
    with pytest.raises(ValueError, match="`num_components` must be below the 4 columns of `x`, got 4"):
        build(4).init(KEY, {"x": X})
    with pytest.raises(ValueError, match="`x` must have 2 axes"):
        build(1).init(KEY, {"x": X[None]})


def test_a_floor_must_be_positive():
    with pytest.raises(ValueError, match="`floor` must be positive, got 0"):
        pca.model(1, floor=0.0)
