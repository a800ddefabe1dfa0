"""The table of decisions: its numbers are those of the stored files, and its commands are commands."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from hfnb.studies import decisions

ROOT = Path(__file__).parents[1]
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in decisions.table().splitlines()[2:]]


def stored(name):
    return json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def measured(have):
    return next(row[2] for row in ROWS if row[0] == have)


def test_errors_are_the_medians_of_five_seeds():
    rows = [row for row in stored("precision")["tuned"].values() if row["problem"] == "poisson"]
    errors = {row["method"]: sorted(row["errors"]) for row in rows}
    assert all(len(each) == 5 for each in errors.values())
    best = min((each for method, each in errors.items() if "ours" not in method), key=lambda each: each[2])
    text = measured("a differential equation")
    for low, _, middle, _, high in (errors["ours, Jacobian"], best):
        assert f" {middle:.1e} [{low:.0e}, {high:.0e}]" in text


def test_what_is_recommended_had_the_smallest_error():
    checked = 0
    for _, use, _, command in ROWS:
        if "precision" in command:
            problem = shlex.split(command.strip("`"))[-1]
            rows = [row for row in stored("precision")["tuned"].values() if row["problem"] == problem]
            best = min(rows, key=lambda row: np.median(row["errors"]))["method"]
            names = {"SOAP": "SOAP, cosine schedule", "`hessian_free`": "ours, products"}
            assert best == names.get(use.split(";")[0].split()[0], "ours, Jacobian")
            checked += 1
    assert checked == 5


def test_solved_starts_are_counted_at_the_loss_of_the_literature():
    rows = [row for row in stored("precision")["tuned"].values() if row["problem"] == "adding, 50 steps"]
    text = measured("a recurrent network that must remember 50 steps")
    shown = {"ours, products": "`hessian_free`", "SciPy L-BFGS-B": "SciPy L-BFGS-B"}
    for row in rows:
        if row["method"] in shown:
            assert len(row["errors"]) == 10
            solved = len([error for error in row["errors"] if error <= 0.002])
            assert f"{shown[row['method']]} {solved} of 10" in text


def test_reductions_are_those_of_runs_that_arrived():
    rows = [row for row in stored("communication")["tuned"].values() if row["race"] == "MNIST"]
    shown = {
        "local SGD": "with SGD",
        "synchronous Adam": "Adam",
        "local solves": 'solves="local")`',
        "local Hessian-free": "with Hessian-free",
    }
    for row in rows:
        if row["method"] in shown:
            assert all(run["reached"] for run in row["runs"])
            middle = sorted(run["reductions"] for run in row["runs"])[1]
            assert f"{shown[row['method']]} {middle}" in measured("machines on a slow network")


PARSE = """
import json, sys
from bench.__main__ import BENCHMARKS, command_line
for command in json.loads(sys.argv[1]):
    options = command_line().parse_args(command)
    assert options.names and set(options.names) <= set(BENCHMARKS), command
"""


def test_commands_are_understood():
    commands = [shlex.split(row[3].strip("`")) for row in ROWS]
    assert all(command[:3] == ["python", "-m", "bench"] for command in commands)
    given = json.dumps([command[3:] for command in commands])
    subprocess.run([sys.executable, "-c", PARSE, given], cwd=ROOT, check=True)


def test_the_lesson_shows_the_table_as_it_is_now():
    cells = json.loads((ROOT / "notebooks" / "13_fit_to_high_precision.ipynb").read_text("utf-8"))["cells"]
    shown = next(cell for cell in cells if "decisions.table()" in "".join(cell["source"]))
    assert "".join(shown["outputs"][0]["data"]["text/markdown"]) == decisions.table()
