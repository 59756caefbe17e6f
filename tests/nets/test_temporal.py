"""Temporal convolutions: what each block sees, and queues that equal full passes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import linen
from jgen.nets import temporal
from jgen.nets.temporal import TemporalConv

MODULE = TemporalConv(3, 3, 2)


def weights(module):
    """Random weights everywhere, biases too."""
    shapes = jax.eval_shape(lambda key: linen.init(module, key, jnp.zeros((1, 1, 2)))[0], jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    return jax.tree.unflatten(
        tree, [0.6 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )


def test_every_block_reaches_back_as_far_as_it_says():
    params, time = weights(MODULE), 20
    x = jax.random.normal(jax.random.key(1), (1, time, 2))
    jacobian = jax.jit(jax.jacrev(lambda x: temporal.states(MODULE, params, x)[0]))(x)
    seen = np.any(np.asarray(jacobian)[:, :, :, 0] != 0, axis=(2, 4)).swapaxes(1, 2)  # [t, s, block]
    late = np.subtract(*np.indices((time, time)))
    for block in range(2):
        np.testing.assert_array_equal(seen[..., block], (late >= 0) & (late <= 7 * (block + 1)))


def errors(time=20):
    """(of the states, of the queues): the farthest that steps are from full passes, at any time."""
    params, x = weights(MODULE), jax.random.normal(jax.random.key(1), (2, time, 2))
    d, reads = jax.jit(lambda x: linen.apply(MODULE, params, {}, x))(x)
    cache, found = temporal.start(MODULE, 2), []
    step = jax.jit(lambda cache, x: temporal.step(MODULE, params, cache, x))
    queues = jax.jit(lambda x: temporal.read(MODULE, params, x).queue)
    for t in range(time):
        cache = step(cache, x[:, t])
        off = jnp.abs(cache.queue - queues(x[:, : t + 1])).max() if t in (0, 2, 7, 8, time - 1) else 0.0
        found.append((float(jnp.abs(cache.d - d[:, t]).max()), float(off)))
    assert len(reads) == 6
    return np.max(found, axis=0)


def test_steps_are_full_passes():
    assert errors().max() < 1e-5


@pytest.mark.parametrize("mutant", ["one slot off", "a clock that stands"])
def test_a_wrong_queue_is_caught(mutant, monkeypatch):
    right = temporal.step

    def wrong(module, params, cache, x):
        if mutant == "one slot off":
            return right(module, params, cache._replace(queue=jnp.roll(cache.queue, 1, axis=1)), x)
        return right(module, params, cache, x)._replace(t=0 * cache.t)

    monkeypatch.setattr(temporal, "step", wrong)
    assert errors()[0] > 1e-2


def test_nothing_read_is_the_start():
    params, empty = weights(MODULE), jnp.zeros((2, 0, 2))
    jax.tree.map(np.testing.assert_array_equal, temporal.read(MODULE, params, empty), temporal.start(MODULE, 2))


def test_a_sequence_goes_without_the_same_channels_throughout():
    module = dataclasses.replace(TemporalConv(4, 1, 1), dropout_rate=0.5)
    params = weights(module)
    params["residual_0"] = {"kernel": jnp.eye(4), "bias": jnp.zeros(4)}
    params["input"] = jax.tree.map(jnp.zeros_like, params["input"])  # d is then what the branch adds
    d = temporal.states(module, params, jnp.zeros((16, 5, 2)), key=jax.random.key(0))[:, :, 0]
    dropped = np.asarray(d) == 0
    assert np.all(dropped == dropped[:, :1])
    assert 10 < dropped[:, 0].sum() < 54


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"channels": 0}, "`channels`"),
        ({"num_layers": 0}, "`num_layers`"),
        ({"num_blocks": 0}, "`num_blocks`"),
        ({"dropout_rate": 1.0}, "`dropout_rate`"),
    ],
)
def test_bad_sizes_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        TemporalConv(**keywords)
