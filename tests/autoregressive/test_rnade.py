"""RNADE: integrates to 1, is SciPy's mixture in one dimension, the recursion is its formula, cached = naive samples."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from order_checks import check_samplers_agree, dependence, earlier, params_of
from stat_checks import check_cdf, check_mean

from jgen.autoregressive import fixed_order, nade, rnade

SIZES = {"num_components": 3, "hidden_size": 6}


def moderate(network, seed=0):
    """Random parameters whose scales are neither points nor planes."""
    return params_of(network, 0.5, seed)


def integral(network, params):
    """The trapezoid rule on ±25, 1,001² points (Laplace tails are long)."""
    side = np.linspace(-25.0, 25.0, 1_001, dtype=np.float32)
    points = jnp.asarray(np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2))
    density = np.exp(np.asarray(jax.jit(lambda p, x: fixed_order.log_prob(network, p, x))(params, points), np.float64))
    return np.trapezoid(np.trapezoid(density.reshape(1_001, 1_001), side, axis=1), side)


@pytest.mark.parametrize(("component", "order"), [("gaussian", None), ("gaussian", (1, 0)), ("laplace", None)])
def test_integrates_to_one_in_two_dimensions(component, order):
    network = rnade.network(2, component=component, order=order, floor=0.2, **SIZES)
    assert abs(integral(network, moderate(network)) - 1) < 1e-3


def wrong_jacobian(self, outputs, x):
    """s for log s: the density is not divided by its scale."""
    log_weights, means, log_scales = self.parts(outputs)
    z = (x[..., None] - means) * jnp.exp(-log_scales)
    each = log_weights - 0.5 * jnp.square(z) - 0.5 * jnp.log(2 * jnp.pi) - jnp.exp(log_scales)
    return jax.nn.logsumexp(each, axis=-1)


def raw_weights(original):
    """α that do not sum to one."""

    def parts(self, outputs):
        _, means, log_scales = original(self, outputs)
        return jnp.split(outputs, 3, axis=-1)[0], means, log_scales

    return parts


@pytest.mark.parametrize("name", ["scale for its logarithm", "weights that do not sum to one"])
def test_wrong_densities_are_caught(name, monkeypatch):
    network = rnade.network(2, floor=0.2, **SIZES)
    params = moderate(network)
    if name == "scale for its logarithm":
        monkeypatch.setattr(rnade.Mixture, "log_prob", wrong_jacobian)
    else:
        monkeypatch.setattr(rnade.Mixture, "parts", raw_weights(rnade.Mixture.parts))
    assert abs(integral(network, params) - 1) > 1e-2


@pytest.mark.parametrize(("component", "law"), [("gaussian", scipy.stats.norm), ("laplace", scipy.stats.laplace)])
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_one_dimension_is_scipys_mixture(component, law, floor):
    network = rnade.network(1, component=component, floor=floor, **SIZES)
    params = moderate(network)
    # The first variable has nothing before it: h = relu(ρ c).
    h = np.maximum(np.asarray(params.scale[0] * params.weights.hidden_bias), 0)
    raw = np.asarray(params.weights.bias[0] + params.weights.decoder[0] @ h, np.float64)
    logits, means, log_scales = np.split(raw, 3)
    weights, scales = np.exp(logits) / np.exp(logits).sum(), np.exp(log_scales) + floor
    x = np.linspace(-6.0, 6.0, 41, dtype=np.float32)
    expected = np.log(np.sum(weights * law.pdf(x[:, None], means, scales), axis=1))
    np.testing.assert_allclose(
        fixed_order.log_prob(network, params, jnp.asarray(x)[:, None]), expected, rtol=2e-4, atol=2e-5
    )
    draws = jax.jit(lambda key: fixed_order.sample(network, key, params, 20_000))(jax.random.key(0))
    check_cdf(np.asarray(draws[:, 0]), lambda at: np.sum(weights * law.cdf(at[:, None], means, scales), 1), sees=0.05)


def test_recursion_is_its_formula():
    """h_i = relu(ρ_i (c + Σ_{j<i} W_j x_j)), each position on its own."""
    network = rnade.network(5, order=(3, 1, 4, 0, 2), **SIZES)
    params = moderate(network)
    x = jax.random.normal(jax.random.key(1), (7, 5))
    ordered, (encoder, c, decoder, bias) = np.asarray(x)[:, [3, 1, 4, 0, 2]], jax.tree.map(np.asarray, params.weights)
    total = np.zeros(7)
    for i in range(5):
        a = c + ordered[:, :i] @ encoder[:i, 0]
        out = np.maximum(np.asarray(params.scale[i]) * a, 0) @ decoder[i].T + bias[i]
        logits, means, log_scales = np.split(out.astype(np.float64), 3, axis=1)
        weights, z = np.exp(logits) / np.exp(logits).sum(1, keepdims=True), ordered[:, i, None] - means
        total += np.log(np.sum(weights * scipy.stats.norm.pdf(z / np.exp(log_scales)) / np.exp(log_scales), axis=1))
    np.testing.assert_allclose(fixed_order.log_prob(network, params, x), total, rtol=1e-4)


@pytest.mark.parametrize("order", [None, 2])
def test_each_position_depends_on_all_before_it_and_on_nothing_else(order, monkeypatch):
    monkeypatch.setattr(rnade, "hidden", lambda a, scale: jnp.tanh(scale * a))  # a dead unit looks like a mask
    network = rnade.network(5, order=order, **SIZES)
    pairs = np.random.default_rng(0).normal(size=(3, 2, 5))
    np.testing.assert_array_equal(dependence(network, moderate(network), pairs), earlier(5))


@pytest.mark.parametrize("component", ["gaussian", "laplace"])
def test_cached_fixed_point_and_naive_samples_are_the_same(component):
    network = rnade.network(6, component=component, order=1, **SIZES)
    check_samplers_agree(network, moderate(network))


def test_a_cache_without_the_scale_is_caught(monkeypatch):
    original = nade.draw
    monkeypatch.setattr(nade, "draw", lambda *args: original(*args[:-1], jnp.ones_like(args[-1])))
    network = rnade.network(6, **SIZES)
    with pytest.raises(AssertionError, match="cached"):
        check_samplers_agree(network, moderate(network))


def test_completion_follows_the_conditional():
    network = rnade.network(2, order=(1, 0), floor=0.1, **SIZES)
    params, at, num = moderate(network), 0.7, 20_000
    mask, known = np.array([False, True]), jnp.array([0.0, at])
    draw = jax.jit(lambda key: fixed_order.sample(network, key, params, num, known=known, mask=mask))
    x = np.asarray(draw(jax.random.key(0)))
    np.testing.assert_array_equal(x[:, 1], np.float32(at))
    outputs = fixed_order.outputs(network, params, jnp.array([[0.0, at]]))[0, 0]
    log_weights, means, log_scales = rnade.Mixture(3, floor=0.1).parts(outputs)
    weights, scales = np.exp(log_weights), np.exp(log_scales)
    check_cdf(x[:, 0], lambda v: np.sum(weights * scipy.stats.norm.cdf(v[:, None], means, scales), axis=1), sees=0.05)
    check_mean(x[:, :1], np.sum(weights * np.asarray(means)))


def test_extreme_values_stay_finite():
    network = rnade.network(3, **SIZES)
    params = jax.tree.map(lambda leaf: 100.0 * leaf, moderate(network))
    x = jnp.stack([jnp.zeros(3), 10 * jnp.ones(3), -10 * jnp.ones(3)])
    value, slope = jax.jit(jax.value_and_grad(lambda p: jnp.sum(fixed_order.log_prob(network, p, x))))(params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def test_means_start_over_the_range_of_the_data_also_of_a_constant_one():
    x = jnp.array([[-1.0, 5.0], [3.0, 5.0], [0.0, 5.0]])
    outputs = rnade.Mixture(3).start(x)
    np.testing.assert_allclose(outputs[0], [0, 0, 0, -1, 1, 3, *[np.log(2)] * 3], rtol=1e-6)
    np.testing.assert_allclose(outputs[1], [0, 0, 0, 5, 5, 5, 0, 0, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"component": "cauchy"}, "`component`"),
        ({"num_components": 0}, "`num_components`"),
        ({"hidden_size": 0}, "`hidden_size`"),
        ({"floor": -0.1}, "`floor`"),
        ({"order": (0, 2)}, "`order`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        rnade.network(2, **arguments)


@pytest.mark.parametrize("x", [jnp.full((2, 3), jnp.nan), jnp.full((2, 3), jnp.inf), jnp.zeros((2, 4))])
def test_bad_data_is_refused(x):
    with pytest.raises(ValueError, match="`x` must"):
        fixed_order.model(rnade.network(3, **SIZES), optax.sgd(0.1)).init(jax.random.key(0), {"x": x})
