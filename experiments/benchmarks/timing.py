"""What the benchmarks share: repeats that take turns, one table, one JSON line."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from experiments import workdir


def clock(function: Callable[[], Any]) -> Callable[[], float]:
    """A function that calls `function`, waits for what it returns, and returns the seconds that took."""

    def seconds() -> float:
        since = time.perf_counter()
        jax.block_until_ready(function())
        return time.perf_counter() - since

    return seconds


def take_turns(cases: Mapping[str, Callable[[], float]], repeats: int, *, warm_up: int = 1) -> dict[str, list[float]]:
    """{name: what the case returned in each repeat}; the first `warm_up` rounds, which compile, are left out.

    The cases take turns, so that what else the machine does falls on all of them.
    """
    values: dict[str, list[float]] = {name: [] for name in cases}
    for i in range(warm_up + repeats):
        for name, case in cases.items():
            value = case()
            if i >= warm_up:
                values[name].append(value)
    return values


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios within each turn."""
    return statistics.median(a / b for a, b in zip(values, others, strict=True))


def device() -> str:
    """Platform, kind and number of the devices, the cores this process may use, and JAX's version."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{workdir.device(jax.devices())}, {cores} cores, jax {jax.__version__}"


def report(benchmark: str, rows: Sequence[Mapping[str, Any]], **notes: Any) -> None:
    """Prints `rows`, which share their keys, as a table, and all of it as one line of JSON."""
    cells = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for first, *rest in cells:
        right = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        print("  ".join([first.ljust(widths[0]), *right]))
    print(json.dumps({"benchmark": benchmark, "device": device(), **notes, "rows": rows}))


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
