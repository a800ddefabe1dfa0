"""Terms of the course are defined before they are used, and each has a row in the glossary."""

import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
LESSONS = sorted(ROOT.glob("notebooks/[01A]*.ipynb"))  # the appendices A1 and A2 sort last
NUMBERS = [path.name[:2] for path in LESSONS]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text("utf-8")
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+(?:\|[^|]+\|[^|]*)?) \| (\d\d|A\d) \|$")
ROWS = [match.groups() for line in GLOSSARY.splitlines() if (match := ROW.match(line))]
# A row may hold several forms of its term: "conjugate gradients, CG".
FORMS = {form: number for terms, _, number in ROWS for form in terms.split(", ")}

# Bold that is no term: sentences (questions, "Predict.", titles of exercises), the three run-in headings of
# the first cell, and the first words of an item of a list.
NO_TERM = re.compile(r".*[.?!]|What you'll (?:do|learn|need)", re.DOTALL)
ITEM = re.compile(r"^\s*[-*] \*\*.+?\*\*", re.MULTILINE)
# Bold that stresses a word or a statement, by lesson.
STRESSED = {
    ("02", "one negative Ritz value proves that $B$ has a negative eigenvalue"),
    ("07", "second"),
    ("08", "data travel once"),
    ("12", "five"),
    ("15", "a loss must be the mean over the rows it is given"),
    ("15", "sum"),
}

# Terms that also are words of everyday English (or, as with "cell", of notebooks): lessons before the one
# that defines the term may use the word.
EVERYDAY = {"cell", "factor", "flip", "pass", "round", "setting", "state"}


@cache
def markdown(path):
    """The Markdown cells of a lesson."""
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


@cache
def prose(path):
    """The paragraphs of a lesson, without those that point to another lesson, its first cell and its last."""
    body = "\n\n".join(markdown(path)[1:]).split("## Where it stands")[0]
    body = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|<[^>]*>", " ", body, flags=re.DOTALL)
    return [
        each
        for each in re.split(r"\n\s*\n|(?<=[.:?!])\s", body)
        if not re.search(r"\]\(|[Ll]essons? (?:[01]\d|A\d)", each)
    ]


@cache
def pattern(term):
    stem = re.escape(term).replace(r"\ ", r"[\s-]+").replace("–", "[–-]")
    return re.compile(rf"(?<![\w-]){stem}(?:s|es)?(?![\w-])", re.IGNORECASE)


def bold(path):
    """The words in bold of a lesson, without code and without the first words of items."""
    text = re.sub(r"<pre>.*?</pre>|```.*?```|`[^`]*`", " ", "\n\n".join(markdown(path)), flags=re.DOTALL)
    return re.findall(r"\*\*(.+?)\*\*", ITEM.sub(" ", text), flags=re.DOTALL)


@cache
def terms(path):
    """The words in bold of a lesson that are terms."""
    return [
        each for each in bold(path) if not NO_TERM.fullmatch(each) and (path.name[:2], each) not in STRESSED
    ]


def uses(term, path):
    """The sentences of a lesson with a term, where it is no part of a longer one ("negative curvature")."""
    longer = [pattern(other) for other in FORMS if other != term and pattern(term).search(other)]
    found = []
    for each in prose(path):
        rest = each
        for other in longer:
            rest = other.sub(" ", rest)
        if pattern(term).search(rest):
            found.append(each)
    return found


def test_there_are_terms():
    assert len(ROWS) > 100
    assert len(FORMS) == sum(len(row.split(", ")) for row, *_ in ROWS), "a term has two rows"


def test_rows_are_in_the_order_of_the_lessons():
    numbers = [number for *_, number in ROWS]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(("row", "number"), [(row, number) for row, _, number in ROWS])
def test_a_term_is_bold_where_it_is_defined_and_used_nowhere_before(row, number):
    lesson = LESSONS[NUMBERS.index(number)]
    forms = row.split(", ")
    defined = any(pattern(form).search(each) for form in forms for each in terms(lesson))
    assert defined, f"{lesson.name} does not define {row}"
    for form in forms:
        for path in LESSONS[: LESSONS.index(lesson)]:
            if form not in EVERYDAY:
                used = uses(form, path)
                assert not used, f"{path.name} uses {form!r}: {used[0]}"


@pytest.mark.parametrize("path", LESSONS, ids=NUMBERS)
def test_a_term_in_bold_has_a_row(path):
    for each in terms(path):
        rows = [number for form, number in FORMS.items() if pattern(form).fullmatch(each)]
        assert rows, f"docs/glossary.md has no row for {each!r} of {path.name}"
        assert min(rows) <= path.name[:2], f"{path.name} defines {each!r}, docs/glossary.md says {rows}"


def test_symbols_used_twice():
    rows = dict(re.findall(r"^\| \$(\w)\$ \| (.+) \|$", GLOSSARY, re.MULTILINE))
    texts = {path.name[:2]: "\n".join(markdown(path)) for path in LESSONS}
    named = {symbol: set(re.findall(r"\b(?:[01]\d|A\d)\b", row)) for symbol, row in rows.items()}

    assert "number of parameters" in rows["p"]
    assert "search direction" in rows["p"]
    assert named["p"] == {number for number, text in texts.items() if re.search(r"\bB ?p\b", text)}

    assert "residual $-g - Bs$" in rows["r"]
    assert named["r"] == {number for number, text in texts.items() if "$r = Jw - y$" in text}

    assert "value $F(w)$" in rows["f"]
    plane = {number for number, text in texts.items() if "f(x, y) =" in text}
    value = {number for number, text in texts.items() if "`f` is $F(w)$" in text}
    side = {number for number, text in texts.items() if "u'' = f" in text}
    assert named["f"] == plane | value | side
