"""The page of tables that the web edition makes of the stored results."""

import json
from pathlib import Path

import numpy as np
import pytest
import result_tables

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("bench/results/*.json"))
SECTIONS = {part.partition("\n")[0]: part for part in result_tables.page().split("\n## ")[1:]}


def test_every_file_of_results_has_a_section():
    assert list(SECTIONS) == [path.stem for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_section_names_the_command_and_its_tables_are_whole(path):
    section = SECTIONS[path.stem]
    assert json.loads(path.read_text(encoding="utf-8"))["about"]["command"] in section
    tables = [block.splitlines() for block in section.split("\n\n") if block.startswith("| ")]
    for header, _, *rows in tables:
        assert rows
        assert {row.count("|") - row.count("\\|") for row in rows} == {header.count("|")}


def test_medians_are_those_of_the_stored_errors():
    tuned = json.loads((ROOT / "bench" / "results" / "precision.json").read_text(encoding="utf-8"))["tuned"]
    (poisson,) = (
        each for each in tuned.values() if (each["problem"], each["method"]) == ("poisson", "ours, Jacobian")
    )
    row = next(
        line for line in SECTIONS["precision"].splitlines() if line.startswith("| poisson | hfnb, Jacobian")
    )
    errors = poisson["errors"]
    assert f"{np.median(errors):.3g} [{np.min(errors):.3g}, {np.max(errors):.3g}]" in row


def test_numbers_are_short():
    assert [result_tables.cell(each) for each in (4801.2, 0.012345, float("inf"), None, 7)] == [
        "4,801",
        "0.0123",
        "inf",
        "",
        "7",
    ]
    assert result_tables.cell([1.0, 2.0, 3.0]) == "2 (1–3)"
