"""Classifiers: equal to scikit-learn's and SciPy's; what noise does to p(x) and to p(y|x); heads."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from sklearn.datasets import load_digits, load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB
from stat_checks import check_counts, check_mean

from jgen.classical import classifier
from jgen.metrics.anomaly import auroc
from jgen.nets.activations import Trunk
from jgen.nets.mlp import MLP

KEY = jax.random.key(0)
IRIS, SPECIES = (np.asarray(a) for a in load_iris(return_X_y=True))
DIGITS, NUMBERS = (np.asarray(a) for a in load_digits(return_X_y=True))
FLOOR = 1e-6


def fitted(kind, x, y, num_classes=3, **keywords):
    """Parameters after two updates, each with half of the data."""
    model = classifier.model(num_classes, kind, **keywords)
    update = jax.jit(model.update)
    half = len(x) // 2
    state = model.init(KEY, {"x": jnp.asarray(x[:2]), "label": jnp.asarray(y[:2])})
    for part in (slice(half), slice(half, None)):
        state, _ = update(KEY, state, {"x": jnp.asarray(x[part]), "label": jnp.asarray(y[part])})
    return state.params


def rows(x):
    return jnp.asarray(x, jnp.float32)


def test_naive_bayes_equals_scikit_learn():
    theirs: Any = GaussianNB(var_smoothing=FLOOR / IRIS.var(axis=0).max()).fit(IRIS, SPECIES)
    params = fitted("naive", rows(IRIS), SPECIES, floor=FLOOR)
    joint = theirs.predict_joint_log_proba(IRIS)
    np.testing.assert_allclose(classifier.joint_log_prob(params, rows(IRIS)), joint, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(classifier.class_log_prob(params, rows(IRIS)), theirs.predict_log_proba(IRIS), atol=3e-3)


@pytest.mark.parametrize(("levels", "smoothing"), [(2, 1.0), (2, 0.1), (17, 0.5)])
def test_naive_bayes_over_levels_equals_scikit_learn(levels, smoothing):
    x = (DIGITS > 7).astype(int) if levels == 2 else DIGITS.astype(int)
    theirs: Any = BernoulliNB(alpha=smoothing) if levels == 2 else CategoricalNB(alpha=smoothing, min_categories=levels)
    theirs.fit(x, NUMBERS)
    params = fitted("categorical", x, NUMBERS, 10, levels=levels, smoothing=smoothing)
    joint = theirs.predict_joint_log_proba(x[:200])
    np.testing.assert_allclose(classifier.joint_log_prob(params, jnp.asarray(x[:200])), joint, rtol=1e-4, atol=1e-3)


def test_linear_discriminant_equals_scikit_learn():
    theirs: Any = LinearDiscriminantAnalysis(solver="lsqr").fit(IRIS, SPECIES)
    params = fitted("linear", rows(IRIS), SPECIES, floor=1e-9)
    np.testing.assert_allclose(classifier.class_log_prob(params, rows(IRIS)), theirs.predict_log_proba(IRIS), atol=2e-2)
    np.testing.assert_allclose(params.covariances, np.broadcast_to(theirs.covariance_, (3, 4, 4)), atol=1e-5)


def exact_quadratic(x, y):
    """log p(x, y) of Gaussians with the classes' own moments, in float64."""
    parts = [x[y == c] for c in range(3)]
    law: Any = scipy.stats.multivariate_normal
    laws = [law(p.mean(0), np.cov(p.T, bias=True) + FLOOR * np.eye(4)) for p in parts]
    return np.stack([np.log(len(p) / len(x)) + law.logpdf(x) for p, law in zip(parts, laws, strict=True)], axis=1)


def quadratic_agrees(params) -> bool:
    return np.allclose(classifier.joint_log_prob(params, rows(IRIS)), exact_quadratic(IRIS, SPECIES), atol=5e-3)


def test_quadratic_discriminant_equals_scipy():
    params = fitted("quadratic", rows(IRIS), SPECIES, floor=FLOOR)
    assert quadratic_agrees(params)
    evidence = scipy.special.logsumexp(exact_quadratic(IRIS, SPECIES), axis=1)
    np.testing.assert_allclose(classifier.log_evidence(params, rows(IRIS)), evidence, atol=5e-3)
    assert not quadratic_agrees(params._replace(log_weights=params.log_weights * 0)), "a forgotten prior is seen"
    assert not quadratic_agrees(params._replace(covariances=params.covariances[::-1]))


@pytest.mark.parametrize("kind", ["quadratic", "categorical"])
def test_samples_follow_the_joint_law(kind):
    x = (IRIS[:, :2] > [5.5, 3.0]).astype(int) if kind == "categorical" else rows(IRIS[:, :2])
    params = fitted(kind, x, SPECIES, floor=1e-3)
    draw, label = jax.jit(lambda key: classifier.sample(key, params, 20_000))(KEY)
    check_counts(np.bincount(label, minlength=3), np.ones(3))
    own = np.asarray(draw)[np.asarray(label) == 1]
    mean = np.exp(params.log_probs[1, :, 1]) if kind == "categorical" else np.asarray(params.means[1])
    check_mean(own, mean, sees=0.2)


def learned(trunk, tasks, batch, optimizer, num_steps):
    model = classifier.network_model(trunk, tasks, optimizer)

    def step(state, i):
        state, metrics = model.update(jax.random.fold_in(KEY, i), state, batch)
        return state, metrics

    start = jax.jit(model.init)(KEY, batch)
    state, metrics = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(num_steps)))(start)
    return model, state, metrics


def test_without_hidden_layers_it_is_logistic_regression():
    keep = SPECIES > 0  # setosa is separable from the others, which overlap and have a finite optimum
    x, y = (IRIS[keep] - IRIS[keep].mean(0)) / IRIS[keep].std(0), SPECIES[keep] - 1
    batch = {"x": rows(x), "label": jnp.asarray(y)}
    model, state, _ = learned(MLP(()), (classifier.Classes("label", 2),), batch, optax.lbfgs(), 60)
    theirs = LogisticRegression(C=np.inf, tol=1e-8, max_iter=5_000).fit(x, y)
    exact = theirs.predict_log_proba(x)[np.arange(len(y)), y]
    assert model.log_prob is not None
    np.testing.assert_allclose(model.log_prob(state, batch), exact, atol=2e-2)


@pytest.fixture(scope="module", name="on_digits")
def _on_digits():
    """A Gaussian classifier and a network, both fitted to 1,200 digits in [0, 1], and the others with labels."""
    x, y = DIGITS / 16, NUMBERS
    params = fitted("quadratic", rows(x[:1200]), y[:1200], 10, floor=1e-2)
    batch = {"x": rows(x[:1200]), "label": jnp.asarray(y[:1200])}
    found = learned(MLP((32,), activate_last=True), (classifier.Classes("label", 10),), batch, optax.adam(1e-2), 150)
    return params, found[0], found[1], x[1200:], y[1200:]


def confidence(model, state, x):
    """The network's largest p(y|x) of each example."""
    each = [model.log_prob(state, {"x": rows(x), "label": jnp.full(len(x), c)}) for c in range(10)]
    return np.exp(np.max(np.stack(each), axis=0))


def test_noise_lowers_p_of_x_while_the_network_stays_confident(on_digits):
    params, model, state, x, _ = on_digits
    noised = x + np.random.default_rng(0).normal(0, 0.5, x.shape)
    score = [-np.asarray(classifier.log_evidence(params, rows(part))) for part in (x, noised)]
    assert np.median(score[1] - score[0]) > 100
    assert auroc(*score) > 0.999
    assert np.median(confidence(model, state, noised)) > 0.9
    blind = [-confidence(model, state, part) for part in (x, noised)]
    assert auroc(*blind) < auroc(*score) - 0.1


def test_unseen_digits_are_anomalous():
    known = (NUMBERS < 8) & (np.arange(len(DIGITS)) < 1200)
    params = fitted("quadratic", rows(DIGITS[known] / 16), NUMBERS[known], 8, floor=1e-2)
    score = -np.asarray(classifier.log_evidence(params, rows(DIGITS[1200:] / 16)))
    unseen = NUMBERS[1200:] >= 8
    assert auroc(score[~unseen], score[unseen]) > 0.8


def test_unknown_labels_add_nothing():
    task = classifier.Classes("label", 3)
    raw = jax.random.normal(KEY, (4, 3))
    found = task.loss(raw, jnp.asarray([0, -1, 2, -1]))
    assert np.all(found[jnp.asarray([1, 3])] == 0)
    np.testing.assert_allclose(found[0], -jax.nn.log_softmax(raw)[0, 0], rtol=1e-6)
    slope = jax.grad(lambda raw: jnp.sum(task.loss(raw, jnp.asarray([0, -1, 2, -1]))))(raw)
    np.testing.assert_array_equal(slope[jnp.asarray([1, 3])], 0)


def test_heads_share_a_trunk_and_add_their_losses():
    x = rows(DIGITS[:64] / 16)
    batch = {"x": x, "label": jnp.asarray(NUMBERS[:64]), "odd": jnp.asarray(NUMBERS[:64] % 2)}
    tasks = (classifier.Classes("label", 10), classifier.Classes("odd", 2, 0.5), classifier.Values("x", 64, 3.0))
    trunk = Trunk((32,), "randomized_leaky_relu", dropout_rate=0.1)
    model, state, metrics = learned(trunk, tasks, batch, optax.adam(1e-2), 80)
    assert {"nll", "accuracy", "odd_loss", "x_loss"} == set(metrics)
    for name in ("nll", "odd_loss", "x_loss"):
        assert metrics[name][-1] < 0.6 * metrics[name][0], name
    found = jax.jit(model.evaluate)(KEY, state, batch)
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(found, (64,))
    assert model.log_prob is not None
    np.testing.assert_allclose(model.log_prob(state, batch), -found["nll"], atol=1e-5)


def test_extreme_values_stay_finite():
    x = np.concatenate([np.zeros((3, 2)), np.full((3, 2), 1e4)])
    params = fitted("quadratic", rows(x), np.arange(6) // 3, 2)
    assert jnp.all(jnp.isfinite(classifier.class_log_prob(params, rows(x))))
    tables = fitted("categorical", np.zeros((4, 2), int), np.zeros(4, int), 2, smoothing=1e-6)
    assert jnp.all(jnp.isfinite(classifier.joint_log_prob(tables, jnp.ones((1, 2), jnp.int32))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1, "kind": "naive"}, "`num_classes` must be at least 2, got 1"),
        ({"num_classes": 2, "kind": "clever"}, "`kind` must be one of 'naive'"),
        ({"num_classes": 2, "kind": "categorical", "levels": 1}, "`levels` must be at least 2"),
        ({"num_classes": 2, "kind": "categorical", "smoothing": 0.0}, "`smoothing` must be positive"),
        ({"num_classes": 2, "kind": "naive", "floor": -1.0}, "`floor` must be positive"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        classifier.model(**arguments)


def test_bad_data_are_refused():
    x, label = np.zeros((2, 2), int), np.asarray([0, 1])
    for kind, batch, message in (
        ("naive", {"x": x[None], "label": label[:1]}, "`x` must have 2 axes"),
        ("naive", {"x": x, "label": label + 2}, r"`label` must lie in \[0, 1\]"),
        ("categorical", {"x": x + 2, "label": label}, r"`x` must lie in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier.model(2, kind).init(KEY, batch)
    with pytest.raises(ValueError, match="`tasks` must begin with Classes"):
        classifier.network_model(MLP(()), (classifier.Values("x", 2),), optax.sgd(0.1))
