"""Tuned HMC on a posterior of practice, the eight schools of Rubin (1981), beside quadrature.

y_j ~ N(θ_j, σ_j²),    θ_j = μ + τ t_j,    t_j ~ N(0, 1),    μ ~ N(0, 5²),    τ ~ half-Cauchy(5)
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import stat_checks as stat

from jgen.sampler import parallel, run
from jgen.samplers import adaptation, hmc

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
NUM_CHAINS, NUM_STEPS = 128, 400


def _log_density(z: Any, jacobian: float = 1.0) -> Any:
    """Of (μ, log τ, t); the Jacobian of τ = exp(log τ) is τ."""
    tau = jnp.exp(z["log_tau"])
    prior = -0.5 * (z["mu"] / 5) ** 2 - jnp.log1p((tau / 5) ** 2) + jacobian * z["log_tau"] - 0.5 * jnp.sum(z["t"] ** 2)
    return prior - 0.5 * jnp.sum(((EFFECTS - z["mu"] - tau * z["t"]) / ERRORS) ** 2)


def _expected() -> np.ndarray:
    """E μ, E log τ and E θ by quadrature over log τ: given τ, everything is Gaussian."""

    def given(log_tau: float) -> tuple[float, np.ndarray]:
        tau = np.exp(log_tau)
        precisions = 1 / (ERRORS**2 + tau**2)
        variance = 1 / (precisions.sum() + 1 / 25)
        mean = variance * (precisions * EFFECTS).sum()
        log_p = 0.5 * np.log(precisions).sum() - 0.5 * (precisions * EFFECTS**2).sum() + 0.5 * mean**2 / variance
        log_p += 0.5 * np.log(variance) - np.log1p((tau / 5) ** 2) + log_tau
        return np.exp(log_p), np.array([mean, log_tau, *(tau**2 * EFFECTS + ERRORS**2 * mean) * precisions])

    def moment(i: int | None) -> float:
        def integrand(log_tau: float) -> float:
            weight, means = given(log_tau)
            return weight * (1.0 if i is None else means[i])

        return scipy.integrate.quad(integrand, -20, 12, limit=500, epsabs=0, epsrel=1e-9, points=(0, 2))[0]

    return np.array([moment(i) for i in range(10)]) / moment(None)


@functools.cache
def _chain_means(jacobian: float) -> np.ndarray:
    """(chains, 10): the mean along each chain of μ, log τ and θ."""

    def build(parameters: Any) -> Any:
        density = functools.partial(_log_density, jacobian=jacobian)
        return hmc.sampler(density, parameters.step_size, (5, 15), inverse_mass=parameters.inverse_mass)

    def keep(state: Any, info: Any) -> Any:
        del info
        z = state.position
        effects = z["mu"][:, None] + jnp.exp(z["log_tau"])[:, None] * z["t"]
        return jnp.concatenate([z["mu"][:, None], z["log_tau"][:, None], effects], axis=1)

    def draw(key: Any) -> Any:
        start_key, warm_key, run_key = jax.random.split(key, 3)
        starts = {"mu": jnp.zeros(NUM_CHAINS), "log_tau": jnp.ones(NUM_CHAINS)}
        starts["t"] = jax.random.normal(start_key, (NUM_CHAINS, 8))
        tuned = adaptation.warm_up(warm_key, build, starts, 300)
        return jnp.mean(run(run_key, parallel(build(tuned.parameters)), tuned.state, NUM_STEPS, keep=keep)[1], axis=0)

    return np.asarray(jax.jit(draw)(jax.random.key(0)))


def test_quadrature_is_what_is_published() -> None:
    """Means computed once in float64 with another program."""
    schools = [6.211884, 4.940178, 3.927004, 4.757098, 3.615477, 4.042613, 6.296724, 4.854253]
    np.testing.assert_allclose(_expected(), [4.396821, 0.802139, *schools], rtol=1e-5)


def test_means_are_those_of_quadrature() -> None:
    stat.check_mean(_chain_means(1.0), _expected(), sees=0.6)


def test_a_missing_jacobian_is_caught() -> None:
    with pytest.raises(AssertionError, match="z = "):
        stat.check_mean(_chain_means(0.0), _expected())
