"""Densities with exact draws, and statistics of them: what the cases of samplers aim at."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.energy import rbm
from jgen.samplers import gibbs, markov_chain, metropolis, sgld, tempering, transforms

SPINS = np.array(list(itertools.product([-1.0, 1.0], repeat=9)), np.float32)
WEIGHTS = np.array([0.05, 0.3, 0.1, 0.25, 0.2, 0.1], np.float32)
CORRELATION = 0.7


def log_exp(x: Any) -> Any:
    """log π of log Exp(1): skewed, with a heavy left tail."""
    return x - jnp.exp(x)


def draw_log_exp(key: Any, num: int) -> Any:
    """Exact draws."""
    return jnp.log(jax.random.exponential(key, (num,)))


def moments(x: Any) -> Any:
    """Bounded and unbounded functions of one coordinate, (num, 5)."""
    return jnp.stack([x, jnp.tanh(x), jnp.exp(jnp.minimum(x, 3.0)), x**2, (x > 0) * 1.0], axis=1)


def exponential(x: Any) -> Any:
    """log π of Exp(1)."""
    return jnp.where(x > 0, -x, -jnp.inf)


def multiply(key: Any, x: Any) -> Any:
    """x' = x·exp ξ, with its ratio log x' − log x."""
    noise = jax.random.normal(key)
    return x * jnp.exp(noise), noise


def weights(x: Any) -> Any:
    """log π on six states."""
    return jnp.log(jnp.asarray(WEIGHTS))[x]


def draw_weights(key: Any, num: int) -> Any:
    """Exact draws."""
    return jax.random.categorical(key, jnp.log(jnp.asarray(WEIGHTS)), shape=(num,))


def one_hot_six(x: Any) -> Any:
    """Which of the first five states, (num, 5)."""
    return jax.nn.one_hot(x, 6)[:, :5]


def up_more(key: Any, x: Any) -> Any:
    """One state up with probability 0.7, else one down, on the circle: asymmetric."""
    up = jax.random.bernoulli(key, 0.7)
    return (x + jnp.where(up, 1, -1)) % 6, jnp.where(up, jnp.log(0.3 / 0.7), jnp.log(0.7 / 0.3))


def ising(x: Any) -> Any:
    """log π = 0.3 Σ s_i s_j over the bonds of a 3×3 torus."""
    grid = jnp.reshape(x, (3, 3))
    return 0.3 * jnp.sum(grid * (jnp.roll(grid, 1, 0) + jnp.roll(grid, 1, 1)))


def draw_ising(key: Any, num: int) -> Any:
    """Exact draws from the 512 states."""
    states = jnp.asarray(SPINS)
    return states[jax.random.categorical(key, jax.vmap(ising)(states), shape=(num,))]


def ising_statistics(x: Any) -> Any:
    """A spin, a bond, the magnetization's size and the energy, (num, 4)."""
    total = jnp.sum(x, axis=1)
    return jnp.stack([x[:, 0], x[:, 0] * x[:, 1], jnp.abs(total), jax.vmap(ising)(x)], axis=1)


def ising_gibbs(scan: str) -> Any:
    """(log_density) -> the kernel that draws each spin given the others."""
    return lambda log_density: gibbs.sampler(gibbs.sites(log_density, 9, [-1.0, 1.0]), scan=scan)


def pair(z: Any) -> Any:
    """log π of two correlated standard normals."""
    x, y = z["x"], z["y"]
    return -0.5 * (x**2 - 2 * CORRELATION * x * y + y**2) / (1 - CORRELATION**2)


def draw_pair(key: Any, num: int) -> Any:
    """Exact draws."""
    x, noise = jax.random.normal(key, (2, num))
    return {"x": x, "y": CORRELATION * x + np.sqrt(1 - CORRELATION**2) * noise}


def pair_statistics(z: Any) -> Any:
    """First and second moments, (num, 4)."""
    x, y = z["x"], z["y"]
    return jnp.stack([x, y, x * y, x**2 - y], axis=1)


def _conditional(name: str, other: str) -> gibbs.Conditional:
    std = np.sqrt(1 - CORRELATION**2)
    return lambda key, z: {**z, name: CORRELATION * z[other] + std * jax.random.normal(key)}


PAIR_BLOCKS = [_conditional("x", "y"), _conditional("y", "x")]


def pair_walk(log_density: Any) -> Any:
    """A random walk with a scale for each leaf."""
    return metropolis.sampler(log_density, metropolis.random_walk({"x": 0.5, "y": 1.0}))


MACHINE = rbm.RBM(
    jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32),
    jnp.linspace(-1.0, 1.0, 5),
    jnp.linspace(0.5, -0.5, 3),
)


def machine(v: Any) -> Any:
    """log π of a 5×3 RBM's visible units, (1, 5): the kernel's batch of one chain."""
    return -rbm.free_energy(MACHINE, v)[0]


def machine_states() -> Any:
    """All of them, (32, 1, 5)."""
    return jnp.asarray(list(itertools.product([0.0, 1.0], repeat=5)))[:, None]


def draw_machine(key: Any, num: int) -> Any:
    """Exact draws."""
    states = machine_states()
    return states[jax.random.categorical(key, jax.vmap(machine)(states), shape=(num,))]


def machine_statistics(v: Any) -> Any:
    """Every unit and a product of two, (num, 6)."""
    return jnp.concatenate([v[:, 0], v[:, 0, :1] * v[:, 0, 1:2]], axis=1)


COINS, COINS_BATCH, COINS_STEP = np.array([1.0] * 4 + [-1.0] * 2, np.float32), 3, 0.1


def coins_prior(theta: Any) -> Any:
    """log π of N(0, 1); with the COINS as draws of N(θ, 1) the posterior is N(2/7, 1/7)."""
    return -0.5 * theta**2


def coins_gradient(log_prior: Any) -> sgld.Gradient:
    """Of the posterior, from minibatches."""
    data = {"x": jnp.asarray(COINS)}
    return sgld.minibatch(log_prior, lambda theta, example: -0.5 * (example["x"] - theta) ** 2, data, COINS_BATCH)


def draw_coins(key: Any, num: int) -> Any:
    """Exact draws of what a walk of constant steps keeps: θ = Σ_k (1 − 7ε)^k·(2ε·Σ x over a batch + √(2ε)·ξ)."""
    kept = (1 - 7 * COINS_STEP) ** jnp.arange(40)
    batch_key, noise_key = jax.random.split(key)
    sums = jnp.sum(jax.random.choice(batch_key, jnp.asarray(COINS), (num, 40, COINS_BATCH)), axis=-1)
    noise = jnp.sqrt(2 * COINS_STEP) * jax.random.normal(noise_key, (num, 40))
    return (COINS_STEP * len(COINS) / COINS_BATCH * sums + noise) @ kept


REVERSIBLE = markov_chain.metropolis(jnp.full((6, 6), 1 / 6), jnp.asarray(WEIGHTS))
LOG_EXPONENTIAL = transforms.Transport(jax.random.exponential, lambda z: -z, jnp.log, jnp.exp)
BETAS = np.array([1.0, 0.6, 0.3])


def tempered_walk(log_density: Any) -> Any:
    """Powers of the density, each with a random walk."""
    walk = metropolis.random_walk(1.5)
    return tempering.powers(log_density, lambda f: metropolis.sampler(f, walk))


def draw_tempered(key: Any, num: int) -> Any:
    """Exact draws: N(0, 1/β) each."""
    return jax.random.normal(key, (num, 3)) / jnp.sqrt(jnp.asarray(BETAS, jnp.float32))[None]


def tempered_moments(x: Any) -> Any:
    """Of the target's replica, and what two replicas have to do with one another, (num, 8)."""
    return jnp.concatenate([moments(x[:, 0]), x[:, 1:] ** 2, x[:, :1] * x[:, 1:2]], axis=1)


def tempered_machine() -> Any:
    """The RBM at inverse temperatures, each with block Gibbs."""

    def log_density(v: Any, beta: Any) -> Any:
        return -rbm.free_energy(MACHINE, v, beta=beta)

    return log_density, lambda beta: rbm.gibbs(MACHINE, beta=beta)


def machines(v: Any) -> Any:
    """log π of both replicas, (2, 1, 5)."""
    return -rbm.free_energy(MACHINE, v[0])[0] - rbm.free_energy(MACHINE, v[1], beta=0.5)[0]


def machines_states() -> Any:
    """All of them, (1024, 2, 1, 5)."""
    states = machine_states()
    return jnp.stack([jnp.repeat(states, 32, axis=0), jnp.tile(states, (32, 1, 1))], axis=1)


def draw_machines(key: Any, num: int) -> Any:
    """Exact draws: the replicas are independent."""
    states = machine_states()
    laws = [-rbm.free_energy(MACHINE, states[:, 0], beta=beta) for beta in (1.0, 0.5)]
    keys = jax.random.split(key)
    return jnp.stack([states[jax.random.categorical(k, p, shape=(num,))] for k, p in zip(keys, laws, strict=True)], 1)


def machines_statistics(v: Any) -> Any:
    """Every unit, and a product within and across replicas, (num, 12)."""
    x = jnp.reshape(v, (len(v), 10))
    return jnp.concatenate([x, x[:, :1] * x[:, 1:2], x[:, :1] * x[:, 5:6]], axis=1)
