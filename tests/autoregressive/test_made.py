"""MADE: strictly triangular Jacobians, exact normalization, cached sampling = naive sampling."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen import linen
from jgen.autoregressive import fixed_order, made
from jgen.math import discrete
from jgen.nets import masked


def build(num_inputs, levels=2, num_masks=3, order="random", direct=True, scale=1.0, residual=False):
    """A module with smooth activations (a dead ReLU looks like a mask) and large random weights everywhere."""
    sizes = (9, 9) if residual else (9, 7)
    module = made.MADE(sizes, levels, direct, activation=jnp.tanh, residual=residual)
    wiring = masked.degrees(7, num_inputs, sizes, num_masks=num_masks, order=order, shared=residual)
    x = jnp.zeros((1, num_inputs))
    params, _ = jax.jit(lambda key: linen.init(module, key, x, masked.component(wiring, 0)))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return module, wiring, jax.tree.unflatten(tree, drawn)


def every(num_inputs, levels=2):
    return jnp.array(list(itertools.product(range(levels), repeat=num_inputs)), jnp.float32)


def dependence(module, params, wiring, c, num_inputs):
    """|d logit_d / d x_j| of component c, [rank of output, rank of input]."""
    one = masked.component(wiring, c)

    def logits(x):
        return linen.apply(module, params, {}, x[None], one)[0, :, 0]

    jacobian = np.abs(jax.jit(jax.jacfwd(logits))(jnp.full((num_inputs,), 0.3)))
    ordered = np.argsort(np.asarray(one.inputs))
    return jacobian[ordered][:, ordered]


def is_autoregressive(jacobian):
    """Nothing on and above the diagonal, exactly."""
    return np.all(np.triu(jacobian) == 0.0)


@pytest.mark.parametrize("order", ["random", "natural"])
@pytest.mark.parametrize(("direct", "residual"), [(True, False), (False, False), (True, True)])
def test_jacobian_is_strictly_triangular_for_every_component(order, direct, residual):
    module, wiring, params = build(6, num_masks=4, order=order, direct=direct, residual=residual)
    for c in range(4):
        jacobian = dependence(module, params, wiring, c, 6)
        assert is_autoregressive(jacobian)
        if direct:
            assert np.all(jacobian[np.tril_indices(6, -1)] > 0)


def test_components_differ_in_order_and_connectivity():
    wiring = masked.degrees(0, 20, (30,), num_masks=3)
    assert len({tuple(row) for row in wiring.inputs}) == 3
    assert len({tuple(row) for row in wiring.hidden[0]}) == 3
    again = masked.degrees(0, 20, (30,), num_masks=2)
    np.testing.assert_array_equal(again.inputs, wiring.inputs[:2])
    np.testing.assert_array_equal(again.hidden[0], wiring.hidden[0][:2])


def test_residual_layers_share_their_degrees_and_add_to_the_layer_before():
    module, wiring, params = build(6, residual=True)
    np.testing.assert_array_equal(*wiring.hidden)
    params = {**params, "hidden_1": jax.tree.map(jnp.zeros_like, params["hidden_1"])}
    shallow = made.MADE((9,), activation=lambda h: jnp.tanh(jnp.tanh(h)))
    one = masked.component(wiring, 1)
    deep = linen.apply(module, params, {}, every(6), one)
    again = linen.apply(shallow, params, {}, every(6), one._replace(hidden=one.hidden[:1]))
    np.testing.assert_allclose(deep, again, rtol=1e-5)


def test_residual_layers_with_degrees_of_their_own_do_not_leak():
    module, _, params = build(6, residual=True)
    wiring = masked.degrees(7, 6, (9, 9), num_masks=3)
    assert np.any(wiring.hidden[0] > wiring.hidden[1])
    for c in range(3):
        assert is_autoregressive(dependence(module, params, wiring, c, 6))
    draw = functools.partial(made.sample, module, jax.random.key(3), params, wiring, 40)
    np.testing.assert_array_equal(draw(method="cached"), draw(method="naive"))


def leaky(before, after, *, strict=False):
    """The output mask m ≤ r + 1 in place of m ≤ r."""
    del strict
    return before[:, None] <= after[None, :]


def test_a_leaking_output_mask_is_caught(monkeypatch):
    module, wiring, params = build(6)
    monkeypatch.setattr(masked, "degree_mask", leaky)
    assert not is_autoregressive(dependence(module, params, wiring, 0, 6))
    total = jnp.sum(jnp.exp(made.log_prob(module, params, wiring, every(6))))
    assert abs(float(total) - 1.0) > 1e-3


@pytest.mark.parametrize(("num_inputs", "levels"), [(8, 2), (5, 3), (1, 2)])
def test_sums_to_one_by_enumeration(num_inputs, levels):
    module, wiring, params = build(num_inputs, levels)
    x = every(num_inputs, levels)
    each = jnp.sum(jax.jit(lambda x: made.component_log_prob(module, params, wiring, x))(x), axis=-1)
    np.testing.assert_allclose(jnp.sum(jnp.exp(each), axis=1), 1.0, atol=1e-5)
    mixture = made.log_prob(module, params, wiring, x)
    np.testing.assert_allclose(jnp.exp(mixture), jnp.mean(jnp.exp(each), axis=0), rtol=1e-4, atol=1e-7)


def test_mean_of_logs_is_not_the_mixture():
    module, wiring, params = build(6)
    each = jnp.sum(made.component_log_prob(module, params, wiring, every(6)), axis=-1)
    assert abs(float(jnp.sum(jnp.exp(jnp.mean(each, axis=0)))) - 1.0) > 1e-3


@pytest.mark.parametrize("levels", [2, 3])
def test_cached_samples_are_the_naive_ones(levels, monkeypatch):
    module, wiring, params = build(6, levels)
    num, width = 40, 1 if levels == 2 else levels
    cached = jax.jit(lambda key: made.sample(module, key, params, wiring, num))(jax.random.key(3))

    def naive(key, wiring):
        """One full pass per input, the same noise."""
        component_key, noise_key = jax.random.split(key)
        one = masked.component(wiring, jax.random.categorical(component_key, jnp.zeros(wiring.inputs.shape[0])))
        draw = jax.random.logistic if levels == 2 else jax.random.gumbel
        noise, x = draw(noise_key, (6, width)), jnp.zeros(6)
        for d in jnp.argsort(one.inputs):
            logits = linen.apply(module, params, {}, x[None], one)[0, d] - (noise[d] if levels == 2 else -noise[d])
            x = x.at[d].set((logits[0] > 0) if levels == 2 else jnp.argmax(logits))
        return x

    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(num))
    np.testing.assert_array_equal(cached, jax.jit(jax.vmap(lambda key: naive(key, wiring)))(keys))


@pytest.mark.parametrize(
    ("levels", "num_masks", "residual"), [(2, 1, False), (2, 3, False), (3, 3, False), (3, 3, True)]
)
def test_all_methods_draw_the_same_vectors(levels, num_masks, residual):
    module, wiring, params = build(6, levels, num_masks=num_masks, residual=residual)
    draw = functools.partial(made.sample, module, jax.random.key(3), params, wiring, 40)
    cached, naive = (np.asarray(jax.jit(functools.partial(draw, method=m))()) for m in ("cached", "naive"))
    np.testing.assert_array_equal(cached, naive)
    x, sweeps = jax.jit(lambda key: made.fixed_point(module, key, params, wiring, 40))(jax.random.key(3))
    np.testing.assert_array_equal(cached, x)
    assert x.dtype == cached.dtype
    assert 1 < np.max(sweeps) <= 6


def test_all_methods_complete_alike():
    module, wiring, params = build(6, num_masks=2, order="natural")
    known, mask = every(6)[:40], np.arange(6) < 3
    draw = functools.partial(made.sample, module, jax.random.key(3), params, wiring, 40, known=known, mask=mask)
    cached, naive, jacobi = (np.asarray(jax.jit(functools.partial(draw, method=m))()) for m in fixed_order.METHODS)
    np.testing.assert_array_equal(cached[:, :3], known[:, :3])
    np.testing.assert_array_equal(cached, naive)
    np.testing.assert_array_equal(cached, jacobi)


def test_an_unknown_method_is_refused():
    module, wiring, params = build(4)
    with pytest.raises(ValueError, match="`method` must be one of"):
        made.sample(module, jax.random.key(0), params, wiring, 1, method="parallel")


def test_completion_follows_the_conditional():
    module, wiring, params = build(4, num_masks=2, order="natural", scale=0.7)
    space, num = every(4), 20_000
    mask = np.array([True, True, False, False])
    known = jnp.broadcast_to(jnp.array([[1.0, 0.0, 1.0, 1.0]]), (num, 4))
    drawn = jax.jit(lambda key: made.sample(module, key, params, wiring, num, known=known, mask=mask))
    x = np.asarray(drawn(jax.random.key(0)))
    np.testing.assert_array_equal(x[:, :2], np.broadcast_to([1.0, 0.0], (num, 2)))
    fits = (space[:, 0] == 1) & (space[:, 1] == 0)
    p = np.where(fits, np.exp(made.log_prob(module, params, wiring, space)), 0.0)[fits]
    counts = np.bincount((x[:, 2] * 2 + x[:, 3]).astype(int), minlength=4)
    expected = num * p / p.sum()
    assert np.sum((counts - expected) ** 2 / expected) < 21.1  # χ² with 3 degrees of freedom, p = 1e-4


def test_completion_refuses_what_it_cannot_do():
    module, wiring, params = build(4, num_masks=1, order="natural")
    known, mask = jnp.zeros((1, 4)), np.array([True, False, True, False])
    with pytest.raises(ValueError, match="`mask` must mark a prefix"):
        made.sample(module, jax.random.key(0), params, wiring, 1, known=known, mask=mask)


def test_extreme_logits_stay_finite():
    logits = jnp.array([[[100.0], [-100.0]]])
    for x in ([[0.0, 0.0]], [[1.0, 1.0]]):
        value, slope = jax.value_and_grad(lambda out, x=x: jnp.sum(discrete.log_prob(out, jnp.array(x))))(logits)
        assert jnp.isfinite(value)
        assert jnp.all(jnp.isfinite(slope))


def test_output_biases_start_at_the_log_odds():
    x = (jax.random.uniform(jax.random.key(0), (50, 3)) < jnp.array([[0.1, 0.5, 1.0]])).astype(jnp.float32)
    state = made.model(optax.sgd(0.1), hidden_sizes=(4,)).init(jax.random.key(0), {"x": x})
    ones = np.asarray(x.sum(0))
    np.testing.assert_allclose(state.params["output"]["bias"], np.log((ones + 0.5) / (50 - ones + 0.5)), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, "`levels`"),
        ({"num_masks": 0}, "`num_masks`"),
        ({"order": "sorted"}, "`order`"),
        ({"hidden_sizes": (4, 5), "residual": True}, "`hidden_sizes` must be equal"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        made.model(optax.sgd(0.1), **arguments).init(jax.random.key(0), {"x": jnp.zeros((2, 3))})


@pytest.mark.parametrize("x", [jnp.full((2, 3), 0.5), jnp.full((2, 3), 2.0), jnp.zeros((2, 3, 1))])
def test_bad_data_is_refused(x):
    with pytest.raises(ValueError, match="`x` must"):
        made.model(optax.sgd(0.1), hidden_sizes=(4,)).init(jax.random.key(0), {"x": x})
