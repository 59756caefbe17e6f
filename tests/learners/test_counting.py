"""Counting with a merge of its own, over shards as in one piece."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.learners import counting
from jgen.math import moments

X = jnp.asarray(np.random.default_rng(0).standard_normal((8, 4, 2)) + 100.0, jnp.float32)


def model(axis_name=None, merge=moments.merge):
    return counting(
        lambda batch: moments.empty(2),
        lambda batch: moments.moments(batch["x"]),
        moments.covariance,
        evaluate=lambda key, state, batch: {"trace": jnp.trace(state.params)},
        merge=merge,
        axis_name=axis_name,
    )


def learned(merge=moments.merge):
    """Moments after eight shards in one update, and after eight updates."""
    start = model(merge=merge).init(jax.random.key(0), {"x": X[0]})
    sharded = jax.pmap(
        lambda x: model("shards", merge).update(jax.random.key(0), start, {"x": x})[0].moments, axis_name="shards"
    )(X)
    state = start
    for x in X:
        state, _ = model(merge=merge).update(jax.random.key(0), state, {"x": x})
    return jax.tree.map(lambda leaf: leaf[3], sharded), state.moments


def test_shards_and_steps_give_the_moments_of_all_rows():
    whole = moments.moments(X.reshape(-1, 2))
    for found in learned():
        for name in whole._fields:
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-4, err_msg=name)


def test_plain_sums_of_means_are_caught():
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(learned(None)[0].mean, jnp.mean(X, axis=(0, 1)), rtol=1e-4)
