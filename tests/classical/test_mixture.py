"""Gaussian mixtures: EM against scikit-learn's, monotone likelihood, k-means as the limit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture

from jgen.classical import mixture

IRIS = np.asarray(load_iris(return_X_y=True)[0])
X = jnp.asarray(IRIS, jnp.float32)


def rounds(params, x, num, floor=1e-6):
    """Parameters after `num` rounds of EM, and the mean log-likelihood before each."""

    def step(params, _):
        return mixture.maximize(params, mixture.expect(params, x), floor=floor), jnp.mean(mixture.log_prob(params, x))

    return jax.jit(lambda params: jax.lax.scan(step, params, None, num))(params)


def started(covariance, num=3):
    return jax.jit(lambda key: mixture.start(key, X, num, covariance=covariance))(jax.random.key(0))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_em_equals_scikit_learn_from_the_same_start(covariance):
    start = started(covariance)
    found, _ = rounds(start, X, 12)
    precisions = 1 / start.covariances if covariance == "diagonal" else np.linalg.inv(start.covariances)
    theirs: Any = GaussianMixture(
        3,
        covariance_type={"full": "full", "diagonal": "diag"}[covariance],
        tol=0.0,
        max_iter=12,
        weights_init=np.full(3, 1 / 3),
        means_init=start.means,
        precisions_init=precisions,
    )
    with pytest.warns(UserWarning, match="did not converge"):
        theirs.fit(IRIS)
    np.testing.assert_allclose(np.exp(found.log_weights), theirs.weights_, atol=1e-4)
    np.testing.assert_allclose(found.means, theirs.means_, atol=1e-4)
    np.testing.assert_allclose(found.covariances, theirs.covariances_, atol=1e-4)
    np.testing.assert_allclose(mixture.log_prob(found, X), theirs.score_samples(IRIS), atol=2e-3)
    assert float(jnp.mean(mixture.log_prob(found, X))) == pytest.approx(theirs.score(IRIS), abs=1e-4)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("num", [1, 5])
def test_the_log_likelihood_never_falls(covariance, num):
    _, likelihoods = rounds(started(covariance, num), X, 40, floor=0.0 if num == 1 else 1e-6)
    assert np.all(np.diff(likelihoods) > -1e-5)


def test_a_wrong_covariance_update_is_caught():
    start = started("full")
    found = mixture.maximize(start, mixture.expect(start, X))
    wrong = start._replace(log_weights=found.log_weights, means=found.means, covariances=found.covariances * 9.0)
    assert jnp.mean(mixture.log_prob(wrong, X)) < jnp.mean(mixture.log_prob(found, X)) - 0.1


def test_log_prob_equals_scipy():
    params = rounds(started("full"), X, 5)[0]
    p = sum(
        float(jnp.exp(w)) * stats.multivariate_normal(m, c).pdf(IRIS)
        for w, m, c in zip(params.log_weights, np.asarray(params.means), np.asarray(params.covariances), strict=True)
    )
    np.testing.assert_allclose(mixture.log_prob(params, X), np.log(p), atol=2e-3)
    np.testing.assert_allclose(jnp.sum(mixture.responsibilities(params, X), axis=1), 1.0, rtol=1e-5)


def test_diagonal_equals_full_with_diagonal_covariances():
    params = started("diagonal")
    full = params._replace(covariances=jax.vmap(jnp.diag)(params.covariances))
    np.testing.assert_allclose(mixture.log_prob(params, X), mixture.log_prob(full, X), rtol=1e-5)


def test_k_means_is_the_limit_of_small_equal_variances():
    centers = mixture.plus_plus(jax.random.key(3), X, 3)
    tight = mixture.Mixture(jnp.full(3, -jnp.log(3.0)), centers, jnp.full((3, 4), 1e-4))
    r = mixture.responsibilities(tight, X)
    np.testing.assert_array_equal(jnp.argmax(r, axis=1), mixture.nearest(centers, X))
    moved = mixture.maximize(tight, mixture.expect(tight, X)).means
    np.testing.assert_allclose(moved, mixture.lloyd(centers, X), atol=0.02)


def test_lloyd_equals_scikit_learn():
    centers = mixture.plus_plus(jax.random.key(3), X, 3)
    settings: Any = {"init": np.asarray(centers), "n_init": 1, "tol": 0.0}
    theirs = KMeans(3, **settings).fit(np.asarray(X))
    ours = centers
    for _ in range(30):
        ours = mixture.lloyd(ours, X)
    np.testing.assert_allclose(ours, theirs.cluster_centers_, atol=1e-4)


def test_plus_plus_spreads_over_far_clusters():
    x = jnp.repeat(jnp.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]]), 5, axis=0)
    for seed in range(5):
        centers = mixture.plus_plus(jax.random.key(seed), x, 3)
        assert len(np.unique(np.asarray(centers), axis=0)) == 3
    assert jnp.all(jnp.isfinite(mixture.plus_plus(jax.random.key(0), x, 5)))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_component_without_data_stays_where_it_is(covariance):
    start = started(covariance)
    far = start._replace(means=start.means.at[1].set(1e4))
    found, likelihoods = rounds(far, X, 3)
    assert jnp.all(jnp.isfinite(likelihoods))
    np.testing.assert_array_equal(found.means[1], far.means[1])
    np.testing.assert_array_equal(found.covariances[1], far.covariances[1])
    assert jnp.exp(found.log_weights[1]) < 1e-6


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_repeated_points_do_not_break_it(covariance):
    x = jnp.zeros((20, 3))
    found, likelihoods = rounds(mixture.start(jax.random.key(0), x, 2, covariance=covariance), x, 4)
    assert jnp.all(jnp.isfinite(likelihoods))
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in found)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_samples_have_the_mixtures_moments(covariance):
    params = rounds(started(covariance), X, 5)[0]
    drawn, which = jax.jit(lambda key: mixture.sample(key, params, 50_000))(jax.random.key(0))
    weights = np.exp(params.log_weights)
    np.testing.assert_allclose(np.bincount(which, minlength=3) / 50_000, weights, atol=0.01)
    np.testing.assert_allclose(drawn.mean(0), weights @ params.means, atol=0.05)
    own = np.asarray(drawn)[np.asarray(which) == 0]
    spread = np.diag(params.covariances[0]) if covariance == "diagonal" else params.covariances[0]
    np.testing.assert_allclose(np.cov(own.T), spread, atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_components": 0}, "`num_components`"),
        ({"num_components": 2, "covariance": "tied"}, "`covariance`"),
        ({"num_components": 2, "floor": -1.0}, "`floor`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mixture.model(**arguments)


def test_bad_data_is_refused():
    with pytest.raises(ValueError, match="`x` must have 2 axes"):
        mixture.model(2).init(jax.random.key(0), {"x": jnp.zeros((2, 3, 1))})
