"""What recorded results write: the catalogue in README.md, and all their tables in experiments/results/README.md."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import catalogue, records, tables

BEGIN, END = "<!-- results -->", "<!-- /results -->"
TABLES = "README.md"
"""The file beside the records that holds a table for every unit, kind, split and protocol."""


def write(path: pathlib.Path) -> bool:
    """Rewrites what stands between the two markers, and the tables beside the records; whether that changed anything.

    Raises:
        ValueError: there is no such file, or it has not exactly one pair of markers.
    """
    if not path.is_file():
        raise ValueError(f"`--path` must be a Markdown file with {BEGIN} and {END}, got {path}, which is none.")
    changed = outdated(path)
    for place, new in changed.items():
        place.write_text(new, "utf-8")
    return bool(changed)


def outdated(path: pathlib.Path) -> dict[pathlib.Path, str]:
    """{file: what it should hold} for those of the two files that do not agree with the records."""
    wanted = {path: replace(path.read_text("utf-8"), str(path)), records.DIRECTORY / TABLES: results()}
    return {place: new for place, new in wanted.items() if not place.is_file() or place.read_text("utf-8") != new}


def replace(text: str, name: str = "README.md") -> str:
    """`text` with the catalogue of now between its markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"`--path` {name} must hold {BEGIN} and after it {END}, each once.")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{render()}{END}{after}"


def render() -> str:
    """The catalogue with what the recorded runs measured, and the tables of test results that several systems share."""
    found = records.load()
    measured = {system.module: [r for r in found if r["system"] == system.module] for system in catalogue.systems()}
    rows = [
        (system.id, system.title, system.module, system.kind, "; ".join(map(headline, measured[system.module])))
        for system in catalogue.systems()
    ]
    columns = ("id", "system", "python -m experiments.…", "likelihood", "measured (preset: result)")
    shared = [table for table in tables.results(_tested(found)) if len({row[0].split()[0] for row in table.rows}) > 1]
    return "\n" + tables.markdown([tables.Table("Systems", columns, tuple(rows)), *shared]) + "\n"


def _tested(found: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """{label: record}, of each record what it says of test data and of which kind."""
    own = [
        {k: m for k, m in record["metrics"].items() if m["split"] == "test" and m["kind"] != "none"} for record in found
    ]
    return {tables.label(record): {**record, "metrics": m} for record, m in zip(found, own, strict=True)}


def results() -> str:
    """All recorded runs and all their results: one table per unit, kind, split and protocol."""
    named = {tables.label(record): record for record in records.load()}
    shown = [tables.runs(named), *tables.results(named)] if named else []
    title = "# Recorded results\n\nWritten by `python -m experiments readme` from the JSON files beside this one."
    return f"{title}\n\n{tables.markdown(shown, level=2)}"


def headline(record: Mapping[str, Any]) -> str:
    """ "preset: 88.51 nats (reference 88.7)": the main metric of a record, and its bits/dim.

    That is its likelihood, the exact one where there is one, else of its system's kind; else its first metric. Where
    log Z was annealed from both sides, both results: what lies between them is not known.
    """
    metrics, kind = record["metrics"], catalogue.find(record["system"]).kind
    own = [name for name, metric in metrics.items() if metric["kind"] == kind] or list(metrics)
    exact = [name for name, metric in metrics.items() if metric["kind"] == "exact" and name == "nll"]
    likelihoods = exact + [name for name in own if name.startswith("nll") and "standard_error" not in name]
    first = (likelihoods or own)[0]
    shown = [first, *(["bits_per_dim"] if "bits_per_dim" in metrics and first != "bits_per_dim" else [])]
    beside = " exact" if first in exact and kind != "exact" else ""
    return f"{record['preset']}: {', '.join(_value(record, name, first in likelihoods) for name in shown)}{beside}"


def _value(record: Mapping[str, Any], name: str, named_by_unit: bool) -> str:
    metric, reference = record["metrics"][name], (record["reference"] or {}).get(name)
    unit = "" if metric["unit"] == "-" else f" {metric['unit']}"
    said = unit if named_by_unit or name == "bits_per_dim" else f"{unit} {name}"
    beside = "" if reference is None else f" (reference {tables.number(reference['value'])})"
    other = record["metrics"].get(name.replace("_forward", "_reverse"), metric)
    sides = "" if other is metric else f" to {tables.number(other['value'])}"
    return f"{tables.number(metric['value'])}{sides}{said}{beside}"
