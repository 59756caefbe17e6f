"""Randomized leaky ReLU, dropout and BatchNorm: what is random or of the batch in training is fixed at test time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from stat_checks import check_cdf, check_mean

from jgen import linen
from jgen.nets import activations

KEY = jax.random.key(0)


def randomized(x, key=None, **sizes):
    return linen.apply(activations.RandomizedLeakyReLU(**sizes), {}, {}, x, key=key, train=key is not None)


def test_slopes_are_uniform_in_training():
    x = jnp.concatenate([jnp.full(5_000, -2.0), jnp.full(10, 3.0)])
    out = np.asarray(randomized(x, KEY))
    np.testing.assert_array_equal(out[5_000:], 3.0)
    low, high = 1 / 8, 1 / 3
    check_cdf(out[:5_000] / -2.0, lambda a: np.clip((a - low) / (high - low), 0, 1), sees=0.1)


def test_time_output_is_the_mean_of_training_outputs():
    x = jnp.asarray([-3.0, -0.5, 0.0, 2.0])
    draws = jax.vmap(lambda key: randomized(x, key, low=0.1, high=0.5))(jax.random.split(KEY, 4_000))
    check_mean(draws, np.asarray(randomized(x, low=0.1, high=0.5)), sees=0.1)
    wrong = np.where(np.asarray(x) < 0, 0.5 * np.asarray(x), np.asarray(x))  # the largest slope, not the mean one
    with pytest.raises(AssertionError):
        check_mean(draws, wrong)


@pytest.fixture(scope="module", name="trunk")
def _trunk():
    """A network with everything that differs between training and test, and its variables."""
    module = activations.Trunk((6, 5), "randomized_leaky_relu", dropout_rate=0.5, momentum=0.8)
    return module, *linen.init(module, KEY, jnp.zeros((4, 3)))


def test_at_test_time_an_example_does_not_depend_on_its_batch_or_on_chance(trunk):
    module, params, stats = trunk
    x = jax.random.normal(KEY, (8, 3))
    run = jax.jit(lambda x: linen.apply(module, params, stats, x))
    np.testing.assert_allclose(run(x)[:2], run(x[:2]), atol=1e-6)
    one, other = (
        linen.apply_and_update(module, params, stats, x, key=jax.random.key(i), train=True)[0] for i in range(2)
    )
    assert not np.allclose(one, other)


def test_running_averages_are_those_of_the_batches(trunk):
    module, params, stats = trunk
    kernel = params["Dense_0"]["kernel"]
    mean, var = np.zeros(6), np.ones(6)
    for i in range(3):
        x = jax.random.normal(jax.random.key(i), (16, 3)) + i
        _, stats = linen.apply_and_update(module, params, stats, x, key=KEY, train=True)
        hidden = np.asarray(x @ kernel, np.float64)
        mean, var = 0.8 * mean + 0.2 * hidden.mean(0), 0.8 * var + 0.2 * hidden.var(0)
    found = stats["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], var, rtol=1e-4, atol=1e-5)


def test_batch_norm_takes_the_batch_in_training_and_the_running_averages_at_test_time():
    module = activations.Trunk((4,), "tanh")
    params, stats = linen.init(module, KEY, jnp.zeros((4, 3)))
    x = 5 + 2 * jax.random.normal(KEY, (64, 3))
    hidden = np.asarray(x @ params["Dense_0"]["kernel"], np.float64)
    batch = np.tanh((hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5))
    np.testing.assert_allclose(linen.apply_and_update(module, params, stats, x, train=True)[0], batch, atol=1e-4)
    own = {"batch_stats": {"BatchNorm_0": {"mean": jnp.arange(4.0), "var": 1.0 + jnp.arange(4.0)}}}
    running = np.tanh((hidden - np.arange(4)) / np.sqrt(1 + np.arange(4) + 1e-5))
    np.testing.assert_allclose(linen.apply(module, params, own, x), running, atol=1e-4)


def test_dropout_keeps_the_mean_and_is_off_at_test_time():
    module = activations.Trunk((50,), "relu", batch_norm=False, dropout_rate=0.4)
    x = jnp.ones((1, 3))
    params, stats = linen.init(module, KEY, x)
    test = linen.apply(module, params, stats, x)
    np.testing.assert_allclose(test, nn.relu(x @ params["Dense_0"]["kernel"]), atol=1e-6)
    draws = jax.vmap(lambda key: linen.apply(module, params, stats, x, key=key, train=True))(
        jax.random.split(KEY, 4_000)
    )
    check_mean(draws, np.asarray(test), sees=0.5)
    assert np.mean(np.asarray(draws)[..., np.asarray(test)[0] > 0] == 0) == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("name", activations.NAMES)
def test_every_activation_runs(name):
    module = activations.Trunk((3,), name)
    params, stats = linen.init(module, KEY, jnp.zeros((2, 2, 2)))
    out = linen.apply(module, params, stats, 100 * jax.random.normal(KEY, (5, 2, 2)))
    assert out.shape == (5, 3)
    assert jnp.all(jnp.isfinite(out))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`activation` must be one of 'sigmoid'"):
        activations.Trunk((3,), "step")
    with pytest.raises(ValueError, match=r"`low` must be at most `high`, got 0.5 and 0.1"):
        activations.RandomizedLeakyReLU(0.5, 0.1)
