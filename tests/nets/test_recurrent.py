"""Recurrent layers: each cell against its formula, the unrolled gradient against automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from jgen import linen
from jgen.nets import recurrent


def plain(cell, kernel, pre, state):
    """The same scan, differentiated by JAX."""

    def step(state, pre):
        state = cell(pre, state[0] @ kernel, state)
        return state, state

    return jax.lax.scan(step, state, pre)


def gradients(unroll, cell, num_gates, num_states, time):
    keys = jax.random.split(jax.random.key(0), 3)
    kernel = jax.random.normal(keys[0], (5, 5 * num_gates))
    pre = jax.random.normal(keys[1], (time, 3, 5 * num_gates))
    state = tuple(jax.random.normal(key, (3, 5)) for key in jax.random.split(keys[2], num_states))

    def objective(kernel, pre, state):
        last, states = unroll(cell, kernel, pre, state)
        # Different weights for every output, so that an exchanged or forgotten cotangent shows.
        return sum(jnp.sum((i + 1) * jnp.sin(leaf)) for i, leaf in enumerate(jax.tree.leaves((last, states))))

    return jax.jit(jax.value_and_grad(objective, (0, 1, 2)))(kernel, pre, state)


@pytest.mark.parametrize("name", list(recurrent.CELLS))
@pytest.mark.parametrize("time", [1, 7])
def test_gradient_equals_that_of_the_plain_scan(name, time):
    ours, theirs = (
        gradients(recurrent.unroll, *recurrent.CELLS[name], time),
        gradients(plain, *recurrent.CELLS[name], time),
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_lstm_equals_its_formula_in_numpy():
    rng = np.random.default_rng(0)
    pre, rec, c = rng.normal(size=(2, 12)), rng.normal(size=(2, 12)), rng.normal(size=(2, 3))
    i, f, g, o = np.split(pre + rec, 4, axis=1)
    new_c = expit(f) * c + expit(i) * np.tanh(g)
    new_h = expit(o) * np.tanh(new_c)
    h, c = recurrent.lstm(jnp.array(pre), jnp.array(rec), (jnp.zeros((2, 3)), jnp.array(c)))
    np.testing.assert_allclose(h, new_h, rtol=1e-5)
    np.testing.assert_allclose(c, new_c, rtol=1e-5)


def test_gru_keeps_its_state_when_the_update_gate_is_open():
    pre = jnp.concatenate([jnp.zeros((1, 2)), jnp.full((1, 2), 100.0), jnp.ones((1, 2))], axis=1)
    h = jnp.array([[0.3, -0.7]])
    np.testing.assert_allclose(recurrent.gru(pre, jnp.zeros((1, 6)), (h,))[0], h, rtol=1e-6)


@pytest.mark.parametrize("size", [1e3, -1e3])
def test_saturated_cells_stay_finite(size):
    for cell, num_gates, num_states in recurrent.CELLS.values():
        state = tuple(jnp.ones((2, 3)) for _ in range(num_states))
        pre = jnp.full((4, 2, 3 * num_gates), size)

        def total(pre, cell=cell, state=state):
            after: tuple = recurrent.unroll(cell, jnp.ones((3, pre.shape[-1])), pre, state)
            return jnp.sum(after[1][0])

        value, slope = jax.value_and_grad(total)(pre)
        assert jnp.isfinite(value)
        assert jnp.all(jnp.isfinite(slope))


def test_recurrent_weights_start_orthogonal_and_the_lstm_remembers():
    module = recurrent.Recurrent("lstm", 4)
    state = recurrent.zero_state("lstm", 2, 4)
    params, _ = jax.jit(lambda key: linen.init(module, key, jnp.zeros((3, 2, 5)), state))(jax.random.key(0))
    for gate in np.split(np.asarray(params["recurrent"]), 4, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(4), atol=1e-5)
    np.testing.assert_array_equal(params["bias"], np.repeat([0.0, 1.0, 0.0, 0.0], 4))


def test_dropout_masks_are_unbiased_and_belong_to_the_example():
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(500))
    masks = recurrent.dropout_masks(keys, 2, 20, 0.25)
    assert recurrent.dropout_masks(keys, 2, 20, 0.0) is None
    np.testing.assert_allclose(np.mean(masks), 1.0, atol=0.02)
    np.testing.assert_allclose(np.unique(masks), [0.0, 4 / 3], rtol=1e-6)
    np.testing.assert_array_equal(recurrent.dropout_masks(keys[:3], 2, 20, 0.25)[1], masks[1][:3])


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="`cell` must be one of 'vanilla', 'gru', 'lstm'"):
        recurrent.zero_state("elman", 1, 2)
