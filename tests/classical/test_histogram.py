"""Histograms: counts over n times width, against NumPy's and SciPy's; the inverse CDF and its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from stat_checks import check_cdf, check_counts

from jgen.classical import histogram

X = jnp.asarray(np.random.default_rng(0).gamma(2.0, size=(500, 2)), jnp.float32)
EDGES = np.array([[0.0, 0.5, 1.0, 1.5, 3.0, 16.0], [0.0, 0.25, 1.0, 2.0, 4.0, 16.0]], np.float32)

log_prob, cdf, quantile = jax.jit(histogram.log_prob), jax.jit(histogram.cdf), jax.jit(histogram.quantile)


def learned(x, edges, **keywords):
    model = histogram.model(edges, **keywords)
    first = jax.jit(lambda x: model.update(jax.random.key(0), model.init(jax.random.key(0), {"x": x}), {"x": x})[0])
    return first(x).params


@pytest.fixture(scope="module", name="line")
def _line():
    """One dimension, beside SciPy's."""
    return learned(X[:, :1], EDGES[0]), stats.rv_histogram(np.histogram(X[:, 0], EDGES[0]), density=False)


def test_density_is_counts_over_n_times_width(line):
    params, _ = line
    counts, _ = np.histogram(X[:, 0], EDGES[0])
    middles = (EDGES[0, 1:] + EDGES[0, :-1]) / 2
    expected = counts / (len(X) * np.diff(EDGES[0]))
    np.testing.assert_allclose(np.exp(log_prob(params, jnp.asarray(middles)[:, None])), expected, rtol=1e-5)
    np.testing.assert_allclose(np.sum(params.mass), 1.0, rtol=1e-6)


def test_density_cdf_and_quantile_are_scipys(line):
    params, theirs = line
    x = jnp.linspace(-1.0, 17.9, 400)[:, None]
    np.testing.assert_allclose(np.exp(log_prob(params, x)), theirs.pdf(x[:, 0]), rtol=1e-5)
    np.testing.assert_allclose(cdf(params, x)[:, 0], theirs.cdf(x[:, 0]), atol=1e-6)
    u = jnp.linspace(0.001, 0.999, 300)[:, None]
    np.testing.assert_allclose(quantile(params, u)[:, 0], theirs.ppf(u[:, 0]), rtol=1e-4)


def test_a_joint_grid_is_numpys_and_a_product_is_that_of_its_margins():
    theirs, *_ = np.histogramdd(X, EDGES, density=True)
    middles = np.stack(np.meshgrid(*((EDGES[:, 1:] + EDGES[:, :-1]) / 2), indexing="ij"), axis=-1).reshape(-1, 2)
    middles = jnp.asarray(middles)
    joint, product = learned(X, EDGES, joint=True), learned(X, EDGES)
    np.testing.assert_allclose(np.exp(log_prob(joint, middles)), theirs.ravel(), rtol=1e-5)
    margins = [np.histogram(X[:, d], EDGES[d], density=True)[0] for d in range(2)]
    np.testing.assert_allclose(np.exp(log_prob(product, middles)), np.outer(*margins).ravel(), rtol=1e-5)


@pytest.mark.parametrize("joint", [False, True])
def test_quantile_inverts_the_cdf(joint):
    params = learned(X, EDGES, joint=joint)
    u = jax.random.uniform(jax.random.key(1), (1_000, 2))
    x = quantile(params, u)
    assert np.all(np.isfinite(log_prob(params, x)))
    np.testing.assert_allclose(cdf(params, x), u, atol=2e-5)


def test_one_bin_is_uniform():
    params = learned(X, [[0.0, 16.0]] * 2)
    np.testing.assert_allclose(log_prob(params, X), -2 * np.log(16.0), rtol=1e-6)
    np.testing.assert_allclose(cdf(params, X), X / 16.0, rtol=1e-5)


def test_samples_follow_the_cdf_and_fill_the_cells(line):
    params, theirs = line
    drawn = np.asarray(jax.jit(histogram.sample, static_argnums=2)(jax.random.key(2), params, 20_000))[:, 0]
    check_cdf(drawn, theirs.cdf, sees=0.05)
    joint = learned(X, EDGES, joint=True)
    drawn = np.asarray(jax.jit(histogram.sample, static_argnums=2)(jax.random.key(3), joint, 20_000))
    check_counts(np.histogramdd(drawn, EDGES)[0].ravel(), np.asarray(joint.mass)[0])


def test_a_product_in_place_of_the_joint_grid_is_caught():
    x = jnp.repeat(X[:, :1], 2, axis=1)  # two coordinates that are one
    joint, product = learned(x, EDGES, joint=True), learned(x, EDGES)
    drawn = np.asarray(jax.jit(histogram.sample, static_argnums=2)(jax.random.key(3), product, 5_000))
    with pytest.raises(AssertionError):
        check_counts(np.histogramdd(drawn, EDGES)[0].ravel(), np.asarray(joint.mass)[0])


def test_a_density_without_widths_is_caught(line, monkeypatch):
    params, theirs = line
    monkeypatch.setattr(histogram.jnp, "diff", lambda edges, axis: jnp.ones_like(edges[:, 1:]))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(np.exp(histogram.log_prob(params, X[:, :1])), theirs.pdf(X[:, 0]), rtol=1e-5)


def test_bins_without_mass_are_never_drawn():
    x = jnp.array([[0.5], [2.5]])
    params = learned(x, [0.0, 1.0, 2.0, 3.0, 4.0])
    u = jnp.array([[0.0], [0.5 - 1e-7], [0.5], [1.0 - 2**-23], [1.0]])
    found = quantile(params, u)[:, 0]
    np.testing.assert_array_equal(np.floor(found), [0, 0, 2, 2, 2])
    assert np.all(np.isfinite(log_prob(params, found[:, None])))
    assert log_prob(params, jnp.array([[1.5], [9.0]])).tolist() == [-np.inf, -np.inf]


def test_smoothing_starts_every_count_and_no_data_are_uniform():
    edges = [0.0, 1.0, 3.0]
    params = learned(jnp.full((3, 1), 0.5), edges, smoothing=1.0)
    np.testing.assert_allclose(params.mass, [[4 / 5, 1 / 5]])
    empty = histogram.model(edges).init(jax.random.key(0), {"x": np.full((1, 1), 0.5)})
    np.testing.assert_allclose(empty.params.mass, [[0.5, 0.5]])


def test_edges_of_equal_masses():
    edges = histogram.equal_masses(X[:, 0], 5)
    np.testing.assert_allclose(learned(X[:, :1], edges).mass, np.full((1, 5), 0.2), atol=0.003)
    with pytest.raises(ValueError, match="`num_bins` must leave every bin a width"):
        histogram.equal_masses(np.zeros(10), 3)


def test_parts_counted_one_after_another_are_the_whole():
    model = histogram.model(EDGES, joint=True)
    state = model.init(jax.random.key(0), {"x": X[:1]})
    for part in (X[:250], X[250:]):
        state, _ = jax.jit(model.update)(jax.random.key(0), state, {"x": part})
    np.testing.assert_allclose(state.params.mass, learned(X, EDGES, joint=True).mass, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edges": [0.0, 0.0]}, "`edges` must be"),
        ({"edges": [1.0]}, "`edges` must be"),
        ({"edges": [0.0, 1.0], "smoothing": -1.0}, "`smoothing` must be at least 0"),
        ({"edges": [np.linspace(0, 1, 101)] * 5, "joint": True}, r"`joint` grids must have at most 2\^26 cells"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        histogram.model(**arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3), "`x` must have 2 axes"),
        (np.zeros((3, 2)), "`x` must have 1 columns"),
        (np.full((3, 1), 2.0), r"`x` must lie in \[0.0, 1.0\]"),
    ],
)
def test_bad_data_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        histogram.model([0.0, 1.0]).init(jax.random.key(0), {"x": x})


def test_bad_edges_are_refused():
    with pytest.raises(ValueError, match="`low` must be below `high`, got 1 and 0"):
        histogram.equal_widths(1, 0, 3)
    with pytest.raises(ValueError, match="`num_bins` must be at least 1"):
        histogram.equal_widths(0, 1, 0)
