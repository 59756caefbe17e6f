"""What every network over pixels has to pass: dependence, agreement of the samplers, completion."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from stat_checks import check_counts

from jgen.autoregressive import raster


def params_of(network: raster.Network, scale: float = 0.5, seed: int = 0) -> Any:
    """Random weights everywhere, biases too, so that nothing is zero by its initialization."""
    batch = jnp.zeros((2, *network.shape)), None if network.num_classes is None else jnp.zeros(2, jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), *batch)
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, drawn)


def labels(network: raster.Network, num: int) -> Any:
    """Labels 0, 1, 2, ... for a network with classes, else None."""
    return None if network.num_classes is None else jnp.arange(num, dtype=jnp.int32) % network.num_classes


def dependence(network: raster.Network, params: Any, num_bases: int = 3) -> np.ndarray:
    """[d, j]: do the logits of position d change, bit for bit, when input j does? Both in raster order."""
    size = int(np.prod(network.shape))
    rng = np.random.default_rng(0)
    found = np.zeros((size, size), bool)
    label = None if network.num_classes is None else labels(network, 1).repeat(size)
    logits = jax.jit(lambda x: network.logits(params, x, label, None))

    def out(rows: np.ndarray) -> np.ndarray:
        x = jnp.asarray(rows % network.levels, jnp.float32).reshape(-1, *network.shape)
        return np.asarray(logits(x)).reshape(size, size, -1)

    for _ in range(num_bases):
        rows = np.repeat(rng.integers(0, network.levels, (1, size)), size, axis=0)
        # Against the same place in an unchanged batch: rows of one batch may differ in their last bit.
        before = out(rows)
        rows[np.arange(size), np.arange(size)] += rng.integers(1, network.levels, size)
        found |= np.any(out(rows) != before, axis=-1).T
    return found


def check_samplers_agree(network: raster.Network, params: Any, num: int = 8) -> None:
    """The cached sampler and the fixed point give what one full pass per position gives."""
    key, label = jax.random.key(3), labels(network, num)

    def draw(method: str) -> np.ndarray:
        return np.asarray(
            jax.jit(lambda key: raster.sample(network, key, params, num, label=label, method=method))(key)
        )

    expected = draw("naive")
    assert expected.std() > 0
    for method in ("cached", "fixed_point"):
        np.testing.assert_array_equal(draw(method), expected, err_msg=method)


def check_completion(network: raster.Network, params: Any, num: int = 20_000) -> None:
    """Known pixels stay; the others follow p(missing | known). For networks with at most 64 images."""
    size = int(np.prod(network.shape))
    space = np.array(np.meshgrid(*[range(network.levels)] * size, indexing="ij")).reshape(size, -1).T
    label = None if network.num_classes is None else jnp.ones(len(space), jnp.int32)
    x = jnp.asarray(space, jnp.float32).reshape(-1, *network.shape)
    log_prob = np.asarray(raster.log_prob(network, params, x, label))
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, atol=1e-5)
    mask = (np.arange(size) < size // 2).reshape(network.shape)
    known = jnp.ones(network.shape)
    many = None if label is None else jnp.ones(num, jnp.int32)
    draw = jax.jit(lambda key: raster.sample(network, key, params, num, label=many, known=known, mask=mask))
    drawn = np.asarray(draw(jax.random.key(0))).reshape(num, size).astype(int)
    assert np.all(drawn[:, : size // 2] == 1)
    fits = np.all(space[:, : size // 2] == 1, axis=1)
    p = np.exp(log_prob[fits])
    powers = network.levels ** np.arange(size - size // 2)[::-1]
    counts = np.bincount(drawn[:, size // 2 :] @ powers, minlength=fits.sum())
    check_counts(counts, p / p.sum())
