"""U(x) against log Σ_y p(x, y) of a Gaussian mixture that is known exactly, and the weights of the objective."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

from jgen.latent import semi_supervised, semi_supervised_stack, vae, warm_up
from jgen.latent.semi_supervised import Bounds
from jgen.math import likelihoods

SIGMA, WEIGHT, MEANS = 0.5, 0.8, np.array([-1.0, 1.5])
VARIANCE = WEIGHT**2 + SIGMA**2
NETWORKS = vae.dense((1,), likelihoods.Gaussian(SIGMA), 1, num_classes=2, hidden_sizes=())
CLASSIFIER = semi_supervised.dense(2, hidden_sizes=())
PARTS = {"networks": NETWORKS, "classifier": CLASSIFIER}


def _dense(kernel, bias):
    return {"Dense_0": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}}


def _exact(means=MEANS):
    """(params, stats) of x = w z + m_y + σε with the exact q(z|x, y) and q(y|x)."""
    precision = 1 + WEIGHT**2 / SIGMA**2
    gain = WEIGHT / SIGMA**2 / precision
    log_std = 6 * np.arctanh(-0.5 * np.log(precision) / 6)
    params = {
        "encoder": _dense(np.stack([np.array([gain, *(-means * gain)]), np.zeros(3)], axis=1), [0.0, log_std]),
        "decoder": _dense(np.array([WEIGHT, *means])[:, None], [0.0]),
        "offset": jnp.zeros((1, 1)),
        "prior": {},
        "posterior": {},
        "classifier": _dense(means[None] / VARIANCE, -(means**2) / (2 * VARIANCE)),
    }
    empty = {"encoder": {}, "decoder": {}, "classifier": {}}
    return params, {**empty, **warm_up.start()}


def _data(num=400):
    generator = np.random.default_rng(0)
    label = generator.integers(2, size=num)
    x = MEANS[label] + np.sqrt(VARIANCE) * generator.standard_normal(num)
    return {"x": jnp.asarray(x[:, None], jnp.float32), "label": jnp.asarray(label, jnp.int32)}


def _log_prob(x, means=MEANS):
    each = scipy.stats.norm.logpdf(np.asarray(x), means[None], np.sqrt(VARIANCE))
    return scipy.special.logsumexp(each, axis=1) - np.log(2)


def test_bound_is_below_the_evidence_and_equal_at_the_exact_class_probabilities():
    with jax.enable_x64(True):
        log_joint = jax.random.normal(jax.random.key(0), (50, 2), jnp.float64) * 3
        wrong = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (50, 2), jnp.float64))
        evidence = jax.nn.logsumexp(log_joint, axis=1)
        right = semi_supervised.evidence_bound(Bounds(log_joint, jax.nn.log_softmax(log_joint)))
        np.testing.assert_allclose(right, evidence, atol=1e-8)
        below = semi_supervised.evidence_bound(Bounds(log_joint, wrong))
        divergence = jnp.sum(jnp.exp(wrong) * (wrong - jax.nn.log_softmax(log_joint)), axis=1)
        np.testing.assert_allclose(below, evidence - divergence, atol=1e-8)
        assert jnp.all(below < evidence)


def _mean_gap(params, stats, repeats=200):
    many = {"x": jnp.repeat(_data()["x"], repeats, axis=0)}
    found = semi_supervised.evidence_bound(semi_supervised.bounds(jax.random.key(0), params, stats, many, **PARTS))
    gap = (np.asarray(found) - np.repeat(_log_prob(_data()["x"]), repeats)).reshape(-1, repeats)
    return gap.mean(), 5 * gap.std() / np.sqrt(gap.size)


def test_model_reaches_log_p_at_its_exact_posteriors_and_no_other_does():
    params, stats = _exact()
    gap, error = _mean_gap(params, stats)
    assert abs(gap) < error < 0.02
    classifier = params["classifier"]["Dense_0"]
    tilted = {**params, "classifier": _dense(classifier["kernel"], classifier["bias"] + jnp.array([1.0, 0.0]))}
    assert _mean_gap(tilted, stats)[0] < -error
    encoder = params["encoder"]["Dense_0"]
    blurred = {**params, "encoder": _dense(encoder["kernel"], encoder["bias"] + jnp.array([0.5, 0.0]))}
    assert _mean_gap(blurred, stats)[0] < -error


def test_dropped_entropy_would_be_seen(monkeypatch):
    monkeypatch.setattr(
        semi_supervised, "evidence_bound", lambda found: jnp.sum(jnp.exp(found.log_class) * found.log_joint, axis=1)
    )
    gap, error = _mean_gap(*_exact())
    assert gap < -error


def test_dropped_class_prior_would_be_seen(monkeypatch):
    right = semi_supervised.evidence_bound
    monkeypatch.setattr(
        semi_supervised, "evidence_bound", lambda found: right(found._replace(log_joint=found.log_joint + np.log(2)))
    )
    gap, error = _mean_gap(*_exact())
    assert gap > error


def test_classifier_is_bayes_rule_at_the_optimum():
    params, stats = _exact()
    x = _data()["x"]
    log_joint = scipy.stats.norm.logpdf(np.asarray(x), MEANS[None], np.sqrt(VARIANCE))
    found = semi_supervised.class_log_prob(params, stats, x, **PARTS)
    np.testing.assert_allclose(found, scipy.special.log_softmax(log_joint, axis=1), atol=1e-4)
    np.testing.assert_array_equal(semi_supervised.classify(params, stats, x, **PARTS), log_joint.argmax(axis=1))


def _random_bounds(num):
    generator = np.random.default_rng(0)
    log_class = scipy.special.log_softmax(generator.normal(size=(num, 3)), axis=1)
    return generator.normal(size=(num, 3)), log_class


def test_objective_is_unbiased_over_batches_that_hold_more_labels_than_the_data():
    log_joint, log_class = _random_bounds(6)
    label, alpha = np.array([2, 0, -1, -1, -1, -1]), 0.3
    unlabelled = (np.exp(log_class) * (log_joint - log_class)).sum(axis=1)[2:]
    taught = log_joint[[0, 1], [2, 0]], log_class[[0, 1], [2, 0]]
    exact = (taught[0].sum() + unlabelled.sum() + alpha * 6 / 2 * taught[1].sum()) / 6
    found = []
    for one, pair in itertools.product(range(2), itertools.combinations(range(2, 6), 2)):
        rows = np.array([one, *pair])
        batch = Bounds(jnp.asarray(log_joint[rows], jnp.float32), jnp.asarray(log_class[rows], jnp.float32))
        each = semi_supervised.objective(batch, jnp.asarray(label[rows]), alpha=alpha, labelled_share=2 / 6)
        found.append(float(jnp.mean(each)))
    np.testing.assert_allclose(np.mean(found), exact, rtol=1e-5)
    whole = Bounds(jnp.asarray(log_joint, jnp.float32), jnp.asarray(log_class, jnp.float32))
    own = semi_supervised.objective(whole, jnp.asarray(label), alpha=alpha)
    np.testing.assert_allclose(jnp.mean(own), exact, rtol=1e-5)


def test_batches_with_all_and_without_any_label_are_finite():
    log_joint, log_class = (jnp.asarray(each, jnp.float32) for each in _random_bounds(4))
    for label in (jnp.full(4, -1), jnp.arange(4) % 3):
        for share in (None, 0.2):
            found = semi_supervised.objective(Bounds(log_joint, log_class), label, alpha=1.0, labelled_share=share)
            assert jnp.all(jnp.isfinite(found))


def test_labels_teach_the_classifier_through_alpha_alone():
    params, stats = _exact()

    def gradient(alpha, label):
        batch = {**_data(), "label": label}

        def value(params):
            return semi_supervised.loss(jax.random.key(0), params, stats, batch, train=True, alpha=alpha, **PARTS)[0]

        return float(optax.tree.norm(jax.grad(value)(params)["classifier"]))

    label = _data()["label"]
    assert gradient(0.0, label) == 0.0
    assert gradient(0.1, label) > 0.0
    assert gradient(0.0, jnp.full_like(label, -1)) > 0.0


def test_few_labels_name_the_clusters():
    batch = _data(500)
    x = jnp.concatenate([batch["x"] * jnp.array([[2.0]])], axis=1)
    label = jnp.where(jnp.arange(500) < 8, batch["label"], -1)
    networks = vae.dense((1,), likelihoods.Gaussian(SIGMA), 1, num_classes=2, hidden_sizes=(16,))
    classifier = semi_supervised.dense(2, hidden_sizes=(16,))
    model = semi_supervised.model(networks, classifier, optax.adam(1e-2), alpha=1.0)
    state = model.init(jax.random.key(0), {"x": x, "label": label})

    def step(state, t):
        return model.update(jax.random.fold_in(jax.random.key(1), t), state, {"x": x, "label": label})

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(600)))(state)
    found = semi_supervised.classify(state.params, state.stats, x, networks=networks, classifier=classifier)
    best = np.mean((_data(500)["x"][:, 0] > MEANS.mean()) == batch["label"])
    assert np.mean(np.asarray(found) == np.asarray(batch["label"])) > best - 0.03


SLOPE, NOISE = 1.2, 0.6
STACK = semi_supervised_stack.Stack(
    vae.dense((1,), likelihoods.Gaussian(NOISE), 1, hidden_sizes=()), NETWORKS, CLASSIFIER
)


def _stacked(means):
    """x = a z₁ + sε with q(z₁|x) exact for z₁ ~ N(0, w² + σ²), on the mixture of `means`."""
    precision = 1 / VARIANCE + SLOPE**2 / NOISE**2
    log_std = 6 * np.arctanh(-0.5 * np.log(precision) / 6)
    first = {
        "encoder": _dense([[SLOPE / NOISE**2 / precision, 0.0]], [0.0, log_std]),
        "decoder": _dense([[SLOPE]], [0.0]),
        "offset": jnp.zeros((1, 1)),
        "prior": {},
        "posterior": {},
    }
    second, stats = _exact(means)
    own = {"encoder": {}, "decoder": {}, **warm_up.start()}
    return {"first": first, "second": second}, {"first": own, "second": stats}


@pytest.mark.parametrize("means", [np.zeros(2), MEANS])
def test_stacked_bound_is_log_p_where_both_layers_fit_and_below_elsewhere(means):
    params, stats = _stacked(means)
    x = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32) * 2
    many = {"x": jnp.asarray(np.repeat(x, 400, axis=0))}
    found = semi_supervised_stack.layers(jax.random.key(0), params, stats, many, stack=STACK)
    bound = np.asarray(semi_supervised_stack.log_bound(found)).reshape(-1, 400)
    scale = np.sqrt(SLOPE**2 * VARIANCE + NOISE**2)
    exact = scipy.special.logsumexp(scipy.stats.norm.logpdf(x, SLOPE * means[None], scale), axis=1) - np.log(2)
    gap, error = (bound - exact[:, None]).mean(), 5 * bound.std() / np.sqrt(bound.size)
    assert gap < error
    assert (abs(gap) < error) == (not means.any())


def test_second_layer_moves_nothing_of_the_first():
    params, stats = _stacked(MEANS)
    batch, key = _data(), jax.random.key(0)

    def whole(params):
        return semi_supervised_stack.loss(key, params, stats, batch, train=True, stack=STACK)[0]

    def alone(params):
        own = jax.random.split(key, 3)[0]
        return vae.loss(own, params, stats["first"], batch, train=True, networks=STACK.first)[0]

    found = jax.grad(whole)(params)
    expected = jax.grad(alone)(params["first"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found["first"], expected)
    assert optax.tree.norm(found["second"]) > 0


def test_uses_of_the_stack():
    params, stats = _stacked(MEANS)
    x, label = _data()["x"], _data()["label"]
    z = semi_supervised_stack.style(params, stats, x, label, stack=STACK)
    again = semi_supervised_stack.decode(params, stats, z, label, stack=STACK)
    assert np.corrcoef(np.asarray(again)[:, 0], np.asarray(x)[:, 0])[0, 1] > 0.9
    near = semi_supervised_stack.classify(params, stats, SLOPE * x, stack=STACK)
    assert np.mean(np.asarray(near) == np.asarray(label)) > 0.85


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"alpha": -1.0}, "`alpha` must be at least 0"),
        ({"labelled_share": 1.5}, r"`labelled_share` must lie in \[0.0, 1.0\]"),
        ({"networks": STACK.first}, "`networks` must have `num_classes`, got None"),
    ],
)
def test_bad_arguments_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        semi_supervised.model(**{**PARTS, **keywords}, optimizer=optax.sgd(0.1))


def test_bad_batches_and_classifiers_are_refused():
    model = semi_supervised.model(NETWORKS, CLASSIFIER, optax.sgd(0.1))
    batch = _data()
    state = model.init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match=r"`label` must lie in \[-1, 1\]"):
        model.update(jax.random.key(0), state, {**batch, "label": jnp.full_like(batch["label"], 2)})
    wide = semi_supervised.model(NETWORKS, semi_supervised.dense(3, hidden_sizes=()), optax.sgd(0.1))
    with pytest.raises(ValueError, match="`classifier` must return shape"):
        wide.init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match=r"`stack.first` must have no classes"):
        semi_supervised_stack.model(STACK._replace(first=NETWORKS), optax.sgd(0.1))
