"""Tables of runs in which a column holds numbers of one unit, kind, split and protocol, and of nothing else."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Summary = Mapping[str, Any]
"""The content of a summary.json."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A heading, the columns' names, and the rows, all as plain text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def label(summary: Summary) -> str:
    """How a run is called in a table."""
    return f"{summary['system']} {summary['preset']}, seed {summary['seed']}"


def runs(named: Mapping[str, Summary]) -> Table:
    """What was run, for how long and on what; {label: summary}."""
    columns = ("id", "run", "steps", "parameters", "seconds", "steps/s", "device", "JAX")
    rows = [
        (
            summary["id"],
            name,
            f"{summary['steps']:,}",
            f"{summary['num_params']:,}",
            f"{summary['wall_seconds']:.0f}",
            f"{summary['steps_per_second']:.1f}",
            summary["device"],
            summary["versions"]["jax"],
        )
        for name, summary in named.items()
    ]
    return Table("Runs", columns, tuple(rows))


def results(named: Mapping[str, Summary]) -> list[Table]:
    """One table per (unit, kind, split, protocol): a row per run, a column per metric, its reference beside it.

    Args:
        named: {label: summary}.
    """
    groups: dict[tuple[str, str, str, str], dict[str, dict[str, float]]] = {}
    for name, summary in named.items():
        for metric, row in summary["metrics"].items():
            protocol = (row["unit"], row["kind"], row["split"], row["protocol"])
            groups.setdefault(protocol, {}).setdefault(name, {})[metric] = row["value"]
    return [_group(*protocol, rows, named) for protocol, rows in sorted(groups.items(), key=_order)]


def _order(item: tuple[tuple[str, str, str, str], Any]) -> tuple[int, tuple[str, str, str, str]]:
    return ("exact", "bound", "estimate", "none").index(item[0][1]), item[0]


def _group(
    unit: str, kind: str, split: str, protocol: str, values: Mapping[str, Mapping[str, float]], named: Any
) -> Table:
    metrics = list(dict.fromkeys(metric for row in values.values() for metric in row))
    references = {name: named[name]["reference"] or {} for name in values}
    referred = [
        metric for metric in metrics if any(metric in row and metric in references[n] for n, row in values.items())
    ]
    columns = ["run"]
    for metric in metrics:
        columns += [f"{metric} ({unit})", "reference"] if metric in referred else [f"{metric} ({unit})"]
    rows = []
    for name, row in values.items():
        cells = [name]
        for metric in metrics:
            cells.append(number(row[metric]) if metric in row else "")
            if metric in referred:
                cells.append(_reference(references[name].get(metric)) if metric in row else "")
        rows.append(tuple(cells))
    return Table(f"{unit}, kind {kind}, split {split}: {protocol}", tuple(columns), tuple(rows))


def number(value: float) -> str:
    """Five significant digits, and all digits of a larger whole part."""
    return f"{value:.0f}" if abs(value) >= 1e5 else f"{value:.5g}"


def _reference(reference: Mapping[str, Any] | None) -> str:
    if reference is None:
        return ""
    return f"{reference['value']} ({'; '.join(str(reference[k]) for k in ('source', 'protocol') if reference.get(k))})"


def markdown(tables: Sequence[Table], level: int = 3) -> str:
    """The tables as Markdown, each under its heading."""
    parts = []
    for table in tables:
        lines = [
            _line(map(_plain, table.columns)),
            _line("---:" if _numeric(table, i) else "---" for i in range(len(table.columns))),
        ]
        lines += [_line(map(_plain, row)) for row in table.rows]
        parts.append(f"{'#' * level} {_plain(table.title)}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _numeric(table: Table, column: int) -> bool:
    return all(is_number(row[column]) for row in table.rows)


def is_number(text: str) -> bool:
    try:
        float(text.replace(",", "") or 0)
    except ValueError:
        return False
    return True


def _plain(text: str) -> str:
    """Text that Markdown shows as it is in a cell."""
    for mark, shown in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`"), ("*", "\\*")):
        text = text.replace(mark, shown)
    return " ".join(text.split())
