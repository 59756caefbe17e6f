"""Causal convolutions: no future leak and the exact receptive field, the samplers agree, completion."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from raster_checks import check_completion, check_samplers_agree, dependence, params_of

from jgen.autoregressive import causal_conv, raster
from jgen.nets import causal

SIZES = {"features": 6, "num_layers": 2, "kernel_size": 2, "activation": jnp.tanh}
REACH = 3  # 2 + (2 − 1)(2 − 1)


def band(size: int, reach: int) -> np.ndarray:
    rows, columns = np.indices((size, size))
    return (columns < rows) & (rows - columns <= reach)


@pytest.mark.parametrize(("shape", "levels"), [((3, 3, 1), 2), ((2, 2, 2), 3)])
def test_each_position_sees_exactly_the_last_r(shape, levels):
    network = causal_conv.network(shape, levels, **SIZES)
    seen = dependence(network, params_of(network))
    np.testing.assert_array_equal(seen, band(int(np.prod(shape)), REACH))


@pytest.mark.parametrize("layers", [("layer_0",), ("layer_0", "layer_1")])
def test_a_wrong_shift_is_caught(layers, monkeypatch):
    """Mask B first leaks; mask A everywhere is blind."""
    network = causal_conv.network((3, 3, 1), 2, **SIZES)
    params = params_of(network)
    original = causal.CausalConv

    def wrong(*args, name, exclusive, **keywords):
        return original(*args, name=name, exclusive=name in layers and len(layers) == 2, **keywords)

    monkeypatch.setattr(causal, "CausalConv", wrong)
    assert not np.array_equal(dependence(network, params), band(9, REACH))


@pytest.mark.parametrize("levels", [2, 5])
def test_cached_fixed_point_and_naive_samples_are_the_same(levels):
    network = causal_conv.network((4, 4, 1), levels, **SIZES)
    check_samplers_agree(network, params_of(network, 0.7))


def test_a_cache_of_the_wrong_order_is_caught(monkeypatch):
    network = causal_conv.network((4, 4, 1), 2, **SIZES)
    monkeypatch.setattr(causal, "push", lambda window, x: jnp.concatenate([x[:, None], window[:, :-1]], axis=1))
    with pytest.raises(AssertionError, match="cached"):
        check_samplers_agree(network, params_of(network, 0.7))


def test_completion():
    network = causal_conv.network((2, 2, 1), 2, **SIZES)
    check_completion(network, params_of(network))


def test_a_known_value_after_a_missing_one_is_refused():
    network = causal_conv.network((2, 2, 1), 2, **SIZES)
    known, mask = jnp.zeros((2, 2, 1)), np.array([[[True], [False]], [[True], [False]]])
    with pytest.raises(ValueError, match=r"`mask` must mark a prefix .* \(A8, A9\)"):
        raster.sample(network, jax.random.key(0), params_of(network), 1, known=known, mask=mask)
    with pytest.raises(ValueError, match="`known` and `mask` must be given together"):
        raster.sample(network, jax.random.key(0), params_of(network), 1, known=known)


def test_dilated_convolution_and_its_steps_are_the_definition():
    module = causal.CausalConv(3, kernel_size=2, dilation=4)
    x = jax.random.normal(jax.random.key(0), (2, 10, 5))
    params = module.init(jax.random.key(1), x)["params"] | {"bias": jnp.arange(3.0)}
    y = module.apply({"params": params}, x)
    padded = jnp.pad(x, ((0, 0), (4, 0), (0, 0)))
    for t in range(10):
        expected = causal.step(params, padded[:, [t, t + 4]])
        np.testing.assert_allclose(y[:, t], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"levels": 1}, "`levels`"), ({"levels": 2, "kernel_size": 0}, "`kernel_size`")],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        causal_conv.network((2, 2, 1), **arguments)


@pytest.mark.parametrize("x", [jnp.full((2, 2, 2, 1), 0.5), jnp.full((2, 2, 2, 1), 2.0), jnp.zeros((2, 2, 3, 1))])
def test_bad_data_is_refused(x):
    model = raster.model(causal_conv.network((2, 2, 1), 2, **SIZES), optax.sgd(0.1))
    with pytest.raises(ValueError, match="`x` must"):
        model.init(jax.random.key(0), {"x": x})
