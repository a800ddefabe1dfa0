"""What every committed notebook keeps to; that its outputs are right is for nbval (`make test`)."""

import ast
import re
import socket
import statistics
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

PATHS = sorted(Path(__file__).parent.parent.glob("notebooks/*.ipynb"))
MACHINE = [r"/(?:home|root|Users|tmp|work|opt|var)/\w", r"\b[A-Z]:\\", r"\blocalhost\b", r"\b127\.0\.0\.1\b"]
CELL_METADATA = {"tags", "jupyter", "collapsed"}
UNCHECKED = "nbval-ignore-output"  # the tag of a cell whose output nbval does not compare
FLOAT = re.compile(r"(?<![\w.])[-+]?(\d[\d,]*\.\d*|\.\d+|\d+(?=e))(?:e[-+]?\d+)?", re.IGNORECASE)
DIGITS = 4


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def notebook(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(cell):
    return UNCHECKED in cell.metadata.get("tags", [])


def asserts(source):
    """Whether the code of a cell has an assert statement in it."""
    tree = ast.parse(TransformerManager().transform_cell(source))
    return any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def significant(number):
    """The significant digits of a number that was printed.

    >>> [significant(number) for number in ("0.050", "-12.30", "1,024.5", "1.", "2.5e-3")]
    [2, 4, 5, 1, 2]
    """
    return len(FLOAT.match(number)[1].replace(",", "").replace(".", "").lstrip("0"))


def texts(cell):
    """Every text among a cell's outputs; pictures are base64, in which anything can occur."""
    for output in cell.outputs:
        yield from (output.get("text", ""), output.get("evalue", ""), *output.get("traceback", []))
        for kind, content in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield str(content)


def test_valid_and_small(notebook, path):
    nbformat.validate(notebook)
    assert path.stat().st_size <= 1_000_000


def test_every_cell_was_executed_in_order(code):
    """nbval passes a cell without execution count unchecked."""
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_no_error_but_those_announced(code):
    for cell in code:
        failed = any(output.output_type == "error" for output in cell.outputs)
        assert failed == ("raises-exception" in cell.metadata.get("tags", [])), cell.source


def test_cells_can_be_read(code):
    lengths = [len(cell.source.splitlines()) for cell in code]
    assert 12 <= len(lengths) <= 30
    assert min(lengths) > 0
    assert max(lengths) <= 25
    assert statistics.median(lengths) <= 5


def test_no_semicolon_hides_a_result(code):
    """nbval executes without history, where IPython does not see the semicolon: the result would appear."""
    assert not [cell.source for cell in code if cell.source.rstrip().endswith(";")]


def test_prose_can_be_read(notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for code_or_formula in (r"```.*?```", r"\$\$.*?\$\$", r"\$.*?\$", r"<[^>]+>", r"\]\([^)]*\)"):
        prose = re.sub(code_or_formula, " ", prose, flags=re.DOTALL)
    assert 700 <= len(re.findall(r"[^\W_][\w'’-]*", prose)) <= 1500


def test_outputs_name_no_machine(code):
    host = socket.gethostname()
    patterns = MACHINE + ([rf"\b{re.escape(host)}\b"] if len(host) > 4 else [])
    for cell in code:
        for text in texts(cell):
            found = re.search("|".join(patterns), text)
            assert not found, f"{found} in the output of\n{cell.source}"


def test_figures_are_written_by_its_code(code):
    assert re.search(r"\bfigures\b|\bsavefig\b|plots\.save", "\n".join(cell.source for cell in code))


def test_saved_by_make_run(notebook):
    """``make run ARGS=--save`` drops what differs at every run: times, versions, widgets of a past kernel."""
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= CELL_METADATA
        for output in cell.get("outputs", []):
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def test_the_answer_to_a_prediction_is_folded(notebook):
    """Whoever opens the lesson predicts before seeing the saved result; running the cell unfolds it."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and "**Predict.**" in cell.source:
            code = (after for after in notebook.cells[number:] if after.cell_type == "code" and after.outputs)
            answer = next(code)
            assert answer.metadata.get("jupyter", {}).get("outputs_hidden"), answer.source


def test_a_cell_whose_output_is_not_compared_asserts(code):
    """What depends on rounding is shown, not compared; that it shows what the text says is asserted."""
    assert not [cell.source for cell in code if tagged(cell) and not asserts(cell.source)]


def test_most_outputs_are_compared(code):
    assert sum(map(tagged, code)) <= len(code) / 3


def test_no_more_digits_than_machines_agree_on(code):
    for cell in code:
        if not tagged(cell):
            found = [match[0] for text in texts(cell) for match in FLOAT.finditer(text)]
            assert not [number for number in found if significant(number) > DIGITS], cell.source
