"""Every message on the page about troubleshooting is one that the code of engines can raise."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^\| `([^`]+)`", PAGE, flags=re.MULTILINE)
# The errors of these exist for programs that misuse an option, and say themselves what was expected.
ARGUMENTS = re.compile(r"^\{?[a-z_]+\}?: expected")

# Nobody sees the first one, in whose place the other engine's error is raised; Python words the second.
UNSEEN = {"another engine raised an exception", "module 'hfnb.engines' has no attribute {name}"}


def sentence(node):
    """The text of a string or f-string; what it fills in stands in braces."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            sentence(part) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
            for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return sentence(node.left) + sentence(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):  # such as f"…".rstrip()
        return sentence(node.func.value)
    return ""


def raised():
    """The texts of all errors that modules of engines raise."""
    found = []
    for path in sorted(ROOT.glob("hfnb/engines/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            made = node.exc if isinstance(node, ast.Raise) else node
            if isinstance(made, ast.Call) and ast.unparse(made.func).endswith(("Error", "Failure", "Lost")):
                found += [text for each in made.args if (text := sentence(each))]
    return found


def stands_in(message, text):
    """Whether a message of the page, in which … stands for anything, is a part of a text."""
    return re.search(".*".join(map(re.escape, message.split("…"))), text) is not None


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_can_raise_each_message(message):
    assert any(stands_in(message, text) for text in raised()), message


def test_every_error_of_engines_has_its_cure():
    own = {text for text in raised() if not ARGUMENTS.match(text) and len(text.split()) > 3} - UNSEEN
    assert not [text for text in own if not any(stands_in(message, text) for message in MESSAGES)]
