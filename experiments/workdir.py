"""The files of a run: config.json, metrics.jsonl, summary.json."""

import dataclasses
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.system import System
from jgen.checkpoints import digest
from jgen.metrics.measurement import Measurement
from jgen.train import Outcome

PACKAGES = ("jgen", "jax", "jaxlib", "flax", "optax", "numpy")


def describe(system: System, preset: str, seed: int, config: Any) -> dict[str, Any]:
    """What identifies a run: two runs with equal descriptions give equal numbers."""
    return {"system": system.module, "preset": preset, "seed": seed, "config": dataclasses.asdict(config)}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages on which the bits of a run depend."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found}


def device(devices: Sequence[Any]) -> str:
    """Platform, kind and number of the devices."""
    return f"{devices[0].platform} ({devices[0].device_kind}) x {len(devices)}"


def claim(directory: pathlib.Path, description: dict[str, Any], devices: Sequence[Any] = ()) -> bool:
    """Makes `directory` the place of the described run (True), or finds that it already is (False).

    Raises:
        ValueError: the directory cannot be written, or holds another run; the message shows the difference.
    """
    path = directory / "config.json"
    if path.exists():
        found = json.loads(path.read_text())
        lines = differences(found, json.loads(json.dumps(description)))
        if lines:
            raise ValueError(f"`--workdir` {directory} holds another run; it differs in\n" + "\n".join(lines))
        return False
    try:
        directory.mkdir(parents=True, exist_ok=True)
        notes = {"versions": versions(), "device": device(devices or jax.devices())}
        part = directory / "config.json.part"
        part.write_text(json.dumps({**description, **notes}, indent=1) + "\n")
        part.replace(path)
    except OSError as error:
        raise ValueError(f"`--workdir` must be a directory that can be written, got {directory}: {error}.") from error
    return True


def release(directory: pathlib.Path) -> None:
    """Gives up a directory in which nothing was learned yet."""
    if not any(path.name.isdigit() for path in directory.glob("checkpoints/*")):
        (directory / "config.json").unlink(missing_ok=True)


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """One line per entry of `here` (nested dicts included) to which `there` has another value."""
    lines = []
    for name, value in here.items():
        other = there.get(name, "absent")
        if isinstance(value, dict) and isinstance(other, dict):
            lines += differences(other, value)
            lines += [f"  {extra}: there {other[extra]!r}, here absent" for extra in other.keys() - value.keys()]
        elif other != value and name != "preset":
            lines.append(f"  {name}: there {other!r}, here {value!r}")
    return lines


def finished(directory: pathlib.Path) -> dict[str, Any] | None:
    """The summary of a finished run."""
    path = directory / "summary.json"
    return json.loads(path.read_text()) if path.exists() else None


def forget_after(directory: pathlib.Path, step: int) -> None:
    """Drops the lines of metrics.jsonl that a resumed run will write again, and a line cut short by a kill."""
    path = directory / "metrics.jsonl"
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    path.write_text("".join(line + "\n" for line in kept))


def history(directory: pathlib.Path) -> dict[str, tuple[list[int], list[float]]]:
    """{"split/metric": (steps, values)} of metrics.jsonl."""
    curves: dict[str, tuple[list[int], list[float]]] = {}
    path = directory / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        for name, value in row["metrics"].items():
            steps, values = curves.setdefault(f"{row['split']}/{name}", ([], []))
            steps.append(row["step"])
            values.append(value)
    return curves


def summarize(
    directory: pathlib.Path,
    system: System,
    description: dict[str, Any],
    outcome: Outcome,
    measurements: dict[str, Measurement],
    devices: Sequence[Any],
) -> dict[str, Any]:
    """Writes summary.json, last of all files, in one move; its presence says that the run is finished."""
    params = outcome.state.params
    sizes = [int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(params)]
    references = system.references.get(description["preset"])
    summary = {
        "system": system.module,
        "id": system.id,
        "preset": description["preset"],
        "seed": description["seed"],
        "steps": outcome.step,
        "metrics": {name: dataclasses.asdict(value) for name, value in measurements.items()},
        "reference": dict(references) if references else None,
        "num_params": sum(sizes),
        "params_sha256": digest(params),
        "wall_seconds": round(outcome.wall_seconds, 2),
        "steps_per_second": round(outcome.steps_per_second, 3),
        "device": device(devices),
        "versions": versions(),
    }
    part = directory / "summary.json.part"
    part.write_text(json.dumps(summary, indent=1) + "\n")
    part.replace(directory / "summary.json")
    return summary
