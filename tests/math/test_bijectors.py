"""Bijections against explicit loops and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.math import bijectors


def test_squeeze_equals_an_explicit_loop_and_is_undone():
    x = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    expected = np.zeros((2, 2, 3, 12), np.float32)
    for row in range(4):
        for column in range(6):
            block = (row % 2) * 2 + column % 2
            expected[:, row // 2, column // 2, 3 * block : 3 * block + 3] = x[:, row, column]
    y = bijectors.squeeze(jnp.asarray(x))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(bijectors.unsqueeze(y), x)


def test_checkerboard_alternates():
    board = bijectors.checkerboard(3, 4)
    assert board[0, 0]
    assert board.sum() == 6
    assert not np.any(board[1:] == board[:-1])
    assert not np.any(board[:, 1:] == board[:, :-1])


def test_bounded_is_the_identity_near_zero_and_never_beyond_the_bound():
    x = jnp.array([-1e6, -100.0, 0.0, 100.0, 1e6])
    assert np.all(np.abs(bijectors.bounded(x, 2.0)) <= 2.0)
    assert float(jax.grad(lambda v: bijectors.bounded(v, 2.0))(jnp.zeros(()))) == 1.0


@pytest.mark.parametrize("margin", [0.05, 1e-6])
def test_logit_log_det_is_the_jacobians(margin):
    with jax.enable_x64(True):
        x = jax.random.uniform(jax.random.key(0), (20, 3), jnp.float64)
        y, log_det = bijectors.logit(x, margin)
        jacobian = jax.vmap(jax.jacfwd(lambda v: bijectors.logit(v[None], margin)[0][0]))(x)
        np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=1e-10)
        back, inverse_log_det = bijectors.inverse_logit(y, margin)
        np.testing.assert_allclose(back, x, atol=1e-10)
        np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-10)


def test_logit_is_finite_at_the_ends_and_far_outside():
    for y in (
        bijectors.logit(jnp.array([[0.0, 1.0]]), 1e-6),
        bijectors.inverse_logit(jnp.array([[-100.0, 100.0]]), 0.05),
    ):
        assert np.all(np.isfinite(y[0]))
        assert np.all(np.isfinite(y[1]))


@pytest.mark.parametrize("margin", [0.0, 0.5, -1.0, 0.7])
def test_margin_is_checked(margin):
    with pytest.raises(ValueError, match="`margin` must"):
        bijectors.logit(jnp.zeros((1, 2)), margin)


def test_odd_images_are_refused():
    with pytest.raises(ValueError, match="even height and width"):
        bijectors.squeeze(jnp.zeros((1, 3, 4, 1)))
    with pytest.raises(ValueError, match="multiple of 4 channels"):
        bijectors.unsqueeze(jnp.zeros((1, 2, 2, 3)))
