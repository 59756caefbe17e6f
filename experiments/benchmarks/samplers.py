"""Markov chains beside BlackJAX's, in one run: random walk, MALA and HMC on two targets; and the memory of statistics.

    python -m experiments.benchmarks.samplers [--repeats N]        # needs the extra `nuts`

The same kernels, targets, step sizes and numbers of chains; both libraries are jitted as `vmap` of a scan over steps
that keeps the last position, and take turns. A ratio is BlackJAX's time over jgen's within a turn, the median over
turns. Memory is the growth of a fresh process's peak while it runs, and what the compiler plans to allocate.

Measured on two quiet CPU cores (JAX 0.10.2, BlackJAX 1.7.1, 3 turns), median of 18 ratios 1.46. For 1, 100 and 1,000
chains: Gaussian, random walk 1.19, 1.10, 1.10; MALA 1.75, 1.05, 1.08; HMC-10 1.46, 1.21, 1.24; banana, random walk
3.45, 1.71, 1.59; MALA 2.72, 1.63, 1.31; HMC-10 4.08, 1.99, 1.47. In 20 dimensions random numbers take most of the time
and both draw the same ones. 1,000 chains in 10 dimensions plan 38 MB for 1,000 stored steps and 382 MB for 10,000;
streamed in 32 batches 4.9 MB for either, and the peak does not grow.
"""

import dataclasses
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks import timing
from experiments.samplers import planes
from jgen import run
from jgen.metrics import streaming
from jgen.sampler import parallel
from jgen.samplers import hmc, interchange, mala, metropolis

DIMS = 20
STEPS = {1: 20_000, 100: 1_000, 1_000: 200}
"""Steps in one call, by the number of chains; HMC takes a quarter of them."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Repeats and sizes."""

    repeats: int = 7
    num_leapfrog: int = 10
    memory: str | None = None
    """Measures one case in this process, such as "streamed 10000"; the benchmark itself calls it so."""


def gaussian() -> Callable[[Any], Any]:
    """log π of 20 correlated dimensions with standard deviation 1."""
    factor = np.random.default_rng(0).normal(size=(DIMS, DIMS))
    covariance = factor @ factor.T / DIMS + 0.1 * np.eye(DIMS)
    scale = np.sqrt(np.diag(covariance))
    precision = jnp.asarray(np.linalg.inv(covariance / np.outer(scale, scale)), jnp.float32)
    return lambda x: -0.5 * x @ (precision @ x)


def kernels(log_density: Callable[[Any], Any], dims: int, num_leapfrog: int) -> dict[str, tuple[Any, Any]]:
    """{name: (jgen's, BlackJAX's)}."""
    blackjax, ones = interchange.library(), jnp.ones(dims)
    walk = blackjax.mcmc.random_walk.normal(0.5 * ones)
    return {
        "random walk": (
            metropolis.sampler(log_density, metropolis.random_walk(0.5)),
            blackjax.additive_step_random_walk(log_density, walk),
        ),
        "MALA": (mala.sampler(log_density, 0.05), blackjax.mala(log_density, 0.05)),
        f"HMC-{num_leapfrog}": (
            hmc.sampler(log_density, 0.1, num_leapfrog),
            blackjax.hmc(log_density, 0.1, ones, num_leapfrog),
        ),
    }


def ours(kernel: Any, num_steps: int) -> Callable[[Any, Any], Any]:
    """(key, position) -> the last position, of one chain."""
    return lambda key, x: run(key, kernel, kernel.init(key, x), num_steps)[0].position


def theirs(kernel: Any, num_steps: int) -> Callable[[Any, Any], Any]:
    """The same by BlackJAX, with a key for each step as its own loop has them."""

    def chain(key: Any, x: Any) -> Any:
        def body(state: Any, key: Any) -> tuple[Any, None]:
            return kernel.step(key, state)[0], None

        return jax.lax.scan(body, kernel.init(x), jax.random.split(key, num_steps))[0].position

    return chain


def compare(options: Options) -> list[dict[str, Any]]:
    """One row per target, kernel and number of chains."""
    rows = []
    for target, log_density, dims in (("gaussian", gaussian(), DIMS), ("banana", planes.BANANA.log_density, 2)):
        for name, pair in kernels(log_density, dims, options.num_leapfrog).items():
            for num_chains, num_steps in STEPS.items():
                steps = num_steps // 4 if name.startswith("HMC") else num_steps
                rows.append(_row(f"{target}, {name}, {num_chains}", pair, dims, num_chains, steps, options.repeats))
                print(rows[-1], flush=True)
    return rows


def _row(title: str, pair: Any, dims: int, num_chains: int, num_steps: int, repeats: int) -> dict[str, Any]:
    key, x = jax.random.key(0), jnp.zeros(dims)
    if num_chains > 1:
        key, x = jax.random.split(key, num_chains), jnp.zeros((num_chains, dims))
    cases = {}
    for name, chain in (("jgen", ours(pair[0], num_steps)), ("blackjax", theirs(pair[1], num_steps))):
        call = jax.jit(jax.vmap(chain) if num_chains > 1 else chain)
        cases[name] = timing.clock(lambda call=call: call(key, x))
    seconds = timing.take_turns(cases, repeats)
    rates = {
        f"{name}, million steps/s": num_chains * num_steps / float(np.median(values)) / 1e6
        for name, values in seconds.items()
    }
    return {"": title, **rates, "ratio": timing.ratio(seconds["blackjax"], seconds["jgen"])}


def measure_memory(kind: str, num_steps: int, num_chains: int = 1_000, dims: int = 10) -> tuple[float, float]:
    """(growth of this process's peak, planned allocation) in MB of a run that stores or streams its positions."""
    kernel = parallel(metropolis.sampler(lambda x: -0.5 * jnp.sum(x**2), metropolis.random_walk(0.5)))
    state = kernel.init(jax.random.key(0), jnp.zeros((num_chains, dims)))
    keep = streaming.position if kind == "stored" else streaming.batches()
    walk = jax.jit(lambda key, state: run(key, kernel, state, num_steps, keep=keep)[1])
    compiled = walk.lower(jax.random.key(1), state).compile()
    plan: Any = compiled.memory_analysis()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    jax.block_until_ready(compiled(jax.random.key(1), state))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return grown / 1024, (plan.temp_size_in_bytes + plan.output_size_in_bytes) / 2**20


def memory_rows() -> list[dict[str, Any]]:
    """Each case in a process of its own, since a peak never falls."""
    rows = []
    for kind, num_steps in (("stored", 1_000), ("stored", 10_000), ("streamed", 1_000), ("streamed", 10_000)):
        command = [sys.executable, "-m", "experiments.benchmarks.samplers", "--memory", f"{kind} {num_steps}"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        grown, planned = map(float, text.split())
        rows.append({"": f"{kind}, {num_steps} steps", "peak grew by, MB": grown, "planned, MB": planned})
    return rows


def main(options: Options) -> None:
    """Prints both tables."""
    if options.memory is not None:
        kind, num_steps = options.memory.split()
        print(*measure_memory(kind, int(num_steps)))
        return
    rows = compare(options)
    ratios = [row["ratio"] for row in rows]
    timing.report("samplers", rows, median_ratio=float(np.median(ratios)), **dataclasses.asdict(options))
    timing.report("samplers_memory", memory_rows(), num_chains=1_000, dims=10)


if __name__ == "__main__":
    main(tyro.cli(Options))
