"""Seconds from the start of a process to the end of its first update, with and without a warm compilation cache.

    python -m experiments.benchmarks.startup [--repeats N] [--no-train]

Each repeat starts `python -m experiments.latent.vae` twice with one compilation cache, which is empty at first, and
looks for the line that the run writes after its first update (with `--num-steps 1`, so that this is when it is made).
Both are shown beside the seconds that the imports alone take. Then the default run is trained once, again with an empty
cache, and its seconds of compiling (tracing and lowering included, evaluation too) stand beside those of its updates.
"""

import dataclasses
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import tyro

from experiments.benchmarks import timing
from experiments.latent import vae
from jgen.train import train

CACHE, MODULE = "JAX_COMPILATION_CACHE_DIR", "experiments.latent.vae"
COMPILING = "/jax/core/compile/"  # the events of tracing, lowering and compiling begin with this


@dataclasses.dataclass(frozen=True)
class Options:
    """Repeats, and whether the default run is trained as well."""

    repeats: int = 5
    train: bool = True


def first_update(cache: pathlib.Path) -> float:
    """Seconds until a new process has made its first update."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        written = pathlib.Path(directory, "metrics.jsonl")
        command = [sys.executable, "-m", MODULE, "--num-steps", "1", "--workdir", directory]
        since = time.perf_counter()
        with subprocess.Popen(
            command, env={**os.environ, CACHE: str(cache)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while not (written.exists() and written.stat().st_size):
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} ended with {process.returncode} before its first update.")
                time.sleep(0.005)
            seconds = time.perf_counter() - since
            process.kill()
    return seconds


def imports() -> float:
    """Seconds of a process that only imports the experiment."""
    since = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {MODULE}"], check=True)
    return time.perf_counter() - since


def starts(cache: pathlib.Path) -> dict[str, Callable[[], float]]:
    """The cases; the first start empties the cache, and the second finds what the first left there."""

    def first() -> float:
        shutil.rmtree(cache, ignore_errors=True)
        return first_update(cache)

    return {"first start": first, "second start": lambda: first_update(cache), "imports": imports}


def train_default() -> None:
    """Trains the default preset, and prints what it spent compiling and updating."""
    durations: list[float] = []

    def listen(event: str, duration_secs: float, **unused: object) -> None:
        if event.startswith(COMPILING):
            durations.append(duration_secs)

    jax.config.update("jax_enable_compilation_cache", False)
    jax.monitoring.register_event_duration_secs_listener(listen)
    outcome = train(vae.build(vae.Config(), 0), seed=0)
    updating, compiling = (outcome.step - 1) / outcome.steps_per_second, sum(durations)
    row = {"case": f"default run, {outcome.step} steps", "compiling s": compiling, "updating s": updating}
    timing.report("startup_training", [{**row, "updating / compiling": updating / compiling}])


def main(options: Options) -> None:
    """Prints the tables and the JSON lines."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        times = timing.take_turns(starts(pathlib.Path(directory, "cache")), options.repeats, warm_up=0)
    rows = [
        {
            "case": name,
            "seconds": statistics.median(values),
            "first / this": timing.ratio(times["first start"], values),
        }
        for name, values in times.items()
    ]
    timing.report("startup", rows, **dataclasses.asdict(options))
    if options.train:
        train_default()


if __name__ == "__main__":
    main(tyro.cli(Options))
