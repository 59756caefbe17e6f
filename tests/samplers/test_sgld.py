"""Stochastic-gradient Langevin on a conjugate Gaussian posterior, against its own exact law.

θ ~ N(0, τ²), x_i ~ N(θ, v): the posterior is N(m, σ²) and a minibatch's noise does not depend on θ.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat

from jgen import random
from jgen.sampler import run
from jgen.samplers import langevin, sgld

PRIOR, NOISE, BATCH = 4.0, 2.0, 5
X = np.random.default_rng(0).normal(1.0, 1.5, 50)
VARIANCE = 1 / (1 / PRIOR + len(X) / NOISE)
MEAN = VARIANCE * X.sum() / NOISE
DATA = {"x": jnp.asarray(X, jnp.float32)}
SPREAD = (len(X) / NOISE) ** 2 * X.var() / BATCH  # s², of N/n Σ (x_i − θ)/v with independent i
NUM = 40_000


def _log_prior(theta: Any) -> Any:
    return -0.5 * theta**2 / PRIOR


def _log_likelihood(theta: Any, example: Any) -> Any:
    return -0.5 * (example["x"] - theta) ** 2 / NOISE


def _plain(batch_size: int = BATCH) -> sgld.Gradient:
    return sgld.minibatch(_log_prior, _log_likelihood, DATA, batch_size)


def _controlled(centre: float = 0.5) -> sgld.Gradient:
    return sgld.control_variates(_log_prior, _log_likelihood, DATA, BATCH, jnp.asarray(centre))


def _ends(gradient: sgld.Gradient, step_size: Any, num_steps: int = 40, **keywords: Any) -> np.ndarray:
    kernel = sgld.sampler(gradient, step_size, **keywords)

    def chain(key: Any) -> Any:
        return run(key, kernel, kernel.init(key, jnp.asarray(MEAN, jnp.float32)), num_steps)[0].position

    return np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(7), NUM)))


def _law(step_size: float, spread: float, temperature: float = 1.0) -> float:
    """The variance that the module's docstring states."""
    return (2 * step_size * temperature + step_size**2 * spread) / (1 - (1 - step_size / VARIANCE) ** 2)


def _check(ends: np.ndarray, variance: float) -> None:
    stat.check_mean(ends, MEAN, sees=0.1 * np.sqrt(variance))
    stat.check_mean((ends - MEAN) ** 2, variance, sees=0.1 * variance)


@pytest.mark.parametrize(("step_size", "temperature"), [(0.01, 1.0), (0.04, 1.0), (0.02, 0.25), (0.02, 0.0)])
def test_plain_estimate_keeps_its_own_law(step_size: float, temperature: float) -> None:
    _check(_ends(_plain(), step_size, temperature=temperature), _law(step_size, SPREAD, temperature))


def test_a_minibatch_widens_the_posterior_and_control_variates_do_not() -> None:
    """A Gaussian likelihood's gradient is linear: its differences between θ and θ̂ are the same for all examples."""
    ends = _ends(_controlled(), 0.04)
    _check(ends, _law(0.04, 0.0))
    with pytest.raises(AssertionError, match="z ="):
        _check(ends, _law(0.04, SPREAD))
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean((_ends(_plain(), 0.04) - MEAN) ** 2, VARIANCE)


@pytest.mark.parametrize("mutant", ["gradient of the minibatch alone", "noise √ε", "temperature twice"])
def test_wrong_scales_fail(monkeypatch: pytest.MonkeyPatch, mutant: str) -> None:
    gradient, temperature = _plain(), 1.0
    if mutant == "gradient of the minibatch alone":  # N/n forgotten
        right = sgld._log_joint
        monkeypatch.setattr(
            sgld, "_log_joint", lambda prior, each, theta, rows, scale: right(prior, each, theta, rows, 1)
        )
    elif mutant == "noise √ε":
        right = langevin.displace
        monkeypatch.setattr(langevin, "displace", lambda x, g, n, size: right(x, g, n / jnp.sqrt(2.0), size))
    else:
        temperature = 2.0
    with pytest.raises(AssertionError, match="z ="):
        _check(_ends(gradient, 0.04, temperature=temperature), _law(0.04, SPREAD))


def test_falling_steps_follow_their_recursion_to_the_posterior() -> None:
    """V' = (1 − ε_t/σ²)²·V + 2ε_t + ε_t² s²; after 600 steps it is nearly σ²."""
    sizes, num_steps = sgld.polynomial(0.03, delay=10.0, power=1.0), 600
    variance = 0.0
    for t in range(num_steps):
        size = float(sizes(t))
        variance = (1 - size / VARIANCE) ** 2 * variance + 2 * size + size**2 * SPREAD
    kernel = sgld.sampler(_plain(), sizes)

    def chain(key: Any) -> Any:
        return run(key, kernel, kernel.init(key, jnp.asarray(MEAN, jnp.float32)), num_steps)[0].position

    ends = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), 10_000)))
    stat.check_mean((ends - MEAN) ** 2, variance, sees=0.2 * variance)
    assert variance / VARIANCE < 1.1
    assert _law(0.03, SPREAD) / VARIANCE > 1.5


def _logistic(theta: Any, example: Any) -> Any:
    return jax.nn.log_sigmoid(example["y"] * (theta["w"] @ example["x"] + theta["b"]))


def _ridge(theta: Any) -> Any:
    return -0.5 * jnp.sum(theta["w"] ** 2) - 0.1 * theta["b"] ** 2


ROWS = np.random.default_rng(1)
BINARY = {
    "x": jnp.asarray(ROWS.normal(size=(30, 2)), jnp.float32),
    "y": jnp.asarray(ROWS.choice([-1.0, 1.0], 30), jnp.float32),
}
THETA = {"w": jnp.asarray([0.5, -1.0]), "b": jnp.asarray(0.3)}


def test_estimates_are_unbiased_on_pytrees_and_control_variates_are_sharper_near_the_centre() -> None:
    def whole(theta: Any) -> Any:
        return _ridge(theta) + jnp.sum(jax.vmap(_logistic, (None, 0))(theta, BINARY))

    exact = jax.grad(whole)(THETA)
    centre = jax.tree.map(lambda x: x + 0.05, THETA)
    spreads = {}
    for name, gradient in (
        ("plain", sgld.minibatch(_ridge, _logistic, BINARY, 4)),
        ("controlled", sgld.control_variates(_ridge, _logistic, BINARY, 4, centre)),
    ):
        found = jax.jit(jax.vmap(gradient, (0, None)))(random.example_keys(jax.random.key(0), NUM), THETA)
        rows = np.concatenate([np.reshape(found[name], (NUM, -1)) for name in ("b", "w")], axis=1)
        stat.check_mean(rows, np.concatenate([np.ravel(exact[name]) for name in ("b", "w")]), sees=0.5)
        spreads[name] = rows.std(axis=0)
    assert np.all(spreads["controlled"] < 0.1 * spreads["plain"])


def test_what_a_step_tells() -> None:
    kernel = sgld.sampler(sgld.minibatch(_ridge, _logistic, BINARY, 4), sgld.polynomial(0.1, delay=2.0, power=1.0))
    state, infos = run(jax.random.key(0), kernel, kernel.init(jax.random.key(0), THETA), 4, keep=lambda s, i: i)
    np.testing.assert_allclose(infos.step_size, [0.1, 0.2 / 3, 0.05, 0.04], rtol=1e-6)
    assert int(state.step) == 4
    assert bool(jnp.all(infos.gradient_norm > 0))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        _plain(0)
    with pytest.raises(ValueError, match="`batch` must hold arrays that share"):
        sgld.minibatch(_ridge, _logistic, {"x": jnp.zeros(3), "y": jnp.zeros(2)}, 1)
    with pytest.raises(ValueError, match=r"`step_size` must be positive, got 0\.0"):
        sgld.sampler(_plain(), 0.0)
    with pytest.raises(ValueError, match=r"`temperature` must be at least 0, got -1\.0"):
        sgld.sampler(_plain(), 0.1, temperature=-1.0)
    with pytest.raises(ValueError, match=r"`power` must be in \(0\.5, 1\], got 0\.5"):
        sgld.polynomial(0.1, power=0.5)
    with pytest.raises(ValueError, match=r"`first` must be positive, got -0\.1"):
        sgld.polynomial(-0.1)
    with pytest.raises(ValueError, match=r"`delay` must be positive, got 0\.0"):
        sgld.polynomial(0.1, delay=0.0)
