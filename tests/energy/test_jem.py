"""The joint energy model by enumeration of a discrete toy: its classifier, its p(x), and its update."""

import functools
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import stat_checks as stat

from jgen.energy import ebm, jem
from jgen.learners import replay
from jgen.math import quadrature
from jgen.nets.mlp import MLP
from jgen.samplers import gibbs

DIMS, CLASSES = 3, 4
MODULE = MLP((6, CLASSES), jnp.tanh)
NODES = quadrature.every((0.0, 1.0), DIMS)
X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (16, DIMS)), jnp.float32)
BATCH = {"x": X, "label": jnp.asarray((np.asarray(X).sum(1) + np.arange(16) % 2) % CLASSES, jnp.int32)}


def bits(key: Any, shape: tuple[int, ...]) -> Any:
    """Fair coins."""
    return jax.random.bernoulli(key, 0.5, shape).astype(jnp.float32)


def sweep(log_density: Any) -> Any:
    """A systematic Gibbs sweep over the bits, which keeps its law exactly."""
    return gibbs.sampler(gibbs.sites(log_density, DIMS, [0.0, 1.0]))


def build(optimizer: Any, **chains: Any) -> Any:
    """The model on all bits, its normalizer by enumeration."""
    settings = {"num": 32, "buffer_size": 32, "restart": bits, "restart_rate": 0.0, "num_steps": 1, **chains}
    return jem.model(MODULE, (DIMS,), optimizer, chains=ebm.Chains(sweep, **settings), nodes=NODES)


@pytest.fixture(scope="module")
def params() -> Any:
    """Parameters of order 1."""
    flat, unflatten = jax.flatten_util.ravel_pytree(
        jax.jit(build(optax.sgd(0.1)).init)(jax.random.key(0), BATCH).params
    )
    return unflatten(jnp.asarray(np.random.default_rng(1).normal(size=flat.shape), jnp.float32))


def joint(params: Any) -> np.ndarray:
    """p(x, y) of every pair, (2^DIMS, CLASSES), from the logits alone."""
    f = np.asarray(jem.logits(params, NODES.points, module=MODULE), np.float64)
    return np.exp(f) / np.exp(f).sum()


def test_one_joint_table_gives_the_classifier_and_the_density(params: Any) -> None:
    table = joint(params)
    for label in range(CLASSES):
        labels = jnp.full(len(table), label)
        found = jem.class_log_prob(params, NODES.points, labels, module=MODULE)
        np.testing.assert_allclose(np.exp(found), table[:, label] / table.sum(axis=1), rtol=1e-5)
        together = jem.log_joint(params, NODES.points, labels, NODES, module=MODULE)
        np.testing.assert_allclose(np.exp(together), table[:, label], rtol=1e-5)
    log_z = jem.log_partition(params, NODES, module=MODULE)
    density = np.exp(-jem.energy(params, NODES.points, module=MODULE) - log_z)
    np.testing.assert_allclose(density, table.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(density.sum(), 1.0, rtol=1e-5)


def mean_update(params: Any, num: int = 2_000) -> np.ndarray:
    """(keys, parameters): moves from buffers of exact draws, with a learning rate of 1."""
    model = build(optax.sgd(1.0))
    state = jax.jit(model.init)(jax.random.key(0), BATCH)
    flat, _ = jax.flatten_util.ravel_pytree(params)
    log_p = jnp.asarray(np.log(joint(params).sum(axis=1)), jnp.float32)

    def move(key: Any) -> Any:
        draw_key, key = jax.random.split(key)
        buffer = NODES.points[jax.random.categorical(draw_key, log_p, shape=(32,))]
        start = state._replace(params=params, chains=replay.begin(buffer, 32))
        return jax.flatten_util.ravel_pytree(model.update(key, start, BATCH)[0].params)[0] - flat

    return np.asarray(jax.jit(jax.vmap(move))(jax.random.split(jax.random.key(2), num)))


def joint_gradient(params: Any) -> np.ndarray:
    """∇ mean log p(x, y) by enumeration."""

    def objective(params: Any) -> Any:
        return jnp.mean(jem.log_joint(params, BATCH["x"], BATCH["label"], NODES, module=MODULE))

    return np.asarray(jax.flatten_util.ravel_pytree(jax.jit(jax.grad(objective))(params))[0])


def test_expected_update_is_the_gradient_of_the_joint_likelihood(params: Any) -> None:
    """And not that of log p(x) alone, nor of log p(x) + 2 log p(y|x)."""
    moves, expected = mean_update(params), joint_gradient(params)
    stat.check_mean(moves, expected, sees=0.3)

    def cross_entropy(params: Any) -> Any:
        return -jnp.mean(jem.class_log_prob(params, BATCH["x"], BATCH["label"], module=MODULE))

    classifier = np.asarray(jax.flatten_util.ravel_pytree(jax.jit(jax.grad(cross_entropy))(params))[0])
    for wrong in (expected + classifier, expected - classifier):
        with pytest.raises(AssertionError, match="z ="):
            stat.check_mean(moves, wrong)


def test_the_energy_of_one_class_has_another_gradient(monkeypatch: Any, params: Any) -> None:
    expected = joint_gradient(params)
    monkeypatch.setattr(jem, "energy", lambda params, x, *, module: -jem.logits(params, x, module=module)[:, 0])
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(mean_update(params, 500), expected)


def test_learning_finds_the_joint_law_of_the_data() -> None:
    """Total variation between the learned table and the data's own falls below a tenth of where it began."""
    model = build(optax.adam(optax.linear_schedule(3e-2, 0.0, 600)), num=128, buffer_size=128)
    state = jax.jit(model.init)(jax.random.key(0), BATCH)
    index = np.asarray(X).astype(int) @ 2 ** np.arange(DIMS - 1, -1, -1)
    data = np.zeros((2**DIMS, CLASSES))
    np.add.at(data, (index, np.asarray(BATCH["label"])), 1 / len(X))

    def distance(state: Any) -> float:
        return 0.5 * float(np.abs(joint(state.params) - data).sum())

    keys = jax.random.split(jax.random.key(1), 600)
    end, _ = jax.jit(lambda state: jax.lax.scan(lambda s, k: (model.update(k, s, BATCH)[0], None), state, keys))(state)
    assert distance(end) < 0.1 * distance(state)
    metrics = jax.jit(model.evaluate)(jax.random.key(0), end, BATCH)
    np.testing.assert_allclose(
        np.mean(metrics["error"]), 1 - data.max(axis=1).sum(), atol=1e-6, err_msg="the best classifier's error"
    )


def test_samples_are_joint_draws(params: Any) -> None:
    model = build(optax.sgd(0.1), num_sample_steps=20)
    state = jax.jit(model.init)(jax.random.key(0), BATCH)._replace(params=params)
    found = jax.jit(functools.partial(model.sample, num=10_000))(jax.random.key(3), state)
    cell = np.asarray(found["x"]).astype(int) @ 2 ** np.arange(DIMS - 1, -1, -1) * CLASSES + np.asarray(found["label"])
    stat.check_counts(np.bincount(cell, minlength=2**DIMS * CLASSES), joint(params).ravel())


def test_extreme_logits_stay_finite(params: Any) -> None:
    params = jax.tree.map(lambda leaf: 1e3 * leaf, params)
    value = jem.log_joint(params, BATCH["x"], BATCH["label"], NODES, module=MODULE)
    assert np.all(np.isfinite(value))
    assert np.all(value <= 0)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": X}, r"`batch` must hold `x` and `label`, got \['x'\]"),
        ({**BATCH, "label": BATCH["label"] + 1}, r"`label` must lie in \[0, 3\], got values in \[1, 4\]"),
        ({**BATCH, "x": X[:, :2]}, r"`x` must have examples of shape \(3,\), got \(2,\)"),
    ],
)
def test_bad_data(batch: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(optax.sgd(0.1)).init(jax.random.key(0), batch)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`energy_weight` must be at least 0.0, got -1.0"):
        jem.model(MODULE, (DIMS,), optax.sgd(0.1), chains=ebm.Chains(sweep), energy_weight=-1.0)
