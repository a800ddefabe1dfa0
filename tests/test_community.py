"""The recipes of CONTRIBUTING.md run, and the files around the project name what exists."""

import re
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest
import yaml

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


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.yml")), ids=lambda path: path.name)
def test_hosted_files_are_valid_and_call_what_exists(path):
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["name"]
    for script in re.findall(r"(?:tools|tests|\.ci)/[\w.]+", text):
        assert (ROOT / script).exists(), script


def test_scripts_can_be_started():
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
