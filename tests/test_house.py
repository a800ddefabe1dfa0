"""Rules of the source tree: imports run downward, files stay readable, nothing names a machine."""

import ast
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hfnb

ROOT = Path(__file__).parent.parent
MODULES = sorted(ROOT.glob("hfnb/**/*.py"))
SOURCES = MODULES + sorted(ROOT.glob("tools/*.py")) + sorted(ROOT.glob("bench/**/*.py"))
LONGEST_MODULE, LONGEST_FUNCTION = 400, 60

# The folders and root modules of hfnb from the lowest to the highest: each imports only those before it.
LAYERS = ["validation", "progress_bars", "threads", "krylov", "datasets", "checks", "models", "objectives"]
LAYERS += ["problems", "optimizers", "plots", "engines", "studies"]

# Names of peers that are not installed where the tests run, and are not called as their package is.
BRINGS = {"curvlinops": "curvlinops-for-pytorch", "torchmin": "pytorch-minimize"}


ROOT_MODULES = {"__init__.py", "checks.py", "plots.py", "progress_bars.py", "threads.py", "validation.py"}


def name(path):
    return str(path.relative_to(ROOT))


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def layer(path):
    return path.relative_to(ROOT / "hfnb").parts[0].removesuffix(".py")


def absolute(node):
    """The names in an import statement that is not relative."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []


def imports(path):
    """The dotted names that a module of hfnb imports from hfnb, each as a tuple of parts below the root."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            names = [(*base, alias.name) for alias in node.names]
        else:
            continue
        yield from (found[1:] for found in names if found[0] == "hfnb")


@pytest.mark.parametrize("path", [path for path in MODULES if layer(path) != "__init__"], ids=name)
def test_imports_run_downward(path):
    allowed = LAYERS[: LAYERS.index(layer(path)) + 1]
    above = [".".join(found) for found in imports(path) if not found or found[0] not in allowed]
    assert not above, f"{layer(path)} may import {', '.join(allowed)} only, not {', '.join(above)}"


def test_root_holds_only_what_belongs_to_no_folder():
    assert {path.name for path in ROOT.glob("hfnb/*.py")} == ROOT_MODULES


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=" ".join)
def test_style(check):
    """Found here, a line that is too long does not wait for the checks that run before a change is kept."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *check, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert not done.returncode, done.stdout + done.stderr


def test_no_cycles():
    """Modules can be put in an order in which each comes after all that it imports."""
    by_name = {path.relative_to(ROOT / "hfnb").with_suffix("").parts: path for path in MODULES}
    waiting = {
        path: {by_name[found[:n]] for found in imports(path) for n in (1, 2, 3) if found[:n] in by_name}
        for path in MODULES
    }
    while ready := [path for path, wanted in waiting.items() if not wanted & waiting.keys()]:
        for path in ready:
            del waiting[path]
    assert not waiting, f"these import each other: {sorted(name(path) for path in waiting)}"


@pytest.fixture(scope="module")
def packages():
    """The packages that bring each name that can be imported here; those declared; with the benchmarks'."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = sum(project["optional-dependencies"].values(), project["dependencies"])
    peers = (ROOT / "bench" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    declared, for_bench = (
        {canonicalize_name(Requirement(line).name) for line in each if not line.startswith("#")}
        for each in (lines, peers)
    )
    return packages_distributions(), declared, declared | for_bench


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_what_pyproject_names(path, packages):
    """A package that only comes along with another one may stay away tomorrow."""
    brought, ours_alone, with_peers = packages
    declared = with_peers if path.parent == ROOT / "bench" else ours_alone
    ours = {"hfnb", "bench", *(source.stem for source in SOURCES)}
    tops = {found.split(".")[0] for node in ast.walk(tree(path)) for found in absolute(node)}
    for top in tops - ours - sys.stdlib_module_names:
        providers = {canonicalize_name(each) for each in brought.get(top, [BRINGS.get(top, top)])}
        assert providers & declared, f"{top} (of {providers}) is no dependency that is declared"


LIGHT = """
import sys
import hfnb
assert not sys.modules.keys() & {"autograd", "ipyparallel", "matplotlib", "numpy", "scipy"}
hfnb.Objective
assert not sys.modules.keys() & {"ipyparallel", "matplotlib"}
import hfnb.engines.worker, hfnb.optimizers  # what an engine imports; scipy.stats would take it half a second
assert not sys.modules.keys() & {"matplotlib", "scipy.stats"}
assert {getattr(hfnb, name).__name__.split(".")[-1] for name in hfnb.__all__} == set(hfnb.__all__)
"""


def test_what_is_not_used_is_not_imported():
    subprocess.run([sys.executable, "-c", LIGHT], check=True, cwd=ROOT)


def length(function):
    """Lines of a function's body besides its docstring; the signature, a line an argument, does not count."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def docstring_lines(source):
    """Lines of all docstrings in a module: reference pages, which do not make its code longer to read."""
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    documented = [each for each in ast.walk(source) if isinstance(each, kinds) and ast.get_docstring(each)]
    return sum(each.body[0].end_lineno - each.body[0].lineno + 1 for each in documented)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_fits_on_a_screen(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) - docstring_lines(tree(path)) <= LONGEST_MODULE
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
    assert not [f"{node.name}: {length(node)}" for node in functions if length(node) > LONGEST_FUNCTION]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_shows_no_window_and_names_no_machine(path):
    for node in ast.walk(tree(path)):
        assert not (isinstance(node, ast.Attribute) and node.attr == "show"), f"line {node.lineno}: show"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = re.search(r"(?<![\w.])/(?:home|root|Users|tmp|work|opt)/", node.value)
            assert not found, f"line {node.lineno}: {found}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/*.py")), ids=name)
def test_warnings_that_fail_a_test_are_of_a_named_kind(path):
    # The garbage collector finds what an earlier test left open: as a ResourceWarning in any later test.
    assert not re.search(
        r"""(filterwarnings|simplefilter)\(["']error["']\)""", path.read_text(encoding="utf-8")
    )


def test_the_examples_of_the_architecture_page_run():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4  # a solver, an optimizer, a loss, and its checks
    exec(compile("\n".join(blocks), "architecture.md", "exec"), {})


def test_the_architecture_page_names_files_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[a-z]+/)?[a-z_]+\.py)`", text)
    assert len(named) > 20
    assert not [each for each in named if not (ROOT / "hfnb" / each).is_file()]


PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("bench/*.md"),
    *ROOT.glob("notebooks/*.ipynb"),
]


@pytest.mark.parametrize("path", sorted(PAGES) + SOURCES, ids=name)
def test_names_in_text_exist(path):
    """Files of hfnb, and dotted names in backquotes, as docstrings and pages mention them."""
    text, missing = path.read_text(encoding="utf-8"), []
    for file in set(re.findall(r"\bhfnb(?:/[a-z_]+)+\.py\b", text)):
        missing += [] if (ROOT / file).is_file() else [file]
    for dotted in set(re.findall(r"`(hfnb(?:\.[A-Za-z_]+)+)`", text)):
        found, parts = hfnb, dotted.split(".")[1:]
        for number, part in enumerate(parts):
            if not hasattr(found, part):
                with suppress(ImportError):
                    import_module(".".join(["hfnb", *parts[: number + 1]]))
            if (found := getattr(found, part, None)) is None:
                missing.append(dotted)
                break
    assert not missing
