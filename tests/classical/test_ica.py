"""ICA: known mixtures recovered, densities and scores against quadrature and derivatives, sampling by its law."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from stat_checks import check_cdf

from jgen.classical import ica

KEY = jax.random.key(0)
NUM, SOURCES = 4_000, 4


def draw_sources(rng, num):
    """Two heavy-tailed sources and two light-tailed ones."""
    return np.stack(
        [rng.laplace(size=num), rng.standard_t(5, size=num), rng.uniform(-1, 1, num), rng.choice([-1.0, 1.0], num)], 1
    )


@pytest.fixture(scope="module", name="mixtures")
def _mixtures():
    """Ten sets of mixed signals (10, NUM, 4), and their mixing matrices."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((10, SOURCES, SOURCES))
    s = np.stack([draw_sources(rng, NUM) for _ in mixing])
    return jnp.asarray(s @ mixing.swapaxes(1, 2) + 7.0, jnp.float32), jnp.asarray(mixing, jnp.float32)


def separated(x, num_steps=20, rate=1.0, **keywords):
    """States after steps on all rows, one per mixture."""
    model = ica.model(optax.sgd(rate), **{"newton": True, **keywords})

    def learn(x):
        def step(state, _):
            state, metrics = model.update(KEY, state, {"x": x})
            return state, metrics["nll"]

        return jax.lax.scan(step, model.init(KEY, {"x": x}), None, num_steps)

    return jax.jit(jax.vmap(learn))(x)


@pytest.fixture(scope="module", name="states")
def _states(mixtures):
    return separated(mixtures[0])


def test_ten_random_mixtures_are_separated(mixtures, states):
    distances = jax.vmap(ica.amari_distance)(states[0].params.matrix, mixtures[1])
    assert np.max(distances) < 0.05, distances
    whitened = jax.vmap(lambda x, a: ica.amari_distance(ica.whitening(x)[0], a))(*mixtures)
    assert np.min(whitened) > 0.05, "whitening alone does not do it"
    assert np.all(np.sum(np.asarray(states[0].stats.tails) > 0, axis=1) == 2)


def test_likelihood_rises(states):
    assert np.all(np.diff(np.asarray(states[1])[:, 4:], axis=1) < 1e-3)


def test_natural_gradients_come_to_the_same_optimum(mixtures, states):
    found, nll = separated(mixtures[0], 600, 0.3, newton=False)
    distances = jax.vmap(ica.amari_distance)(found.params.matrix, mixtures[1])
    assert np.max(distances) < 0.05, distances
    np.testing.assert_allclose(nll[:, -1], states[1][:, -1], atol=2e-3)


def test_one_density_for_all_sources_is_caught(mixtures, monkeypatch):
    monkeypatch.setattr(ica, "tails", lambda s: jnp.ones(s.shape[1]))
    found, _ = separated(mixtures[0][:3])
    assert np.max(jax.vmap(ica.amari_distance)(found.params.matrix, mixtures[1][:3])) > 0.05


def test_separation_does_not_depend_on_the_mixing(mixtures):
    # The same sources, mixed by a matrix with a condition number of 1,000.
    x = mixtures[0][:1]
    bad = jnp.asarray(np.diag([1.0, 10.0, 100.0, 1000.0]) @ np.linalg.qr(np.ones((4, 4)) + np.eye(4))[0], jnp.float32)
    found, _ = separated(x @ bad.T[None])
    assert ica.amari_distance(found.params.matrix[0], bad @ mixtures[1][0]) < 0.05


@pytest.mark.parametrize("heavy", [True, False])
def test_source_densities_integrate_to_one_and_have_their_scores(heavy):
    s = np.linspace(-40.0, 40.0, 20_001, dtype=np.float32)[:, None]
    mask = jnp.asarray([heavy])
    density = np.exp(np.asarray(ica.source_log_prob(jnp.asarray(s), mask), np.float64))[:, 0]
    assert np.trapezoid(density, s[:, 0]) == pytest.approx(1.0, abs=1e-5)
    slope = jax.grad(lambda s: jnp.sum(ica.source_log_prob(s, mask)))(jnp.asarray(s))
    np.testing.assert_allclose(ica.score(jnp.asarray(s), mask), -slope, atol=1e-5)
    bumps = np.logaddexp(scipy.stats.norm.logpdf(s, 1), scipy.stats.norm.logpdf(s, -1)) - np.log(2)
    law = scipy.stats.hypsecant.logpdf(s) if heavy else bumps
    np.testing.assert_allclose(ica.source_log_prob(jnp.asarray(s), mask), law, rtol=1e-4, atol=1e-4)


def test_tails_tell_heavy_from_light():
    s = jnp.asarray(draw_sources(np.random.default_rng(1), 20_000), jnp.float32)
    s = s / jnp.std(s, axis=0, keepdims=True)
    np.testing.assert_array_equal(ica.tails(s) > 0, [True, True, False, False])
    kurtosis = scipy.stats.kurtosis(np.asarray(s, np.float64))
    np.testing.assert_allclose(ica.excess_kurtosis(s), kurtosis, rtol=1e-3)


def test_log_prob_has_the_right_jacobian(states, mixtures):
    params, stats = jax.tree.map(lambda leaf: leaf[0], (states[0].params, states[0].stats))
    x = mixtures[0][0, :5]
    jacobian = jax.vmap(jax.jacobian(lambda x: ica.sources(params, stats.center, x[None])[0]))(x)
    each = ica.source_log_prob(ica.sources(params, stats.center, x), stats.tails > 0)
    exact = jnp.log(jnp.abs(jnp.linalg.det(jacobian))) + jnp.sum(each, axis=1)
    np.testing.assert_allclose(ica.log_prob(params, stats, x), exact, rtol=1e-4)
    np.testing.assert_allclose(ica.mixed(params, stats.center, ica.sources(params, stats.center, x)), x, atol=1e-3)


def relative_step(x):
    """(E W of one update at rate 1, ∂ log p/∂W WᵀW, E of the bias, ∂ log p/∂b) of the natural gradient."""
    model = ica.model(optax.sgd(1.0))
    state = model.init(KEY, {"x": x})
    after, _ = jax.jit(model.update)(KEY, state, {"x": x})
    slope = jax.grad(lambda params: jnp.mean(ica.log_prob(params, after.stats, x)))(state.params)
    change = jax.tree.map(lambda new, old: new - old, after.params, state.params)
    return change.matrix, slope.matrix @ state.params.matrix.T @ state.params.matrix, change.bias, slope.bias


def test_an_update_is_a_step_along_the_natural_gradient(mixtures, monkeypatch):
    change, exact, shift, slope = relative_step(mixtures[0][0, :200])
    np.testing.assert_allclose(change, exact, atol=1e-4)
    np.testing.assert_allclose(shift, slope, atol=1e-5)
    monkeypatch.setattr(ica, "natural_gradient", lambda of: jnp.eye(SOURCES) - of.cross.T)
    change, exact, _, _ = relative_step(mixtures[0][0, :200])
    assert np.max(np.abs(change - exact)) > 1e-2


def test_newtons_direction_solves_the_second_order_equations_of_independent_sources():
    s = draw_sources(np.random.default_rng(2), 5_000)
    s = jnp.asarray(s / s.std(axis=0) * [1.6, 1.6, 1.4, 1.4], jnp.float32)  # about the densities' own deviations
    heavy = jnp.asarray([True, True, False, False])
    stats = ica.Stats(jnp.zeros(4), jnp.where(heavy, 1.0, -1.0))
    of = ica.slopes(ica.Unmixing(jnp.eye(4), jnp.zeros(4)), stats, s)
    found = np.asarray(ica.newton_direction(of, least=0.0, most=np.inf), np.float64)
    gradient, h = np.asarray(ica.natural_gradient(of)), np.outer(of.curve, of.power)
    for i in range(4):
        for j in range(4):
            left = (1 + of.own[i]) * found[i, i] if i == j else h[i, j] * found[i, j] + found[j, i]
            assert left == pytest.approx(gradient[i, j], abs=1e-4)
    capped = ica.newton_direction(of, most=1e-3)
    assert jnp.max(jnp.abs(capped)) == pytest.approx(1e-3, rel=1e-4)


def test_shards_take_the_step_of_the_whole(mixtures):
    x = mixtures[0][0, :800]
    whole, parts = ica.model(optax.sgd(1.0), newton=True), ica.model(optax.sgd(1.0), newton=True, axis_name="shards")
    start = whole.init(KEY, {"x": x})
    step = jax.pmap(lambda x: parts.update(KEY, start, {"x": x})[0].params.matrix, axis_name="shards")
    expected = whole.update(KEY, start, {"x": x})[0].params.matrix
    np.testing.assert_allclose(step(x.reshape(8, 100, 4))[5], expected, atol=1e-4)


def test_whitening():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((500, 3)) @ rng.standard_normal((3, 3)) + 50.0, jnp.float32)
    matrix, center = ica.whitening(x)
    white = (x - center[None]) @ matrix.T
    np.testing.assert_allclose(np.cov(np.asarray(white).T, bias=True), np.eye(3), atol=1e-3)
    for flat in (jnp.ones((6, 3)), x.at[:, 1].set(0.0)):
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in ica.whitening(flat))


def test_samples_follow_the_sources_densities():
    params = ica.Unmixing(jnp.eye(2), jnp.zeros(2))
    s = np.asarray(ica.sample(KEY, params, ica.Stats(jnp.zeros(2), jnp.asarray([1.0, -1.0])), 20_000))
    check_cdf(s[:, 0], scipy.stats.hypsecant.cdf, sees=0.05)
    check_cdf(s[:, 1], lambda at: 0.5 * (scipy.stats.norm.cdf(at, 1) + scipy.stats.norm.cdf(at, -1)), sees=0.05)


def test_amari_distance():
    mixing = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3)), jnp.float32)
    inverse = jnp.linalg.inv(mixing)
    scaled = jnp.diag(jnp.asarray([2.0, -0.1, 5.0])) @ inverse[jnp.asarray([2, 0, 1])]
    assert ica.amari_distance(scaled, mixing) < 1e-4
    assert ica.amari_distance(jnp.ones((3, 3)), jnp.eye(3)) == pytest.approx(1.0)


def test_extreme_values_stay_finite():
    s = jnp.asarray([[1e4, -1e4, 0.0]])
    for heavy in (True, False):
        mask = jnp.full(3, heavy)
        assert jnp.all(jnp.isfinite(ica.source_log_prob(s, mask)))
        assert jnp.all(jnp.isfinite(ica.score(s, mask)))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"`memory` must lie in \[0.0, 1.0\]"):
        ica.model(optax.sgd(0.1), memory=1.5)
    with pytest.raises(ValueError, match="`x` must have 2 axes"):
        ica.model(optax.sgd(0.1)).init(KEY, {"x": jnp.zeros(3)})
