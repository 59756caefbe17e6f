"""ConvNADE: every order and ensemble of 2×3 images sums to 1, any subset may be known, the mask is an input."""

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
from jgen.autoregressive import any_order, conv_nade
from jgen.autoregressive.conv_nade import ConvNADE


def build(shape=(2, 3, 1), levels=2, kernels=(2,), hidden_sizes=(5,)):
    return conv_nade.network(shape, levels, features=4, kernels=kernels, hidden_sizes=hidden_sizes, activation=jnp.tanh)


@pytest.mark.parametrize(("shape", "levels"), [((2, 3, 1), 2), ((2, 2, 1), 3), ((1, 2, 3), 2)])
def test_every_order_and_ensemble_sums_to_one(shape, levels):
    network = build(shape, levels, kernels=(min(2, shape[0]),))
    check_sums_to_one(network, params_of(network, 1.0))


@pytest.mark.parametrize("levels", [2, 3])
def test_one_by_one_equals_one_pass_per_variable(levels):
    network = build(levels=levels)
    check_cache(network, params_of(network), num=4)


def test_a_pixel_that_never_becomes_known_is_caught(monkeypatch):
    network = build()
    monkeypatch.setattr(jnp, "unravel_index", lambda d, shape: tuple(jnp.zeros_like(d) for _ in shape))
    with pytest.raises(AssertionError):
        check_cache(network, params_of(network), num=4)


@pytest.mark.parametrize("hidden_sizes", [(5,), ()])
def test_conditionals_depend_on_what_is_known_alone(hidden_sizes):
    network = build(hidden_sizes=hidden_sizes)
    check_dependence(network, params_of(network))
    check_asks_which_are_known(network, params_of(network))


@pytest.mark.parametrize("part", ["output", "full_0"])
def test_each_part_looks_everywhere_its_construction_does(part):
    """Without the dense part a pixel sees the known ones within Σ(k − 1) = 2; without the other one all of them."""
    network = build((3, 6, 1), kernels=(3,))
    params = params_of(network)
    params[part] = jax.tree.map(jnp.zeros_like, params[part])
    x, mask = jnp.zeros((1, 3, 6, 1)), jnp.ones((1, 3, 6, 1), bool)
    seen = jax.jit(jax.jacfwd(lambda x: network.logits(params, x, mask).ravel()))(x).reshape(18, 18) != 0
    columns = np.arange(18) % 6
    near = np.abs(columns[:, None] - columns[None]) <= 2
    np.testing.assert_array_equal(seen, near if part == "output" else np.ones_like(near))


def test_inputs_that_leak_are_caught(monkeypatch):
    network = build()
    original = conv_nade.inputs
    monkeypatch.setattr(conv_nade, "inputs", lambda x, mask, levels: original(x, jnp.ones_like(mask), levels))
    with pytest.raises(AssertionError):
        check_dependence(network, params_of(network))


def test_a_mask_that_is_no_input_is_caught(monkeypatch):
    network = build()
    original = conv_nade.inputs

    def blind(x, mask, levels):
        return original(x, mask, levels).at[..., -1].set(0.0)

    monkeypatch.setattr(conv_nade, "inputs", blind)
    with pytest.raises(AssertionError):
        check_asks_which_are_known(network, params_of(network))


def test_inpainting_of_any_subset():
    network = build((2, 2, 1))
    check_inpainting(network, params_of(network, 1.0), num=10_000)


def test_the_published_size():
    """8×8, 4×4, 6×6, 7×7 valid take 28 to 7 pixels, the mirror takes them back; 500–500–784 beside it."""
    x = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.bool_)
    params, _ = jax.eval_shape(lambda x, mask: linen.init(ConvNADE(), jax.random.key(0), x, mask), x, mask)
    kernels = {name: leaf["kernel"].shape for name, leaf in params.items()}
    assert kernels["valid_0"] == (8, 8, 2, 64)
    assert kernels["valid_3"] == kernels["full_0"] == (7, 7, 64, 64)
    assert kernels["full_3"] == (8, 8, 64, 1)
    assert [kernels[name] for name in ("hidden_0", "hidden_1", "output")] == [(1568, 500), (500, 500), (500, 784)]


def test_extreme_values_stay_finite():
    network = build()
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, 100.0), params_of(network))
    orders = any_order.orders(0, 6, 1)
    value, slope = jax.jit(
        jax.value_and_grad(lambda p: jnp.mean(any_order.log_prob(network, p, orders, every(network))))
    )(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((value, slope)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, "`levels`"),
        ({"levels": 2, "kernels": (3,)}, "`kernels` must leave at least 1 pixel"),
        ({"levels": 2, "kernels": ()}, "`kernels`"),
        ({"levels": 2, "kernels": (2,), "features": 0}, "`features`"),
        ({"levels": 2, "kernels": (2,), "hidden_sizes": (0,)}, "`hidden_sizes`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        conv_nade.network((2, 3, 1), **arguments)


@pytest.mark.parametrize("x", [jnp.full((2, 2, 3, 1), 0.5), jnp.full((2, 2, 3, 1), 2.0), jnp.zeros((2, 3, 2, 1))])
def test_bad_data_is_refused(x):
    model = any_order.model(build(), optax.sgd(0.1))
    with pytest.raises(ValueError, match="`x` must"):
        model.init(jax.random.key(0), {"x": x})
