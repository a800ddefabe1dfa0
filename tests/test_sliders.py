"""The controls of a lesson draw at every place, also after all cells have run and have given names anew."""

import os
from pathlib import Path

import nbformat
import pytest
from file_kernels import FileKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
LESSONS = [
    path
    for path in sorted(ROOT.glob("notebooks/*.ipynb"))
    if "plots.sliders(" in path.read_text(encoding="utf-8")
]
KEEP = """
from hfnb import plots
views, sliders = [], plots.sliders
plots.sliders = lambda *arguments, **controls: views.append(sliders(*arguments, **controls)) or views[-1]
"""
# The function is called as a moved control calls it; ipywidgets would only print an error.
MOVE = """
def move(view):
    places = {control._kwarg: control.value for control in view.kwargs_widgets}
    for control in view.kwargs_widgets:
        if hasattr(control, "options"):
            ends = [each[1] if isinstance(each, tuple) else each for each in control.options]
        else:
            base = getattr(control, "base", None)  # of a logarithmic slider, which keeps exponents
            ends = [base**end if base else end for end in (control.min, control.max)]
        for end in ends:
            view.f(**places | {control._kwarg: end})

for view in views:
    move(view)
print(len(views), "sets of controls")
"""

pytestmark = pytest.mark.slow


def test_there_are_lessons_with_controls():
    assert len(LESSONS) == 4


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem[:2])
def test_controls_draw_after_all_cells_have_run(path, tmp_path):
    lesson = nbformat.read(path, as_version=4)
    cells = [nbformat.v4.new_code_cell(KEEP), *lesson.cells, nbformat.v4.new_code_cell(MOVE)]
    lesson.cells = cells
    client = NotebookClient(
        lesson,
        timeout=300,
        kernel_name="python3",
        kernel_manager_class=FileKernelManager,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env=dict(os.environ, HFNB_FIGURES=str(tmp_path), IPYTHONDIR=str(tmp_path / "ipython")))
    said = "".join(output.get("text", "") for output in lesson.cells[-1].outputs)
    assert int(said.split()[0]) == path.read_text(encoding="utf-8").count("plots.sliders(")
