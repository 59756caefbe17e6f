"""Binary units: log-sums over all states and their gradients, entropies at extremes, draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import stat_checks as stat

from jgen.math import binary

LOGITS = jnp.asarray([-1.0, 0.3, 2.0, -0.2, 0.7])


@pytest.mark.parametrize("block_units", [0, 2, 5, 12])
def test_log_sum_of_independent_units_in_blocks(block_units: int) -> None:
    def total(logits):
        return binary.log_sum(lambda s: s @ logits, 5, block_units=block_units)

    value, gradient = jax.jit(jax.value_and_grad(total))(LOGITS)
    np.testing.assert_allclose(value, jnp.sum(jax.nn.softplus(LOGITS)), rtol=1e-6)
    np.testing.assert_allclose(gradient, jax.nn.sigmoid(LOGITS), rtol=1e-5)


def test_log_sum_of_a_batch_and_of_no_unit() -> None:
    scales = jnp.asarray([0.0, 1.0, -2.0])
    found = binary.log_sum(lambda s: scales[:, None] * (s @ LOGITS)[None], 5, block_units=3)
    np.testing.assert_allclose(found, jnp.sum(jax.nn.softplus(scales[:, None] * LOGITS[None]), axis=1), rtol=1e-6)
    np.testing.assert_allclose(binary.log_sum(lambda s: jnp.full((2, len(s)), 3.0), 0), [3.0, 3.0], rtol=1e-6)


def test_states_are_binary_digits() -> None:
    np.testing.assert_array_equal(binary.states(2, 3, 3), [[0, 1, 0], [1, 1, 0], [0, 0, 1]])
    every = np.asarray(binary.states(0, 16, 4))
    assert len({tuple(row) for row in every}) == 16


def test_entropy() -> None:
    p = np.array([0.1, 0.5, 0.7])
    np.testing.assert_allclose(
        binary.entropy(jnp.log(p / (1 - p))), [scipy.stats.bernoulli(x).entropy() for x in p], rtol=1e-5
    )
    extreme = jnp.asarray([-200.0, 200.0, 0.0])
    np.testing.assert_allclose(binary.entropy(extreme), [0.0, 0.0, np.log(2)], atol=1e-6)
    assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(binary.entropy(x)))(extreme)))


def test_log_prob() -> None:
    x = jnp.asarray([0.0, 1.0, 1.0, 0.0, 1.0])
    p = np.asarray(jax.nn.sigmoid(LOGITS))
    np.testing.assert_allclose(binary.log_prob(LOGITS, x), scipy.stats.bernoulli.logpmf(np.asarray(x), p), rtol=1e-5)
    extreme = binary.log_prob(jnp.asarray([200.0, 200.0, -200.0]), jnp.asarray([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(extreme, [0.0, -200.0, 0.0], atol=1e-6)


def test_draws() -> None:
    logits = jnp.tile(jnp.asarray([-1.0, 0.0, 3.0])[None], (40_000, 1))
    draws = binary.bernoulli(jax.random.key(0), logits)
    assert set(np.unique(draws)) == {0.0, 1.0}
    stat.check_mean(draws, np.asarray(jax.nn.sigmoid(logits[0])), sees=0.03)
    np.testing.assert_array_equal(
        binary.bernoulli(jax.random.key(0), jnp.asarray([-1e4, 1e4, -jnp.inf])), [0.0, 1.0, 0.0]
    )


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((3, 2)), r"`x` must have 4 columns, got shape \(3, 2\)"),
        (np.full((3, 4), 0.5), "`x` must be whole numbers in 0..1"),
        (np.ones(4), r"`x` must have 2 axes \(batch, visible\), got shape \(4,\)"),
    ],
)
def test_rows_that_are_refused(x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        binary.rows(x, 4)
    assert binary.rows(np.ones((3, 4), np.uint8), 4).dtype == jnp.float32
