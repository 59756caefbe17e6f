"""What every network over vectors in a fixed order has to pass: dependence, agreement of the samplers, completion."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from stat_checks import check_counts

from jgen.autoregressive import fixed_order


def params_of(network: fixed_order.Network, scale: float = 0.7, seed: int = 0) -> Any:
    """Random weights everywhere, biases too, so that nothing is zero by its initialization."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, len(network.order))))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def every(num_dims: int, levels: int = 2) -> Any:
    """All levels^num_dims vectors."""
    return jnp.array(list(itertools.product(range(levels), repeat=num_dims)), jnp.float32)


def total(network: fixed_order.Network, params: Any, levels: int = 2) -> float:
    """Σ p(x) over all vectors."""
    log_prob = jax.jit(lambda params, x: fixed_order.log_prob(network, params, x))
    return float(np.exp(np.asarray(log_prob(params, every(len(network.order), levels)), np.float64)).sum())


def dependence(network: fixed_order.Network, params: Any, others: Any) -> np.ndarray:
    """[i, j]: do the outputs at position i of the order change, bit for bit, when position j's value does?

    Args:
        others: (bases, 2, D) pairs of vectors in the order that differ everywhere.
    """
    size = len(network.order)
    found = np.zeros((size, size), bool)
    outputs = jax.jit(network.outputs)
    for base, other in np.asarray(others):
        rows = np.repeat(base[None], size + 1, axis=0)
        rows[np.arange(size), np.arange(size)] = other
        out = np.asarray(outputs(params, jnp.asarray(rows, jnp.float32)))
        found |= np.any(out[:-1] != out[-1:], axis=-1).T
    return found


def binary_pairs(num_dims: int, num_bases: int = 3) -> np.ndarray:
    """Random binary vectors and their opposites, for `dependence`."""
    base = np.random.default_rng(0).integers(0, 2, (num_bases, num_dims))
    return np.stack([base, 1 - base], axis=1).astype(np.float32)


def earlier(num_dims: int) -> np.ndarray:
    """What every position has to depend on: all before it, and nothing else."""
    return np.tri(num_dims, k=-1, dtype=bool)


def check_samplers_agree(network: fixed_order.Network, params: Any, num: int = 16) -> None:
    """The cached sampler and the fixed point give what one full pass per position gives."""

    def draw(method: str) -> np.ndarray:
        sample = jax.jit(lambda key: fixed_order.sample(network, key, params, num, method=method))
        return np.asarray(sample(jax.random.key(3)))

    expected = draw("naive")
    assert np.all(expected.std(axis=0) > 0)
    for method in ("cached", "fixed_point"):
        if np.issubdtype(expected.dtype, np.integer) or np.isin(expected, (0.0, 1.0)).all():
            np.testing.assert_array_equal(draw(method), expected, err_msg=method)
        else:
            np.testing.assert_allclose(draw(method), expected, rtol=1e-4, atol=1e-5, err_msg=method)


def check_completion(network: fixed_order.Network, params: Any, levels: int = 2, num: int = 20_000) -> None:
    """The first half of the order stays as it is known; the rest follows p(missing | known)."""
    size = len(network.order)
    order, space = np.array(network.order), np.asarray(every(size, levels)).astype(int)
    mask = np.zeros(size, bool)
    mask[order[: size // 2]] = True
    known = jnp.asarray(np.arange(size) % levels, jnp.float32)
    draw = jax.jit(lambda key: fixed_order.sample(network, key, params, num, known=known, mask=mask))
    drawn = np.asarray(draw(jax.random.key(0))).astype(int)
    np.testing.assert_array_equal(drawn[:, mask], np.broadcast_to(np.asarray(known)[mask], (num, mask.sum())))
    fits = space[np.all(space[:, mask] == np.asarray(known)[mask], axis=1)]
    p = np.exp(np.asarray(fixed_order.log_prob(network, params, jnp.asarray(fits, jnp.float32))))
    codes = levels ** np.arange(size - size // 2)
    counts = np.bincount(drawn[:, ~mask] @ codes, minlength=levels ** len(codes))
    check_counts(counts[fits[:, ~mask] @ codes], p / p.sum())
