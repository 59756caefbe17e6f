"""What `jgen.train.train` adds to a bare jitted loop over the same `update`.

    python -m experiments.benchmarks.trainer_overhead [--repeats N] [--num-steps N] [--cpu-time]

A VAE with MLPs 784-512-512-20 and Bernoulli pixels, batch 128. The bare loop is the least that trains: one compiled
call per step, with the state donated, over batches that lie on the device. "trainer" takes the same batches; "trainer
and pipeline" gathers its own from 60,000 images on the device. Steps are counted after the first, which compiles, and
up to the last, before evaluation; all three take turns. Prints milliseconds per step and the ratios to the bare loop.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.benchmarks import timing
from jgen import random
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.latent import vae
from jgen.math import likelihoods
from jgen.model import Model
from jgen.train import Experiment, Observer, train

BATCH, NUM_BATCHES = 128, 16


@dataclasses.dataclass(frozen=True)
class Options:
    """How much, and what to count."""

    repeats: int = 9
    num_steps: int = 400
    """Steps in each repeat."""
    cpu_time: bool = False
    """Count the CPU time of all threads of the process: on a busy machine wall time says little."""

    @property
    def now(self) -> Callable[[], float]:
        """The clock."""
        return time.process_time if self.cpu_time else time.perf_counter


class _Clock(Observer):
    """Takes the time from the end of the first step to the end of the last."""

    begun: float
    seconds: float

    def __init__(self, options: Options) -> None:
        self._options = options

    def advance(self, step: int) -> None:
        if step == 1:
            self.begun = self._options.now()

    def log(self, split: str, step: int, metrics: dict[str, float]) -> None:
        if split == "train" and step == self._options.num_steps:
            self.seconds = self._options.now() - self.begun


def pixels(num: int) -> np.ndarray:
    """(num, 784) synthetic binary images."""
    return (np.random.default_rng(0).random((num, 784)) < 0.2).astype(np.float32)


def bare(model: Model[Any], batches: list[Any], options: Options) -> Callable[[], float]:
    """Seconds of the bare loop."""
    key, init = random.stream(0, "train"), jax.jit(model.init)
    update = jax.jit(
        lambda key, state, step, batch: model.update(jax.random.fold_in(key, step), state, batch), donate_argnums=1
    )

    def seconds() -> float:
        state = init(random.stream(0, "init"), batches[0])
        state, metrics = jax.block_until_ready(update(key, state, np.int32(0), batches[0]))
        since = options.now()
        for step in range(1, options.num_steps):
            state, metrics = update(key, state, np.int32(step), batches[step % NUM_BATCHES])
        jax.block_until_ready((state, metrics))
        return options.now() - since

    return seconds


def trained(model: Model[Any], data: Data, options: Options) -> Callable[[], float]:
    """Seconds of the trainer's loop."""

    def seconds() -> float:
        clock = _Clock(options)
        experiment = Experiment(model, data, options.num_steps, eval_every=options.num_steps)
        if not train(experiment, seed=0, observer=clock).finished:
            raise SystemExit("Stopped by a signal.")
        return clock.seconds

    return seconds


def main(options: Options) -> None:
    """Prints the table and the JSON line."""
    networks = vae.dense((784,), likelihoods.Bernoulli(), 20, hidden_sizes=(512, 512))
    model = vae.model(networks, optax.adam(1e-3))
    batches = [{"x": x} for x in jnp.asarray(pixels(NUM_BATCHES * BATCH)).reshape(NUM_BATCHES, BATCH, 784)]
    same = Data(lambda step: batches[step % NUM_BATCHES], lambda split: iter([(batches[0], BATCH)]))
    images = {"train": {"x": pixels(60_000)}, "valid": {"x": pixels(BATCH)}, "test": {"x": pixels(BATCH)}}
    own = in_memory(Dataset("synthetic", images, 2, synthetic=True), BATCH, 0)
    cases = {
        "bare loop": bare(model, batches, options),
        "trainer": trained(model, same, options),
        "trainer and pipeline": trained(model, own, options),
    }
    times = timing.take_turns(cases, options.repeats)
    rows = [
        {
            "case": name,
            "ms per step": 1e3 * statistics.median(values) / (options.num_steps - 1),
            "ratio to bare": timing.ratio(values, times["bare loop"]),
        }
        for name, values in times.items()
    ]
    timing.report("trainer_overhead", rows, batch=BATCH, **dataclasses.asdict(options))


if __name__ == "__main__":
    main(tyro.cli(Options))
