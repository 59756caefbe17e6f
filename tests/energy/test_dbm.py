"""Deep Boltzmann machines against enumeration of every unit, the RBM, and their own bound and annealing."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import stat_checks as stat

from jgen.energy import dbm, dbm_annealing, rbm
from jgen.energy.stack import Layer
from jgen.sampler import run
from jgen.samplers import annealed_importance as ais

SIZES = [(4, 3, 3), (4, 3, 2, 2)]


def _states(num: int) -> Any:
    return jnp.asarray(list(itertools.product([0.0, 1.0], repeat=num)))


def _params(sizes: tuple[int, ...], scale: float = 1.0, seed: int = 0) -> dbm.DBM:
    generator = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return jnp.asarray(scale * generator.normal(size=shape), jnp.float32)

    return dbm.DBM(tuple(draw(*pair) for pair in itertools.pairwise(sizes)), tuple(draw(size) for size in sizes))


def _every(sizes: tuple[int, ...]) -> tuple[Any, ...]:
    """All states, one array per layer."""
    return tuple(jnp.split(_states(sum(sizes)), np.cumsum(sizes)[:-1], axis=1))


def _log_mass(params: dbm.DBM, sizes: tuple[int, ...]) -> np.ndarray:
    """−E of all states, written out in NumPy."""
    units = [np.asarray(x, np.float64) for x in _every(sizes)]
    total = sum(x @ np.asarray(b, np.float64) for x, b in zip(units, params.biases, strict=True))
    for x, y, w in zip(units, units[1:], params.weights, strict=False):
        total = total + np.einsum("na,ab,nb->n", x, np.asarray(w, np.float64), y)
    return np.asarray(total)


def _exact(params: dbm.DBM, sizes: tuple[int, ...]) -> tuple[float, np.ndarray]:
    """(log Z, log p of every v)."""
    log_mass = _log_mass(params, sizes)
    log_z = float(np.logaddexp.reduce(log_mass))
    return log_z, np.logaddexp.reduce(log_mass.reshape(2 ** sizes[0], -1), axis=1) - log_z


@pytest.mark.parametrize("sizes", SIZES)
def test_energy_partition_and_likelihood_by_enumeration(sizes: tuple[int, ...]) -> None:
    params = _params(sizes)
    log_z, log_p = _exact(params, sizes)
    np.testing.assert_allclose(dbm.energy(params, _every(sizes)), -_log_mass(params, sizes), atol=1e-5)
    np.testing.assert_allclose(jax.jit(dbm.log_partition)(params), log_z, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(dbm.log_prob)(params, _states(sizes[0])), log_p, atol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
def test_energy_of_means_is_the_mean_energy(sizes: tuple[int, ...]) -> None:
    params, generator = _params(sizes), np.random.default_rng(1)
    means = [generator.uniform(size=size) for size in sizes]
    p = [np.prod(np.where(np.asarray(x) > 0, m, 1 - m), axis=1) for x, m in zip(_every(sizes), means, strict=True)]
    mean = -np.prod(p, axis=0) @ _log_mass(params, sizes)
    found = dbm.energy(params, [jnp.asarray(m, jnp.float32)[None] for m in means])
    np.testing.assert_allclose(found, [mean], rtol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
def test_bound_rises_to_a_fixed_point_below_the_likelihood(sizes: tuple[int, ...]) -> None:
    params, v = _params(sizes), _states(sizes[0])
    log_z, log_p = _exact(params, sizes)
    bounds = jax.jit(lambda: [dbm.bound(params, v, num, log_z) for num in (0, 1, 2, 4, 60)])
    values = np.stack(bounds())
    assert np.all(np.diff(values, axis=0) > -1e-5)
    assert np.all(values <= log_p[None] + 1e-5)
    assert np.max(log_p - values[-1]) > 0.01  # strict: the posterior is not factorial
    means = (v, *map(jax.nn.sigmoid, dbm.mean_field(params, v, 60)))
    for layer in range(1, len(sizes)):
        np.testing.assert_allclose(means[layer], jax.nn.sigmoid(dbm.logits(params, means, layer)), atol=1e-4)


def test_bound_is_exact_where_the_posterior_is_factorial() -> None:
    params = _params((4, 3, 2))
    params = params._replace(weights=(params.weights[0], jnp.zeros((3, 2))))
    bound, exact = jax.jit(lambda v: (dbm.bound(params, v, 2), dbm.log_prob(params, v)))(_states(4))
    np.testing.assert_allclose(bound, exact, atol=1e-5)


def test_broken_bounds_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entropy counted twice, or energies without the upper weights: above the likelihood, or no rise."""
    entropy = dbm.binary.entropy
    monkeypatch.setattr(dbm.binary, "entropy", lambda logits: 2 * entropy(logits))
    with pytest.raises(AssertionError):
        test_bound_rises_to_a_fixed_point_below_the_likelihood((4, 3, 3))
    monkeypatch.setattr(dbm.binary, "entropy", entropy)
    right = dbm.logits
    monkeypatch.setattr(
        dbm, "logits", lambda params, units, layer: right(params, units, layer) - params.biases[layer][None]
    )
    with pytest.raises(AssertionError):
        test_bound_rises_to_a_fixed_point_below_the_likelihood((4, 3, 3))


def _cells(units: Any) -> np.ndarray:
    joined = np.concatenate([np.asarray(x) for x in units], axis=1).astype(int)
    return joined @ 2 ** np.arange(joined.shape[1] - 1, -1, -1)


def _draw(params: dbm.DBM, sizes: tuple[int, ...], num: int) -> Any:
    rows = jax.random.categorical(jax.random.key(0), jnp.asarray(_log_mass(params, sizes)), shape=(num,))
    return jax.tree.map(lambda x: x[rows], _every(sizes))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 2, 1, 2)])
def test_block_gibbs_keeps_the_law_and_reaches_it(sizes: tuple[int, ...]) -> None:
    params = _params(sizes)
    p = scipy.special.softmax(_log_mass(params, sizes))
    kernel, exact = dbm.gibbs(params), _draw(params, sizes, 30_000)
    walk = jax.jit(
        lambda key, x, n: jax.lax.fori_loop(0, n, lambda t, s: kernel.step(jax.random.fold_in(key, t), s)[0], x)
    )
    once = walk(jax.random.key(1), dbm.GibbsState(exact), 1).position
    stat.check_counts(np.bincount(_cells(once), minlength=len(p)), p)
    assert np.mean(_cells(once) != _cells(exact)) > 0.5
    far = walk(jax.random.key(2), dbm.GibbsState(jax.tree.map(jnp.ones_like, exact)), 60).position
    stat.check_counts(np.bincount(_cells(far), minlength=len(p)), p)


@pytest.mark.parametrize("sizes", SIZES)
def test_annealed_weights_are_unbiased_at_few_temperatures(sizes: tuple[int, ...]) -> None:
    params, base, num = _params(sizes, 0.7), jnp.linspace(-1.0, 1.0, 4), 50_000
    odd = [size for index, size in enumerate(sizes) if index % 2]
    keys = jax.random.split(jax.random.key(3), len(odd))
    coins = tuple(
        jax.random.bernoulli(key, 0.5, (num, size)).astype(jnp.float32) for key, size in zip(keys, odd, strict=True)
    )
    walk = jax.jit(
        lambda key: ais.anneal(key, dbm_annealing.annealing_path(params, base), coins, ais.temperatures([4], [0, 1]))
    )
    log_base = float(jnp.sum(jax.nn.softplus(base)) + sum(sizes[1:]) * jnp.log(2.0))
    log_z, _ = _exact(params, sizes)
    weights = np.exp(np.asarray(walk(jax.random.key(1)).log_weights, np.float64) + log_base - log_z)
    stat.check_mean(weights, 1.0, sees=0.3)
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(weights * 2 ** (1 / 4), 1.0)  # a hidden unit's coin would be 2, not 2^(1/4)


@pytest.mark.parametrize("sizes", SIZES)
def test_sandwich_holds_the_exact_partition_function(sizes: tuple[int, ...]) -> None:
    params = _params(sizes, 0.7)
    log_z, _ = _exact(params, sizes)
    both = jax.jit(
        lambda key, particles: dbm_annealing.annealed_log_partition(
            key, params, jnp.zeros(4), particles, ais.temperatures([300], [0, 1])
        )
    )
    found = both(jax.random.key(1), _draw(params, sizes, 200))
    error = np.asarray(found.standard_error) * stat.threshold(2)
    assert abs(float(found.forward) - log_z) < error[0]
    assert abs(float(found.reverse) - log_z) < error[1]
    assert np.all(error < 0.2)


def test_doubled_units_are_two_copies() -> None:
    generator = np.random.default_rng(3)
    params = rbm.RBM(*(jnp.asarray(generator.normal(size=n), jnp.float32) for n in ((3, 2), (3,), (2,))))
    both = dbm.doubled(params, visible=True, hidden=True)
    v, h = _states(3)[5:6], _states(2)[1:2]
    twice_v, twice_h = jnp.tile(v, (1, 2)), jnp.tile(h, (1, 2))
    hidden = rbm.hidden_logits(both, twice_v)
    np.testing.assert_allclose(hidden, jnp.tile(params.hidden_bias[None] + 2 * v @ params.weights, (1, 2)), rtol=1e-5)
    visible = rbm.visible_logits(both, twice_h)
    np.testing.assert_allclose(
        visible, jnp.tile(params.visible_bias[None] + 2 * h @ params.weights.T, (1, 2)), rtol=1e-5
    )
    one = dbm.doubled(params, visible=True, hidden=False)
    assert (one.weights.shape, one.visible_bias.shape, one.hidden_bias.shape) == ((6, 2), (6,), (2,))


X = jnp.tile(jnp.asarray([[1.0, 1, 0, 0], [0, 0, 1, 1]]), (16, 1))


def _learner(num_updates: int, optimizer: Any, **kwargs: Any) -> Any:
    layers = [Layer(3, optax.sgd(0.1), num_updates), Layer(2, optax.sgd(0.1), num_updates)]
    return dbm.model(4, layers, optimizer, **{"num_chains": 64, "num_steps": 3, **kwargs})


def test_expected_update_is_the_gradient_of_the_bound() -> None:
    """With μ held, ∇[−E(v, μ) − log Z]: positive phase by mean field, negative phase by chains at equilibrium."""
    params = _params((4, 3, 2), 0.6)
    model = _learner(0, optax.sgd(1.0), num_chains=8, num_steps=25)
    state = model.init(jax.random.key(0), {"x": X})._replace(params=params)

    def objective(moving: dbm.DBM) -> Any:
        means = jax.tree.map(jax.lax.stop_gradient, (X, *map(jax.nn.sigmoid, dbm.mean_field(params, X, 10))))
        return -jnp.mean(dbm.energy(moving, means)) - dbm.log_partition(moving)

    def move(key: Any) -> Any:
        new = model.update(key, state, {"x": X})[0].params
        moved = jax.tree.map(lambda a, b: jnp.ravel(a - b), new, params)
        return jnp.concatenate(jax.tree.leaves(moved))

    exact = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(objective))(params))])
    moves = np.asarray(jax.jit(jax.vmap(move))(jax.random.split(jax.random.key(1), 1_000)))
    stat.check_mean(moves, exact, sees=0.2)
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(moves, 0.5 * exact)


def test_layers_learn_one_after_the_other_then_all() -> None:
    model = _learner(300, optax.sgd(0.05))
    state, update = jax.jit(model.init)(jax.random.key(0), {"x": X}), jax.jit(model.update)
    log_prob = jax.jit(lambda s: jnp.mean(model.log_prob(s, {"x": X})))
    before, found = state, [float(log_prob(state))]
    for step in range(900):
        state, _ = update(jax.random.key(step), state, {"x": X})
        if step == 0:
            assert not np.array_equal(before.params.weights[0], state.params.weights[0])
            assert np.array_equal(before.params.weights[1], state.params.weights[1])
        found += [float(log_prob(state))] if step in (599, 899) else []
    assert found == sorted(found)
    assert found[-1] > found[0] + 1.0
    metrics = model.evaluate(jax.random.key(0), state, {"x": X})
    assert float(jnp.mean(metrics["nll_bound"])) > -found[-1] - 1e-5


def test_extreme_weights_stay_finite() -> None:
    params = jax.tree.map(lambda leaf: 100 * jnp.sign(leaf), _params((4, 3, 3)))
    assert np.all(np.isfinite(dbm.bound(params, _states(4), 3)))
    assert np.all(np.isfinite(dbm.log_prob(params, _states(4))))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: dbm.model(4, [Layer(3, optax.sgd(0.1), 1)], optax.sgd(0.1)), "`layers` must be at least 2, got 1"),
        (lambda: _learner(1, optax.sgd(0.1), num_mean_field=0), "`num_mean_field` must be at least 1, got 0"),
        (lambda: _learner(1, optax.sgd(0.1), num_chains=0), "`num_chains` must be at least 1, got 0"),
        (lambda: _learner(1, optax.sgd(0.1), num_steps=0), "`num_steps` must be at least 1, got 0"),
        (lambda: dbm.log_partition(_params((26, 30, 4))), "at most 25 units to list, got 30"),
    ],
)  # fmt: skip
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_what_is_offered() -> None:
    wide = dbm.model(784, [Layer(500, optax.sgd(0.1), 1), Layer(1000, optax.sgd(0.1), 1)], optax.sgd(0.1))
    assert wide.log_bound is None
    narrow = dbm.model(784, [Layer(16, optax.sgd(0.1), 1), Layer(1000, optax.sgd(0.1), 1)], optax.sgd(0.1))
    assert narrow.log_prob is not None
    assert narrow.log_bound is not None


def test_a_run_of_the_kernel_is_a_run() -> None:
    """Positions are tuples, as `run` scans them."""
    params = _params((3, 2, 2))
    kernel = dbm.gibbs(params)
    state = kernel.init(jax.random.key(0), tuple(jnp.zeros((5, n)) for n in (3, 2, 2)))
    state, kept = run(jax.random.key(1), kernel, state, 4, keep=lambda s, i: s.position[0])
    assert kept.shape == (4, 5, 3)
    assert [x.shape for x in state.position] == [(5, 3), (5, 2), (5, 2)]
