"""The training loop: one for every model, because it knows none of them."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen import random
from jgen._checks import at_least
from jgen._types import Key, Metrics
from jgen.checkpoints import Checkpoints
from jgen.data.pipeline import Data
from jgen.devices import placement
from jgen.interruption import stop_signals
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
    """Hears of a run's progress; its methods do nothing and are there to be overridden."""

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
    run = _Run(experiment, seed, observer or Observer(), devices or jax.devices())
    with _checkpoints(workdir, run.observer) as checkpoints, stop_signals() as stopping:
        run.restore(checkpoints)
        while not run.finished and not stopping():
            run.advance()
            if run.step % experiment.log_every == 0 or run.step == experiment.num_steps:
                run.observer.log("train", run.step, _read_log(run.log))
            if run.step % experiment.eval_every == 0 or run.step == experiment.num_steps:
                run.validate()
                run.save(checkpoints)
        run.save(checkpoints)
        checkpoints.wait()
    return run.outcome()


class _Run:
    """A run under way: what is compiled once, and what changes from step to step."""

    def __init__(self, experiment: Experiment, seed: int, observer: Observer, devices: Sequence[Any]) -> None:
        model, init_key = experiment.model, random.stream(seed, "init")
        self.experiment, self.observer, self._begun = experiment, observer, time.perf_counter()
        self._place, sharding_of, copy = placement(devices, shard_state=experiment.shard_state)
        example = self._place(experiment.data.train(0))
        shape = jax.eval_shape(model.init, init_key, example)
        sharding = sharding_of(shape)
        init = jax.jit(lambda key, batch: _strong(model.init(key, batch)), out_shardings=sharding)
        self._state = init(init_key, example)
        self.log = jax.jit(functools.partial(_empty_log, model, shape, example), out_shardings=copy)()
        update = functools.partial(_update, model, experiment.log_every)
        self._update = jax.jit(update, donate_argnums=(1, 2), out_shardings=(sharding, copy))
        self._evaluate = jax.jit(model.evaluate, out_shardings=copy)
        self._key, self._eval_key = random.stream(seed, "train"), random.stream(seed, "eval")
        self._best = _Best(_copy(self._state) if experiment.select else None, np.inf, 0)
        self.step = self._start = 0
        self._saved, self._earlier, self._first_step, self._evaluating = -1, 0.0, 0.0, 0.0

    @property
    def finished(self) -> bool:
        """All steps are made, or patience is exhausted."""
        patience, best = self.experiment.patience, self._best
        without = self.step - best.step if best.state is not None else 0
        exhausted = patience is not None and without >= patience * self.experiment.eval_every
        return self.step >= self.experiment.num_steps or exhausted

    def restore(self, checkpoints: Any) -> None:
        """Goes on from the newest whole checkpoint, if there is one."""
        found = checkpoints.restore({"state": self._state, "best": self._best.state})
        if found is not None:
            self.step, saved, notes = found
            self._state, self._earlier = saved["state"], notes["wall_seconds"]
            self._best = _Best(saved["best"], notes["best_value"], notes["best_step"])
            self._start = self._saved = self.step
        self.observer.begin(self.step, self.experiment.num_steps)

    def advance(self) -> None:
        """One update, sent to the device."""
        batch = self._place(self.experiment.data.train(self.step))
        self._state, self.log = self._update(self._key, self._state, self.log, np.int32(self.step), batch)
        self.step += 1
        if self.step == self._start + 1:
            jax.block_until_ready(self._state)
            self._first_step = time.perf_counter() - self._begun
        self.observer.advance(self.step)

    def validate(self) -> None:
        """Evaluates on validation data, and keeps the state if it is the best so far."""
        jax.block_until_ready(self._state)
        since, select = time.perf_counter(), self.experiment.select
        data = self.experiment.data
        metrics = _averages(self._evaluate, self._eval_key, data, self._place, self._state, "valid")
        for name, value in metrics.items():
            if not np.isfinite(value):
                raise FloatingPointError(f"valid metric `{name}` is {value} at step {self.step}.")
        self.observer.log("valid", self.step, metrics)
        if select is not None:
            if select not in metrics:
                raise ValueError(f"`select` must be one of the metrics {sorted(metrics)}, got {select!r}.")
            if metrics[select] < self._best.value:
                self._best = _Best(_copy(self._state), metrics[select], self.step)
        self._evaluating += time.perf_counter() - since

    def save(self, checkpoints: Any) -> None:
        """Starts writing a checkpoint of this step unless there is one; raises on a metric that was not finite."""
        _read_log(self.log)
        if self._saved == self.step:
            return
        wall = self._earlier + time.perf_counter() - self._begun
        notes = {"best_value": self._best.value, "best_step": self._best.step, "wall_seconds": wall}
        checkpoints.save(self.step, {"state": self._state, "best": self._best.state}, notes)
        self._saved = self.step

    def outcome(self) -> Outcome:
        """How it ended."""
        jax.block_until_ready(self._state)
        now = time.perf_counter() - self._begun
        chosen = self._best if self._best.state is not None else _Best(self._state, np.inf, self.step)
        training = max(now - self._first_step - self._evaluating, 1e-9)
        rate = max(self.step - self._start - 1, 0) / training
        wall = self._earlier + now
        return Outcome(chosen.state, self.step, chosen.step, self.finished, wall, rate, self._first_step)


def _update(model: Model[Any], log_every: int, key: Key, state: Any, log: Any, step: Any, batch: Any) -> Any:
    """One update, and the running sums of its metrics; these start anew after each logged line."""
    state, metrics = model.update(jax.random.fold_in(key, step), state, batch)
    fresh = step % log_every == 0
    sums, count, bad = log
    sums = {name: jnp.where(fresh, 0.0, sums[name]) + value for name, value in metrics.items()}
    count = jnp.where(fresh, 0, count) + 1
    bad = {n: jnp.where((bad[n] < 0) & ~jnp.isfinite(value), step + 1, bad[n]) for n, value in metrics.items()}
    return _strong(state), (sums, count, bad)


def _strong(tree: Any) -> Any:
    """`tree` without weak types: a state that loses one in its first update would have the second compiled anew."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), tree)


def _empty_log(model: Model[Any], state: Any, batch: Any) -> Any:
    """The sums, count and first bad steps before any update; the trainer places them as an update leaves them."""
    _, metrics = jax.eval_shape(model.update, jax.random.key(0), state, batch)
    for name, value in metrics.items():
        if value.shape:
            raise ValueError(f"Metrics of `update` must be scalars, got `{name}` of shape {value.shape}.")
    return (
        {n: jnp.zeros(()) for n in metrics},
        jnp.zeros((), jnp.int32),
        {n: jnp.full((), -1, jnp.int32) for n in metrics},
    )


def _read_log(log: Any) -> dict[str, float]:
    """Means since the last line; raises on the first value that was not finite."""
    sums, count, bad = jax.device_get(log)
    wrong = {name: int(step) for name, step in bad.items() if step >= 0}
    if wrong:
        name = min(wrong, key=lambda n: wrong[n])
        raise FloatingPointError(f"train metric `{name}` is not finite at step {wrong[name]}.")
    return {name: float(value) / max(int(count), 1) for name, value in sums.items()}


def _averages(evaluate: Any, key: Key, data: Data, place: Any, state: Any, split: str) -> dict[str, float]:
    """Means over a split: values per example count once each, scalars by the number of examples they speak for."""
    total, sums = 0, {}
    for i, (batch, num) in enumerate(data.batches(split)):
        metrics: Metrics = jax.device_get(evaluate(jax.random.fold_in(key, i), state, place(batch)))
        for name, value in metrics.items():
            added = value[:num].sum(dtype=np.float64) if np.ndim(value) else float(value) * num
            sums[name] = sums.get(name, 0.0) + float(added)
        total += num
    return {name: value / total for name, value in sums.items()}


@jax.jit
def _copy(state: Any) -> Any:
    """`state` in buffers of its own, which the next update does not donate; compiled once, not leaf by leaf."""
    return jax.tree.map(jnp.copy, state)


def _checkpoints(workdir: pathlib.Path | None, observer: Observer) -> Any:
    return _Nowhere() if workdir is None else Checkpoints(workdir / "checkpoints", observer.warn)


class _Nowhere(contextlib.nullcontext[Any]):
    """The checkpoints of a run that keeps nothing."""

    def __enter__(self) -> "_Nowhere":
        return self

    def _nothing(self, *unused: Any) -> None:
        return None

    restore = save = wait = _nothing
