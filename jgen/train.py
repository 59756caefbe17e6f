"""The training loop: one for every model, because it knows none of them."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen import random
from jgen._checks import at_least
from jgen._types import Key, Metrics
from jgen.checkpoints import Checkpoints
from jgen.data.pipeline import Data
from jgen.metrics.measurement import Measurement
from jgen.model import Model


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What to learn, from what, for how long, and what to report of it.

    Attributes:
        model: what learns.
        data: what it learns from.
        num_steps: updates to make.
        measure: (key, state) -> {name: Measurement}, once at the end, on test data.
        draw: (key, state, directory) -> None, writes pictures (or text, or sound) at the end.
        log_every: steps between two lines of training metrics; each is a mean over those steps.
        eval_every: steps between two evaluations on validation data, each followed by a checkpoint.
        select: the validation metric whose lowest value chooses the state to keep; None keeps the last.
        patience: evaluations without a new lowest value after which learning stops; None never stops early.
        shard_state: split the state's leaves over devices (along their first axis, where it divides) instead of
            copying them to each.
    """

    model: Model[Any]
    data: Data
    num_steps: int
    measure: Callable[[Key, Any], dict[str, Measurement]] = lambda key, state: {}
    draw: Callable[[Key, Any, pathlib.Path], None] = lambda key, state, directory: None
    log_every: int = 100
    eval_every: int = 1_000
    select: str | None = None
    patience: int | None = None
    shard_state: bool = False

    def __post_init__(self) -> None:
        for name in ("num_steps", "log_every", "eval_every"):
            at_least(name, getattr(self, name), 1)


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        state: the state that did best on validation data, or the last where nothing selects.
        step: updates made.
        selected_step: the update after which `state` stood.
        finished: False when a signal stopped the run before its last step.
        wall_seconds: time spent in this and the earlier parts of the run.
        steps_per_second: in this part, compilation and evaluation left out.
        first_step_seconds: the first update of this part, compilation included.
    """

    state: Any
    step: int
    selected_step: int
    finished: bool
    wall_seconds: float
    steps_per_second: float
    first_step_seconds: float


class Observer:
    """Hears of a run's progress; the methods do nothing and are there to be overridden."""

    def begin(self, step: int, num_steps: int) -> None:
        """The run starts, or goes on, after `step` updates."""

    def advance(self, step: int) -> None:
        """`step` updates were sent to the device."""

    def log(self, split: str, step: int, metrics: dict[str, float]) -> None:
        """Metrics after `step` updates: means over the last `log_every` (train) or over the split (valid)."""

    def warn(self, text: str) -> None:
        """Something the user should know."""


class _Best(NamedTuple):
    state: Any
    value: float
    step: int


def train(
    experiment: Experiment,
    *,
    seed: int,
    workdir: pathlib.Path | None = None,
    observer: Observer | None = None,
    devices: Sequence[Any] | None = None,
) -> Outcome:
    """Runs `experiment` to its last step, going on from its last checkpoint if it has one.

    SIGINT or SIGTERM ends the run after the step under way, with a checkpoint; a second one ends the process at once.

    Args:
        experiment: what to run.
        seed: the only source of randomness; step t draws from (seed, "train", t).
        workdir: checkpoints are kept in workdir/checkpoints; with None nothing is written.
        observer: hears of progress.
        devices: where to run; all devices by default.

    Raises:
        FloatingPointError: a metric is not finite; the message has its name and the first step. Nothing is saved then.
        ValueError: the batch size is not a multiple of the number of devices.
    """
    observer = observer or Observer()
    model, data, key = experiment.model, experiment.data, random.stream(seed, "train")
    place, split_state, copy = _placement(devices or jax.devices(), experiment.shard_state)
    example = place(data.train(0))
    shape = jax.eval_shape(model.init, random.stream(seed, "init"), example)
    sharding = split_state(shape)
    state = jax.jit(model.init, out_shardings=sharding)(random.stream(seed, "init"), example)
    log = _empty_log(model, state, example)
    step_function = functools.partial(_update, model, experiment.log_every)
    update = jax.jit(step_function, donate_argnums=(1, 2), out_shardings=(sharding, copy))
    evaluate = functools.partial(
        _evaluate, jax.jit(model.evaluate, out_shardings=copy), random.stream(seed, "eval"), data, place
    )
    begun, earlier, first_step_seconds, evaluating = time.perf_counter(), 0.0, 0.0, 0.0

    with _checkpoints(workdir, observer) as checkpoints, _stop_signals() as stopping:
        start, best = 0, _Best(jax.tree.map(jnp.copy, state) if experiment.select else None, np.inf, 0)
        if (found := checkpoints.restore({"state": state, "best": best.state})) is not None:
            start, saved, notes = found
            state, best = saved["state"], _Best(saved["best"], notes["best_value"], notes["best_step"])
            earlier = notes["wall_seconds"]
        observer.begin(start, experiment.num_steps)
        step, checked = start, start
        while step < experiment.num_steps and not stopping() and not _exhausted(experiment, step, best):
            state, log = update(key, state, log, np.int32(step), place(data.train(step)))
            step += 1
            if step == start + 1:
                jax.block_until_ready(state)
                first_step_seconds = time.perf_counter() - begun
            observer.advance(step)
            if step % experiment.log_every == 0 or step == experiment.num_steps:
                observer.log("train", step, _read_log(log))
                checked = step
            if step % experiment.eval_every == 0 or step == experiment.num_steps:
                _read_log(log)
                since = time.perf_counter()
                best = _validate(experiment, evaluate, observer, state, step, best)
                _save(checkpoints, step, state, best, earlier + time.perf_counter() - begun)
                evaluating += time.perf_counter() - since
        if checked < step:
            _read_log(log)
            _save(checkpoints, step, state, best, earlier + time.perf_counter() - begun)
        jax.block_until_ready(state)
        training = time.perf_counter() - begun - first_step_seconds - evaluating
        checkpoints.wait()
        finished = step >= experiment.num_steps or _exhausted(experiment, step, best)
    chosen = best if best.state is not None else _Best(state, np.inf, step)
    rate = max(step - start - 1, 0) / max(training, 1e-9)
    wall = earlier + time.perf_counter() - begun
    return Outcome(chosen.state, step, chosen.step, finished, wall, rate, first_step_seconds)


def _update(model: Model[Any], log_every: int, key: Key, state: Any, log: Any, step: Any, batch: Any) -> Any:
    """One update, and the running sums of its metrics; these start anew after each logged line."""
    state, metrics = model.update(jax.random.fold_in(key, step), state, batch)
    fresh = step % log_every == 0
    sums, count, bad = log
    sums = {name: jnp.where(fresh, 0.0, sums[name]) + value for name, value in metrics.items()}
    count = jnp.where(fresh, 0, count) + 1
    bad = {n: jnp.where((bad[n] < 0) & ~jnp.isfinite(value), step + 1, bad[n]) for n, value in metrics.items()}
    return state, (sums, count, bad)


def _empty_log(model: Model[Any], state: Any, batch: Any) -> Any:
    _, metrics = jax.eval_shape(model.update, jax.random.key(0), state, batch)
    for name, value in metrics.items():
        if value.shape:
            raise ValueError(f"Metrics of `update` must be scalars, got `{name}` of shape {value.shape}.")
    return {n: jnp.zeros(()) for n in metrics}, jnp.zeros((), jnp.int32), {n: jnp.full((), -1) for n in metrics}


def _read_log(log: Any) -> dict[str, float]:
    """Means since the last line; raises on the first value that was not finite."""
    sums, count, bad = jax.device_get(log)
    wrong = {name: int(step) for name, step in bad.items() if step >= 0}
    if wrong:
        name = min(wrong, key=lambda n: wrong[n])
        raise FloatingPointError(f"train metric `{name}` is not finite at step {wrong[name]}.")
    return {name: float(value) / max(int(count), 1) for name, value in sums.items()}


def _evaluate(evaluate: Any, key: Key, data: Data, place: Any, state: Any, split: str) -> dict[str, float]:
    """Means over a split: values per example count once each, scalars by the number of examples they speak for."""
    total, sums = 0, {}
    for i, (batch, num) in enumerate(data.batches(split)):
        metrics: Metrics = jax.device_get(evaluate(jax.random.fold_in(key, i), state, place(batch)))
        for name, value in metrics.items():
            added = value[:num].sum(dtype=np.float64) if np.ndim(value) else float(value) * num
            sums[name] = sums.get(name, 0.0) + float(added)
        total += num
    return {name: value / total for name, value in sums.items()}


def _validate(experiment: Experiment, evaluate: Any, observer: Observer, state: Any, step: int, best: _Best) -> _Best:
    metrics = evaluate(state, "valid")
    for name, value in metrics.items():
        if not np.isfinite(value):
            raise FloatingPointError(f"valid metric `{name}` is {value} at step {step}.")
    observer.log("valid", step, metrics)
    if experiment.select is None:
        return best
    if experiment.select not in metrics:
        raise ValueError(f"`select` must be one of the metrics {sorted(metrics)}, got {experiment.select!r}.")
    value = metrics[experiment.select]
    # A copy: the next update donates the buffers of `state`.
    return _Best(jax.tree.map(jnp.copy, state), value, step) if value < best.value else best


def _exhausted(experiment: Experiment, step: int, best: _Best) -> bool:
    if experiment.patience is None or best.state is None:
        return False
    return step - best.step >= experiment.patience * experiment.eval_every


def _save(checkpoints: Any, step: int, state: Any, best: _Best, wall_seconds: float) -> None:
    notes = {"best_value": best.value, "best_step": best.step, "wall_seconds": wall_seconds}
    checkpoints.save(step, {"state": state, "best": best.state}, notes)


def _placement(
    devices: Sequence[Any], shard_state: bool
) -> tuple[Callable[[Any], Any], Callable[[Any], Any], Any]:
    """How batches and states lie on the devices: batches are split, states copied (or split, where that divides)."""
    num = len(devices)
    mesh = jax.sharding.Mesh(np.asarray(devices), ("data",))
    spec = jax.sharding.PartitionSpec
    split, copy = jax.sharding.NamedSharding(mesh, spec("data")), jax.sharding.NamedSharding(mesh, spec())

    def place(batch: Any) -> Any:
        size = random.batch_size(batch)
        if size % num:
            raise ValueError(f"`batch_size` must be a multiple of the {num} devices, got {size}.")
        if jax.process_count() == 1:
            return batch if num == 1 else jax.device_put(batch, split)
        part = size // jax.process_count()
        rows = slice(jax.process_index() * part, (jax.process_index() + 1) * part)
        return {k: jax.make_array_from_process_local_data(split, np.asarray(v)[rows]) for k, v in batch.items()}

    def shardings(shape: Any) -> Any:
        def choose(leaf: Any) -> Any:
            return split if shard_state and leaf.ndim and leaf.shape[0] and leaf.shape[0] % num == 0 else copy

        return jax.tree.map(choose, shape)

    return place, shardings, copy


def _checkpoints(workdir: pathlib.Path | None, observer: Observer) -> Any:
    return _Nowhere() if workdir is None else Checkpoints(workdir / "checkpoints", observer.warn)


class _Nowhere(contextlib.nullcontext[Any]):
    """The checkpoints of a run that keeps nothing."""

    def __enter__(self) -> "_Nowhere":
        return self

    def restore(self, like: Any) -> None:
        return None

    def save(self, *unused: Any) -> None:
        return None

    def wait(self) -> None:
        return None


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM came; the second one exits at once."""
    came: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if came:
            os._exit(128 + number)
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
