"""Score matching: one minimum in closed form, the Fisher divergence by quadrature, and the law of the samples."""

import functools
import itertools
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import stat_checks as stat
from flax import linen as nn

from jgen import linen
from jgen.energy import score_matching as sm
from jgen.nets.scalar import SquaredError
from jgen.samplers import annealed_langevin

X = np.random.default_rng(0).normal(size=(40, 3)) @ np.array([[1.0, 0.4, 0.0], [0.0, 0.7, -0.5], [0.0, 0.0, 1.3]]) + 0.5
MEAN, COVARIANCE = X.mean(axis=0), np.cov(X.T, bias=True)
SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=3)))
CROSS = np.sqrt(3) * np.concatenate([np.eye(3), -np.eye(3)])
"""Mean 0 and covariance I exactly: under a quadratic loss these six points are as good as all normal noise."""
WIDTH = 0.8


def affine(params: Any, x: Any) -> Any:
    """s(x) = b − Ax."""
    return params["b"][None] - x @ params["A"].T


def objective(name: str, score: Any, x: Any) -> Any:
    """The mean over data of an objective, its directions or noise averaged exactly."""
    if name == "exact":
        return jnp.mean(sm.exact(score, x))
    if name == "denoising":
        many, noise = jnp.repeat(x, len(CROSS), axis=0), jnp.tile(jnp.asarray(CROSS), (len(x), 1))
        return jnp.mean(sm.denoising(lambda x, std: score(x), many, noise, jnp.full(len(many), WIDTH)))
    directions = jnp.broadcast_to(jnp.asarray(SIGNS)[:, None], (8, *x.shape))
    return jnp.mean(sm.sliced(score, x, directions, reduced=name == "sliced_reduced"))


def minimum(name: str) -> Any:
    """Where the objective, which is quadratic in (A, b), has its minimum: one Newton step, in float64."""
    with jax.enable_x64(True):
        zero = {"A": jnp.zeros((3, 3)), "b": jnp.zeros(3)}
        flat, unflatten = jax.flatten_util.ravel_pytree(zero)

        def value(flat: Any) -> Any:
            return objective(name, functools.partial(affine, unflatten(flat)), jnp.asarray(X))

        gradient, hessian = jax.jit(lambda flat: (jax.grad(value)(flat), jax.hessian(value)(flat)))(flat)
        return jax.tree.map(np.asarray, unflatten(flat - np.linalg.solve(hessian, gradient)))


class Small(nn.Module):
    """A network of two layers that is told the time."""

    @nn.compact
    def __call__(self, u: Any, time: Any) -> Any:
        flat = jnp.reshape(u, (len(u), -1))
        told = jnp.concatenate([flat, time[:, None]], axis=1)
        return jnp.reshape(nn.Dense(flat.shape[1])(jnp.tanh(nn.Dense(6)(told))), u.shape)


def random_params(module: nn.Module, seed: int, x: Any) -> Any:
    """Parameters of order 1, none of them zero."""
    init = jax.jit(lambda key, x: linen.init(module, key, x, jnp.zeros(len(x)))[0])
    flat, unflatten = jax.flatten_util.ravel_pytree(init(jax.random.key(0), x))
    return unflatten(jnp.asarray(np.random.default_rng(seed).normal(size=flat.shape), jnp.float32))


def check_minimum(name: str) -> None:
    """A = C⁻¹ and b = C⁻¹·mean of the data, whose covariance the noise has widened."""
    found = minimum(name)
    widened = COVARIANCE + (WIDTH**2 * np.eye(3) if name == "denoising" else 0.0)
    np.testing.assert_allclose(found["A"], np.linalg.inv(widened), atol=1e-9)
    np.testing.assert_allclose(found["b"], np.linalg.solve(widened, MEAN), atol=1e-9)


@pytest.mark.parametrize("name", sm.OBJECTIVES)
def test_all_objectives_have_the_gaussian_as_their_minimum(name: str) -> None:
    check_minimum(name)


sm_exact, sm_sliced, sm_denoising = sm.exact, sm.sliced, sm.denoising


def _square(score: Any, x: Any) -> Any:
    return 0.5 * jnp.sum(score(x) ** 2, axis=1)


MUTANTS = {
    "no trace": ("exact", "exact", _square),
    "square without its half": ("exact", "exact", lambda s, x: sm_exact(s, x) + _square(s, x)),
    "directions of variance 4": (
        "sliced",
        "sliced_reduced",
        lambda s, x, v, reduced: sm_sliced(s, x, 2 * v, reduced=reduced),
    ),
    "one sign of the noise": (
        "denoising",
        "denoising",
        lambda s, x, noise, std: sm_denoising(lambda y, std: -s(y, std), x, noise, std),
    ),
    "noise of another width": (
        "denoising",
        "denoising",
        lambda s, x, noise, std: sm_denoising(s, x, noise, 0.9 * std),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_miss_the_minimum(monkeypatch: Any, mutant: str) -> None:
    function, name, broken = MUTANTS[mutant]
    monkeypatch.setattr(sm, function, broken)
    with pytest.raises((AssertionError, np.linalg.LinAlgError)):
        check_minimum(name)


def test_one_score_of_all_levels_has_its_minimum_at_the_gaussian() -> None:
    """s(x, σ) = −(S + σ²)⁻¹(x − m) at three levels at once, S and m free: the gradient is 0 at the data's."""
    with jax.enable_x64(True):
        std = jnp.repeat(jnp.array([2.0, 0.7, 0.1]), len(X) * len(CROSS))
        x = jnp.tile(jnp.repeat(jnp.asarray(X), len(CROSS), axis=0), (3, 1))
        noise = jnp.tile(jnp.asarray(CROSS), (3 * len(X), 1))

        def value(covariance: Any, mean: Any) -> Any:
            def score(x: Any, std: Any) -> Any:
                widened = covariance[None] + jnp.square(std)[:, None, None] * jnp.eye(3)[None]
                return -jnp.linalg.solve(widened, (x - mean[None])[..., None])[..., 0]

            return jnp.mean(sm.denoising(score, x, noise, std))

        gradient = jax.jit(jax.grad(value, argnums=(0, 1)))
        for leaf in gradient(jnp.asarray(COVARIANCE), jnp.asarray(MEAN)):
            np.testing.assert_allclose(leaf, 0.0, atol=1e-9)
        assert np.abs(gradient(1.1 * jnp.asarray(COVARIANCE), jnp.asarray(MEAN))[0]).max() > 1e-3


# The Fisher divergence of any network, by quadrature on the line


def log_mixture(x: Any) -> Any:
    """log p of 0.3 N(−1, 0.5²) + 0.7 N(1, 0.8²)."""
    parts = [jnp.log(w) + jax.scipy.stats.norm.logpdf(x, m, s) for w, m, s in ((0.3, -1.0, 0.5), (0.7, 1.0, 0.8))]
    return jnp.logaddexp(*parts)


@pytest.mark.parametrize("is_energy", [False, True])
def test_exact_score_matching_is_the_fisher_divergence_up_to_a_constant(is_energy: bool) -> None:
    x = jnp.asarray(np.linspace(-8.0, 8.0, 1_001)[:, None], jnp.float32)
    mass, true = jax.jit(lambda x: (0.016 * jnp.exp(log_mixture(x)), jax.vmap(jax.grad(log_mixture))(x)))(x[:, 0])
    constant = -0.5 * np.sum(np.asarray(mass * true**2))

    module = SquaredError(Small()) if is_energy else Small()

    @jax.jit
    def both(params: Any) -> Any:
        net = sm.Network(module, is_energy=is_energy)
        score = functools.partial(sm.score, params, std=jnp.zeros(len(x)), network=net)
        return jnp.sum(mass * sm.exact(score, x)), 0.5 * jnp.sum(mass * (score(x)[:, 0] - true) ** 2)

    for seed in range(3):
        found, divergence = both(random_params(module, seed, x))
        assert divergence > 0.01
        np.testing.assert_allclose(found, divergence + constant, rtol=2e-4, atol=2e-4)


def test_denoising_is_the_fisher_divergence_from_the_blurred_density_up_to_a_constant() -> None:
    sigma = 0.6
    sides = np.linspace(-5.0, 6.0, 221), np.linspace(-6.0, 6.0, 121)
    x, noise = (jnp.asarray(a.reshape(-1, 1), jnp.float32) for a in np.meshgrid(*sides, indexing="ij"))
    y = jnp.asarray(np.linspace(-9.0, 10.0, 1_001), jnp.float32)

    def log_blurred(y: Any) -> Any:
        parts = ((0.3, -1.0, 0.5), (0.7, 1.0, 0.8))
        return jnp.logaddexp(
            *[jnp.log(w) + jax.scipy.stats.norm.logpdf(y, m, jnp.hypot(s, sigma)) for w, m, s in parts]
        )

    @jax.jit
    def both(params: Any) -> Any:
        mass = jnp.exp(log_mixture(x[:, 0]) + jax.scipy.stats.norm.logpdf(noise[:, 0])) * 0.05 * 0.1
        weight, true = 0.019 * jnp.exp(log_blurred(y)), jax.vmap(jax.grad(log_blurred))(y)
        score = functools.partial(sm.score, params, network=sm.Network(Small(), (2.0, sigma)))
        value = jnp.sum(mass * sm.denoising(score, x, noise, jnp.full(len(x), sigma)))
        estimate = score(y[:, None], jnp.full(len(y), sigma))[:, 0]
        return value, 0.5 * sigma**2 * jnp.sum(weight * (estimate - true) ** 2)

    values, divergences = np.asarray([both(random_params(Small(), seed, x)) for seed in range(3)]).T
    assert np.ptp(divergences) > 0.01
    np.testing.assert_allclose(values - divergences, (values - divergences)[0], rtol=1e-3)


def test_slices_average_to_the_exact_objective_and_the_reduced_form_varies_less() -> None:
    x, params = jnp.asarray(X, jnp.float32), random_params(Small(), 0, jnp.asarray(X, jnp.float32))

    @functools.partial(jax.jit, static_argnums=0)
    def by_sign(reduced: bool) -> Any:
        score = functools.partial(sm.score, params, std=jnp.zeros(len(x)), network=sm.Network(Small()))
        signs = jnp.asarray(SIGNS, jnp.float32)[:, None, None]
        one = functools.partial(sm.sliced, score, x, reduced=reduced)
        return jax.vmap(lambda v: one(jnp.broadcast_to(v[None], (1, *x.shape))))(signs[:, 0]), sm.exact(score, x)

    spreads = []
    for reduced in (True, False):
        values, exact = by_sign(reduced)
        np.testing.assert_allclose(values.mean(axis=0), exact, rtol=1e-4, atol=1e-4)
        spreads.append(np.var(values, axis=0).mean())
    assert spreads[0] < 0.9 * spreads[1]


def test_score_is_minus_the_gradient_of_the_energy() -> None:
    module = SquaredError(Small())
    net = sm.Network(module, (3.0, 0.5, 0.1), is_energy=True)
    x, std = jax.random.normal(jax.random.key(0), (3, 2, 2, 1)), jnp.array([3.0, 0.5, 0.1])
    params, direction = random_params(module, 0, x), jax.random.normal(jax.random.key(1), x.shape)
    energy = jax.jit(functools.partial(sm.energy, network=net))
    found = jax.jit(functools.partial(sm.score, network=net))(params, x, std)
    ahead, behind = (energy(params, x + h * direction, std) for h in (1e-2, -1e-2))
    np.testing.assert_allclose(-(ahead - behind) / 2e-2, sm._dot(found, direction), rtol=2e-2, atol=2e-2)
    # Where the inner network is 0 it is the energy of a standard normal, which √(1 + σ²)/σ fits to each level.
    start = energy(jax.tree.map(jnp.zeros_like, params), x, std)
    expected = 0.5 * sm._dot(x, x) / (std * jnp.sqrt(1 + std**2))
    np.testing.assert_allclose(start, expected, rtol=1e-5)


class Normal(nn.Module):
    """g for data N(0, 1): s(x, σ) = −x/(1 + σ²), so g = −σ u/√(1 + σ²)."""

    widest: float
    narrowest: float

    @nn.compact
    def __call__(self, u: Any, time: Any) -> Any:
        sigma = self.narrowest * (self.widest / self.narrowest) ** time
        unused = self.param("unused", nn.initializers.zeros, ())
        return -(u + unused) * (sigma / jnp.sqrt(1 + sigma**2))[:, None]


def test_samples_have_the_law_of_their_walk() -> None:
    """On a Gaussian each step maps the variance V to (1 − ε/(1 + σ²))²V + 2ε; the last step scales by 1/(1 + σ²)."""
    levels, step_size, steps = (2.0, 0.8, 0.3), 0.05, 5
    net = sm.Network(Normal(2.0, 0.3), levels)
    variance = 1 + levels[0] ** 2
    for sigma in levels:
        rate = step_size * sigma**2 / levels[-1] ** 2
        for _ in range(steps):
            variance = (1 - rate / (1 + sigma**2)) ** 2 * variance + 2 * rate
    variance /= (1 + levels[-1] ** 2) ** 2
    params = {"unused": jnp.zeros(())}
    draw = functools.partial(sm.sample, network=net, shape=(2,), step_size=step_size, steps_per_level=steps)
    x = np.asarray(jax.jit(draw, static_argnums=2)(jax.random.key(0), params, 20_000))
    stat.check_mean(x, 0.0, sees=0.1)
    stat.check_mean(x**2, variance, sees=0.15 * variance)
    stat.check_mean(x[:, 0] * x[:, 1], 0.0, sees=0.15)


def test_samples_without_levels_are_plain_langevin_dynamics() -> None:
    """On N(0, 1) the unadjusted walk of step ε keeps variance 1/(1 − ε/2)."""
    net = sm.Network(Normal(1.0, 1.0))  # with σ = 0 the network itself is the score: −u/√2, of N(0, √2)
    draw = functools.partial(sm.sample, network=net, shape=(1,), step_size=0.5, steps_per_level=30)
    x = np.asarray(jax.jit(draw, static_argnums=2)(jax.random.key(0), {"unused": jnp.zeros(())}, 20_000))
    variance = np.sqrt(2) / (1 - 0.5 / (2 * np.sqrt(2)))
    stat.check_mean(x**2, variance, sees=0.2)


class Affine(nn.Module):
    """An affine score that is told no time."""

    @nn.compact
    def __call__(self, u: Any, time: Any) -> Any:
        del time
        return nn.Dense(u.shape[1])(u)


def test_learning_ends_at_the_closed_form() -> None:
    model = sm.model(sm.Network(Affine()), (3,), optax.sgd(0.3), objective="exact")
    batch = {"x": jnp.asarray(X, jnp.float32)}
    state = jax.jit(model.init)(jax.random.key(0), batch)
    keys = jax.random.split(jax.random.key(0), 400)
    state, _ = jax.jit(lambda state: jax.lax.scan(lambda s, k: model.update(k, s, batch), state, keys))(state)
    found = state.params["Dense_0"]
    np.testing.assert_allclose(-found["kernel"], np.linalg.inv(COVARIANCE), atol=1e-3)
    np.testing.assert_allclose(found["bias"], np.linalg.solve(COVARIANCE, MEAN), atol=1e-3)


@pytest.mark.parametrize("objective", ["denoising", "sliced_reduced"])
def test_losses_stay_finite_far_away(objective: str) -> None:
    levels = annealed_langevin.noise_levels(50.0, 0.01, 4) if objective == "denoising" else ()
    model = sm.model(sm.Network(Small(), tuple(levels)), (2,), optax.sgd(1e-3), objective=objective)
    batch = {"x": jnp.array([[1e3, -1e3], [0.0, 0.0], [1e-6, 30.0]])}
    state = jax.jit(model.init)(jax.random.key(0), batch)
    state, metrics = jax.jit(model.update)(jax.random.key(1), state, batch)
    assert np.isfinite(metrics["loss"])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"objective": "noise"}, "`objective` must be one of 'denoising', 'exact', .*, got 'noise'"),
        ({"objective": "denoising"}, '`objective` must be others than "denoising" without noise levels'),
        ({"levels": (1.0,), "objective": "sliced"}, '`objective` must be "denoising" with them, got \'sliced\''),
        ({"num_slices": 0}, "`num_slices` must be at least 1, got 0"),
        ({"steps_per_level": 0}, "`steps_per_level` must be at least 1, got 0"),
        ({"step_size": 0.0}, "`step_size` must be positive, got 0.0"),
        ({"levels": (1.0, 2.0)}, r"`levels` must be positive and fall, got \(1.0, 2.0\)"),
    ],
)  # fmt: skip
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    kwargs = {"objective": "exact", **kwargs}
    with pytest.raises(ValueError, match=message):
        sm.model(sm.Network(Small(), kwargs.pop("levels", ())), (2,), optax.sgd(0.1), **kwargs)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (jnp.zeros((4, 2), jnp.int32), "`x` must be real numbers, which have a density, got int32"),
        (jnp.zeros((4, 3)), r"`x` must have examples of shape \(2,\), got \(3,\)"),
    ],
)
def test_bad_data(x: Any, message: str) -> None:
    model = sm.model(sm.Network(Small()), (2,), optax.sgd(0.1), objective="exact")
    with pytest.raises(ValueError, match=message):
        model.init(jax.random.key(0), {"x": x})
