"""The window network: exactly the last L values, START that is no value, the course's form, the samplers agree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from raster_checks import check_completion, check_samplers_agree, dependence, params_of

from jgen import linen
from jgen.autoregressive import raster, window

SIZES = {"window_size": 3, "hidden_size": 7, "activation": jnp.tanh}


def band(size: int, reach: int) -> np.ndarray:
    rows, columns = np.indices((size, size))
    return (columns < rows) & (rows - columns <= reach)


@pytest.mark.parametrize(("shape", "levels"), [((3, 3, 1), 2), ((2, 2, 2), 5)])
@pytest.mark.parametrize("reach", [1, 3])
def test_each_position_sees_exactly_the_last_l(shape, levels, reach):
    network = window.network(shape, levels, **{**SIZES, "window_size": reach})
    np.testing.assert_array_equal(dependence(network, params_of(network)), band(int(np.prod(shape)), reach))


def test_the_jacobian_is_that_of_a_window():
    """By derivatives: each logit moves with the last L values and with nothing else."""
    module = window.WindowNet(17, **SIZES)
    params = linen.init(module, jax.random.key(0), jnp.zeros((1, 8)))[0]
    jacobian = jax.jacrev(lambda x: linen.apply(module, params, {}, x[None])[0])(jnp.linspace(0.0, 16.0, 8))
    np.testing.assert_array_equal(np.any(jacobian != 0, axis=1), band(8, 3))


@pytest.mark.parametrize("shift", [1, -1])
def test_windows_one_off_are_caught(shift, monkeypatch):
    network, real = window.network((3, 3, 1), 2, **SIZES), window.windows
    params = params_of(network)
    monkeypatch.setattr(window, "windows", lambda x, *sizes: jnp.roll(real(x, *sizes), shift, axis=1))
    assert not np.array_equal(dependence(network, params), band(9, 3))


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_it_is_linear_relu_linear_softmax(levels):
    """By hand, in NumPy, window by window."""
    network = window.network((2, 3, 1), levels, window_size=4, hidden_size=6)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params_of(network))
    x = np.random.default_rng(0).integers(0, levels, 6)
    expected = 0.0
    for d in range(6):
        past = [2 * (x[i] if i >= 0 else -1) / (levels - 1) - 1 for i in range(d - 4, d)]
        hidden = np.maximum(np.array(past) @ params["hidden"]["kernel"] + params["hidden"]["bias"], 0)
        logits = hidden @ params["logits"]["kernel"] + params["logits"]["bias"]
        logits = np.append(0.0, logits) if levels == 2 else logits
        expected += logits[x[d]] - np.log(np.sum(np.exp(logits - logits.max()))) - logits.max()
    image = jnp.asarray(x.reshape(1, 2, 3, 1), jnp.float32)
    found = raster.log_prob(network, params_of(network), image)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_the_form_has_the_courses_parameters():
    network = window.network((8, 8, 1), 256, window_size=20, hidden_size=100)
    shapes = jax.tree.map(jnp.shape, params_of(network))
    assert shapes == {
        "hidden": {"kernel": (20, 100), "bias": (100,)},
        "logits": {"kernel": (100, 256), "bias": (256,)},
    }


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_start_is_no_value(levels):
    values = np.asarray(window.scale(jnp.arange(levels), levels))
    np.testing.assert_allclose([values[0], values[-1]], [-1, 1])
    start = np.asarray(window.windows(jnp.zeros((1, 1)), levels, 1)).item()
    assert start not in values
    np.testing.assert_allclose(values[0] - start, values[1] - values[0], rtol=1e-4)


def test_zeros_for_start_are_caught(monkeypatch):
    """Were START the value 0, a window over the border could not be told from one over zeros."""
    network = window.network((1, 3, 1), 3, **SIZES)
    params, x = params_of(network), jnp.zeros((1, 1, 3, 1))
    first = network.logits(params, x, None, None)[0, 0, :2]
    assert np.abs(first[0] - first[1]).max() > 1e-3
    monkeypatch.setattr(window, "START", 0)
    first = network.logits(params, x, None, None)[0, 0, :2]
    np.testing.assert_array_equal(first[0], first[1])


@pytest.mark.parametrize("levels", [2, 5])
def test_cached_fixed_point_and_naive_samples_are_the_same(levels):
    network = window.network((4, 4, 1), levels, **SIZES)
    check_samplers_agree(network, params_of(network, 0.7))


def test_a_cache_of_the_wrong_start_is_caught(monkeypatch):
    network = window.network((4, 4, 1), 5, **SIZES)
    wrong = dataclasses.replace(network, draw=_with_zeros(network))
    with pytest.raises(AssertionError, match="cached"):
        check_samplers_agree(wrong, params_of(network, 0.7))


def _with_zeros(network):
    def draw(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(window, "START", 2)
            return network.draw(*arguments)

    return draw


@pytest.mark.parametrize("levels", [2, 3])
def test_completion(levels):
    network = window.network((2, 2, 1) if levels == 2 else (1, 3, 1), levels, **SIZES)
    check_completion(network, params_of(network))


def test_extreme_weights_stay_finite():
    network = window.network((2, 2, 1), 5, **SIZES)
    params = jax.tree.map(lambda leaf: 100 * leaf, params_of(network))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 5, (64, 2, 2, 1)), jnp.float32)
    found = raster.log_prob(network, params, x)
    assert np.all(np.isfinite(found))
    assert found.min() < -100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"levels": 1}, "`levels`"), ({"levels": 2, "window_size": 0}, "`window_size`"),
     ({"levels": 2, "hidden_size": 0}, "`hidden_size`")],
)  # fmt: skip
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        window.network((2, 2, 1), **arguments)


@pytest.mark.parametrize("x", [jnp.full((2, 2, 2, 1), 0.5), jnp.full((2, 2, 2, 1), 2.0), jnp.zeros((2, 2, 3, 1))])
def test_bad_data_is_refused(x):
    model = raster.model(window.network((2, 2, 1), 2, **SIZES), optax.sgd(0.1))
    with pytest.raises(ValueError, match="`x` must"):
        model.init(jax.random.key(0), {"x": x})
