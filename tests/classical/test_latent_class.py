"""Mixtures of independent categories: EM by the book, an objective that never falls, a known mixture found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.classical import latent_class
from jgen.classical.classifier import Tables, log_evidence, sample

KEY = jax.random.key(0)
TRUE = Tables(
    jnp.log(jnp.asarray([0.6, 0.4])),
    jnp.log(jnp.asarray([[[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.1, 0.9], [0.3, 0.7]],
                         [[0.1, 0.9], [0.8, 0.2], [0.2, 0.8], [0.7, 0.3], [0.9, 0.1]]])),
)  # fmt: skip


@pytest.fixture(scope="module", name="x")
def _x():
    return jax.jit(lambda key: sample(key, TRUE, 4_000))(KEY)[0]


def rounds(params, x, num, maximize=latent_class.maximize):
    """Parameters after `num` rounds of EM, and the objective before each."""

    def step(params, _):
        return maximize(latent_class.expect(params, x)), latent_class.objective(params, x)

    return jax.jit(lambda params: jax.lax.scan(step, params, None, num))(params)


def by_the_book(params, x, smoothing):
    """One round in NumPy, float64, written out."""
    prior, probs = (np.exp(np.asarray(leaf, np.float64)) for leaf in params)
    joint = np.stack([prior[c] * np.prod(probs[c, np.arange(x.shape[1]), x], axis=1) for c in range(len(prior))], 1)
    r = joint / joint.sum(axis=1, keepdims=True)
    new = np.empty_like(probs)
    for c in range(len(prior)):
        for k in range(probs.shape[2]):
            new[c, :, k] = r[:, c] @ (x == k) / len(x) + smoothing
    return r.mean(axis=0), new / new.sum(axis=2, keepdims=True)


def one_round(x, maximize=latent_class.maximize) -> bool:
    """Whether a round equals the book's."""
    params = latent_class.start(KEY, x, 2, 2)
    found = maximize(latent_class.expect(params, x))
    weights, probs = by_the_book(params, np.asarray(x), 1e-4)
    return np.allclose(np.exp(found.log_prior), weights, atol=1e-5) and np.allclose(
        np.exp(found.log_probs), probs, atol=1e-5
    )


def test_a_round_is_that_of_the_book(x):
    assert one_round(x)
    assert not one_round(x, lambda s: latent_class.maximize(s._replace(mass=jnp.ones(2)))), "forgotten weights are seen"
    assert not one_round(x, lambda s: latent_class.maximize(s._replace(levels=s.levels + 0.1)))


def test_the_objective_never_falls_and_the_mixture_is_found(x):
    found, values = rounds(latent_class.start(KEY, x, 2, 2), x, 60)
    assert np.all(np.diff(values) > -1e-5)
    order = np.argsort(-np.asarray(found.log_prior))
    np.testing.assert_allclose(np.exp(found.log_prior)[order], np.exp(TRUE.log_prior), atol=0.1)
    np.testing.assert_allclose(np.exp(found.log_probs)[order], np.exp(TRUE.log_probs), atol=0.1)
    assert jnp.mean(log_evidence(found, x)) > jnp.mean(log_evidence(TRUE, x)) - 1e-3


def test_one_class_is_independence(x):
    found, _ = rounds(latent_class.start(KEY, x, 1, 2), x, 1)
    np.testing.assert_allclose(np.exp(found.log_probs[0, :, 1]), np.asarray(x).mean(0), atol=1e-3)


def test_repeated_and_constant_rows_do_not_break_it():
    x = jnp.zeros((10, 3), jnp.int32)
    found, values = rounds(latent_class.start(KEY, x, 4, 3), x, 5)
    assert jnp.all(jnp.isfinite(values))
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_components": 0}, "`num_components` must be at least 1, got 0"),
        ({"num_components": 2, "levels": 1}, "`levels` must be at least 2, got 1"),
        ({"num_components": 2, "smoothing": 0.0}, "`smoothing` must be positive"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        latent_class.model(**arguments)


def test_bad_data_are_refused():
    with pytest.raises(ValueError, match="`x` must have 2 axes"):
        latent_class.model(2).init(KEY, {"x": jnp.zeros((2, 3, 1))})
    with pytest.raises(ValueError, match=r"`x` must lie in \[0, 1\]"):
        latent_class.model(2).init(KEY, {"x": np.full((2, 3), 2)})
