"""Answers of "Your turn" cells are printed beside the right ones; the solutions in the lessons are right."""

import contextlib
import html
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from file_kernels import FileKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from student_edition import without_solutions

from hfnb.studies.exercises import compare, grade


@pytest.mark.parametrize(
    ("yours", "right"),
    [(0.1 + 0.2, 0.3), ([1, 2], np.array([1.0, 2.0])), (np.float32(0.1), np.float32(0.1)), (0.0, 0.0)],
)
def test_a_right_answer(capsys, yours, right):
    compare("x", yours, right)
    assert capsys.readouterr().out.startswith("x: right, ")


@pytest.mark.parametrize(
    ("yours", "told"),
    [
        (None, "Yours is None, the right one is [1 2]."),
        ([1.0, 2.1], "Yours is [1 2.1], the right one is [1 2]."),
        (1.0, "Yours is 1.0, the right one is [1 2]."),
        (np.ones((2, 2)), "Yours is an array of shape (2, 2), the right one is [1 2]."),
        ([1.0, np.nan], "Yours is [1.0, nan], the right one is [1 2]."),
        ("a text", "Yours is 'a text', the right one is [1 2]."),
        (lambda: 1, "Yours is <function"),
    ],
)
def test_a_wrong_answer_stands_beside_the_right_one(capsys, yours, told):
    compare("x", yours, [1.0, 2.0], hint="Look at the sign.")
    out = capsys.readouterr().out
    assert out.startswith("x: not yet. " + told)
    assert out.rstrip().endswith("Look at the sign.")


def test_how_far_an_answer_may_be_off(capsys):
    compare("x", [1.0, 1000.5], [1.0, 1000.0], rtol=1e-3)
    compare("x", [1.0, 1000.5], [1.0, 1000.0], rtol=1e-4)
    right, wrong = capsys.readouterr().out.splitlines()
    assert "right, [1 1000]" in right
    assert "not yet. Yours is [1 1000.5]" in wrong
    with pytest.raises(ValueError, match="rtol: expected a number > 0"):
        compare("x", 1.0, 1.0, rtol=0.0)


LESSONS = sorted(Path(__file__).parent.parent.glob("notebooks/*.ipynb"))
WITH_EXERCISES = [path for path in LESSONS if '"your-turn"' in path.read_text(encoding="utf-8")]
SOLUTION = re.compile(r"<details><summary>Solution</summary>\s*<pre>(.*?)</pre>", re.DOTALL)


def exercises_of(notebook):
    """The places of "Your turn" cells, each with the cell that checks it and the solution after that."""
    for place, cell in enumerate(notebook.cells):
        if "your-turn" in cell.metadata.get("tags", []):
            check, text = notebook.cells[place + 1 : place + 3]
            yield place, check, SOLUTION.search(text.source)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_an_exercise_is_checked_and_solved(path):
    for _, check, solution in exercises_of(nbformat.read(path, as_version=4)):
        assert "exercises.compare(" in check.source
        assert any("not yet" in output.get("text", "") for output in check.outputs)
        assert solution


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda path: path.stem)
def test_solutions_are_right(path):
    notebook = nbformat.read(path, as_version=4)
    places = [(place, html.unescape(solution[1].strip())) for place, _, solution in exercises_of(notebook)]
    for place, solution in places:
        notebook.cells[place].source = solution
    with contextlib.chdir(path.parent):
        NotebookClient(notebook, timeout=300, kernel_manager_class=FileKernelManager).execute()
    for place, _ in places:
        told = "".join(output.get("text", "") for output in notebook.cells[place + 1].outputs)
        assert ": right, " in told
        assert "not yet" not in told


def test_a_graded_answer_raises_where_it_is_wrong(capsys):
    grade("x", 2.0, 2.0)
    compare("x", 2.0, 2.0)
    one, other = capsys.readouterr().out.splitlines()
    assert one == other
    with pytest.raises(AssertionError, match=r"x: not yet. Yours is None, the right one is 2. Count again."):
        grade("x", None, 2.0, hint="Count again.")


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_student_edition_has_no_solution_and_no_output(path):
    lesson = nbformat.read(path, as_version=4)
    student = without_solutions(lesson, nbgrader=True)
    text = "\n".join(cell.source for cell in student.cells)
    assert "<summary>Solution" not in text
    assert not any(cell.get("outputs") for cell in student.cells)
    hidden = [c.source for c in lesson.cells if c.metadata.get("jupyter", {}).get("source_hidden")]
    assert not [source for source in hidden if source in text]
    marked = [cell.metadata["nbgrader"] for cell in student.cells if "nbgrader" in cell.metadata]
    assert sum(each["solution"] for each in marked) == sum(each["grade"] for each in marked)
    assert len({each["grade_id"] for each in marked}) == len(marked)
    assert sum(each["solution"] for each in marked) == len(list(exercises_of(lesson)))
    assert nbformat.read(path, as_version=4) == lesson
    nbformat.validate(student)


def test_a_graded_lesson_stops_at_an_exercise_until_it_is_solved(tmp_path):
    lesson = nbformat.v4.new_notebook()
    for source in ("from hfnb.studies import exercises", "x = None", 'exercises.compare("x", x, 2.0)'):
        lesson.cells.append(nbformat.v4.new_code_cell(source))
    lesson.cells[1].metadata["tags"] = ["your-turn"]
    student = without_solutions(lesson, nbgrader=True)
    with pytest.raises(CellExecutionError, match="x: not yet"):
        NotebookClient(student, kernel_manager_class=FileKernelManager).execute(cwd=tmp_path)
    student.cells[1].source = "x = 2.0"
    NotebookClient(student, kernel_manager_class=FileKernelManager).execute(cwd=tmp_path)
    assert student.cells[2].outputs[0].text.startswith("x: right")
