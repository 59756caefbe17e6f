"""What A8 and A9 share, on a network that is a table: the law of the subsets, and the loss that makes orders equal."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from any_order_checks import check_inpainting, check_sums_to_one, every, masks, naive_order_log_prob
from stat_checks import check_counts

from jgen.autoregressive import any_order
from jgen.math import discrete


def table(size: int, levels: int = 2) -> any_order.Network:
    """Logits looked up for each (x ⊙ m, m): nothing ties one conditional to another, and float64 stays float64."""
    base, width = levels + 1, discrete.width(levels)

    def code(x, mask):
        return jnp.sum(jnp.where(mask, x.astype(jnp.int32) + 1, 0) * base ** jnp.arange(size).reshape(x[0:1].shape), -1)

    def init(key, x):
        return jax.random.normal(key, (base**size, size, width))

    def logits(params, x, mask):
        return params[code(x, mask)]

    def push(params, cache, d, value):
        return cache + (value.astype(jnp.int32) + 1) * base**d

    return any_order.Network(
        (size,),
        levels,
        init,
        logits,
        lambda params, x, mask: code(x[None], mask[None])[0],
        push,
        lambda params, cache, d: params[cache, d],
        block=2,
    )


def weights(network: any_order.Network) -> np.ndarray:
    """P(m) under training: |m| uniform on 0..D−1, then uniform; the full set never."""
    size = network.size
    return np.array([1 / (size * math.comb(size, m.sum())) if m.sum() < size else 0.0 for m in masks(network)])


def both_sides(network, params):
    """(mean over all subsets of the scaled loss, mean over all orders of −log p_o) of every x, in float64."""
    x = every(network).astype(jnp.float64)
    each = jax.jit(lambda mask: any_order.scaled_nll(network, params, x, jnp.broadcast_to(mask, x.shape)))
    left = sum(p * np.asarray(each(jnp.asarray(m))) for p, m in zip(weights(network), masks(network), strict=True) if p)
    orders = np.array(list(itertools.permutations(range(network.size))))
    right = -np.asarray(jax.jit(lambda x: any_order.order_log_prob(network, params, orders, x))(x)).mean(axis=0)
    return left, right


@pytest.mark.parametrize(("size", "levels"), [(4, 2), (3, 3)])
def test_the_scaled_loss_is_the_mean_over_all_orders(size, levels):
    with jax.enable_x64(True):
        network = table(size, levels)
        params = network.init(jax.random.key(0), None)
        left, right = both_sides(network, params)
        assert left.dtype == right.dtype == np.float64
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-10)


def test_the_published_scale_is_caught(monkeypatch):
    """D/(D − |m| + 1) with |m| the number of known inputs, as in ConvNADE's code."""

    def wrong(network, params, x, mask):
        missing = ~mask
        each = jnp.where(missing, discrete.log_prob(network.logits(params, x, mask), x), 0.0)
        return -jnp.sum(each, axis=-1) * network.size / (jnp.sum(missing, axis=-1) + 1)

    monkeypatch.setattr(any_order, "scaled_nll", wrong)
    with jax.enable_x64(True):
        left, right = both_sides(table(4), table(4).init(jax.random.key(0), None))
    assert np.abs(left - right).max() > 0.1


def test_training_is_unbiased_for_the_mean_over_all_orders():
    network = table(3)
    params = network.init(jax.random.key(0), None)
    x = jnp.broadcast_to(jnp.array([1.0, 0.0, 1.0]), (20_000, 3))
    value, _ = jax.jit(lambda key: any_order.loss(key, params, {}, {"x": x}, train=True, network=network))(
        jax.random.key(1)
    )
    orders = itertools.permutations(range(3))
    exact = -np.mean([naive_order_log_prob(network, params, order, x[:1]) for order in orders])
    np.testing.assert_allclose(value, exact, atol=0.05)
    assert exact > 1


@pytest.mark.parametrize("num", [1, 4])
def test_law_of_the_subsets(num):
    """|m| is uniform on 0..D−1 and m uniform given |m|, however many are drawn together."""
    network = table(4)
    keys = jax.random.split(jax.random.key(0), 40_000 // num)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: any_order.subsets(key, (4,), num)))(keys)).reshape(-1, 4)
    counts = np.bincount(drawn @ (2 ** np.arange(4)[::-1]), minlength=16)
    assert counts[-1] == 0
    if num == 1:
        check_counts(counts, weights(network))
    np.testing.assert_allclose(counts / counts.sum(), weights(network), atol=0.01)


def test_stratified_subsets_vary_less():
    keys = jax.random.split(jax.random.key(0), 2_000)
    sizes = jax.jit(jax.vmap(lambda key: jnp.mean(jnp.sum(any_order.subsets(key, (20,), 4), axis=-1))))(keys)
    assert np.var(sizes) < 0.5 * (20**2 - 1) / 12 / 4


def test_table_is_normalized_and_inpaints():
    network = table(3)
    params = network.init(jax.random.key(0), None)
    check_sums_to_one(network, params)
    check_inpainting(network, params)


def test_mean_of_logs_is_not_the_ensemble():
    network = table(4)
    params = network.init(jax.random.key(0), None)
    each = any_order.order_log_prob(network, params, any_order.orders(0, 4, 3), every(network))
    assert abs(float(np.exp(each.mean(axis=0)).sum()) - 1.0) > 1e-2


def test_an_order_that_repeats_itself_is_caught():
    """A block that starts from the cache of the block before it, and not from its end, counts variables twice."""
    network = table(4)
    params = network.init(jax.random.key(0), None)
    orders = np.array([[0, 1, 1, 2]])
    total = np.exp(any_order.order_log_prob(network, params, orders, every(network))).sum()
    assert abs(total - 1) > 1e-2


def test_orders_do_not_depend_on_their_number():
    many = any_order.orders(3, 9, 5)
    np.testing.assert_array_equal(any_order.orders(3, 9, 2), many[:2])
    np.testing.assert_array_equal(np.sort(many, axis=1), np.broadcast_to(np.arange(9), (5, 9)))
    assert len({tuple(row) for row in many}) == 5


def test_examples_may_know_different_subsets():
    network = table(3)
    params = network.init(jax.random.key(0), None)
    known = jnp.array([[1.0, 1.0, 1.0]] * 4)
    mask = jnp.array([[True, False, False], [False, True, True], [True, True, True], [False, False, False]])
    draw = jax.jit(lambda key, mask: any_order.sample(network, key, params, 4, known=known, mask=mask))
    drawn = np.stack([draw(jax.random.key(i), mask) for i in range(20)])
    assert np.all(drawn[:, np.asarray(mask)] == 1)
    assert np.all(drawn[:, ~np.asarray(mask)].std(axis=0) > 0)


def test_estimate_is_the_mean_of_its_draws():
    network = table(3)
    model = any_order.model(network, optax.sgd(0.1), num_draws=600)
    state = model.init(jax.random.key(0), {"x": jnp.zeros((2, 3))})
    x = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    metrics = jax.jit(model.evaluate)(jax.random.key(0), state, {"x": x})
    orders = np.array(list(itertools.permutations(range(3))))
    exact = -any_order.order_log_prob(network, state.params, orders, x).mean(axis=0)
    np.testing.assert_allclose(metrics["order_nll"], exact, atol=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"known": jnp.zeros(3)}, "`known` and `mask` must be given together"),
        ({"known": jnp.zeros(3), "mask": np.zeros(2, bool)}, "`mask` must have shape"),
        ({"known": jnp.zeros((2, 3)), "mask": np.zeros(3, bool)}, "`known` must have shape"),
        ({"known": jnp.full(3, 2.0), "mask": np.ones(3, bool)}, "`known` must lie in"),
    ],
)
def test_bad_knowledge_is_refused(arguments, message):
    network = table(3)
    with pytest.raises(ValueError, match=message):
        any_order.sample(network, jax.random.key(0), network.init(jax.random.key(0), None), 4, **arguments)


@pytest.mark.parametrize("name", ["num_orders", "num_draws"])
def test_bad_numbers_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1"):
        any_order.model(table(3), optax.sgd(0.1), **{name: 0})
