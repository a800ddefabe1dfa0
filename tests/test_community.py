"""The recipes of CONTRIBUTING.md run, and the files around the project name what exists."""

import re
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest
import test_krylov
import yaml

from hfnb import Dataset, Objective, hessian_free, models
from hfnb.krylov import SOLVERS, Status
from hfnb.problems import SPECTRA, linear_system

ROOT = Path(__file__).parent.parent
RECIPES = re.findall(
    r"^```python\n(.*?)^```$",
    (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE | re.DOTALL,
)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """What the recipes define; they write to an empty folder."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for each in RECIPES:
        exec(compile(each, "CONTRIBUTING.md", "exec"), found)
    return found


def test_a_data_set_of_the_recipe_reads_a_table_or_says_what_is_missing(made, tmp_path):
    rows = np.arange(30.0).reshape(10, 3)
    with pytest.raises(FileNotFoundError, match=r"folder: expected a folder with table\.csv"):
        made["table"](tmp_path)
    np.savetxt(tmp_path / "table.csv", rows, delimiter=",")
    train, test = made["table"](tmp_path)
    np.testing.assert_array_equal(train.X, rows[:8, :2])
    np.testing.assert_array_equal(test.Y, rows[8:, 2:])


@pytest.fixture
def yours(monkeypatch):
    """The solver of the architecture page, in SOLVERS and in the tables of test_krylov as the recipe says."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    code = re.search(r"^## Add a solver$.*?^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    found = {}
    exec(compile(code[1], "architecture.md", "exec"), found)
    monkeypatch.setitem(SOLVERS, "yours", found["steepest_descent"])
    # It is too slow for the residuals of that file and may miss negative curvature: empty rows say so.
    for table in (test_krylov.FINDS, test_krylov.SOLVES, test_krylov.OWN):
        monkeypatch.setitem(table, "yours", set())
    return found["steepest_descent"]


def test_a_solver_of_the_recipe_passes_the_tests_of_every_solver(yours):
    for kind in SPECTRA:
        for dtype in (np.float64, np.float32):
            test_krylov.test_solver_on_class("yours", kind, dtype)
    test_krylov.test_models_residuals_and_best_iterate_are_what_they_say("yours")
    test_krylov.test_one_signature("yours")
    test_krylov.test_a_solver_takes_the_options_that_it_names_and_refuses_others("yours")
    test_krylov.test_indefinite_preconditioner("yours")
    test_krylov.test_operator_is_probed_for_symmetry_where_asked("yours")
    test_krylov.test_zero_right_hand_side("yours")
    test_krylov.test_callback_stops("yours")


def test_a_solver_of_the_recipe_ends_at_the_dense_solution(yours):
    A, b = linear_system("positive definite", 20)
    options = {"rtol": 1e-8, "progress": 0.0, "max_iter": 20_000}
    np.testing.assert_allclose(yours(A, b, **options).x, np.linalg.solve(A, b), rtol=1e-4, atol=1e-6)
    scales = np.logspace(-2, 2, 20)
    scaled, M = scales[:, None] * A * scales, np.diag(scales**-2.0)
    exact = np.linalg.solve(scaled, b)
    found = yours(scaled, b, M=M, **options)
    np.testing.assert_allclose(scales * found.x, scales * exact, rtol=1e-3, atol=1e-5)
    assert not yours(scaled, b, **options).success  # without M, so many iterations are too few


def test_a_solver_of_the_recipe_finds_negative_curvature(yours):
    A, _ = linear_system("indefinite", 20)
    eigenvalues, vectors = np.linalg.eigh(A)
    found = yours(A, vectors @ np.where(eigenvalues < 0, 1.0, 1e-3))
    assert found.status is Status.NON_POSITIVE_CURVATURE
    test_krylov.check_direction(found, A, found=True)


def test_hessian_free_finds_a_solver_of_the_recipe_by_its_name(yours):
    random = np.random.default_rng(0)
    data = Dataset(random.standard_normal((60, 4)), random.integers(0, 3, 60))
    net = models.mlp([4, 6, 3])
    named, given = (
        hessian_free(Objective(net, data), net.init(0, dtype=np.float64), solver=solver, max_iter=3)
        for solver in ("yours", yours)
    )
    np.testing.assert_array_equal(named.x, given.x)
    assert named.history[-1].loss < named.history[0].loss


def test_a_lesson_of_the_recipe_is_a_notebook_whose_solution_is_right(made, tmp_path, capsys):
    lesson = nbformat.read(tmp_path / "16_measure_a_slope.ipynb", as_version=4)
    nbformat.validate(lesson)
    solution = re.search(r"<pre>\n(.*)</pre>", lesson.cells[-1].source, re.DOTALL)[1]
    for answer in (lesson.cells[2].source, solution):
        defined = {}
        exec(answer, defined)
        exec(lesson.cells[3].source, defined)
    unfilled, solved = capsys.readouterr().out.splitlines()
    assert unfilled == "slope at 3: not yet. Yours is None, the right one is 6."
    assert solved == "slope at 3: right, 6."


def test_binder_has_what_conda_has():
    listed = [
        yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
        for name in ("environment.yml", ".binder/environment.yml")
    ]
    conda, binder = ([each for each in one["dependencies"] if isinstance(each, str)] for one in listed)
    assert set(conda) - set(binder) == {"python>=3.11"}
    assert set(binder) - set(conda) == {"python=3.12"}
    assert listed[0]["variables"] == listed[1]["variables"]


def test_binder_opens_the_first_lesson():
    printed = subprocess.check_output(
        ["bash", ROOT / ".binder" / "start", "printf", r"%s\n", "--port=1"], text=True
    )
    port, option = printed.splitlines()
    assert port == "--port=1"
    assert option in (ROOT / "tools" / "bootstrap.py").read_text(encoding="utf-8")  # as `make lab` has it
    name, _, address = option.partition("=")
    assert name == "--LabApp.default_url"
    assert (ROOT / address.removeprefix("/lab/tree/")).is_file()


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=lambda path: path.name)
def test_hosted_files_are_valid_and_call_what_exists(path):
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["name"]
    for script in re.findall(r"(?:tools|tests|\.ci)/[\w.]+", text):
        assert (ROOT / script).exists(), script


def test_scripts_can_be_started():
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    listed = subprocess.check_output(["git", "ls-files", "-s", ".binder", ".ci"], cwd=ROOT, text=True)
    modes = {line.split("\t")[1]: line.split()[0] for line in listed.splitlines()}
    assert {name for name, mode in modes.items() if mode == "100755"} == set(modes) - {
        ".binder/environment.yml"
    }


def test_the_version_is_the_same_everywhere():
    import hfnb

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == hfnb.__version__
    assert f"## {hfnb.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
