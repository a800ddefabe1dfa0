"""Terms of the course are defined before they are used."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
LESSONS = sorted(ROOT.glob("notebooks/[01]*.ipynb"))
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+(?:\|[^|]+\|[^|]*)?) \| (\d\d) \|$")
ROWS = [
    match.groups()
    for line in (ROOT / "docs" / "glossary.md").read_text("utf-8").splitlines()
    if (match := ROW.match(line))
]


def prose(path):
    """The paragraphs of a lesson, without those that point to another lesson, its first cell and its last."""
    texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    body = "\n\n".join(texts[1:]).split("## Where it stands")[0]
    body = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|<[^>]*>", " ", body, flags=re.DOTALL)
    return [
        each
        for each in re.split(r"\n\s*\n|(?<=[.:?!])\s", body)
        if not re.search(r"\]\(|[Ll]essons? [01]\d", each)
    ]


def pattern(term):
    stem = re.escape(term).replace(r"\ ", r"[\s-]+").replace("–", "[–-]")
    return re.compile(rf"(?<![\w-]){stem}(?:s|es)?(?![\w-])", re.IGNORECASE)


def test_there_are_terms():
    assert len(ROWS) > 40
    assert len({term for term, *_ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("term", "number"), [(term, number) for term, _, number in ROWS])
def test_a_term_is_bold_where_it_is_defined_and_used_nowhere_before(term, number):
    lesson = next(path for path in LESSONS if path.name.startswith(number))
    bold = re.findall(
        r"\*\*(.+?)\*\*", "\n".join(c.source for c in nbformat.read(lesson, as_version=4).cells)
    )
    assert any(pattern(term).search(each) for each in bold), f"{lesson.name} does not define {term}"
    for path in LESSONS[: LESSONS.index(lesson)]:
        used = [each for each in prose(path) if pattern(term).search(each)]
        assert not used, f"{path.name} uses {term!r}: {used[0]}"
