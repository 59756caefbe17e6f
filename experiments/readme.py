"""The part of README.md that the recorded results write: the catalogue and the tables of results."""

import pathlib

from experiments import catalogue, records, tables

BEGIN, END = "<!-- results -->", "<!-- /results -->"


def write(path: pathlib.Path) -> bool:
    """Rewrites what stands between the two markers; whether that changed anything.

    Raises:
        ValueError: there is no such file, or it has not exactly one pair of markers.
    """
    if not path.is_file():
        raise ValueError(f"`--path` must be a Markdown file with {BEGIN} and {END}, got {path}, which is none.")
    text = path.read_text("utf-8")
    new = replace(text, str(path))
    if new == text:
        return False
    path.write_text(new, "utf-8")
    return True


def replace(text: str, name: str = "README.md") -> str:
    """`text` with the tables of now between its markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"`--path` {name} must hold {BEGIN} and after it {END}, each once.")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{render()}{END}{after}"


def render() -> str:
    """The catalogue, the recorded runs, and their results: one table per unit, kind, split and protocol."""
    rows = [
        (system.id, system.title, f"experiments.{system.module}", ", ".join(system.presets), system.kind)
        for system in catalogue.systems()
    ]
    systems = tables.Table("Systems", ("id", "system", "python -m …", "presets", "likelihood"), tuple(rows))
    named = {tables.label(record): record for record in records.load()}
    shown = [systems]
    if named:
        shown += [tables.runs(named), *tables.results(named, kinds=("exact", "bound", "estimate"))]
    return "\n" + tables.markdown(shown) + "\n"
