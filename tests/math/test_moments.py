"""Moments gathered in parts: against NumPy in float64, far from the origin, over shards."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jgen.math import moments

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((60, 3)) @ RNG.standard_normal((3, 3)) + 3e3).astype(np.float32)
LABELS = RNG.integers(0, 3, 60)
EXACT = np.cov(np.asarray(X, np.float64).T, bias=True)


def in_parts(merge, sizes=(20, 20, 20)):
    """The moments of X, put together from parts."""
    bounds = np.cumsum((0, *sizes))
    total = moments.empty(3)
    for first, last in itertools.pairwise(bounds):
        total = merge(total, moments.moments(jnp.asarray(X[first:last])))
    return total


def agrees(found) -> bool:
    mean = np.allclose(found.mean, np.asarray(X, np.float64).mean(0), rtol=1e-6)
    return mean and np.allclose(moments.covariance(found), EXACT, rtol=1e-3, atol=1e-3)


def test_far_from_the_origin_they_lose_nothing():
    assert agrees(moments.moments(jnp.asarray(X)))
    found = in_parts(moments.merge)
    assert found.num == 60
    assert agrees(found)
    # E[xxᵀ] − E[x]E[x]ᵀ in the same precision has lost the variances.
    cancelled = jnp.asarray(X).T @ jnp.asarray(X) / 60 - jnp.outer(X.mean(0), X.mean(0))
    assert np.max(np.abs(cancelled - EXACT)) > 0.05


@pytest.mark.parametrize("forgotten", ["square", "share"])
def test_a_broken_merge_is_caught(forgotten):
    def broken(one, other):
        right = moments.merge(one, other)
        if forgotten == "square":
            return right._replace(scatter=one.scatter + other.scatter)
        return right._replace(mean=(one.mean + other.mean) / 2)

    assert not agrees(in_parts(broken))


@pytest.mark.parametrize("diagonal", [False, True])
def test_classes(diagonal):
    half = [
        moments.class_moments(jnp.asarray(X[part]), jnp.asarray(LABELS[part]), 4, diagonal=diagonal)
        for part in (slice(25), slice(25, 60))
    ]
    found = moments.merge(moments.merge(moments.empty(3, num_classes=4, diagonal=diagonal), half[0]), half[1])
    for c in range(3):
        own = np.asarray(X[c == LABELS], np.float64)
        exact = own.var(0) if diagonal else np.cov(own.T, bias=True)
        np.testing.assert_allclose(found.mean[c], own.mean(0), rtol=1e-6)
        np.testing.assert_allclose(moments.covariance(found)[c], exact, rtol=2e-3, atol=2e-3)
    assert found.num[3] == 0
    np.testing.assert_array_equal(moments.covariance(found)[3], 0)
