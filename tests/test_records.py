"""The catalogue, reports, records, reproductions and the README's table, on one smoke run."""

import copy
import dataclasses
import html.parser
import json
import pathlib
import re
import subprocess
import sys

import pytest

from experiments import __main__ as command
from experiments import catalogue, readme, records, report, reproduce, runner, tables

pytestmark = pytest.mark.usefixtures("jax_as_it_is")
ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory, jax_as_it_is):
    """A finished smoke run of the VAE."""
    directory = tmp_path_factory.mktemp("runs") / "vae"
    runner.main(catalogue.load("latent.vae"), ["smoke", "--workdir", str(directory), "--device-count", "1"])
    return directory


@pytest.fixture(name="copied")
def _copied(run, tmp_path):
    """(change) -> a copy of the run's two files after `change(summary, config)`."""

    def copied(change, name="copy"):
        summary, config = (json.loads((run / f"{file}.json").read_text()) for file in ("summary", "config"))
        change(summary, config["config"])
        directory = tmp_path / name
        directory.mkdir()
        (directory / "summary.json").write_text(json.dumps(summary))
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    return copied


@pytest.fixture(name="results")
def _results(monkeypatch, tmp_path):
    """An empty directory of records."""
    monkeypatch.setattr(records, "DIRECTORY", tmp_path / "results")
    return tmp_path / "results"


# The catalogue and the command line


def test_catalogue_as_json(capsys):
    assert command.main(["--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["module"].removeprefix("experiments.") for row in rows] != []
    assert sorted(row["module"].removeprefix("experiments.") for row in rows) == catalogue.names()
    assert all(list(row) == ["id", "module", "title", "kind", "presets"] for row in rows)
    vae = next(row for row in rows if row["id"] == "L3")
    assert vae["module"] == "experiments.latent.vae"
    assert vae["presets"][:2] == ["digits", "smoke"]
    assert not any("benchmarks" in row["module"] for row in rows)


def test_catalogue_for_a_person(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert command.main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in catalogue.names())


def test_ids_are_in_their_natural_order():
    ids = [system.id for system in catalogue.systems()]
    assert ids == sorted(ids, key=lambda name: (name[0], int(name[1:])))


def test_find_takes_modules_and_ids():
    assert catalogue.find("L3") is catalogue.find("latent.vae") is catalogue.find("experiments.latent.vae")
    with pytest.raises(ValueError, match=r"latent.vae \(L3\).*got 'Z9'"):
        catalogue.find("Z9")


@pytest.mark.parametrize("arguments", [["bogus"], ["report"], ["--json", "readme"], ["reproduce", "--fast"]])
def test_unknown_commands_are_answered_with_what_exists(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    if arguments == ["bogus"]:
        assert all(name in said for name in ("bogus", *command.COMMANDS, "experiments.FAMILY.SYSTEM"))


def test_the_command_starts_without_jax():
    script = "import sys, experiments.__main__ as m; m.parser(); sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


# Reports


class Links(html.parser.HTMLParser):
    """Collects what a page would fetch, its tags and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data):
        self.text += data


def test_report_is_one_file_with_everything(run, tmp_path, capsys):
    output = tmp_path / "report.html"
    assert command.main(["report", str(run), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    page = Links()
    page.feed(output.read_text())
    assert len(page.sources) == len(list(run.glob("*.png")))
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "curves.png" in page.text
    summary = json.loads((run / "summary.json").read_text())
    for name, row in summary["metrics"].items():
        for text in (page.text, printed):
            assert name in text
            assert tables.number(row["value"]) in text
            assert f"{row['unit']}, kind {row['kind']}, split {row['split']}: {row['protocol']}" in text
    assert summary["params_sha256"] in page.text


def test_report_escapes_what_it_shows(copied, tmp_path):
    def evil(summary, config):
        summary["metrics"] = {"<i>x|y": {**summary["metrics"]["nll"], "protocol": "<script>alert(1)</script> | `a`"}}
        summary["reference"] = {"<i>x|y": {"value": 1.0, "source": "<img src=http://x.test/y>", "protocol": "&"}}
        config["data"] = "</pre><script>"

    directory = copied(evil)
    (directory / "samples.txt").write_text("</pre><script>alert(2)</script>" + "a" * 10_000)
    (directory / "x.wav").write_bytes(b"RIFF")
    printed = report.write([directory], tmp_path / "r.html")
    page = Links()
    page.feed((tmp_path / "r.html").read_text())
    assert not {"script", "img", "i"} & set(page.tags)
    assert page.sources == ["data:audio/wav;base64,UklGRg=="]
    assert "a" * report.MAX_TEXT not in page.text
    assert "<script>" not in printed
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in printed.splitlines() if "x\\|y" in line]
    assert widths == [4]


def test_columns_hold_one_unit_kind_and_protocol(run, copied):
    def other(summary, config):
        summary["preset"] = "other"
        summary["metrics"]["nll"]["protocol"] = "MNIST"
        summary["metrics"]["rate"]["value"] = 7.0
        summary["reference"] = {"nll": {"value": 88.7, "source": "a paper", "protocol": "5,000 samples"}}

    summaries = [json.loads((directory / "summary.json").read_text()) for directory in (run, copied(other))]
    named = {tables.label(summary): summary for summary in summaries}
    groups = tables.results(named)
    assert len({table.title for table in groups}) == len(groups)
    nll = [table for table in groups if any(column.startswith("nll") for column in table.columns)]
    assert [len(table.rows) for table in nll] == [1, 1]
    mnist = next(table for table in nll if "MNIST" in table.title)
    assert mnist.columns == ("run", "nll (nats)", "reference")
    assert mnist.rows[0][2] == "88.7 (a paper; 5,000 samples)"
    rate = next(table for table in groups if "rate (nats)" in table.columns)
    assert [row[0] for row in rate.rows] == list(named)
    kinds = [title.split("kind ")[1].split(",")[0] for title in (table.title for table in groups)]
    assert kinds == sorted(kinds, key=("exact", "bound", "estimate", "none").index)


def test_runs_of_one_name_are_told_apart(run, copied, tmp_path):
    printed = report.write([run, copied(lambda summary, config: None), run], tmp_path / "r.html")
    assert str(run) in printed
    assert printed.split("###")[1].count("latent.vae smoke, seed 0") == 2


def test_report_refuses(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        assert command.main(["report", str(run), str(tmp_path / name)]) == 2
        assert str(tmp_path / name) in capsys.readouterr().err
    (tmp_path / "empty" / "summary.json").write_text("{")
    assert command.main(["report", str(tmp_path / "empty")]) == 2
    assert "must hold the whole files" in capsys.readouterr().err
    assert command.main(["report", str(run), "--output", str(tmp_path)]) == 2
    assert "`--output` must be a file that can be written" in capsys.readouterr().err


# Records and reproductions


def test_record_and_reproduce(run, results, capsys):
    assert command.main(["record", str(run)]) == 0
    entry = json.loads((results / "latent.vae-smoke.json").read_text())
    config = entry.pop("config")
    assert entry == json.loads((run / "summary.json").read_text())
    assert config == json.loads((run / "config.json").read_text())["config"]
    capsys.readouterr()
    assert command.main(["reproduce", "L3", "--device-count", "1"]) == 0
    said = capsys.readouterr().out
    assert "The same bits" in said
    assert "jax: " in said
    assert "device: cpu (cpu) x 1 in both" in said


def test_reproduce_refuses(run, results, capsys):
    assert command.main(["reproduce", "latent.vae"]) == 2
    assert "no recorded run of latent.vae" in capsys.readouterr().err
    records.record(run)
    assert command.main(["reproduce", "latent.vae", "digits"]) == 2
    assert "there are: latent.vae-smoke" in capsys.readouterr().err
    assert command.main(["reproduce", "nothing"]) == 2
    assert "latent.vae (L3)" in capsys.readouterr().err
    assert command.main(["reproduce", "L3", "--data", "no_such_source"]) == 2
    assert "no_such_source" in capsys.readouterr().err
    assert command.main(["reproduce", "L3", "--tolerance", "1.5"]) == 2
    assert "`--tolerance` must be in [0, 1), got 1.5" in capsys.readouterr().err


def test_verdicts(run):
    there = json.loads((run / "summary.json").read_text())
    assert reproduce.compare(there, there, 0.0)[1]
    here = copy.deepcopy(there)
    here["params_sha256"], here["versions"]["jax"] = "0" * 64, "9.9"
    here["metrics"]["nll"]["value"] *= 1.005
    said, same = reproduce.compare(there, here, 1e-2)
    assert same
    assert "Equal within a relative tolerance of 0.01: other bits" in said
    assert f"jax: recorded {there['versions']['jax']}, here 9.9" in said
    said, same = reproduce.compare(there, here, 1e-3)
    assert not same
    assert "Different: beyond the relative tolerance 0.001 in nll" in said
    nll = there["metrics"]["nll"]["value"]
    assert f"nll: recorded {nll!r}, here {nll * 1.005!r}" in said
    del here["metrics"]["nll"]
    assert not reproduce.compare(there, here, 0.5)[1]
    here = copy.deepcopy(there)
    here["metrics"]["nll"]["value"] = float("nan")
    assert not reproduce.compare(there, here, 0.5)[1]


def test_a_record_is_of_a_preset(copied, results):
    directory = copied(lambda summary, config: config.update(num_steps=3))
    with pytest.raises(ValueError, match=r"unchanged preset; smoke differs in\n  num_steps: there 3, here 2"):
        records.record(directory)
    with pytest.raises(ValueError, match=r"latent\.vae gone, which is no preset any more"):
        records.record(copied(lambda summary, config: summary.update(preset="gone"), "gone"))
    assert not results.exists()


def test_a_knob_that_came_after_a_run_counts_as_at_its_default(copied, results, monkeypatch):
    config = catalogue.find("latent.vae").config
    directory = copied(lambda summary, config: config.pop("latent_size"))
    preset = dataclasses.replace(catalogue.find("latent.vae").presets["smoke"], latent_size=config().latent_size)
    monkeypatch.setitem(catalogue.find("latent.vae").presets, "smoke", preset)
    assert records.record(directory) == results / "latent.vae-smoke.json"
    other = dataclasses.replace(preset, latent_size=config().latent_size + 1)
    monkeypatch.setitem(catalogue.find("latent.vae").presets, "smoke", other)
    with pytest.raises(ValueError, match="latent_size: there"):
        records.record(directory)


@pytest.mark.parametrize("place", ["/data/mnist", "~/mnist", "mnist/train.npz", "../mnist"])
def test_a_record_names_no_path(copied, results, place):
    def change(summary, config):
        config["data"] = place
        summary["metrics"]["nll"]["protocol"] = f"{place}, binarized"

    with pytest.raises(ValueError, match="`--source` must say what to call the data"):
        records.record(copied(change))
    path = records.record(copied(change, "again"), source="tfds:mnist")
    entry = json.loads(path.read_text())
    assert entry["config"]["data"] == "tfds:mnist"
    assert entry["metrics"]["nll"]["protocol"] == "tfds:mnist, binarized"
    assert place not in path.read_text()


def test_a_record_names_no_path_elsewhere(copied, results):
    def change(summary, config):
        summary["metrics"]["nll"]["protocol"] = "digits (from /home/me/digits)"

    with pytest.raises(ValueError, match=r"must name no path.*metrics\.nll\.protocol"):
        records.record(copied(change))


# What is committed


def test_recorded_runs_are_those_of_their_presets():
    for path in sorted(records.DIRECTORY.glob("*.json")):
        entry = json.loads(path.read_text())
        assert path.stem == f"{entry['system']}-{entry['preset']}"
        records.check(entry)
        assert path.stat().st_size < 50_000


def test_readme_agrees():
    assert not readme.outdated(ROOT / "README.md"), "run: python -m experiments readme"
    headings = [line for line in readme.render().splitlines() if line.startswith("### ")]
    assert len(headings) > 1
    assert headings[0] == "### Systems"
    assert all("split test" in heading and "kind none" not in heading for heading in headings[1:])


def test_readme_is_rewritten_between_its_markers(run, results, tmp_path, capsys):
    records.record(run)
    path = tmp_path / "README.md"
    path.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    assert command.main(["readme", "--path", str(path)]) == 0
    text = path.read_text()
    assert text.startswith(f"before\n{readme.BEGIN}\n")
    assert text.endswith(f"{readme.END}\nafter\n")
    assert "old" not in text
    assert re.search(r"latent\.vae \| bound \| smoke: [\d.]+ nats, [\d.]+ bits/dim", text)
    assert "latent.vae smoke, seed 0" in (results / readme.TABLES).read_text()
    assert readme.write(path) is False
    path.write_text("no markers")
    assert command.main(["readme", "--path", str(path)]) == 2
    assert "each once" in capsys.readouterr().err
    assert command.main(["readme", "--path", str(tmp_path / "none.md")]) == 2
    assert "none.md, which is none" in capsys.readouterr().err


def test_an_annealed_likelihood_is_shown_from_both_sides():
    record = {"system": "energy.rbm", "preset": "p", "reference": None, "metrics": {}}
    for side, value in (("forward", 88.4), ("reverse", 94.8)):
        record["metrics"][f"nll_{side}"] = {"value": value, "unit": "nats", "kind": "estimate"}
    assert readme.headline(record) == "p: 88.4 to 94.8 nats"
