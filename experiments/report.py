"""One self-contained HTML file about finished runs: tables, learning curves, samples; nothing is fetched."""

import base64
import html
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import records, tables

IMAGES = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg"}
MAX_TEXT = 4_000

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .5rem; } h3 { font-size: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #8886; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; vertical-align: top; }
figcaption { font-size: .8rem; opacity: .75; }
img { max-width: 100%; background: #fff; }
pre { max-height: 24rem; overflow: auto; padding: .8rem; border: 1px solid #8886; white-space: pre-wrap; }
"""


def write(directories: Sequence[pathlib.Path], output: pathlib.Path) -> str:
    """Writes `output`; returns the same tables as Markdown.

    Raises:
        ValueError: a directory is no finished run, or `output` cannot be written.
    """
    named = _named(directories)
    summaries = {name: summary for name, (_, summary, _) in named.items()}
    shown = [tables.runs(summaries), *tables.results(summaries)]
    parts = [_table(table, first=i == 0) for i, table in enumerate(shown)]
    parts += [_run(name, *found) for name, found in named.items()]
    try:
        output.write_text(_page("\n".join(parts)), "utf-8")
    except OSError as error:
        raise ValueError(f"`--output` must be a file that can be written, got {output}: {error}.") from error
    return tables.markdown(shown)


def _named(directories: Sequence[pathlib.Path]) -> dict[str, tuple[pathlib.Path, Any, Any]]:
    """{label: (directory, summary, config)}; where two runs share a label, their directories tell them apart."""
    found = [(directory, *records.read(directory)) for directory in dict.fromkeys(directories)]
    labels = [tables.label(summary) for _, summary, _ in found]
    names = [name if labels.count(name) == 1 else f"{name} ({found[i][0]})" for i, name in enumerate(labels)]
    return dict(zip(names, found, strict=True))


def _page(body: str) -> str:
    policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Runs</title><style>{STYLE}</style></head>\n<body>\n<h1>Runs</h1>\n{body}\n</body></html>\n"
    )


def _table(table: tables.Table, *, first: bool) -> str:
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in table.columns)
    rows = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    title = "" if first else f"<h3>{html.escape(table.title)}</h3>\n"
    heading = "" if not first else "<p>A column holds numbers of one unit, kind, split and protocol.</p>\n"
    table_html = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>"
    return f'{title}{heading}<div class="scroll">{table_html}</div>'


def _cell(text: str) -> str:
    kind = ' class="number"' if tables.is_number(text) else ""
    return f"<td{kind}>{html.escape(text)}</td>"


def _run(name: str, directory: pathlib.Path, summary: Any, config: Any) -> str:
    files = sorted(directory.iterdir(), key=lambda path: (path.name != "curves.png", path.name))
    shown = [part for path in files if (part := _file(path))]
    facts = {"config": config, "versions": summary["versions"], "params_sha256": summary["params_sha256"]}
    details = f"<details><summary>Config and versions</summary>{_pre(json.dumps(facts, indent=1))}</details>"
    return "\n".join([f"<section><h2>{html.escape(name)}</h2>", *shown, details, "</section>"])


def _file(path: pathlib.Path) -> str:
    caption = f"<figcaption>{html.escape(path.name)}</figcaption>"
    if path.suffix in IMAGES:
        source = _inline(path, IMAGES[path.suffix])
        return f'<figure><img alt="{html.escape(path.stem)}" src="{source}">{caption}</figure>'
    if path.suffix == ".wav":
        return f'<figure><audio controls src="{_inline(path, "audio/wav")}"></audio>{caption}</figure>'
    if path.suffix == ".txt":
        text = path.read_text("utf-8", errors="replace")
        return f"{_pre(text[:MAX_TEXT] + (' …' if len(text) > MAX_TEXT else ''))}{caption}"
    return ""


def _pre(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def _inline(path: pathlib.Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
