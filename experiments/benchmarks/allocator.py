"""Milliseconds per update of wide MADEs, with glibc's allocator as it is and told to keep what is freed.

    python -m experiments.benchmarks.allocator [--repeats N]

XLA's CPU backend allocates the temporaries of a program at each call. glibc takes large ones from the system and gives
them back, so every update touches its pages for the first time; with MALLOC_MMAP_MAX_=0 and a high trim threshold they
stay. Each repeat starts a process for every size with and without these variables; the ratio is within a turn.

Measured (JAX 0.10.2, glibc 2.36): on two idle cores, 6 turns, 500 units 1.9 ms, ratio 0.98; 2,000 units 5.8 ms, 0.95;
8,000 units 31.4 and 18.8 ms, 1.63 (1.26 in 3 turns before). On one core beside a training, 2 turns: 1.00, 1.01, 1.84.
"""

import dataclasses
import os
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.benchmarks import timing
from jgen.autoregressive import made

KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes and repeats."""

    repeats: int = 3
    hidden_sizes: tuple[int, ...] = (500, 2_000, 8_000)
    """Of one hidden layer, of a MADE each."""
    batch_size: int = 20
    num_updates: int = 30
    only: int | None = None
    """Times this size in this process and prints the seconds of an update alone: what the repeats start."""


def seconds(size: int, options: Options) -> float:
    """Of one update in this process, without the first ones."""
    model = made.model(optax.sgd(1e-3, momentum=0.9), hidden_sizes=(size,), num_masks=8)
    x = np.random.default_rng(0).binomial(1, 0.15, (options.batch_size, 784)).astype(np.float32)
    batch = {"x": jnp.asarray(x)}
    state = jax.jit(model.init)(jax.random.key(0), batch)
    update = jax.jit(model.update, donate_argnums=1)
    since = time.perf_counter()
    for step in range(3 + options.num_updates):
        if step == 3:
            since = time.perf_counter()
        state, _ = update(jax.random.key(step), state, batch)
        jax.block_until_ready(state)
    return (time.perf_counter() - since) / options.num_updates


def started(size: int, options: Options, environment: dict[str, str]) -> float:
    """`seconds` in a new process with these variables."""
    command = [sys.executable, "-m", "experiments.benchmarks.allocator", "--only", str(size)]
    command += ["--batch-size", str(options.batch_size), "--num-updates", str(options.num_updates)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main(options: Options) -> None:
    """Prints the table, or with `only` one number."""
    if options.only is not None:
        print(seconds(options.only, options))
        return
    rows = []
    for size in options.hidden_sizes:
        cases = {
            "as it is": lambda size=size: started(size, options, {}),
            "kept": lambda size=size: started(size, options, KEEP),
        }
        found = timing.take_turns(cases, options.repeats, warm_up=0)
        row = {f"{name}, ms": 1e3 * statistics.median(values) for name, values in found.items()}
        rows.append({"hidden units": size, **row, "as it is / kept": timing.ratio(found["as it is"], found["kept"])})
    timing.report("allocator", rows, keep=KEEP, **dataclasses.asdict(options))


if __name__ == "__main__":
    main(tyro.cli(Options))
