"""The notebooks: they run from top to bottom, and what is committed is such a run, with its pictures."""

import json
import pathlib
import sys

import nbclient
import nbformat
import pytest
from conftest import CACHE

FOLDER = pathlib.Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 500_000
KERNEL = "jgen-tests"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel that runs this very Python, whatever Jupyter knows of others; its name."""
    directory = tmp_path / "kernels" / KERNEL
    directory.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": KERNEL, "language": "python"}
    (directory / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    return KERNEL


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _errors(notebook):
    return [output.ename for cell in _code(notebook) for output in cell.outputs if output.output_type == "error"]


def _pictures(notebook):
    outputs = [output for cell in _code(notebook) for output in cell.outputs]
    return [output for output in outputs if "image/png" in output.get("data", {})]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook_is_a_whole_run_with_pictures(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < LARGEST
    assert [cell.execution_count for cell in _code(notebook)] == list(range(1, len(_code(notebook)) + 1))
    assert not _errors(notebook)
    assert _pictures(notebook)
    assert "flax" not in "".join(cell.source for cell in _code(notebook)), "models are defined in jgen"


RUNS = [
    pytest.param(path, id=path.stem, marks=[] if path.stem == "quickstart" else [pytest.mark.slow])
    for path in NOTEBOOKS
]
"""The first notebook that a user opens runs by default, the others with `-m slow`: a minute or more each."""


@pytest.mark.parametrize("path", RUNS)
def test_notebook_runs(path, kernel):
    notebook = nbformat.read(path, as_version=4)
    committed = len(_pictures(notebook))
    resources = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name=kernel, resources=resources).execute()
    assert not _errors(notebook)
    assert len(_pictures(notebook)) == committed
