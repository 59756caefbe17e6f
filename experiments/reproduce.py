"""Runs a recorded run again from its seed, and says whether it is the same."""

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
from typing import Any

from experiments import catalogue, options, records, runner, workdir
from experiments.system import System


def reproduce(
    name: str,
    preset: str | None = None,
    *,
    data: str | None = None,
    workdir: pathlib.Path | None = None,
    device_count: int | None = None,
    tolerance: float = 1e-2,
) -> int:
    """Runs and compares; 0 where the two are the same or equal within `tolerance`, 1 where they differ.

    Args:
        name: the system, by its module or its id.
        preset: what was recorded; by default the first preset that was.
        data: the source to load, where the recorded one is elsewhere on this machine.
        workdir: where to run, so that a stopped reproduction goes on; by default a temporary directory.
        device_count: virtual CPU devices.
        tolerance: how far two values of a metric may be apart, relative to the larger of them.

    Raises:
        ValueError: nothing such was recorded, or the data is not there.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"`--tolerance` must be in [0, 1), got {tolerance}.")
    system = catalogue.find(name)
    record = records.find(system.module, list(system.presets), preset)
    run = options.Run(seed=record["seed"], workdir=workdir, device_count=device_count)
    with contextlib.ExitStack() as stack:
        directory = workdir or pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            summary = _repeat(system, record, run, directory, data)
        except FloatingPointError as error:
            print(f"different: {error}", file=sys.stderr)
            return 1
    if summary is None:
        kept = "the same command goes on" if workdir else "with --workdir DIR it can be resumed"
        print(f"Nothing was compared, for the run was stopped; {kept}.")
        return 1
    text, same = compare(record, summary, tolerance)
    print(text)
    return 0 if same else 1


def _repeat(
    system: System, record: dict[str, Any], run: options.Run, directory: pathlib.Path, data: str | None
) -> dict[str, Any] | None:
    config = _config(system, record, data)
    description = workdir.describe(system, record["preset"], run.seed, config)
    runner.configure(run)
    return runner.start(system, description, config, run, directory)


def _config(system: System, record: dict[str, Any], data: str | None) -> Any:
    """The recorded config; fields that came later have their defaults."""
    known = {field.name for field in dataclasses.fields(system.config)}
    if unknown := sorted(record["config"].keys() - known):
        raise ValueError(f"the record of {system.module} {record['preset']} has fields that are gone: {unknown}.")
    if data is not None and "data" not in known:
        raise ValueError(f"`--data` must be left out: {system.module} has none, got {data!r}.")
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in record["config"].items()}
    return system.config(**(values if data is None else {**values, "data": data}))


def compare(there: dict[str, Any], here: dict[str, Any], tolerance: float) -> tuple[str, bool]:
    """(what to say, whether they agree) of a recorded summary and a new one."""
    lines = _circumstances(there, here)
    theirs, ours = ({name: row["value"] for name, row in summary["metrics"].items()} for summary in (there, here))
    lines += [_line(name, theirs.get(name), ours.get(name)) for name in {**theirs, **ours}]
    same_params = there["params_sha256"] == here["params_sha256"]
    lines.append(f"params_sha256: recorded {there['params_sha256']}, here {here['params_sha256']}")
    if same_params and theirs == ours:
        return "\n".join([*lines, "The same bits: parameters and metrics are identical."]), True
    far = [name for name in {**theirs, **ours} if not _close(theirs.get(name), ours.get(name), tolerance)]
    if far:
        return "\n".join(
            [*lines, f"Different: beyond the relative tolerance {tolerance:g} in {', '.join(far)}."]
        ), False
    what = "the parameters are identical, the metrics are" if same_params else "other bits, but all metrics are"
    return "\n".join([*lines, f"Equal within a relative tolerance of {tolerance:g}: {what} that close."]), True


def _circumstances(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    names = sorted({*there["versions"], *here["versions"]})
    pairs = [("device", there["device"], here["device"])]
    pairs += [(name, there["versions"].get(name), here["versions"].get(name)) for name in names]
    return [f"{n}: {a} in both" if a == b else f"{n}: recorded {a}, here {b}" for n, a, b in pairs]


def _line(name: str, there: float | None, here: float | None) -> str:
    return f"{name}: recorded {there!r}, here {here!r}"


def _close(there: float | None, here: float | None, tolerance: float) -> bool:
    if there is None or here is None:
        return False
    return there == here or abs(there - here) <= tolerance * max(abs(there), abs(here))
