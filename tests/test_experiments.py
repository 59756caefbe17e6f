"""Every system's smoke preset through the command line that a person uses, and what the command line refuses."""

import itertools
import json
import pathlib
import re
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest

from experiments import catalogue, runner
from jgen.metrics.measurement import KINDS

pytestmark = pytest.mark.usefixtures("jax_as_it_is")
ROOT = pathlib.Path(__file__).parent.parent
SYSTEMS = catalogue.names()
FIRST = {name.split(".")[0]: name for name in reversed(SYSTEMS)}.values()
"""One system of each family."""
RUNS = [pytest.param(name, marks=[] if name in FIRST else [pytest.mark.slow]) for name in SYSTEMS]
"""Of the other systems the default suite traces the smoke preset and compiles nothing; `-m slow` runs it."""
SUMMARY = {
    "system": str,
    "id": str,
    "preset": str,
    "seed": int,
    "steps": int,
    "metrics": dict,
    "reference": dict | None,
    "num_params": int,
    "params_sha256": str,
    "wall_seconds": float,
    "steps_per_second": float,
    "device": str,
    "versions": dict,
}
MEASUREMENT = {"value": float, "unit": str, "kind": str, "split": str, "protocol": str}


def smoke(name: str, directory: pathlib.Path, *arguments: str) -> dict[str, Any]:
    """Runs the smoke preset in `directory` on one device, and reads its summary."""
    runner.main(catalogue.load(name), ["smoke", "--workdir", str(directory), "--device-count", "1", *arguments])
    return json.loads((directory / "summary.json").read_text())


def refused(capsys, name: str, *arguments: str) -> str:
    """What the command line says when it refuses `arguments`."""
    with pytest.raises(SystemExit) as stop:
        runner.main(catalogue.load(name), [*arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


def process(*arguments: str, **keywords: Any) -> subprocess.Popen[str]:
    """`python -m experiments...` in a process of its own."""
    command = [sys.executable, "-m", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, **keywords)


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory, jax_as_it_is):
    """(name) -> the directory of that system's finished smoke run; each runs once."""
    found: dict[str, pathlib.Path] = {}

    def run(name: str) -> pathlib.Path:
        if name not in found:
            found[name] = tmp_path_factory.mktemp("runs") / name
            smoke(name, found[name])
        return found[name]

    return run


@pytest.mark.parametrize("name", SYSTEMS)
def test_declaration(name):
    system = catalogue.load(name)
    assert system.module == name
    assert re.fullmatch(r"[A-Z]\d+", system.id)
    assert system.title
    assert system.kind in KINDS
    assert "smoke" in system.presets
    assert next(iter(system.presets)) != "smoke"
    assert all(isinstance(config, system.config) for config in system.presets.values())
    assert set(system.references) <= set(system.presets)
    for reference in system.references.values():
        assert all({"value", "source"} <= set(row) for row in reference.values())


def test_ids_are_unique():
    ids = [system.id for system in catalogue.systems()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", SYSTEMS)
def test_smoke_preset_fits_together(name):
    system = catalogue.load(name)
    experiment, key = system.build(system.presets["smoke"], 0), jax.random.key(0)
    model, batch = experiment.model, experiment.data.train(0)
    state = jax.eval_shape(model.init, key, batch)
    after, metrics = jax.eval_shape(model.update, key, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics
    for held_out, _ in itertools.islice(experiment.data.batches("valid"), 1):
        found = jax.eval_shape(model.evaluate, key, state, held_out)
        assert experiment.select is None or experiment.select in found


@pytest.mark.parametrize("name", RUNS)
def test_smoke_writes_its_files(run, name):
    directory, system = run(name), catalogue.load(name)
    summary = json.loads((directory / "summary.json").read_text())
    assert list(summary) == list(SUMMARY)
    for key, kind in SUMMARY.items():
        assert isinstance(summary[key], kind), key
    assert (summary["system"], summary["id"], summary["preset"], summary["seed"]) == (name, system.id, "smoke", 0)
    assert re.fullmatch("[0-9a-f]{64}", summary["params_sha256"])
    assert summary["metrics"]
    for metric, row in summary["metrics"].items():
        assert {key: type(value) for key, value in row.items()} == MEASUREMENT, metric
        assert np.isfinite(row["value"]), metric
        assert row["kind"] in KINDS
        assert row["split"] in ("train", "valid", "test", "-")
        assert row["protocol"].strip()
    assert system.kind in {row["kind"] for row in summary["metrics"].values()}, "the main number's kind is reported"
    config = json.loads((directory / "config.json").read_text())
    assert list(config) == ["system", "preset", "seed", "config", "versions", "device"]
    assert [path for path in directory.glob("samples.*") if path.stat().st_size]
    if hasattr(system.presets["smoke"], "num_steps"):
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert {line["split"] for line in lines} == {"train", "valid"}
        assert all(set(line) == {"split", "step", "metrics"} for line in lines)
        assert summary["steps"] == system.presets["smoke"].num_steps
        assert (directory / "checkpoints").is_dir()


@pytest.mark.parametrize("name", RUNS)
def test_same_seed_same_bits(run, tmp_path, name):
    first = json.loads((run(name) / "summary.json").read_text())
    second = smoke(name, tmp_path)
    assert first["params_sha256"] == second["params_sha256"]
    assert first["metrics"] == second["metrics"]
    for path in run(name).glob("samples.*"):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_default_directory_and_another_seed(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    runner.main(catalogue.load("latent.vae"), ["smoke", "--seed", "3", "--device-count", "1"])
    other = json.loads((tmp_path / "runs" / "latent" / "vae" / "smoke-seed3" / "summary.json").read_text())
    assert other["seed"] == 3
    assert other["params_sha256"] != json.loads((run("latent.vae") / "summary.json").read_text())["params_sha256"]


def test_finished_run_stays_as_it_is(run, capsys):
    directory = run("latent.vae")
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    smoke("latent.vae", directory)
    assert "finished and stays as it is" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_another_config_is_refused_with_the_difference(run, capsys):
    directory = str(run("latent.vae"))
    text = refused(capsys, "latent.vae", "smoke", "--workdir", directory, "--num-steps", "3", "--seed", "5")
    assert "num_steps: there 2, here 3" in text
    assert "seed: there 0, here 5" in text
    assert "learning_rate" not in text


@pytest.mark.parametrize("name", SYSTEMS)
def test_unknown_names_are_answered_with_what_exists(name, capsys, tmp_path):
    system = catalogue.load(name)
    text = refused(capsys, name, "no_such_preset")
    assert all(preset in text for preset in ("no_such_preset", *system.presets))
    text = refused(capsys, name, "smoke", "--no-such-flag", "1")
    assert "--seed" in text
    assert "--no-such-flag" in text
    if hasattr(system.presets["smoke"], "data"):
        assert "--data" in text
        text = refused(capsys, name, "smoke", "--data", "no_such_source", "--workdir", str(tmp_path / "run"))
        assert "no_such_source" in text
        assert re.search("digits|text", text), "it says what exists"
        assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("steps", ["0", "-1"])
def test_no_steps_are_refused(name, steps, capsys, tmp_path):
    if hasattr(catalogue.load(name).presets["smoke"], "num_steps"):
        text = refused(capsys, name, "smoke", "--num-steps", steps, "--workdir", str(tmp_path / "run"))
        assert "`--num-steps` must be at least 1" in text


def test_wrong_type_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        runner.main(catalogue.load("latent.vae"), ["smoke", "--num-steps", "many"])
    assert stop.value.code == 2
    assert "num-steps" in "".join(capsys.readouterr())


def test_directory_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    text = refused(capsys, "latent.vae", "smoke", "--workdir", str(tmp_path / "file" / "run"))
    assert "`--workdir` must be a directory that can be written" in text
    assert "file" in text


def test_fewer_examples_than_the_batch(capsys, tmp_path):
    text = refused(capsys, "latent.vae", "smoke", "--batch-size", "100000", "--workdir", str(tmp_path))
    assert "`batch_size` must be at most the" in text
    assert "100000" in text


def test_empty_data(capsys, tmp_path):
    np.savez(tmp_path / "empty.npz", train=np.zeros((0, 8, 8), np.uint8))
    arguments = ["smoke", "--data", str(tmp_path / "empty.npz"), "--workdir", str(tmp_path / "run")]
    text = refused(capsys, "latent.vae", *arguments)
    assert "empty" in text


def test_too_many_devices(capsys, tmp_path):
    text = refused(capsys, "latent.vae", "smoke", "--device-count", "64", "--workdir", str(tmp_path))
    assert "`--device-count` must be at most the 8 devices, got 64" in text
    text = refused(capsys, "latent.vae", "smoke", "--device-count", "0", "--workdir", str(tmp_path))
    assert "`--device-count` must be at least 1, got 0" in text


def test_refused_run_leaves_its_directory_free(capsys, tmp_path):
    # 12 examples do not divide over 8 devices, which only the trainer finds.
    text = refused(capsys, "latent.vae", "smoke", "--batch-size", "12", "--workdir", str(tmp_path))
    assert "`batch_size` must be a multiple of the 8 devices, got 12" in text
    assert smoke("latent.vae", tmp_path)["steps"] == 2


def test_devices_do_not_matter(run, tmp_path):
    with process("experiments.latent.vae", "smoke", "--device-count", "2", "--workdir", str(tmp_path)) as two:
        out, err = two.communicate()
    assert two.returncode == 0, err
    assert "x 2" in out
    one = run("latent.vae")
    assert json.loads((tmp_path / "summary.json").read_text())["device"].endswith("x 2")
    assert json.loads((one / "summary.json").read_text())["device"].endswith("x 1")
    pairs = zip(*((d / "metrics.jsonl").read_text().splitlines() for d in (one, tmp_path)), strict=True)
    for here, there in ((json.loads(a), json.loads(b)) for a, b in pairs):
        assert (here["split"], here["step"]) == (there["split"], there["step"])
        np.testing.assert_allclose([*here["metrics"].values()], [*there["metrics"].values()], rtol=1e-5, atol=1e-5)


def _begin(directory: pathlib.Path) -> subprocess.Popen[str]:
    """A run that has written its first line of metrics."""
    arguments = ["smoke", "--num-steps", "3000", "--eval-every", "3000", "--device-count", "1"]
    begun = process("experiments.latent.vae", *arguments, "--workdir", str(directory))
    while begun.poll() is None and not (directory / "metrics.jsonl").exists():
        time.sleep(0.01)
    return begun


def test_signal_saves_and_the_same_command_finishes(tmp_path):
    with _begin(tmp_path) as stopped:
        stopped.send_signal(signal.SIGTERM)
        out, err = stopped.communicate()
    assert stopped.returncode == 0, err
    found = re.search(r"Stopped after step (\d+); the same command goes on", out)
    assert found, out
    step = int(found[1])
    assert 100 <= step < 3000
    assert not (tmp_path / "summary.json").exists()
    with _begin(tmp_path) as resumed:
        out, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert f"going on after step {step}" in err
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 3000
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_second_signal_exits_at_once(tmp_path):
    with _begin(tmp_path) as stopped:
        # Two numbers, for a second signal of the same number is lost while the first waits to be handled.
        stopped.send_signal(signal.SIGINT)
        stopped.send_signal(signal.SIGTERM)
        out, _ = stopped.communicate()
    assert stopped.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert "Stopped" not in out
