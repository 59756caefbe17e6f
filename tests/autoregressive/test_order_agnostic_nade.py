"""Order-agnostic NADE: every order and ensemble sums to 1, its cache is the definition, any subset may be known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from any_order_checks import (
    check_asks_which_are_known,
    check_cache,
    check_dependence,
    check_inpainting,
    check_sums_to_one,
    every,
    params_of,
)

from jgen import linen
from jgen.autoregressive import any_order, order_agnostic_nade
from jgen.autoregressive.order_agnostic_nade import OrderAgnosticNADE


def build(shape, levels=2, hidden_sizes=(7, 5)):
    return order_agnostic_nade.network(shape, levels, hidden_sizes=hidden_sizes, activation=jnp.tanh)


@pytest.mark.parametrize(
    ("shape", "levels", "hidden_sizes"),
    [((8,), 2, (7, 5)), ((5,), 3, (7,)), ((1,), 2, (4, 4, 4)), ((2, 2, 1), 2, (6,))],
)
def test_every_order_and_ensemble_sums_to_one(shape, levels, hidden_sizes):
    network = build(shape, levels, hidden_sizes)
    check_sums_to_one(network, params_of(network, 1.0))


@pytest.mark.parametrize(("levels", "hidden_sizes"), [(2, (7, 5)), (3, (7,))])
def test_cached_equals_one_pass_per_variable(levels, hidden_sizes):
    network = build((6,), levels, hidden_sizes)
    check_cache(network, params_of(network))


def test_a_cache_that_forgets_the_mask_is_caught(monkeypatch):
    network = build((6,))
    original = order_agnostic_nade.inputs

    def forgetful(x, mask, levels):
        out = original(x, mask, levels)
        return out.at[-1].set(0.0) if out.ndim == 1 else out

    monkeypatch.setattr(order_agnostic_nade, "inputs", forgetful)
    with pytest.raises(AssertionError):
        check_cache(network, params_of(network))


@pytest.mark.parametrize("levels", [2, 3])
def test_conditionals_depend_on_what_is_known_alone(levels):
    network = build((6,), levels)
    check_dependence(network, params_of(network))
    check_asks_which_are_known(network, params_of(network))


def test_inputs_that_leak_are_caught(monkeypatch):
    network = build((6,))
    original = order_agnostic_nade.inputs

    def whole(x, mask, levels):
        return original(x, jnp.ones_like(mask), levels)

    monkeypatch.setattr(order_agnostic_nade, "inputs", whole)
    with pytest.raises(AssertionError):
        check_dependence(network, params_of(network))
    with pytest.raises(AssertionError):
        check_asks_which_are_known(network, params_of(network))


def test_a_mask_that_is_no_input_is_caught(monkeypatch):
    network = build((6,))
    original = order_agnostic_nade.inputs

    def blind(x, mask, levels):
        return original(x, mask, levels).at[..., -1].set(0.0)

    monkeypatch.setattr(order_agnostic_nade, "inputs", blind)
    with pytest.raises(AssertionError):
        check_asks_which_are_known(network, params_of(network))


@pytest.mark.parametrize(("shape", "levels"), [((4,), 2), ((3,), 3)])
def test_inpainting_of_any_subset(shape, levels):
    network = build(shape, levels, (6,))
    check_inpainting(network, params_of(network, 1.0))


def test_one_pass_is_the_formula():
    """h = φ(b + Σ_{j∈m} W_j x_j + V_j), logits = c + U h, written out."""
    network, x = build((3,), hidden_sizes=(4,)), jnp.array([[1.0, 1.0, 0.0]])
    params, mask = params_of(network), jnp.array([[True, False, True]])
    kernel = params["hidden_0"]["kernel"].reshape(3, 2, 4)  # of x and of the mask
    a = params["hidden_0"]["bias"] + kernel[0, 0] + kernel[0, 1] + kernel[2, 1]
    expected = jnp.tanh(a) @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(network.logits(params, x, mask)[0, :, 0], expected, atol=1e-6)
    p = any_order.conditionals(network, params, x, mask)
    np.testing.assert_allclose(p[0, 1, 1], jax.nn.sigmoid(expected[1]), atol=1e-6)
    np.testing.assert_array_equal(p[0, ::2, 1], [1.0, 0.0])
    np.testing.assert_allclose(p.sum(-1), 1.0, atol=1e-6)


def test_number_of_parameters():
    module, x = OrderAgnosticNADE((50, 40)), jnp.zeros((1, 30))
    params, _ = linen.init(module, jax.random.key(0), x, x > 0)
    expected = (2 * 30 + 1) * 50 + (50 + 1) * 40 + (40 + 1) * 30
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_learning_moves_towards_the_data():
    """Two coins that agree: the ensemble learns their dependence from both sides."""
    x = jnp.repeat(jnp.array([[1.0, 1.0], [0.0, 0.0]]), 50, axis=0)
    model = any_order.model(order_agnostic_nade.network((2,), hidden_sizes=(16,)), optax.adam(2e-2), num_orders=2)
    state, update = model.init(jax.random.key(0), {"x": x}), jax.jit(model.update)
    for step in range(200):
        state, _ = update(jax.random.key(step), state, {"x": x})
    np.testing.assert_allclose(-model.log_prob(state, {"x": x}).mean(), np.log(2), atol=0.02)
    p = any_order.conditionals(
        order_agnostic_nade.network((2,), hidden_sizes=(16,)), state.params, x[:1], jnp.array([[True, False]])
    )
    assert p[0, 1, 1] > 0.98


def test_extreme_values_stay_finite():
    network = build((4,), hidden_sizes=(3,))
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, 100.0), params_of(network))
    orders = any_order.orders(0, 4, 2)
    value, slope = jax.value_and_grad(lambda p: jnp.mean(any_order.log_prob(network, p, orders, every(network))))(
        params
    )
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((value, slope)))


def test_output_biases_start_at_the_log_odds():
    x = (jax.random.uniform(jax.random.key(0), (50, 3)) < jnp.array([[0.1, 0.5, 1.0]])).astype(jnp.float32)
    params = order_agnostic_nade.network((3,), hidden_sizes=(4,)).init(jax.random.key(0), x)
    ones = np.asarray(x.sum(0))
    np.testing.assert_allclose(params["output"]["bias"], np.log((ones + 0.5) / (50 - ones + 0.5)), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, "`levels`"),
        ({"hidden_sizes": ()}, "`hidden_sizes`"),
        ({"hidden_sizes": (4, 0)}, "`hidden_sizes`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        order_agnostic_nade.network((3,), **arguments)


@pytest.mark.parametrize("x", [jnp.full((2, 3), 0.5), jnp.full((2, 3), 2.0), jnp.zeros((2, 4))])
def test_bad_data_is_refused(x):
    model = any_order.model(order_agnostic_nade.network((3,), hidden_sizes=(4,)), optax.sgd(0.1))
    with pytest.raises(ValueError, match="`x` must"):
        model.init(jax.random.key(0), {"x": x})
