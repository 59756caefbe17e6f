"""The full table: equal to the empirical joint distribution, with 2^n − 1 parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stat_checks import check_counts

from jgen.classical import tabular
from jgen.math import discrete


def data(levels, num=200):
    generator = np.random.default_rng(0)
    return jnp.asarray(np.stack([generator.binomial(size - 1, 0.4, num) for size in levels], axis=1), jnp.int32)


def learned(x, levels, smoothing=0.0):
    return jax.jit(lambda x: tabular.solve(tabular.count(x, levels), smoothing))(x)


def empirical(x, levels):
    return np.bincount(np.asarray(discrete.row(x, levels)), minlength=np.prod(levels)) / len(x)


@pytest.mark.parametrize("levels", [(2, 2, 2, 2), (3, 2, 4), (5,)])
def test_it_is_the_empirical_joint(levels):
    x = data(levels)
    params = learned(x, levels)
    np.testing.assert_allclose(tabular.joint(params), empirical(x, levels), atol=1e-6)
    points = jnp.asarray(discrete.points(levels))
    np.testing.assert_allclose(np.exp(tabular.log_prob(params, points)), empirical(x, levels), atol=1e-6)


def test_the_chain_rule_of_any_distribution_gives_it_back():
    levels = (2, 3, 2)
    p = jax.random.dirichlet(jax.random.key(0), jnp.ones(12))
    params = tabular.conditionals(p, levels)
    assert [table.shape for table in params] == [(1, 2), (2, 3), (6, 2)]
    np.testing.assert_allclose(tabular.joint(params), p, rtol=1e-5)


def test_the_number_of_parameters():
    for num in (1, 4, 16):
        assert tabular.num_parameters((2,) * num) == 2**num - 1
    assert tabular.num_parameters((3, 2, 4)) == 3 * 2 * 4 - 1
    free = [table.shape[0] * (table.shape[1] - 1) for table in learned(data((2,) * 4), (2,) * 4)]
    assert free == [2 ** (i - 1) for i in range(1, 5)]


def test_mass_sums_to_one_and_samples_follow_it():
    levels = (3, 2, 4)
    params = learned(data(levels, 30), levels, 0.5)
    p = tabular.joint(params)
    np.testing.assert_allclose(jnp.sum(p), 1.0, rtol=1e-5)
    drawn = jax.jit(tabular.sample, static_argnums=2)(jax.random.key(1), params, 20_000)
    assert drawn.dtype == jnp.int32
    check_counts(np.bincount(np.asarray(discrete.row(drawn, levels)), minlength=24), np.asarray(p))


def test_smoothing_is_added_to_every_count():
    params = learned(jnp.array([[1, 0]] * 3), (2, 2), 1.0)
    np.testing.assert_allclose(params[0], [[1 / 5, 4 / 5]])
    np.testing.assert_allclose(params[1], [[0.5, 0.5], [4 / 5, 1 / 5]])


def test_what_was_never_seen_has_no_mass():
    params = learned(jnp.array([[1, 0]] * 3), (2, 2))
    log_prob = tabular.log_prob(params, jnp.array([[1, 0], [0, 0], [1, 1]]))
    assert log_prob.tolist() == [0.0, -np.inf, -np.inf]
    drawn = tabular.sample(jax.random.key(0), params, 50)
    np.testing.assert_array_equal(drawn, np.tile([[1, 0]], (50, 1)))


def test_a_past_read_backwards_is_caught(monkeypatch):
    levels, x = (2, 2, 2), data((2, 2, 2))
    params = learned(x, levels)
    monkeypatch.setattr(tabular.discrete, "row", lambda x, levels, row=discrete.row: row(x[..., ::-1], levels))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(
            np.exp(tabular.log_prob(params, jnp.asarray(discrete.points(levels)))),
            np.bincount(np.asarray(x) @ [4, 2, 1], minlength=8) / len(x),
            atol=1e-6,
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": ()}, "`levels` must be at least 2, got 0"),
        ({"levels": (2, 1)}, "`levels` must be at least 2, got 1"),
        ({"levels": (2,) * 27}, "`levels` must have a product of at most"),
        ({"levels": (2, 2), "smoothing": -0.1}, "`smoothing` must be at least 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        tabular.model(**arguments)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 3)), "`x` must have 2 columns"),
        (np.zeros(3), "`x` must have 2 axes"),
        (np.full((3, 2), 2), r"`x\[:, 0\]` must lie in \[0, 1\]"),
        (np.full((3, 2), 0.5), r"`x\[:, 0\]` must be whole numbers in 0..1"),
    ],
)
def test_bad_data_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        tabular.model((2, 2)).init(jax.random.key(0), {"x": x})
