"""FVSBN: exactly D(D+1)/2 parameters, each connection used once; exact sums; cached = naive samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from order_checks import binary_pairs, check_completion, check_samplers_agree, dependence, earlier, params_of, total
from sklearn.linear_model import LogisticRegression

from jgen.autoregressive import fixed_order, fvsbn


@pytest.mark.parametrize("num_dims", [1, 2, 5, 8, 784])
def test_it_has_exactly_the_parameters_of_a_triangle(num_dims):
    """784 variables: 307,720."""
    network = fvsbn.network(num_dims)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, num_dims)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_dims * (num_dims + 1) // 2


def check_triangle(num_dims):
    """Each stored number stands at one place below the diagonal, and each such place holds one."""
    entries = np.arange(1, num_dims * (num_dims - 1) // 2 + 1)
    A = np.asarray(fvsbn.lower(jnp.asarray(entries, jnp.float32), num_dims)).astype(int)
    np.testing.assert_array_equal(A != 0, np.tri(num_dims, k=-1, dtype=bool))
    np.testing.assert_array_equal(np.sort(A[A != 0]), entries)


@pytest.mark.parametrize("num_dims", [1, 2, 3, 6, 7])
def test_each_parameter_is_one_connection(num_dims):
    check_triangle(num_dims)


def test_a_triangle_that_uses_an_entry_twice_is_caught(monkeypatch):
    original = jnp.concatenate
    monkeypatch.setattr(jnp, "concatenate", lambda parts: original([parts[0], parts[1][::-1]]))
    with pytest.raises(AssertionError):
        check_triangle(6)


def test_a_triangle_with_its_diagonal_is_caught(monkeypatch):
    """A leak of each value into its own conditional: dependence and the sum both see it."""
    network = fvsbn.network(6)
    params = params_of(network)
    monkeypatch.setattr(fvsbn, "lower", lambda triangle, size: jnp.tril(jnp.ones((size, size))) * triangle[0])
    assert not np.array_equal(dependence(network, params, binary_pairs(6)), earlier(6))
    assert abs(total(network, params) - 1) > 1e-3


@pytest.mark.parametrize("order", [None, 2])
def test_logits_are_the_logistic_regressions(order):
    """b_i + Σ_{j<i} A_ij x_j, entry by entry."""
    network = fvsbn.network(6, order=order)
    params = params_of(network)
    A = np.asarray(fvsbn.lower(params.triangle, 6))
    x = np.asarray(jax.random.bernoulli(jax.random.key(0), 0.5, (5, 6)), np.float32)
    ordered = x[:, np.array(network.order)]
    expected = [[params.bias[i] + sum(A[i, j] * row[j] for j in range(i)) for i in range(6)] for row in ordered]
    found = fixed_order.outputs(network, params, jnp.asarray(x))[..., 0][:, np.array(network.order)]
    np.testing.assert_allclose(found, np.array(expected), atol=1e-5)


@pytest.mark.parametrize(("num_dims", "order"), [(8, None), (8, 3), (1, None)])
def test_sums_to_one_by_enumeration(num_dims, order):
    network = fvsbn.network(num_dims, order=order)
    assert abs(total(network, params_of(network, 2.0)) - 1) < 1e-5


@pytest.mark.parametrize("order", [None, 3])
def test_each_position_depends_on_all_before_it_and_on_nothing_else(order):
    network = fvsbn.network(7, order=order)
    np.testing.assert_array_equal(dependence(network, params_of(network), binary_pairs(7)), earlier(7))


@pytest.mark.parametrize("order", [None, 1])
def test_cached_fixed_point_and_naive_samples_are_the_same(order):
    network = fvsbn.network(20, order=order)
    check_samplers_agree(network, params_of(network))


def test_a_cache_that_reads_rows_for_columns_is_caught(monkeypatch):
    network = fvsbn.network(20)
    original = fvsbn.draw

    def transposed(*arguments):
        with monkeypatch.context() as patch:
            lower = fvsbn.lower
            patch.setattr(fvsbn, "lower", lambda triangle, size: lower(triangle, size).T)
            return original(*arguments)

    monkeypatch.setattr(fvsbn, "draw", transposed)
    with pytest.raises(AssertionError, match="cached"):
        check_samplers_agree(fvsbn.network(20), params_of(network))


def test_completion():
    network = fvsbn.network(5, order=1)
    check_completion(network, params_of(network))


def test_maximum_likelihood_is_scikit_learns_logistic_regression():
    """The last variable's conditional, learned by gradient, is the unregularized logistic regression on the others."""
    x = jax.random.bernoulli(jax.random.key(0), 0.5, (400, 3)).astype(jnp.float32)
    y = jax.random.bernoulli(jax.random.key(1), jax.nn.sigmoid(x @ jnp.array([1.0, -2.0, 0.5]) - 0.3))
    batch = {"x": jnp.concatenate([x, y[:, None].astype(jnp.float32)], axis=1)}
    network = fvsbn.network(4)
    model = fixed_order.model(network, optax.lbfgs())
    state, update = model.init(jax.random.key(0), batch), jax.jit(model.update)
    for step in range(12):
        state, _ = update(jax.random.key(step), state, batch)
    fitted = LogisticRegression(C=1e9).fit(np.asarray(x), np.asarray(y))
    row = fvsbn.lower(state.params.triangle, 4)[3, :3]
    np.testing.assert_allclose(row, fitted.coef_[0], atol=2e-3)
    np.testing.assert_allclose(state.params.bias[3], fitted.intercept_[0], atol=2e-3)


def test_extreme_values_stay_finite():
    network = fvsbn.network(5)
    params = jax.tree.map(lambda leaf: 100.0 * leaf, params_of(network))
    x = jnp.stack([jnp.zeros(5), jnp.ones(5)])
    value, slope = jax.jit(jax.value_and_grad(lambda p: jnp.sum(fixed_order.log_prob(network, p, x))))(params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


@pytest.mark.parametrize(
    ("arguments", "message"), [({"num_dims": 0}, "`num_dims`"), ({"num_dims": 2, "order": (1, 1)}, "`order`")]
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fvsbn.network(**arguments)


@pytest.mark.parametrize("x", [jnp.full((2, 3), 0.5), jnp.full((2, 3), 2.0), jnp.zeros((2, 4))])
def test_bad_data_is_refused(x):
    with pytest.raises(ValueError, match="`x` must"):
        fixed_order.model(fvsbn.network(3), optax.sgd(0.1)).init(jax.random.key(0), {"x": x})
