"""The command line that all experiments share: [PRESET] [--seed N] [--workdir DIR] ... [any field of Config]."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import tyro

from experiments.system import System


@dataclasses.dataclass(frozen=True)
class Run:
    """How to run, whatever is run."""

    seed: int = 0
    """The only source of randomness."""
    workdir: pathlib.Path | None = None
    """Where the run is written; by default runs/SYSTEM/PRESET-seedN."""
    device_count: int | None = None
    """Virtual CPU devices to split batches over; by default all real devices are used."""
    shard_state: bool = False
    """Split parameters and optimizer state over the devices instead of copying them to each."""
    tensorboard: bool = False
    """Also log to workdir/tensorboard; needs the extra jgen[tensorboard]."""
    distributed: bool = False
    """Join other processes through jax.distributed.initialize before anything else."""


def parse(system: System, arguments: Sequence[str]) -> tuple[str, Run, Any]:
    """(preset, run, config) of a command line; exits with what exists where a name is unknown."""
    rest = list(arguments)
    preset = rest.pop(0) if rest and not rest[0].startswith("-") else next(iter(system.presets))
    if preset not in system.presets:
        refuse(f"no preset {preset!r} of {system.module}; there are: {', '.join(system.presets)}.")
    fields = [field.name for kind in (Run, system.config) for field in dataclasses.fields(kind)]
    for word in rest:
        name = word.split("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        if word.startswith("--") and name not in [*fields, "help"]:
            flags = ", ".join("--" + field.replace("_", "-") for field in fields)
            refuse(f"no flag {word.split('=')[0]} of {system.module}; there are: {flags}.")
    default = system.presets[preset]
    kind = dataclasses.make_dataclass(
        "Options",
        [("run", Run, dataclasses.field(default_factory=Run)), ("config", system.config, default)],
        frozen=True,
    )
    options: Any = tyro.cli(
        kind,
        prog=f"python -m experiments.{system.module} [{' | '.join(system.presets)}]",
        description=f"{system.title} (the defaults below are those of the preset {preset!r})",
        args=rest,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.ConsolidateSubcommandArgs),
    )
    return preset, options.run, options.config


def refuse(text: str) -> NoReturn:
    """Says on standard error what is wrong, and exits with status 2."""
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)
