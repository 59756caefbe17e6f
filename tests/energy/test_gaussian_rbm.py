"""The Gaussian RBM against quadrature, its own mixture of 2^H Gaussians, autodiff of the likelihood, and annealing."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
import stat_checks as stat

from jgen.energy import gaussian_rbm as grbm
from jgen.energy import rbm
from jgen.sampler import run
from jgen.samplers import annealed_importance as ais


def _params(visible: int = 2, hidden: int = 3, scale: float = 1.0) -> grbm.GaussianRBM:
    generator = np.random.default_rng(0)
    shapes = ((visible, hidden), (visible,), (hidden,), (visible,))
    drawn = [jnp.asarray(scale * generator.normal(size=shape), jnp.float32) for shape in shapes]
    return grbm.GaussianRBM(drawn[0], drawn[1], drawn[2], 0.3 * drawn[3])


def _states(num: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=num)))


def _mixture(params: grbm.GaussianRBM, beta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(weights, means, standard deviation) of p(v), in NumPy from the completed square."""
    w, b, c, log_std = (np.asarray(leaf, np.float64) for leaf in params)
    h, precision = _states(len(c)), np.exp(-2 * log_std)
    means = b[None] + h @ w.T
    log_weights = beta * (h @ c + 0.5 * ((means**2 - b[None] ** 2) * precision[None]).sum(1))
    return scipy.special.softmax(log_weights), means, np.exp(log_std) / np.sqrt(beta)


@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_density_is_the_mixture_and_integrates_to_one(beta: float) -> None:
    params = _params()
    side = np.linspace(-14, 14, 561)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    found = np.exp(np.asarray(jax.jit(lambda v: grbm.log_prob(params, v, beta=beta))(jnp.asarray(grid, jnp.float32))))
    total = np.trapezoid(np.trapezoid(found.astype(np.float64).reshape(561, 561), side), side)
    np.testing.assert_allclose(total, 1.0, atol=1e-4)
    weights, means, std = _mixture(params, beta)
    parts = scipy.stats.norm.pdf(grid[::97, None], means[None], std[None, None]).prod(-1)
    np.testing.assert_allclose(found[::97], parts @ weights, rtol=2e-3, atol=1e-7)


def test_a_forgotten_constant_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = grbm.component_log_weight

    def without_b(params: Any, h: Any, *, beta: Any = 1.0) -> Any:
        return right(params._replace(visible_bias=jnp.zeros_like(params.visible_bias)), h, beta=beta)

    monkeypatch.setattr(grbm, "component_log_weight", without_b)
    with pytest.raises(AssertionError):
        test_density_is_the_mixture_and_integrates_to_one(1.0)


def test_energy_free_energy_and_conditionals() -> None:
    params, beta = _params(), 0.7
    v, h = jnp.asarray([[0.3, -1.2]]), jnp.asarray(_states(3), jnp.float32)
    energies = grbm.energy(params, jnp.tile(v, (8, 1)), h)
    np.testing.assert_allclose(grbm.free_energy(params, v, beta=beta), [-jax.nn.logsumexp(-beta * energies)], rtol=1e-5)
    posterior = jax.nn.softmax(-beta * energies)
    np.testing.assert_allclose(jax.nn.sigmoid(grbm.hidden_logits(params, v, beta=beta))[0], posterior @ h, rtol=1e-4)
    gradient = jax.grad(lambda x: grbm.energy(params, x, h[3:4])[0])(grbm.visible_mean(params, h[3:4]))
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)  # the mean of v given h is where E is lowest


def _exact(params: grbm.GaussianRBM, beta: float, num: int) -> tuple[Any, np.ndarray]:
    weights, means, std = _mixture(params, beta)
    generator = np.random.default_rng(1)
    which = generator.choice(len(weights), num, p=weights)
    moments = weights @ means, weights @ (means**2 + std[None] ** 2)
    return jnp.asarray(means[which] + std * generator.normal(size=(num, 2)), jnp.float32), np.concatenate(moments)


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_gibbs_keeps_the_law(beta: float) -> None:
    params = _params(scale=0.7)
    starts, moments = _exact(params, beta, 40_000)
    kernel = grbm.gibbs(params, beta=beta)
    ends = jax.jit(lambda key, v: run(key, kernel, rbm.GibbsState(v), 3)[0].position)(jax.random.key(0), starts)
    stat.check_mean(np.concatenate([ends, np.square(ends)], axis=1), moments, sees=0.5)
    assert float(jnp.mean(jnp.abs(ends - starts))) > 0.2
    wrong = grbm.gibbs(params._replace(log_std=params.log_std + 0.1), beta=beta)
    ends = jax.jit(lambda key, v: run(key, wrong, rbm.GibbsState(v), 3)[0].position)(jax.random.key(0), starts)
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(np.concatenate([ends, np.square(ends)], axis=1), moments)


def test_many_sweeps_give_the_likelihood_gradient() -> None:
    x = jnp.asarray(np.random.default_rng(2).normal(size=(8, 2)), jnp.float32)
    params = _params(scale=0.7)
    model = grbm.model(2, 3, optax.sgd(1.0), num_steps=40, persistent=False)
    state = model.init(jax.random.key(0), {"x": x})._replace(params=params)

    def move(key: Any) -> Any:
        new = model.update(key, state, {"x": x})[0].params
        return jnp.concatenate([jnp.ravel(a - b) for a, b in zip(new, params, strict=True)])

    moves = jax.jit(jax.vmap(move))(jax.random.split(jax.random.key(1), 3_000))
    exact = jax.jit(jax.grad(lambda p: jnp.mean(grbm.log_prob(p, x))))(params)
    stat.check_mean(moves, np.concatenate([np.ravel(leaf) for leaf in exact]), sees=0.3)


def test_annealed_weights_are_unbiased_and_the_sandwich_holds() -> None:
    params, base = _params(scale=0.7), grbm.Base(jnp.asarray([0.2, -0.3]), jnp.asarray([1.5, 2.0]))
    exact, num = float(grbm.log_partition(params)), 60_000
    start = base.mean[None] + base.std[None] * jax.random.normal(jax.random.key(0), (num, 2))
    walk = jax.jit(lambda key: ais.anneal(key, grbm.annealing_path(params, base), start, ais.temperatures([5], [0, 1])))
    weights = np.exp(np.asarray(walk(jax.random.key(1)).log_weights, np.float64) + 3 * np.log(2) - exact)
    stat.check_mean(weights, 1.0, sees=0.3)
    particles, _ = _exact(params, 1.0, 200)
    both = jax.jit(
        lambda key: grbm.annealed_log_partition(key, params, base, particles, ais.temperatures([300], [0, 1]))
    )
    found = both(jax.random.key(2))
    error = np.asarray(found.standard_error) * stat.threshold(2)
    assert abs(float(found.forward) - exact) < error[0] < 0.5
    assert abs(float(found.reverse) - exact) < error[1] < 0.5


def test_learning_finds_two_clusters() -> None:
    """On a diagonal, so that independent Gaussians, where learning starts, miss the covariance too."""
    side = jnp.where(jnp.arange(256) % 2 > 0, 1.0, -1.0)[:, None]
    x = jax.random.normal(jax.random.key(0), (256, 2)) * 0.5 + side
    model = grbm.model(2, 4, optax.adam(0.01), num_steps=5, persistent=False)
    state, update = jax.jit(model.init)(jax.random.key(1), {"x": x}), jax.jit(model.update)
    log_prob = jax.jit(lambda s: jnp.mean(grbm.log_prob(s.params, x)))
    before = float(log_prob(state))
    for step in range(600):
        state, _ = update(jax.random.key(step), state, {"x": x})
    best = -np.log(2 * np.pi * np.e * 0.25) - np.log(2)  # of the two Gaussians, far from each other
    assert before < best - 0.7
    assert best - 0.2 < float(log_prob(state)) < best + 0.2


def test_constant_columns_and_extreme_values_stay_finite() -> None:
    x = jnp.concatenate([jnp.zeros((5, 1)), jnp.full((5, 1), 1e3)], axis=1)
    start = grbm.init_params(jax.random.key(0), x, 3)
    assert np.all(np.isfinite(grbm.log_prob(start, x)))
    big = _params()._replace(weights=jnp.full((2, 3), 50.0), hidden_bias=jnp.full(3, -100.0))
    assert np.all(np.isfinite(grbm.log_prob(big, jnp.asarray([[1e2, -1e2], [0.0, 0.0]]))))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: grbm.model(0, 3, optax.sgd(0.1)), "`visible_size` must be at least 1, got 0"),
        (lambda: grbm.model(2, 3, optax.sgd(0.1), beta=-1.0), "`beta` must be positive, got -1.0"),
        (lambda: grbm.model(2, 3, optax.sgd(0.1), weight_decay=-1.0), "`weight_decay` must be at least 0.0, got -1.0"),
        (lambda: grbm.log_partition(_params(2, 26)), "at most 25 hidden units to enumerate, got 26"),
    ],
)  # fmt: skip
def test_bad_arguments(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_bad_data_and_what_is_offered() -> None:
    with pytest.raises(ValueError, match=r"`x` must have 2 columns, got shape \(4, 3\)"):
        grbm.model(2, 3, optax.sgd(0.1)).init(jax.random.key(0), {"x": jnp.zeros((4, 3))})
    assert grbm.model(2, 17, optax.sgd(0.1)).log_prob is None
    assert grbm.model(2, 16, optax.sgd(0.1)).log_prob is not None
