"""What can be run: the modules of this package that declare a SYSTEM."""

import importlib
import pathlib
import re
from typing import Any

import rich.box
import rich.console
import rich.table

from experiments.system import System

_DECLARATION = re.compile(r"^SYSTEM\b", re.MULTILINE)


def names() -> list[str]:
    """ "family.system" of every module that declares a SYSTEM; imports none of them."""
    files = sorted(pathlib.Path(__file__).parent.glob("*/*.py"))
    return [f"{path.parent.name}.{path.stem}" for path in files if _DECLARATION.search(path.read_text("utf-8"))]


def load(name: str) -> System:
    """The SYSTEM of the module "family.system"."""
    return importlib.import_module(f"experiments.{name}").SYSTEM


def systems() -> list[System]:
    """All systems in the order of their ids: A1, A2, A10, C1, …."""
    return sorted((load(name) for name in names()), key=_order)


def find(name: str) -> System:
    """The system that is called by its module ("latent.vae") or by its id ("L3").

    Raises:
        ValueError: there is none; the message says what there is.
    """
    known = names()
    short = name.removeprefix("experiments.")
    if short in known:
        return load(short)
    found = {system.id.lower(): system for system in systems()}
    if name.lower() not in found:
        there = ", ".join(f"{system.module} ({system.id})" for system in found.values())
        raise ValueError(f"`SYSTEM` must be one of {there}; got {name!r}.")
    return found[name.lower()]


def rows() -> list[dict[str, Any]]:
    """The catalogue as JSON holds it."""
    return [
        {
            "id": system.id,
            "module": f"experiments.{system.module}",
            "title": system.title,
            "kind": system.kind,
            "presets": list(system.presets),
        }
        for system in systems()
    ]


def show() -> None:
    """Prints the catalogue for a person."""
    table = rich.table.Table(title="python -m experiments.SYSTEM [PRESET] [--help]", box=rich.box.SIMPLE)
    for column in ("id", "SYSTEM", "title", "kind", "presets"):
        table.add_column(column, no_wrap=column in ("id", "SYSTEM", "kind"))
    for system in systems():
        table.add_row(system.id, system.module, system.title, system.kind, ", ".join(system.presets))
    rich.console.Console().print(table)


def _order(system: System) -> tuple[str, int, str]:
    letters, digits = re.fullmatch(r"(\D*)(\d*).*", system.id).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return letters, int(digits or 0), system.id
