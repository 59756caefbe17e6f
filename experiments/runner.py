"""Runs one system: parse, train, measure, draw, summarize. Every experiment module ends in `main(SYSTEM)`."""

import contextlib
import dataclasses
import errno
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import rich.console
import rich.table

from experiments import options, pictures, workdir
from experiments.progress import Progress
from experiments.system import System
from jgen import random
from jgen.train import Experiment, Outcome, train


def main(system: System, arguments: Sequence[str] | None = None) -> None:
    """Runs `system` as the command line says; exits with 0 (done, or stopped by a signal), 1 (failed), 2 (refused)."""
    preset, run, config = options.parse(system, sys.argv[1:] if arguments is None else arguments)
    directory = run.workdir or pathlib.Path("runs", *system.module.split("."), f"{preset}-seed{run.seed}")
    try:
        configure(run)
        start(system, workdir.describe(system, preset, run.seed, config), config, run, directory)
    except ValueError as error:
        options.refuse(str(error))
    except FloatingPointError as error:
        _fail(f"{error} Its last good checkpoint is {_last_checkpoint(directory)}.")
    except KeyboardInterrupt:
        _fail(f"Interrupted; the same command goes on from {_last_checkpoint(directory)}.")
    except Exception as error:
        if not _disk_full(error):
            raise
        _fail(f"The disk that holds {directory} is full. Its last good checkpoint is {_last_checkpoint(directory)}.")


def start(
    system: System, description: dict[str, Any], config: Any, run: options.Run, directory: pathlib.Path
) -> dict[str, Any] | None:
    """Runs `config` in `directory`, or goes on there; the summary, or None where a signal stopped the run.

    Raises:
        ValueError: the config, the data or the directory is refused; a directory that was new can then be used anew.
    """
    if (summary := workdir.finished(directory)) is not None:
        workdir.claim(directory, description)
        print(f"This run is finished and stays as it is: {directory}")
        show(summary, directory)
        return summary
    if getattr(config, "num_steps", 1) < 1:
        raise ValueError(f"`--num-steps` must be at least 1, got {config.num_steps}.")
    experiment = system.build(config, run.seed)
    new = workdir.claim(directory, description, _devices(run))
    again = None if system.retrain is None else functools.partial(system.retrain, config, run.seed)
    try:
        return execute(system, description, experiment, run, directory, again)
    except ValueError:
        if new:
            workdir.release(directory)
        raise


def execute(
    system: System,
    description: dict[str, Any],
    experiment: Experiment,
    run: options.Run,
    directory: pathlib.Path,
    again: Callable[[Outcome], Experiment] | None = None,
) -> dict[str, Any] | None:
    """Trains, measures and draws; the summary, or None where a signal stopped the run.

    With `again`, what it makes of the outcome is trained next, in a directory of its own, and gives the result.
    """
    devices = _devices(run)
    outcome = _train(experiment, run, directory, devices)
    if outcome.finished and again is not None:
        experiment = again(outcome)
        outcome = _train(experiment, run, directory / "retrained", devices)
    if not outcome.finished:
        print(f"Stopped after step {outcome.step}; the same command goes on from there: {directory}")
        return None
    first = jax.process_index() == 0
    return _finish(system, description, experiment, outcome, directory, devices) if first else None


def _train(experiment: Experiment, run: options.Run, directory: pathlib.Path, devices: list[Any]) -> Outcome:
    if run.shard_state:
        experiment = dataclasses.replace(experiment, shard_state=True)
    directory.mkdir(parents=True, exist_ok=True)
    first = directory if jax.process_index() == 0 else None
    with Progress(first, tensorboard=run.tensorboard) as progress:
        return train(experiment, seed=run.seed, workdir=directory, observer=progress, devices=devices)


def _finish(
    system: System,
    description: dict[str, Any],
    experiment: Experiment,
    outcome: Outcome,
    directory: pathlib.Path,
    devices: list[Any],
) -> dict[str, Any]:
    seed = description["seed"]
    measurements = experiment.measure(random.stream(seed, "measure"), outcome.state)
    experiment.draw(random.stream(seed, "sample"), outcome.state, directory)
    pictures.curves(directory / "curves.png", workdir.history(directory))
    summary = workdir.summarize(directory, system, description, outcome, measurements, devices)
    show(summary, directory)
    return summary


def show(summary: dict[str, Any], directory: pathlib.Path) -> None:
    """Prints the table of results and where the pictures are."""
    table = rich.table.Table(title=f"{summary['system']} {summary['preset']}, seed {summary['seed']}")
    for column in ("metric", "value", "unit", "kind", "split", "protocol", "reference"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for name, row in summary["metrics"].items():
        reference = (summary["reference"] or {}).get(name)
        beside = "" if reference is None else f"{reference['value']} ({reference['source']})"
        table.add_row(name, f"{row['value']:.4f}", row["unit"], row["kind"], row["split"], row["protocol"], beside)
    console = rich.console.Console()
    console.print(table)
    speed = f"{summary['steps']} steps, {summary['steps_per_second']:.1f} steps/s, {summary['wall_seconds']:.0f} s"
    console.print(f"{speed}, {summary['num_params']} parameters, {summary['device']}", highlight=False)
    files = sorted(p.name for p in directory.iterdir() if p.suffix in (".png", ".txt", ".wav", ".gif"))
    console.print(f"Pictures and samples in {directory}: {', '.join(files)}", highlight=False, soft_wrap=True)


def configure(run: options.Run) -> None:
    """Sets what JAX must know before its first computation: devices, other processes, the compilation cache."""
    if run.device_count is not None:
        if run.device_count < 1:
            raise ValueError(f"`--device-count` must be at least 1, got {run.device_count}.")
        # JAX refuses once its devices exist; `_devices` then takes the first of them.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", run.device_count)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "jgen" / "jax"
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if run.distributed:
        jax.distributed.initialize()


def _devices(run: options.Run) -> list[Any]:
    """Where the run computes: all devices, or the first `--device-count` of them."""
    devices = jax.devices()
    if run.device_count is None or run.distributed:
        return devices
    if len(devices) < run.device_count:
        raise ValueError(f"`--device-count` must be at most the {len(devices)} devices, got {run.device_count}.")
    return devices[: run.device_count]


def _last_checkpoint(directory: pathlib.Path) -> str:
    steps = [int(path.name) for path in (directory / "checkpoints").glob("*") if path.name.isdigit()]
    return f"of step {max(steps)}" if steps else "none"


def _disk_full(error: BaseException) -> bool:
    here: BaseException | None = error
    while here is not None:
        full = isinstance(here, OSError) and here.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or "No space left" in str(here):
            return True
        here = here.__cause__ or here.__context__
    return False


def _fail(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(1)
