"""NADE: the O(TD) recursion is the O(TD²) formula, gradients too; any order; exact sums; cached = naive samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from order_checks import binary_pairs, check_completion, check_samplers_agree, dependence, earlier, params_of, total

from jgen.autoregressive import fixed_order, nade

SIZES = {"hidden_size": 5, "activation": "tanh"}


def quadratic(weights, x, levels, activation):
    """The definition: every position sums up its own pre-activation from c, (batch, D, width)."""
    out = []
    for i in range(x.shape[1]):
        a = jnp.broadcast_to(weights.hidden_bias[None], (x.shape[0], weights.hidden_bias.shape[0]))
        for j in range(i):
            row = x[:, j].astype(jnp.int32)
            a = a + (x[:, j, None] * weights.encoder[j] if levels == 2 else weights.encoder[j][row])
        out.append(activation(a) @ weights.decoder[i].T + weights.bias[i][None])
    return jnp.stack(out, axis=1)


def check_recursion(levels, activation="tanh", num_dims=7):
    """Outputs and all gradients, with blocks that divide D and blocks that do not."""
    network = nade.network(num_dims, levels, hidden_size=5, activation=activation)
    params = params_of(network)
    x = jax.random.randint(jax.random.key(1), (6, num_dims), 0, levels).astype(jnp.float32)
    function = nade.ACTIVATIONS[activation]
    weigh = jax.random.normal(jax.random.key(2), (6, num_dims, 1 if levels == 2 else levels))

    def value(outputs):
        return lambda weights: (lambda out: (jnp.sum(weigh * jnp.sin(out)), out))(outputs(weights))

    def slow(weights):
        return quadratic(weights, x, levels, function)

    (_, expected), slopes = jax.jit(jax.value_and_grad(value(slow), has_aux=True))(params)
    for block in (3, 7, 28):

        def fast(weights, b=block):
            return nade.conditionals(weights, x, lambda a, own: function(a), block=b)

        (_, found), grads = jax.jit(jax.value_and_grad(value(fast), has_aux=True))(params)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), grads, slopes)


@pytest.mark.parametrize(("levels", "activation"), [(2, "sigmoid"), (2, "relu"), (3, "tanh")])
def test_recursion_is_the_quadratic_formula_and_its_gradients(levels, activation):
    check_recursion(levels, activation)


def largest(jaxpr):
    """The most elements that any value has in a program, its loops included."""
    inner = [v for eqn in jaxpr.eqns for value in eqn.params.values() for v in jax.tree.leaves(value, is_leaf=callable)]
    parts = [getattr(v, "jaxpr", v) for v in inner if hasattr(getattr(v, "jaxpr", v), "eqns")]
    sizes = [int(np.prod(v.aval.shape)) for eqn in jaxpr.eqns for v in eqn.outvars]
    return max([0, *sizes, *map(largest, parts)])


def test_no_array_of_batch_by_dims_by_hidden_units():
    """Neither forward nor for the gradient; without blocks there would be one."""
    batch, dims, hidden = 32, 4 * nade.BLOCK, 16
    params = params_of(nade.network(dims, hidden_size=hidden))

    def value(params, block):
        out = nade.conditionals(params, jnp.zeros((batch, dims)), lambda a, own: jnp.tanh(a), block=block)
        return jnp.sum(jnp.sin(out))

    sizes = [largest(jax.make_jaxpr(jax.grad(value), static_argnums=1)(params, b).jaxpr) for b in (nade.BLOCK, dims)]
    assert sizes == [batch * dims * hidden // 4, batch * dims * hidden]


@pytest.mark.parametrize(
    ("num_dims", "levels", "order"), [(8, 2, None), (8, 2, 5), (5, 3, 1), (4, 2, (2, 0, 3, 1)), (1, 2, None)]
)
def test_sums_to_one_by_enumeration(num_dims, levels, order):
    network = nade.network(num_dims, levels, order=order, **SIZES)
    assert abs(total(network, params_of(network), levels) - 1) < 1e-5


@pytest.mark.parametrize(("levels", "order"), [(2, None), (2, 3), (3, 3)])
def test_each_position_depends_on_all_before_it_and_on_nothing_else(levels, order):
    network = nade.network(6, levels, order=order, **SIZES)
    np.testing.assert_array_equal(dependence(network, params_of(network), binary_pairs(6)), earlier(6))


def test_order_is_that_of_the_data():
    """The same parameters in order o give x the probability that the natural order gives x[o]."""
    order = (2, 0, 3, 1)
    ordered, natural = (nade.network(4, order=o, **SIZES) for o in (order, None))
    params, x = params_of(natural), jnp.array([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    each = fixed_order.log_prob_each(ordered, params, x)
    np.testing.assert_allclose(
        each[:, np.array(order)], fixed_order.log_prob_each(natural, params, x[:, np.array(order)])
    )
    logits = fixed_order.outputs(ordered, params, x)
    np.testing.assert_allclose(-jax.nn.softplus(jnp.where(x > 0, -1.0, 1.0) * logits[..., 0]), each, rtol=1e-5)
    assert fixed_order.permutation(3, 50) == fixed_order.permutation(3, 50) != fixed_order.permutation(4, 50)


@pytest.mark.parametrize(("levels", "order"), [(2, None), (2, 1), (4, 1)])
def test_cached_fixed_point_and_naive_samples_are_the_same(levels, order):
    network = nade.network(12, levels, order=order, **SIZES)
    check_samplers_agree(network, params_of(network))


@pytest.mark.parametrize(("levels", "order"), [(2, 1), (3, None)])
def test_completion(levels, order):
    network = nade.network(4, levels, order=order, **SIZES)
    check_completion(network, params_of(network), levels)


def test_a_known_value_after_a_missing_one_is_refused():
    network = nade.network(4, order=(2, 0, 3, 1), **SIZES)
    params, known = params_of(network), jnp.zeros(4)
    with pytest.raises(ValueError, match=r"`mask` must mark a prefix .* \(A8, A9\)"):
        fixed_order.sample(
            network, jax.random.key(0), params, 1, known=known, mask=np.array([True, True, False, False])
        )
    with pytest.raises(ValueError, match="`known` and `mask` must be given together"):
        fixed_order.sample(network, jax.random.key(0), params, 1, known=known)


MUTANTS = {
    "the increment forgets the value": ("increment", lambda original: lambda encoder, x: original(encoder, x * 0 + 1)),
    "another row of W": ("increment", lambda original: lambda encoder, x: original(encoder[::-1], x[::-1])),
    "each block starts from c": ("BLOCK", None),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_recursion_is_caught(name, monkeypatch):
    attribute, mutate = MUTANTS[name]
    if mutate is None:
        scan = jax.lax.scan

        def forgetful(f, init, xs):
            blocks = jax.tree.leaves(xs)[0].ndim >= 3
            return scan((lambda _, now: f(init, now)) if blocks else f, init, xs)

        monkeypatch.setattr(jax.lax, "scan", forgetful)
    else:
        monkeypatch.setattr(nade, attribute, mutate(getattr(nade, attribute)))
    with pytest.raises(AssertionError):
        check_recursion(2)


def test_a_cache_that_forgets_is_caught(monkeypatch):
    network = nade.network(12, **SIZES)
    params, original = params_of(network), nade.draw

    def forgetful(weights, *arguments, **keywords):
        return original(weights._replace(encoder=weights.encoder.at[4].set(0.0)), *arguments, **keywords)

    monkeypatch.setattr(nade, "draw", forgetful)
    with pytest.raises(AssertionError, match="cached"):
        check_samplers_agree(nade.network(12, **SIZES), params)


def test_extreme_values_stay_finite():
    network = nade.network(5, hidden_size=4, activation="relu")
    params = jax.tree.map(lambda leaf: 100.0 * leaf, params_of(network))
    x = jnp.stack([jnp.zeros(5), jnp.ones(5)])
    value, slope = jax.jit(jax.value_and_grad(lambda p: jnp.sum(fixed_order.log_prob(network, p, x))))(params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def test_training_starts_near_independent_variables_in_their_order():
    x = (jax.random.uniform(jax.random.key(0), (50, 3)) < jnp.array([[0.1, 0.5, 1.0]])).astype(jnp.float32)
    network = nade.network(3, order=(2, 0, 1))
    state = fixed_order.model(network, optax.sgd(0.1)).init(jax.random.key(0), {"x": x})
    ones = np.asarray(x.sum(0))[[2, 0, 1]]
    np.testing.assert_allclose(state.params.bias[:, 0], np.log((ones + 0.5) / (50 - ones + 0.5)), rtol=1e-5)


def test_lbfgs_is_far_ahead_of_adam_after_as_many_updates():
    patterns = jax.random.bernoulli(jax.random.key(0), 0.5, (4, 12))
    x = jnp.repeat(patterns, 16, axis=0) ^ jax.random.bernoulli(jax.random.key(1), 0.05, (64, 12))
    batch, network = {"x": x.astype(jnp.float32)}, nade.network(12, hidden_size=8)

    def final(optimizer):
        model = fixed_order.model(network, optimizer)
        state, update = model.init(jax.random.key(0), batch), jax.jit(model.update)
        for step in range(30):
            state, metrics = update(jax.random.key(step), state, batch)
        return float(metrics["nll"])

    assert final(optax.lbfgs()) < final(optax.adam(1e-2)) - 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, "`levels`"),
        ({"hidden_size": 0}, "`hidden_size`"),
        ({"activation": "gelu"}, "`activation`"),
        ({"num_dims": 0}, "`num_dims`"),
        ({"order": (0, 0, 1, 2)}, "`order` must be a seed or a permutation"),
        ({"order": -1}, "`order`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nade.network(**{"num_dims": 4, **arguments})


@pytest.mark.parametrize("x", [jnp.full((2, 3), 0.5), jnp.full((2, 3), 2.0), jnp.zeros((2, 4)), jnp.zeros((2, 3, 1))])
def test_bad_data_is_refused(x):
    model = fixed_order.model(nade.network(3, **SIZES), optax.sgd(0.1))
    with pytest.raises(ValueError, match="`x` must"):
        model.init(jax.random.key(0), {"x": x})


def test_an_unknown_method_is_refused():
    network = nade.network(3, **SIZES)
    with pytest.raises(ValueError, match="`method` must be one of 'cached', 'naive', 'fixed_point'"):
        fixed_order.sample(network, jax.random.key(0), params_of(network), 1, method="fast")
