"""The recorded runs in experiments/results: each the summary of a finished run of a preset, with its config."""

import dataclasses
import json
import pathlib
import re
from typing import Any

from experiments import catalogue, workdir

DIRECTORY = pathlib.Path(__file__).parent / "results"
_PATH = re.compile(r"""(?:^|[\s"'=:(,])(?:~?/[\w.]|[A-Za-z]:\\)""")


def load() -> list[dict[str, Any]]:
    """All records, in the order of the systems' ids and then of their presets."""
    order = {system.module: i for i, system in enumerate(catalogue.systems())}
    found = [json.loads(path.read_text("utf-8")) for path in sorted(DIRECTORY.glob("*.json"))]
    return sorted(found, key=lambda record: (order.get(record["system"], len(order)), record["preset"]))


def find(module: str, presets: list[str], preset: str | None = None) -> dict[str, Any]:
    """The record of a preset of a system; without `preset`, of its first preset that was recorded.

    Raises:
        ValueError: there is none; the message says which there are.
    """
    there = [name for name in presets if _path(module, name).exists()]
    if not there or preset not in (None, *there):
        known = ", ".join(sorted(path.stem for path in DIRECTORY.glob("*.json"))) or "none"
        raise ValueError(f"no recorded run of {module} {preset or ''}; there are: {known}.")
    return json.loads(_path(module, preset or there[0]).read_text("utf-8"))


def record(directory: pathlib.Path, *, source: str | None = None) -> pathlib.Path:
    """Keeps the finished run in `directory` as a record, which holds nothing of this machine.

    Args:
        directory: the run's.
        source: what to call the data where the run read it from a path; `reproduce --data` then says where it is.

    Returns:
        The file, experiments/results/FAMILY.SYSTEM-PRESET.json.

    Raises:
        ValueError: the run is not finished, is not that of an unchanged preset, or names a path.
    """
    summary, config = read(directory)
    entry = {**summary, "config": config}
    if source is not None:
        if "data" not in config:
            raise ValueError(f"`--source` must be left out: {summary['system']} has no data, got {source!r}.")
        entry = _rename(entry, config["data"], source)
    check(entry)
    path = _path(summary["system"], summary["preset"])
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(entry, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def read(directory: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(summary, config) of a finished run.

    Raises:
        ValueError: the directory holds none.
    """
    try:
        summary = workdir.finished(directory)
        config = json.loads((directory / "config.json").read_text("utf-8"))["config"] if summary else {}
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"`DIR` {directory} must hold the whole files of a run: {error!r}.") from error
    if summary is None:
        raise ValueError(f"`DIR` must be a finished run, which has a summary.json; {directory} has none.")
    return summary, config


def check(entry: dict[str, Any]) -> None:
    """Raises ValueError unless `entry` is the run of an unchanged preset and holds nothing of one machine."""
    _check_preset(entry)
    _check_portable(entry)


def _path(module: str, preset: str) -> pathlib.Path:
    return DIRECTORY / f"{module}-{preset}.json"


def _rename(value: Any, old: str, new: str) -> Any:
    """`value` with `new` for `old` in all of its strings, for protocols name the data as well."""
    if isinstance(value, dict):
        return {key: _rename(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rename(inner, old, new) for inner in value]
    return value.replace(old, new) if isinstance(value, str) else value


def _check_preset(entry: dict[str, Any]) -> None:
    """A record is repeated by one command, so it may differ from its preset in nothing but where its data was.

    A knob that came after the run counts as at its default, which leaves what there was before as it was.
    """
    system = catalogue.find(entry["system"])
    if entry["preset"] not in system.presets:
        raise ValueError(f"`DIR` is a run of {system.module} {entry['preset']}, which is no preset any more.")
    preset, default = (
        json.loads(json.dumps(dataclasses.asdict(config)))
        for config in (system.presets[entry["preset"]], system.config())
    )
    ours = {name: value for name, value in {**default, **entry["config"]}.items() if name != "data"}
    theirs = {name: value for name, value in preset.items() if name != "data"}
    if lines := workdir.differences(ours, theirs):
        raise ValueError(
            "\n".join([f"`DIR` must be a run of an unchanged preset; {entry['preset']} differs in", *lines])
        )


def _check_portable(entry: dict[str, Any]) -> None:
    data = entry["config"].get("data", "")
    local = re.match(r"[.~/\\]", data) or (not data.startswith("tfds:") and re.search(r"[/\\]", data))
    if data and (local or pathlib.Path(data).exists()):
        raise ValueError(f"`--source` must say what to call the data, which the run read from the path {data!r}.")
    for name, text in _strings(entry):
        if _PATH.search(text):
            raise ValueError(f"`DIR` must name no path of this machine, got {text!r} as {name}.")


def _strings(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _strings(inner, f"{name}.{key}".lstrip("."))]
    if isinstance(value, list):
        return [pair for inner in value for pair in _strings(inner, name)]
    return [(name, value)] if isinstance(value, str) else []
