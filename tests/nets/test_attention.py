"""Attention: the definition, masks, caches, positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stat_checks import check_mean

from jgen import linen
from jgen.nets import attention

STACK = attention.Stack(num_layers=2, num_heads=2)


def random_params(module, *inputs):
    """Random weights of size 1/2 everywhere."""
    shapes = jax.eval_shape(lambda key: linen.init(module, key, *inputs)[0], jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [0.5 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def test_attention_is_the_definition():
    query, keys, values = (np.random.default_rng(i).normal(size=(1, 1, 4, 3)).astype(np.float32) for i in range(3))
    out, weights = attention.attend(*map(jnp.asarray, (query, keys, values)), attention.causal_mask(4, 4))
    for t in range(4):
        scores = np.exp(query[0, 0, t] @ keys[0, 0, : t + 1].T / np.sqrt(3))
        np.testing.assert_allclose(weights[0, 0, t, : t + 1], scores / scores.sum(), rtol=1e-5)
        np.testing.assert_allclose(out[0, 0, t], scores / scores.sum() @ values[0, 0, : t + 1], rtol=1e-4, atol=1e-6)
    assert np.all(np.triu(weights[0, 0], 1) == 0)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_row_without_keys_is_zero_and_never_nan(scale):
    x = scale * jax.random.normal(jax.random.key(0), (1, 1, 3, 2))
    mask = jnp.array([[True, True, False], [False] * 3, [True] * 3])[None, None]

    def total(x):
        out, weights = attention.attend(x, x, x, mask)
        return jnp.sum(out), (out, weights)

    gradient, (out, weights) = jax.jit(jax.grad(total, has_aux=True))(x)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(out[0, 0, 1], [0, 0])
    np.testing.assert_allclose(weights.sum(-1)[0, 0], [1, 0, 1], rtol=1e-5)


def test_the_past_alone_matters_and_all_of_it():
    x = jax.random.normal(jax.random.key(0), (1, 6, 4))
    params = random_params(STACK, x)
    jacobian = jax.jit(jax.jacrev(lambda x: linen.apply(STACK, params, {}, x)[0][0]))(x)
    reach = np.abs(jacobian[:, :, 0]).sum(axis=(1, 3))
    assert np.all(np.triu(reach, 1) == 0)
    assert np.all(reach[np.tril_indices(6)] > 0)


@pytest.mark.parametrize("cuts", [[1] * 9, [4, 1, 1, 3], [9]])
def test_a_cache_in_parts_is_the_whole(cuts):
    x = jax.random.normal(jax.random.key(0), (2, 9, 4))
    params = random_params(STACK, x)
    whole, _ = linen.apply(STACK, params, {}, x)
    cache, parts, start = attention.empty_cache(2, 2, 4, 2, 12), [], 0
    for size in cuts:
        part, cache = linen.apply(STACK, params, {}, x[:, start : start + size], cache, start)
        parts.append(part)
        start += size
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, atol=1e-5)


def test_the_cache_of_a_whole_pass_goes_on():
    x = jax.random.normal(jax.random.key(0), (2, 7, 4))
    params = random_params(STACK, x)
    whole, _ = linen.apply(STACK, params, {}, x)
    _, cache = linen.apply(STACK, params, {}, x[:, :3])

    def step(cache, carry, position, row):
        out, cache = linen.apply(STACK, params, {}, row[:, None], cache, position)
        return cache, carry + 1, out[:, 0]

    for shortest in (1, 2, 64):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention.segments, "__defaults__", (shortest,))
            steps, rest = attention.scan(step, cache, 0, jnp.swapaxes(x[:, 3:], 0, 1), 3)
        np.testing.assert_allclose(jnp.swapaxes(rest, 0, 1), whole[:, 3:], atol=1e-5)
        assert steps == 4


def test_segments_double():
    assert list(attention.segments(0, 5, 64)) == [(0, 5)]
    assert list(attention.segments(3, 40, 8)) == [(3, 8), (8, 16), (16, 32), (32, 40)]
    assert list(attention.segments(16, 17, 8)) == [(16, 17)]
    assert list(attention.segments(4, 4, 8)) == []


def test_positions():
    at = jnp.array([0, 3])
    learned = attention.Positions("learned", 5, 4)
    params = random_params(learned, at)
    np.testing.assert_array_equal(linen.apply(learned, params, {}, at), params["table"][at])
    waves = linen.apply(attention.Positions("sinusoidal", 5, 4), {}, {}, at)
    np.testing.assert_allclose(waves[1], [np.sin(3), np.sin(3e-4), np.cos(3), np.cos(3e-4)], rtol=1e-5)


def test_dropout_is_off_without_a_key_and_drops_with_one():
    module = attention.Stack(num_layers=1, num_heads=1, dropout_rate=0.5)
    x = jax.random.normal(jax.random.key(0), (1, 3, 4))
    params = random_params(module, x)
    off = linen.apply(module, params, {}, x)[0]
    np.testing.assert_array_equal(off, linen.apply(attention.Stack(1, 1), params, {}, x)[0])
    on = [linen.apply(module, params, {}, x, key=jax.random.key(i))[0] for i in range(2)]
    assert not np.allclose(on[0], on[1])
    assert not np.allclose(on[0], off)


@pytest.mark.parametrize(("rate", "rounded"), [(0.5, 128), (0.1, 26), (0.999, 255)])
def test_dropout_keeps_the_mean(rate, rounded):
    x = jnp.ones((101, 99))
    out = np.asarray(linen.apply(attention.Dropout(rate), {}, {}, x, key=jax.random.key(0)))
    np.testing.assert_allclose(np.unique(out), [0, 256 / (256 - rounded)], rtol=1e-6)
    check_mean((out == 0).ravel().astype(float), rounded / 256)
    np.testing.assert_array_equal(linen.apply(attention.Dropout(0.0), {}, {}, x, key=jax.random.key(0)), x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 4, 1, "learned", 0.0), "`num_heads` must divide the width 6, got 4"),
        ((0, 1, 1, "learned", 0.0), "`width`"),
        ((4, 1, 0, "learned", 0.0), "`num_layers`"),
        ((3, 1, 1, "sinusoidal", 0.0), "`width` must be even"),
        ((4, 1, 1, "rotary", 0.0), "`positions`"),
        ((4, 1, 1, "learned", 1.0), "`dropout_rate`"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        attention.check_sizes(*arguments)
