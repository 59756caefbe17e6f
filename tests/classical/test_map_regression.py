"""Energies are negative log posteriors; ridge, lasso, logistic regression and the perceptron against what is known."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import Lasso, LogisticRegression, Ridge

from jgen.classical import map_regression, map_solvers
from jgen.classical.map_regression import Linear

LAPLACE: Any = stats.laplace


def standardized(load):
    x, y = (np.asarray(v, np.float64) for v in load(return_X_y=True))
    return (x - x.mean(axis=0)) / x.std(axis=0), y


X, Y = standardized(load_diabetes)
Y = (Y - Y.mean()) / Y.std() + 0.5
CLASS_X, CLASS_Y = standardized(load_breast_cancer)
DATA = {
    "squared": (jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)),
    "logistic": (jnp.asarray(CLASS_X, jnp.float32), jnp.asarray(CLASS_Y, jnp.float32)),
}


@functools.cache
def fit(loss, prior):
    solve = functools.partial(map_solvers.fit, loss=loss, prior=prior)
    return jax.jit(lambda x, y, strength: solve(x, y, strength=strength))


def gap(params, loss, prior, strength):
    return map_solvers.optimality_gap(params, *DATA[loss], loss=loss, prior=prior, strength=strength)


@pytest.mark.parametrize(("loss", "prior"), [("squared", "gaussian"), ("squared", "laplace"), ("logistic", "laplace")])
def test_energy_is_the_negative_log_posterior(loss, prior):
    noise, scale = (0.7, 0.4) if loss == "squared" else (1.0, 0.4)
    x, y = (np.asarray(v[:50], np.float64) for v in DATA[loss])
    points = [np.random.default_rng(i).normal(size=x.shape[1] + 1) * 0.2 for i in range(3)]

    def posterior(point):
        f = x @ point[1:] + point[0]
        prior_law = stats.norm(0, scale) if prior == "gaussian" else LAPLACE(0, scale)
        likelihood = (
            stats.norm(f, noise).logpdf(y) if loss == "squared" else stats.bernoulli(1 / (1 + np.exp(-f))).logpmf(y)
        )
        return -(noise**2) * (likelihood.sum() + prior_law.logpdf(point[1:]).sum())

    def ours(point):
        params = Linear(jnp.asarray(point[1:], jnp.float32), jnp.float32(point[0]))
        strength = map_regression.strength(prior, scale, noise)
        batch = tuple(v[:50] for v in DATA[loss])
        own = map_regression.energy(params, *batch, loss=loss, prior=prior, strength=strength)
        likelihood = map_regression.log_likelihood(params, *batch, loss=loss, noise=noise)
        both = jnp.sum(likelihood) + map_regression.log_prior(params.weights, prior, scale)
        return own, -(noise**2) * both

    exact = np.array([posterior(point) for point in points])
    found = np.array([ours(point) for point in points])
    np.testing.assert_allclose(found[:, 1], exact, rtol=1e-5)
    np.testing.assert_allclose(np.diff(found[:, 0]), np.diff(exact), rtol=1e-4)


@pytest.mark.parametrize("strength", [0.0, 1.0, 300.0])
def test_ridge_is_its_closed_form_after_one_step(strength):
    step = functools.partial(map_solvers.newton, loss="squared", prior="gaussian", strength=strength)
    found = jax.jit(step)(map_regression.zeros(X.shape[1]), *DATA["squared"])
    centered = X - X.mean(axis=0)
    exact = np.linalg.solve(centered.T @ centered + strength * np.eye(X.shape[1]), centered.T @ (Y - Y.mean()))
    np.testing.assert_allclose(found.weights, exact, atol=1e-4)
    np.testing.assert_allclose(found.bias, Y.mean() - X.mean(axis=0) @ exact, atol=1e-5)
    if strength:
        theirs = Ridge(strength).fit(X, Y)
        np.testing.assert_allclose(found.weights, theirs.coef_, atol=1e-4)


@pytest.mark.parametrize("strength", [0.5, 20.0, 100.0])
def test_lasso_is_scikit_learns_and_keeps_its_conditions(strength):
    found = fit("squared", "laplace")(*DATA["squared"], strength)
    theirs = Lasso(strength / len(X), tol=1e-12, max_iter=100_000).fit(X, Y)
    np.testing.assert_allclose(found.weights, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(found.bias, theirs.intercept_, atol=1e-4)
    np.testing.assert_array_equal(found.weights == 0, theirs.coef_ == 0)
    assert gap(found, "squared", "laplace", strength) < 5e-3


@pytest.mark.parametrize("strength", [0.3, 10.0])
def test_logistic_regression_is_scikit_learns(strength):
    found = fit("logistic", "gaussian")(*DATA["logistic"], strength)
    theirs = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000).fit(CLASS_X, CLASS_Y)
    np.testing.assert_allclose(found.weights, theirs.coef_[0], atol=1e-4)
    np.testing.assert_allclose(found.bias, theirs.intercept_[0], atol=1e-4)
    assert gap(found, "logistic", "gaussian", strength) < 5e-3


@pytest.mark.parametrize("strength", [2.0, 30.0])
def test_sparse_logistic_regression_keeps_its_conditions(strength):
    found = fit("logistic", "laplace")(*DATA["logistic"], strength)
    assert gap(found, "logistic", "laplace", strength) < 5e-3
    assert 0 < np.sum(np.asarray(found.weights) == 0) < CLASS_X.shape[1]


def test_paths_are_fits_from_warm_starts_and_shrink():
    strengths = jnp.array([200.0, 50.0, 5.0])
    for prior in map_regression.PRIORS:
        path = jax.jit(functools.partial(map_solvers.path, loss="squared", prior=prior, num_steps=3))
        found = path(*DATA["squared"], strengths)
        alone = fit("squared", prior)(*DATA["squared"], strengths[2])
        np.testing.assert_allclose(found.weights[2], alone.weights, atol=1e-4)
        sizes = jax.vmap(functools.partial(map_regression.regularizer, prior=prior))(found.weights)
        assert np.all(np.diff(sizes) > 0)
        zeros = np.sum(np.asarray(found.weights) == 0, axis=1)
        assert np.all(np.diff(zeros) < 0) if prior == "laplace" else not zeros.any()


@pytest.mark.parametrize("prior", map_regression.PRIORS)
@pytest.mark.parametrize("loss", map_solvers.SMOOTH)
def test_a_very_strong_prior_leaves_the_bias_alone(loss, prior):
    found = fit(loss, prior)(*DATA[loss], 1e8)
    np.testing.assert_allclose(found.weights, 0.0, atol=1e-4)
    rate = float(jnp.mean(DATA[loss][1]))
    np.testing.assert_allclose(found.bias, rate if loss == "squared" else np.log(rate / (1 - rate)), atol=1e-4)


def test_separable_classes_and_a_constant_column():
    x = jnp.array([[-30.0, 1.0], [-20.0, 1.0], [25.0, 1.0], [40.0, 1.0]])
    y = jnp.array([0.0, 0.0, 1.0, 1.0])
    for prior in map_regression.PRIORS:
        found = fit("logistic", prior)(x, y, 1e-3)
        assert jnp.all(jnp.isfinite(found.weights))
        assert found.weights[1] == pytest.approx(0.0, abs=1e-6)
        assert jnp.all((map_regression.outputs(found, x) > 0) == (y > 0.5))


def test_losses_of_extreme_outputs_are_finite():
    f, y = jnp.array([-1e4, 1e4, -1e4, 1e4]), jnp.array([0.0, 1.0, 1.0, 0.0])
    for loss in ("logistic", "perceptron"):
        values, slopes = jax.value_and_grad(lambda f, loss=loss: jnp.sum(map_regression.losses(f, y, loss)))(f)
        assert values == pytest.approx(2e4)
        np.testing.assert_allclose(slopes, [0.0, 0.0, -1.0, 1.0])


def test_only_likelihoods_sum_to_one_over_y():
    f = jnp.array([-2.0, 0.0, 3.0])
    for loss, constant in {"logistic": True, "perceptron": False}.items():
        total = sum(jnp.exp(-map_regression.losses(f, jnp.full(3, y), loss)) for y in (0.0, 1.0))
        assert np.allclose(total, 1.0, rtol=1e-6) == constant
    y = jnp.linspace(-20.0, 20.0, 4001)
    params = Linear(jnp.array([2.0]), jnp.array(1.0))
    x = jnp.ones((4001, 1))
    density = np.exp(map_regression.log_likelihood(params, x, y, loss="squared", noise=1.7))
    assert np.trapezoid(density, y) == pytest.approx(1.0, abs=1e-4)


def separable(seed, num=200):
    """Points at least 0.1 from a line through the plane; (x, y, the bound on the number of corrections)."""
    generator = np.random.default_rng(seed)
    w, b = generator.normal(size=2), 0.3
    x = generator.uniform(-1, 1, (4 * num, 2))
    unit = np.linalg.norm([*w, b])
    keep = np.abs(x @ w + b) / unit > 0.1
    x = x[keep][:num]
    margin = np.min(np.abs(x @ w + b)) / unit
    return x.astype(np.float32), (x @ w + b > 0).astype(np.float32), np.max(np.sum(x**2, axis=1) + 1) / margin**2


@pytest.mark.parametrize("seed", range(3))
def test_perceptron_converges_on_separable_data_within_its_bound(seed):
    x, y, bound = separable(seed)
    params, mistakes, done = jax.jit(map_regression.perceptron, static_argnums=2)(x, y, 1000)
    assert done
    assert 0 < mistakes <= bound
    assert np.all((map_regression.outputs(params, jnp.asarray(x)) > 0) == (y > 0.5))


def test_perceptron_gives_up_on_exclusive_or():
    x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    _, mistakes, done = map_regression.perceptron(x, jnp.array([0.0, 1.0, 1.0, 0.0]), 50)
    assert not done
    assert mistakes >= 50


def trained(optimizer, num_steps, **keywords):
    loss = keywords["loss"]
    model, batch = (
        map_regression.model(optimizer, num_examples=len(DATA[loss][0]), **keywords),
        dict(zip("xy", DATA[loss], strict=True)),
    )
    start = model.init(jax.random.key(0), batch)
    step = jax.jit(
        lambda state: jax.lax.fori_loop(0, num_steps, lambda _, s: model.update(jax.random.key(0), s, batch)[0], state)
    )
    return step(start).params


@pytest.mark.parametrize(
    ("optimizer", "loss", "prior", "strength"),
    [
        (0.2, "squared", "laplace", 50.0),
        (0.2, "squared", "gaussian", 50.0),
        (0.3, "logistic", "laplace", 20.0),
        (optax.lbfgs(), "squared", "gaussian", 50.0),
        (optax.lbfgs(), "logistic", "gaussian", 10.0),
    ],
)
def test_gradients_reach_the_same_minimum(optimizer, loss, prior, strength):
    found = trained(
        optimizer, 10_000 if isinstance(optimizer, float) else 60, loss=loss, prior=prior, strength=strength
    )
    exact = fit(loss, prior)(*DATA[loss], strength)
    np.testing.assert_allclose(found.weights, exact.weights, atol=2e-3)
    if prior == "laplace":
        np.testing.assert_array_equal(found.weights == 0, exact.weights == 0)


def test_the_perceptrons_model_is_rosenblatts_rule():
    x, y, _ = separable(0, 40)
    model = map_regression.model(optax.sgd(1.0), num_examples=40, loss="perceptron", strength=0.0)
    assert model.log_prob is None
    update = jax.jit(model.update)
    state = model.init(jax.random.key(0), {"x": x, "y": y})
    for i in range(40):
        state, _ = update(jax.random.key(0), state, {"x": x[i : i + 1], "y": y[i : i + 1]})
    params, _, _ = map_regression.perceptron(jnp.asarray(x), jnp.asarray(y), 1)
    np.testing.assert_allclose(state.params.weights, params.weights, atol=1e-5)


MUTANTS = {
    "soft threshold that thresholds nothing": (map_regression, "soft_threshold", lambda v, threshold: v),
    "threshold of the wrong sign": (
        map_regression,
        "soft_threshold",
        lambda v, threshold: jnp.sign(v) * (jnp.abs(v) + threshold),
    ),
    "no halving and half the step": (
        map_solvers,
        "_halved",
        lambda params, direction, value: jax.tree.map(lambda p, d: p + 0.05 * d, params, direction),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, monkeypatch):
    where, attribute, broken = MUTANTS[name]
    monkeypatch.setattr(where, attribute, broken)
    found = map_solvers.fit(*DATA["squared"], loss="squared", prior="laplace", strength=20.0)
    assert not gap(found, "squared", "laplace", 20.0) < 5e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "hinge"}, "`loss` must be one of"),
        ({"prior": "flat"}, "`prior` must be one of"),
        ({"strength": -1.0}, "`strength` must be at least 0"),
        ({"noise": 0.0}, "`noise` must be positive"),
        ({"num_examples": 0}, "`num_examples` must be at least 1"),
        ({"optimizer": -0.1}, "`optimizer` must be positive"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        map_regression.model(**{"optimizer": 0.1, "num_examples": 3, **arguments})


def test_bad_data_and_losses_without_curvature_are_refused():
    model = map_regression.model(0.1, num_examples=3, loss="logistic")
    with pytest.raises(ValueError, match=r"`y` must lie in \[0, 1\]"):
        model.init(jax.random.key(0), {"x": jnp.zeros((3, 1)), "y": jnp.array([0.0, 1.0, 2.0])})
    with pytest.raises(ValueError, match="`y` must have 1 axes"):
        model.init(jax.random.key(0), {"x": jnp.zeros((3, 1)), "y": jnp.zeros((3, 1))})
    with pytest.raises(ValueError, match="`x` must have 2 axes"):
        model.init(jax.random.key(0), {"x": jnp.zeros(3), "y": jnp.zeros(3)})
    with pytest.raises(ValueError, match="`loss` must be one of 'squared', 'logistic', got 'perceptron'"):
        map_solvers.fit(*DATA["logistic"], loss="perceptron", prior="gaussian", strength=1.0)
