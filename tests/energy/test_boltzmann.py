"""Boltzmann machines against enumeration in NumPy, autodiff of the divergence, the RBM, and exact Ising numbers."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import stat_checks as stat

from jgen.energy import boltzmann, graphs, rbm
from jgen.sampler import run
from jgen.samplers import gibbs as block_gibbs

RING = graphs.graph([[0, 1, 0, 0, 1], [1, 0, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 1, 0, 1], [1, 0, 1, 1, 0]], 3)
GRAPHS = {
    "ring": RING,
    "complete": graphs.complete(3, 2),
    "layers": graphs.layered((3, 2, 2)),
    "visible": graphs.complete(4),
}
X = np.array([[1, 0, 1], [1, 1, 0], [1, 0, 1], [0, 0, 0]], np.float32)


def _params(graph: graphs.Graph, seed: int = 0) -> boltzmann.Boltzmann:
    generator = np.random.default_rng(seed)
    shapes = (len(graph.edges), graph.num_units)
    return boltzmann.Boltzmann(*(jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes))


def _states(num: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=num)))


def _log_mass(params: boltzmann.Boltzmann, graph: graphs.Graph, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """(all states, −βE of each), written out edge by edge in NumPy."""
    s = _states(graph.num_units)
    energy = -s @ np.asarray(params.bias, np.float64)
    for (i, j), weight in zip(graph.edges, np.asarray(params.weights, np.float64), strict=True):
        energy -= weight * s[:, i] * s[:, j]
    return s, -beta * energy


@pytest.mark.parametrize("name", list(GRAPHS))
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_energy_sums_and_moments_by_enumeration(name: str, beta: float) -> None:
    graph = GRAPHS[name]
    params, num = _params(graph), graph.num_visible
    s, log_mass = _log_mass(params, graph, beta)
    p = scipy.special.softmax(log_mass)
    np.testing.assert_allclose(
        boltzmann.energy(params, graph, jnp.asarray(s, jnp.float32)), -log_mass / beta, atol=1e-5
    )
    log_z, free = jax.jit(
        lambda q: (boltzmann.log_partition(q, graph, beta=beta), boltzmann.moments(q, graph, beta=beta))
    )(params)
    np.testing.assert_allclose(log_z, np.logaddexp.reduce(log_mass), rtol=1e-5)
    np.testing.assert_allclose(free.bias, p @ s, atol=1e-5)
    np.testing.assert_allclose(free.weights, [p @ (s[:, i] * s[:, j]) for i, j in graph.edges], atol=1e-5)
    visible = _states(num)
    own = np.stack([np.where((s[:, :num] == v).all(1), log_mass, -np.inf) for v in visible])
    found = jax.jit(lambda q, v: boltzmann.free_energy(q, graph, v, beta=beta))(
        params, jnp.asarray(visible, jnp.float32)
    )
    np.testing.assert_allclose(found, -np.logaddexp.reduce(own, axis=1), rtol=1e-4, atol=1e-5)
    held = jax.jit(lambda q, v: boltzmann.moments(q, graph, v, beta=beta))(
        params, jnp.asarray(visible[1:2], jnp.float32)
    )
    q = scipy.special.softmax(own[1])
    np.testing.assert_allclose(held.bias, q @ s, atol=1e-5)
    np.testing.assert_allclose(held.weights, [q @ (s[:, i] * s[:, j]) for i, j in graph.edges], atol=1e-5)


def _divergence(params: boltzmann.Boltzmann, graph: graphs.Graph, beta: float) -> Any:
    """KL(p_data ‖ p) of the rows X, by listing every state: no function of the library takes part."""
    s = jnp.asarray(_states(graph.num_units), jnp.float32)
    rows, columns = graph.edges.T
    log_mass = beta * (s @ params.bias + (s[:, rows] * s[:, columns]) @ params.weights)
    visible = _states(graph.num_visible)
    of = (s[None, :, : graph.num_visible] == visible[:, None]).all(-1)
    log_p = jax.nn.logsumexp(jnp.where(of, log_mass[None], -1e30), axis=1) - jax.nn.logsumexp(log_mass)
    data = np.array([(v == X).all(1).mean() for v in visible])
    return jnp.sum(jnp.where(data > 0, data * (jnp.log(np.maximum(data, 1e-9)) - log_p), 0.0))


@pytest.mark.parametrize("name", ["ring", "layers"])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_learning_rule_is_the_gradient_of_the_divergence(name: str, beta: float) -> None:
    graph = GRAPHS[name]
    params = _params(graph, 1)
    gradient = jax.jit(jax.grad(lambda q: _divergence(q, graph, beta)))(params)
    rule = jax.jit(lambda q: boltzmann.learning_rule(q, graph, jnp.asarray(X), beta=beta))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, -b, atol=2e-5), rule, gradient)


def test_mutants_of_the_rule_are_caught() -> None:
    """One phase alone, a forgotten β, the phases exchanged: none is the gradient."""
    params, beta, v = _params(RING, 1), 2.0, jnp.asarray(X)
    gradient = jax.jit(jax.grad(lambda q: _divergence(q, RING, beta)))(params)
    held = jax.jit(lambda q: boltzmann.moments(q, RING, v, beta=beta))(params)
    free = jax.jit(lambda q: boltzmann.moments(q, RING, beta=beta))(params)
    for positive, negative, scale in (
        (held, jax.tree.map(jnp.zeros_like, free), beta),
        (held, free, 1.0),
        (free, held, beta),
    ):
        rule = jax.tree.map(lambda a, b, scale=scale: scale * (a - b), positive, negative)
        with pytest.raises(AssertionError):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, -b, atol=2e-5), rule, gradient)


def test_two_layers_are_an_rbm_however_wide() -> None:
    graph = graphs.layered((40, 5))
    generator = np.random.default_rng(2)
    weights, b, c = (jnp.asarray(generator.normal(size=n), jnp.float32) for n in ((40, 5), (40,), (5,)))
    params = boltzmann.Boltzmann(weights[graph.edges[:, 0], graph.edges[:, 1] - 40], jnp.concatenate([b, c]))
    machine = rbm.RBM(weights, b, c)
    v = jnp.asarray(generator.integers(0, 2, (7, 40)), jnp.float32)
    log_z = jax.jit(lambda q: boltzmann.log_partition(q, graph))(params)
    np.testing.assert_allclose(log_z, rbm.log_partition(machine), rtol=1e-6)
    np.testing.assert_allclose(
        boltzmann.free_energy(params, graph, v, beta=0.5), rbm.free_energy(machine, v, beta=0.5), rtol=1e-5
    )


@pytest.mark.parametrize(("coupling", "log_z"), [(0.2, 11.7714703585), (0.4406868, 15.5219156213)])
def test_ising_torus_has_its_partition_function(coupling: float, log_z: float) -> None:
    """The 4×4 torus, by brute force and by Kaufman's formula alike."""
    graph = graphs.torus(4, 4)
    params, offset = boltzmann.from_ising(graph, coupling, 0.0)
    np.testing.assert_allclose(boltzmann.log_partition(params, graph) - offset, log_z, rtol=1e-6)


def test_ising_converters_keep_the_energy_and_are_inverse() -> None:
    coupling, field = jnp.linspace(-1.0, 1.0, len(RING.edges)), jnp.linspace(0.5, -0.7, 5)
    params, offset = boltzmann.from_ising(RING, coupling, field)
    s = jnp.asarray(_states(5), jnp.float32)
    spins = 2 * s - 1
    rows, columns = RING.edges.T
    ising = -(spins[:, rows] * spins[:, columns]) @ coupling - spins @ field
    np.testing.assert_allclose(boltzmann.energy(params, RING, s) + offset, ising, atol=1e-5)
    again = boltzmann.to_ising(params, RING)
    for found, wanted in zip(again, (coupling, field, offset), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_groups_have_no_edge_inside_and_are_few_where_the_graph_allows() -> None:
    for name, most in {"layers": 2, "complete": 5, "ring": 4}.items():
        groups, joined = graphs.colours(GRAPHS[name]), graphs.neighbours(GRAPHS[name])
        assert len(groups) <= most
        assert sorted(np.concatenate(groups)) == list(range(GRAPHS[name].num_units))
        assert not any(joined[np.ix_(group, group)].any() for group in groups)
    assert len(graphs.colours(graphs.torus(4, 6))) == 2
    assert [list(group) for group in graphs.colours(GRAPHS["layers"], [3, 4, 6])] == [[3, 4], [6]]


def _cells(s: Any) -> np.ndarray:
    s = np.asarray(s).astype(int)
    return s @ 2 ** np.arange(s.shape[1] - 1, -1, -1)


@pytest.mark.parametrize("graph", [RING, graphs.complete(5, 4)], ids=["unrolled", "looped"])
def test_gibbs_keeps_the_law_and_reaches_it(graph: graphs.Graph) -> None:
    params = jax.tree.map(lambda leaf: 0.6 * leaf, _params(graph, 3))
    s, log_mass = _log_mass(params, graph, 0.7)
    p = scipy.special.softmax(log_mass)
    starts = jnp.asarray(s, jnp.float32)[
        jax.random.categorical(jax.random.key(0), jnp.asarray(log_mass), shape=(30_000,))
    ]
    kernel = boltzmann.gibbs(params, graph, beta=0.7)
    walk = jax.jit(lambda key, s: run(key, kernel, block_gibbs.State(s), 1)[0].position)
    once = walk(jax.random.key(1), starts)
    stat.check_counts(np.bincount(_cells(once), minlength=len(p)), p)
    assert float(jnp.mean(jnp.any(once != starts, axis=1))) > 0.5
    far = jax.jit(lambda key: run(key, kernel, block_gibbs.State(jnp.ones((30_000, graph.num_units))), 40)[0].position)
    stat.check_counts(np.bincount(_cells(far(jax.random.key(2))), minlength=len(p)), p)


def test_gibbs_with_a_wrong_field_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    true = boltzmann.couplings
    monkeypatch.setattr(boltzmann, "couplings", lambda params, graph: jnp.triu(true(params, graph)))
    with pytest.raises(AssertionError, match="G ="):
        test_gibbs_keeps_the_law_and_reaches_it(RING)


@pytest.mark.parametrize("name", ["ring", "layers"])
def test_hidden_units_are_drawn_from_their_posterior(name: str) -> None:
    graph = GRAPHS[name]
    params = _params(graph, 4)
    s, log_mass = _log_mass(params, graph, 1.0)
    v = np.array([1.0, 0.0, 1.0])
    own = (s[:, :3] == v).all(1)
    found = jax.jit(
        lambda key: boltzmann.hold(key, params, graph, jnp.tile(jnp.asarray(v, jnp.float32)[None], (20_000, 1)), 30)
    )(jax.random.key(0))
    np.testing.assert_array_equal(found[:, :3], jnp.tile(jnp.asarray(v)[None], (20_000, 1)))
    p = scipy.special.softmax(log_mass[own])
    stat.check_counts(np.bincount(_cells(found[:, 3:]), minlength=len(p)), p)


def test_chains_give_the_exact_gradient_in_mean() -> None:
    """At equilibrium of both phases the expected update is the learning rule."""
    params, beta = _params(RING, 5), 0.8
    model = boltzmann.model(RING, optax.sgd(1.0), num_chains=8, num_steps=25, num_held_steps=25, beta=beta)
    batch = {"x": jnp.asarray(X)}
    state = model.init(jax.random.key(0), batch)._replace(params=params)

    def move(key: Any) -> Any:
        new = model.update(key, state, batch)[0].params
        return jnp.concatenate([a - b for a, b in zip(new, params, strict=True)])

    moves = jax.jit(jax.vmap(move))(jax.random.split(jax.random.key(1), 2_000))
    exact = boltzmann.learning_rule(params, RING, batch["x"], beta=beta)
    stat.check_mean(moves, np.concatenate(exact), sees=0.1)
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(moves, np.concatenate(exact) / beta)


def test_exact_learning_reaches_the_data() -> None:
    """A complete graph on three visible units has as many parameters as pairs and singles: hidden units do the rest."""
    model = boltzmann.model(graphs.complete(3, 2), optax.adam(0.1), exact=True)
    batch = {
        "x": jnp.asarray(np.tile([[1, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 0]], (2, 1)), jnp.float32)
    }  # even parity
    state, update, metrics = jax.jit(model.init)(jax.random.key(3), batch), jax.jit(model.update), {}
    for step in range(400):
        state, metrics = update(jax.random.key(step), state, batch)
    assert abs(float(metrics["nll"]) - np.log(4)) < 0.05
    pairs = boltzmann.model(graphs.complete(3), optax.adam(0.1), exact=True)
    other, update = jax.jit(pairs.init)(jax.random.key(3), batch), jax.jit(pairs.update)
    for step in range(200):
        other, metrics = update(jax.random.key(step), other, batch)
    assert float(metrics["nll"]) > np.log(8) - 1e-3  # parity has no pairwise correlation


def test_extreme_weights_stay_finite() -> None:
    params = boltzmann.Boltzmann(jnp.full(len(RING.edges), -200.0), jnp.full(5, 100.0))
    value, grads = jax.jit(jax.value_and_grad(lambda q: jnp.sum(boltzmann.log_prob(q, RING, jnp.asarray(X)))))(params)
    assert np.isfinite(float(value))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in grads)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: graphs.graph(np.ones((2, 3)), 1), r"`adjacency` must be a square matrix, got shape \(2, 3\)"),
        (lambda: graphs.graph([[0, 1], [0, 0]], 1), "`adjacency` must be symmetric"),
        (lambda: graphs.graph(np.eye(2), 1), "`adjacency` must join no unit to itself"),
        (lambda: graphs.graph(np.zeros((2, 2)), 3), r"`num_visible` must lie in 1..2, got 3"),
        (lambda: graphs.torus(2, 5), "`height` must be at least 3, got 2"),
        (lambda: graphs.layered((3, 0)), "`sizes` must be at least 1, got 0"),
        (lambda: boltzmann.model(graphs.complete(27), optax.sgd(0.1), exact=True), "at most 25 units to list, got 26"),
        (lambda: boltzmann.model(RING, optax.sgd(0.1), beta=-1.0), "`beta` must be positive, got -1.0"),
        (lambda: boltzmann.model(RING, optax.sgd(0.1), num_held_steps=0), "`num_held_steps` must be at least 1, got 0"),
        (lambda: boltzmann.log_partition(_params(graphs.complete(30)), graphs.complete(30)), "at most 25 units"),
    ],
)  # fmt: skip
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_bad_data_and_what_is_offered() -> None:
    model = boltzmann.model(RING, optax.sgd(0.1))
    for x, message in ((X * 0.5, "whole numbers"), (X[:, :2], r"`x` must have 3 columns, got shape \(4, 2\)")):
        with pytest.raises(ValueError, match=message):
            model.init(jax.random.key(0), {"x": jnp.asarray(x)})
    assert model.log_prob is not None
    assert boltzmann.model(graphs.complete(10, 10), optax.sgd(0.1)).log_prob is None
    assert boltzmann.model(graphs.complete(10, 10), optax.sgd(0.1), exact=True).log_prob is not None
