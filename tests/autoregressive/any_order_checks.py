"""What every network that takes any subset as given has to pass: normalization, its cache, dependence, in-painting."""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from stat_checks import check_counts

from jgen.autoregressive import any_order


def params_of(network: any_order.Network, scale: float = 0.5, seed: int = 0, dtype: Any = jnp.float32) -> Any:
    """Random weights everywhere, biases too."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, *network.shape)))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [scale * jax.random.normal(key, leaf.shape, dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def every(network: any_order.Network) -> Any:
    """All levels^D examples."""
    rows = itertools.product(range(network.levels), repeat=network.size)
    return jnp.array(list(rows), jnp.float32).reshape(-1, *network.shape)


def masks(network: any_order.Network) -> np.ndarray:
    """All 2^D subsets, (2^D, *shape)."""
    return np.array(list(itertools.product([False, True], repeat=network.size))).reshape(-1, *network.shape)


def naive_order_log_prob(network: any_order.Network, params: Any, order: Any, x: Any) -> np.ndarray:
    """log p_o(x) by the definition: one whole pass per variable."""
    logits, total = jax.jit(network.logits), 0.0
    for t, d in enumerate(order):
        mask = np.isin(np.arange(network.size), order[:t]).reshape(network.shape)
        out = np.asarray(logits(params, x, jnp.broadcast_to(mask, x.shape))).reshape(len(x), network.size, -1)[:, d]
        if network.levels == 2:
            out = np.concatenate([np.zeros_like(out), out], axis=1)
        values = np.asarray(x).reshape(len(x), -1)[:, d].astype(int)
        total = total + out[np.arange(len(x)), values] - np.log(np.exp(out).sum(axis=1))
    return np.asarray(total)


def check_sums_to_one(network: any_order.Network, params: Any, num_orders: int = 3) -> None:
    """Each order and their ensemble are normalized, in blocks of any length; the ensemble is the mean of the orders."""
    x, orders = every(network), any_order.orders(0, network.size, num_orders)
    each = jax.jit(lambda x: any_order.order_log_prob(network, params, orders, x))(x)
    np.testing.assert_allclose(np.exp(each).sum(axis=1), 1.0, atol=1e-5)
    mixture = jax.jit(lambda x: any_order.log_prob(network, params, orders, x))(x)
    np.testing.assert_allclose(np.exp(mixture), np.exp(each).mean(axis=0), rtol=1e-4, atol=1e-7)
    other = dataclasses.replace(network, block=max(1, network.size // 2 + 1))
    again = jax.jit(lambda x: any_order.order_log_prob(other, params, orders, x))(x)
    np.testing.assert_allclose(again, each, atol=1e-4)


def check_cache(network: any_order.Network, params: Any, num: int = 8) -> None:
    """Likelihood and samples along an order are those of one whole pass per variable."""
    orders = any_order.orders(1, network.size, 2)
    x = jax.random.randint(jax.random.key(0), (num, *network.shape), 0, network.levels).astype(jnp.float32)
    each = jax.jit(lambda x: any_order.order_log_prob(network, params, orders, x))(x)
    for r, order in enumerate(orders):
        np.testing.assert_allclose(each[r], naive_order_log_prob(network, params, order, x), atol=1e-4)
    known = x.astype(jnp.float32 if network.levels == 2 else jnp.int32)
    mask = jax.random.bernoulli(jax.random.key(5), 0.4, known.shape)
    for given in ({}, {"known": known, "mask": mask}):
        draw = jax.jit(lambda key, given=given: any_order.sample(network, key, params, num, orders=orders, **given))
        naive = naive_samples(network, jax.random.key(3), params, num, orders, **given)
        assert naive.std() > 0
        np.testing.assert_array_equal(draw(jax.random.key(3)), naive)


def naive_samples(network: Any, key: Any, params: Any, num: int, orders: Any, known: Any = None, mask: Any = None):
    """One whole pass per variable, the same orders and the same noise."""
    size, rows = network.size, []
    logits = jax.jit(network.logits)
    for i in range(num):
        order_key, noise_key = jax.random.split(jax.random.fold_in(key, i))
        order = orders[int(jax.random.randint(order_key, (), 0, len(orders)))]
        draw = jax.random.logistic if network.levels == 2 else jax.random.gumbel
        noise = np.asarray(draw(noise_key, (size, 1 if network.levels == 2 else network.levels)))
        given = np.zeros(size, bool) if mask is None else np.array(mask[i]).ravel()
        x = np.zeros(size) if known is None else np.where(given, np.array(known[i]).ravel(), 0)
        for d in order[~given[order]]:
            shaped = (
                jnp.asarray(x, jnp.float32).reshape(1, *network.shape),
                jnp.asarray(given).reshape(1, *network.shape),
            )
            out = np.asarray(logits(params, *shaped)).reshape(size, -1)[d]
            x[d] = out[0] > noise[d, 0] if network.levels == 2 else np.argmax(out + noise[d])
            given[d] = True
        rows.append(x.reshape(network.shape))
    return np.array(rows)


def dependence(network: any_order.Network, params: Any, mask: np.ndarray, num_bases: int = 3) -> np.ndarray:
    """[d, j]: does p(x_d | x_m) change, bit for bit, when x_j does?"""
    size, rng = network.size, np.random.default_rng(0)

    def one(x):
        return any_order.conditionals(network, params, x[None], jnp.asarray(mask)[None])[0]

    conditionals = jax.jit(lambda x: jax.lax.map(one, x))  # one by one: rows of a batch may be rounded differently
    found = np.zeros((size, size), bool)
    for _ in range(num_bases):
        rows = np.repeat(rng.integers(0, network.levels, (1, size)), size + 1, axis=0)
        rows[np.arange(size), np.arange(size)] += rng.integers(1, network.levels, size)
        x = jnp.asarray(rows % network.levels, jnp.float32).reshape(-1, *network.shape)
        out = np.asarray(conditionals(x)).reshape(size + 1, size, -1)
        found |= np.any(out[:-1] != out[-1:], axis=-1).T
    return found


def check_dependence(network: any_order.Network, params: Any, num_masks: int = 6) -> None:
    """p(x_k | x_m) depends on every known input and on no other; a known variable is what it is."""
    rng = np.random.default_rng(1)
    for i in range(num_masks):
        mask = rng.random(network.size) < (i + 0.5) / num_masks
        expected = np.where(mask[:, None], np.eye(network.size, dtype=bool), mask[None])
        np.testing.assert_array_equal(dependence(network, params, mask.reshape(network.shape)), expected)


def check_asks_which_are_known(network: any_order.Network, params: Any) -> None:
    """A known zero is not a missing value: the mask itself is an input."""
    x = jnp.zeros((1, *network.shape))
    full = jnp.arange(network.size).reshape(1, *network.shape) < network.size - 1
    some = jax.jit(lambda mask: network.logits(params, x, mask).reshape(network.size, -1)[-1])
    assert np.all(some(full) != some(jnp.zeros_like(full)))


def law_given(network: any_order.Network, params: Any, known: Any, mask: np.ndarray) -> np.ndarray:
    """p(x | x_m) over `every`, the mean over all orders that know m first, by the definition."""
    x, given = every(network), mask.ravel()
    fits = np.all(np.asarray(x).reshape(len(x), -1)[:, given] == np.asarray(known).ravel()[given], axis=1)
    first, rest = np.flatnonzero(given), np.flatnonzero(~given)
    total = np.zeros(len(x))
    for order in itertools.permutations(rest):
        log_prob = naive_order_log_prob(network, params, [*first, *order], x)
        prefix = naive_prefix(network, params, first, x)
        total += np.where(fits, np.exp(log_prob - prefix), 0.0)
    return total / math.factorial(len(rest))


def naive_prefix(network: any_order.Network, params: Any, first: Any, x: Any) -> Any:
    """log p of the first variables alone, in their order."""
    whole = naive_order_log_prob(network, params, list(first), x)
    return whole if len(first) else 0.0


def check_inpainting(network: any_order.Network, params: Any, num: int = 20_000) -> None:
    """Known values stay, whatever the subset; the missing ones follow the mean over all orders of them."""
    for mask in (np.arange(network.size) % 2 == 1, np.arange(network.size) == network.size - 1):
        shaped, known = mask.reshape(network.shape), jnp.ones(network.shape)
        draw = jax.jit(lambda key, m=shaped, k=known: any_order.sample(network, key, params, num, known=k, mask=m))
        drawn = np.asarray(draw(jax.random.key(0))).reshape(num, -1).astype(int)
        assert np.all(drawn[:, mask] == 1)
        powers = network.levels ** np.arange(network.size)[::-1]
        check_counts(
            np.bincount(drawn @ powers, minlength=network.levels**network.size),
            law_given(network, params, known, shaped),
        )
