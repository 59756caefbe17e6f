"""The rules that every file of the house keeps; each rule returns its offenders, so that a failure lists them all."""

import ast
import collections
import functools
import io
import pathlib
import re
import subprocess
import tokenize
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FAMILIES = ("adversarial", "autoregressive", "classical", "diffusion", "energy", "flows", "latent")
LAYERS = (
    {"_types", "random", "linen", "_checks"},
    {"math"},
    {"nets"},
    {"model", "sampler"},
    {"samplers"},
    {"learners"},
    {*FAMILIES, "metrics", "data"},
    {"checkpoints", "devices", "interruption", "train"},
)
MAX_FILE, MAX_FUNCTION = 300, 30
WITH_INIT = ("linen", "network", "optimizer", "model", "inner", "sampler", "kernel", "walk", "prior", "posterior")
"""What may be called by `.init(`: contracts, laws and optimizers, not Linen modules."""
MOVING = {"jgen.samplers.annealed_importance"}
"""Samplers without a law that they keep, which is what a case states: their target moves with every step."""


def modules(*packages: str) -> dict[str, pathlib.Path]:
    """{"jgen.latent.vae": its file} of whole packages."""
    files = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(_parts(path)): path for path in files}


def _parts(path: pathlib.Path) -> tuple[str, ...]:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text("utf-8"), str(path))


def where(path: pathlib.Path, line: int) -> str:
    """FILE:LINE."""
    return f"{path.relative_to(ROOT)}:{line}"


def report(rule: str, offenders: list[str]) -> None:
    """Fails with every offender on a line of its own."""
    if offenders:
        pytest.fail(f"{rule} ({len(offenders)}):\n  " + "\n  ".join(offenders), pytrace=False)


# Imports


def imports(syntax: ast.AST, known: Any) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of a known module, wherever it stands in the file."""
    for node in ast.walk(syntax):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module in known:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in known else node.module


def layer(module: str) -> int:
    """The number of a module's layer; a module may import what has a smaller one, or its own."""
    package, _, rest = module.partition(".")
    if package != "jgen" or not rest:
        return len(LAYERS) + (package != "jgen")  # jgen itself only gathers; experiments and tests come after it
    first = rest.split(".")[0]
    found = [i for i, names in enumerate(LAYERS) if first in names]
    assert found, f"jgen.{first} has no layer: give it one in LAYERS"
    return found[0]


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """The modules of some cycle, or None."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        found = next((f for other in sorted(graph[node]) if (f := visit(other, [*path, node]))), None)
        done.add(node)
        return found

    return next((found for node in sorted(graph) if (found := visit(node, []))), None)


def test_import_order():
    known = modules("jgen", "experiments")
    offenders = [
        f"{where(path, line)}: {module} imports {other}"
        for module, path in known.items()
        for line, other in imports(tree(path), known)
        if layer(other) > layer(module)
    ]
    report("imports against the order of the house", offenders)


def test_no_import_cycles():
    known = modules("jgen", "experiments")
    graph = {module: {other for _, other in imports(tree(path), known)} for module, path in known.items()}
    found = cycle(graph)
    report("import cycle", [] if found is None else [" -> ".join(found)])


def test_the_import_rules_catch_what_they_forbid():
    assert layer("jgen.math.densities") < layer("jgen.learners.em") < layer("jgen.latent.vae") < layer("jgen.train")
    assert layer("jgen.train") < layer("jgen") < layer("experiments.runner")
    known = {"jgen", "jgen.train", "jgen.latent"}
    found = imports(ast.parse("def f():\n    from jgen import train, Model\nimport jgen.latent"), known)
    assert sorted(found) == [(2, "jgen"), (2, "jgen.train"), (3, "jgen.latent")]
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


# Sizes and docstrings


def body_lines(function: Any) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_files_are_short():
    sizes = {path: len(path.read_text("utf-8").splitlines()) for path in modules("jgen", "experiments").values()}
    offenders = [f"{path.relative_to(ROOT)}: {size}" for path, size in sizes.items() if size > MAX_FILE]
    report(f"files of more than {MAX_FILE} lines", offenders)


def test_functions_are_short():
    offenders = [
        f"{where(path, node.lineno)} {node.name}: {body_lines(node)}"
        for path in modules("jgen", "experiments").values()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and body_lines(node) > MAX_FUNCTION
    ]
    report(f"functions whose body has more than {MAX_FUNCTION} lines", offenders)


def undocumented(syntax: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of public modules, classes, functions and methods without a docstring.

    Methods of a class with bases may have those of the base.
    """
    if ast.get_docstring(syntax) is None:
        yield 1, "module"
    for node in syntax.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        inner = node.body if isinstance(node, ast.ClassDef) and not node.bases else []
        for item in (node, *(n for n in inner if isinstance(n, ast.FunctionDef) and not n.name.startswith("_"))):
            if ast.get_docstring(item) is None:
                yield item.lineno, item.name


def test_public_names_have_docstrings():
    offenders = [
        f"{where(path, line)} {name}" for path in modules("jgen").values() for line, name in undocumented(tree(path))
    ]
    report("public names without a docstring", offenders)


def test_the_size_rules_catch_what_they_forbid():
    source = (
        '"""M."""\ndef f():\n    """D\n    d."""\n    a\n    b\nclass C:\n    def g(self): ...\n    def _h(self): ...\n'
    )
    assert body_lines(ast.parse(source).body[1]) == 2
    assert [name for _, name in undocumented(ast.parse(source))] == ["C", "g"]


# What is said and how


def linen_calls(syntax: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, call) of Linen modules' init and apply that do not go through jgen.linen."""
    for node in ast.walk(syntax):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name = re.split(r"[.\[(]", ast.unparse(node.func.value))[
            -1 if isinstance(node.func.value, ast.Attribute) else 0
        ]
        applied = node.func.attr in ("apply", "init_with_output", "bind", "lazy_init") and name != "linen"
        if applied or (node.func.attr == "init" and name not in WITH_INIT):
            yield node.lineno, f"{ast.unparse(node.func)}(...)"


def test_only_linen_calls_modules():
    offenders = [
        f"{where(path, line)} {call}"
        for name, path in modules("jgen", "experiments").items()
        if name != "jgen.linen"
        for line, call in linen_calls(tree(path))
    ]
    report(f"Linen modules not called through jgen.linen (`.init(` is for {', '.join(WITH_INIT)})", offenders)


def test_no_names_that_say_nothing():
    bad = re.compile(r"_?(utils?|commons?|base|bases|helpers?|misc)")
    paths = [path.relative_to(ROOT) for path in modules("jgen", "experiments", "tests").values()]
    report("names that say nothing", [str(p) for p in paths if any(bad.fullmatch(x) for x in p.with_suffix("").parts)])


BARE = re.compile(r"#\s*(type:\s*ignore(?!\[)|pyright:\s*ignore(?!\[)|(ruff:\s*)?noqa(?!:\s*[A-Z]+\d+))")


def bare_suppressions(source: str) -> Iterator[tuple[int, str]]:
    """(line, comment) of suppressions that do not name what they suppress."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and BARE.search(token.string):
            yield token.start[0], token.string


def test_no_bare_suppressions():
    offenders = [
        f"{where(path, line)} {comment}"
        for path in modules("jgen", "experiments", "tests").values()
        for line, comment in bare_suppressions(path.read_text("utf-8"))
    ]
    report("suppressions without a rule", offenders)


def forbidden(syntax: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of old keys, and of errors that only say that something was left out."""
    for node in ast.walk(syntax):
        imported = isinstance(node, ast.ImportFrom) and "PRNGKey" in [alias.name for alias in node.names]
        if imported or (isinstance(node, ast.Attribute) and node.attr == "PRNGKey"):
            yield getattr(node, "lineno", 0), "PRNGKey"
        elif isinstance(node, ast.Raise) and node.exc and ast.unparse(node.exc).startswith("NotImplementedError"):
            yield node.lineno, "NotImplementedError"


def test_keys_are_typed_and_nothing_is_left_out():
    offenders = [
        f"{where(path, line)} {name}"
        for path in modules("jgen", "experiments", "tests").values()
        for line, name in forbidden(tree(path))
    ]
    report("forbidden names", offenders)


def test_the_rules_of_speech_catch_what_they_forbid():
    source = "linen.apply(m, p)\nmodule.apply(p)\nself.net.init(key)\noptimizers[0].init(p)\nplayer.optimizer.init(p)\n"
    assert [line for line, _ in linen_calls(ast.parse(source))] == [2, 3, 4]
    source = "a = 1  # type: ignore\nb = 1  # type: ignore[x]\nc = '# noqa'  # noqa\nd = 1  # noqa: E501\n"
    assert [line for line, _ in bare_suppressions(source)] == [1, 3]
    source = "from jax.random import PRNGKey\nk = jax.random.PRNGKey(0)\nraise NotImplementedError\n"
    assert sorted(line for line, _ in forbidden(ast.parse(source))) == [1, 2, 3]


# The tree as a whole


def test_nothing_names_a_machine():
    places = ["/" + "work/", ".." + "/shared", "/tmp" + "/jgen", "/" + "root/"]
    offenders = []
    for path in _kept_files():
        try:
            lines = path.read_text("utf-8").splitlines()
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        found = ((number, place) for number, line in enumerate(lines, 1) for place in places if place in line)
        offenders += [f"{where(path, number)} {place}" for number, place in found]
    report("places on one machine", offenders)


def _kept_files() -> list[pathlib.Path]:
    """What Git keeps or would keep; every file where this is no repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        return [path for top in ("jgen", "experiments", "tests") for path in (ROOT / top).rglob("*.py")]
    return [ROOT / name for name in listed if name]


def constructors() -> dict[str, str]:
    """{"jgen.latent.vae": "model"} of every file of a family, or of samplers, that has a public constructor."""
    found = {}
    for package, word in (*((family, "model") for family in FAMILIES), ("samplers", "sampler")):
        for name, path in modules(f"jgen/{package}").items():
            if any(isinstance(node, ast.FunctionDef) and node.name == word for node in tree(path).body):
                found[name] = word
    return found


def test_every_model_and_sampler_has_a_case():
    cases = tree(ROOT / "tests" / "cases.py")
    called = collections.defaultdict(set)
    for node in ast.walk(cases):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called[node.value.id].add(node.attr)
    imported = {name for _, name in imports(cases, modules("jgen"))}
    offenders = [
        f"{name}.{word}"
        for name, word in constructors().items()
        if name not in MOVING and (name not in imported or word not in called[name.split(".")[-1]])
    ]
    report("models and samplers without a case in tests/cases.py", offenders)


def test_every_model_has_an_experiment():
    known = modules("jgen")
    used = {name for path in modules("experiments").values() for _, name in imports(tree(path), known)}
    report(
        "models that no experiment uses", [n for n, word in constructors().items() if word == "model" and n not in used]
    )


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    missing = [
        name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE") if not (ROOT / name).exists()
    ]
    report("files that are missing", missing)
    heading = re.search(r"^## \[?v?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert heading, "CHANGELOG.md has no heading of a version, such as `## 0.1.0`"
    assert heading[1] == project["version"], "the newest version of CHANGELOG.md is that of pyproject.toml"
    readme = (ROOT / "README.md").read_text("utf-8")
    assert project["requires-python"].removeprefix(">=") in readme, "README.md names the oldest Python"
    named = set(re.findall(r"jgen[ =]+v?(\d+\.\d+\.\d+)", readme))
    assert named <= {project["version"]}, "README.md names no other version of jgen"
