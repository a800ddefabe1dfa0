"""Write the lessons without their solutions to ``student/``: outputs and folded solutions are left out.

--nbgrader      mark "Your turn" cells and their checks for nbgrader; a wrong answer then raises an error
--folder PATH   write to another folder, beside ``notebooks/`` so that pictures and links are found
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent
SOLUTION = re.compile(r"\n*<details>\s*<summary>Solution</summary>.*?</details>", re.DOTALL)
PLACE = "# Write your solution here."
GRADED: dict[str, Any] = {"schema_version": 3, "task": False}  # https://nbgrader.readthedocs.io: its metadata


def mark(cell: Any, identity: str, *, check: bool) -> None:
    """Mark a cell for nbgrader: what the student writes, or a check that is worth a point."""
    points = {"points": 1} if check else {}
    found = {"grade": check, "solution": not check, "locked": check, "grade_id": identity}
    cell.metadata["nbgrader"] = GRADED | found | points


def without_solutions(notebook: Any, *, nbgrader: bool = False) -> Any:
    """Return a lesson for students.

    Parameters
    ----------
    notebook : NotebookNode
        Which stays as it is.
    nbgrader : bool
        Whether "Your turn" cells and their checks are marked, and checks raise an error.

    Returns
    -------
    NotebookNode
    """
    student = nbformat.from_dict(notebook)
    cells: list[Any] = []
    for place, cell in enumerate(notebook.cells):
        cell = nbformat.from_dict(cell)
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub("", cell.source).strip()
            if not cell.source:
                continue
        else:
            cell.outputs, cell.execution_count = [], None
            if cell.metadata.pop("jupyter", {}).get("source_hidden"):  # a solution that can be run
                cell.source = PLACE
        before = notebook.cells[place - 1].metadata.get("tags", []) if place else []
        if nbgrader and "your-turn" in tags:
            mark(cell, f"answer-{cell.id}", check=False)
        elif nbgrader and "your-turn" in before:
            mark(cell, f"check-{cell.id}", check=True)
            cell.source = cell.source.replace("exercises.compare(", "exercises.grade(")
        cells.append(cell)
    student.cells = cells
    return student


def main(arguments: list[str]) -> int:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(formatter_class=layout, description=__doc__)
    parser.add_argument("--nbgrader", action="store_true")
    parser.add_argument("--folder", type=Path, default=ROOT / "student", metavar="PATH")
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    lessons = sorted(ROOT.glob("notebooks/*.ipynb"))
    for path in lessons:
        student = without_solutions(nbformat.read(path, as_version=4), nbgrader=chosen.nbgrader)
        nbformat.write(student, chosen.folder / path.name)
    print(f"{len(lessons)} lessons without solutions are in {chosen.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
