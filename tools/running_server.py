"""What the tests and `first_figure.py` ask of a JupyterLab that they have started."""

import json
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import nbformat

TOKEN = "secret"


def address(runtime):
    """The server's address, from the file in which it tells it; None as long as it does not answer there.

    Jupyter writes that file before it listens, so the file alone does not mean that a request is answered.
    """
    for path in Path(runtime).glob("jpserver-*.json"):
        with suppress(OSError, ValueError):
            url = json.loads(path.read_text())["url"]
            return url if ask(url, "api") else None
    return None


def ask(url, path, body=None, method=None):
    """The answer to a request, read as JSON; None if it is empty."""
    headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or "null")


def kernel_is_idle(url):
    """Whether the notebook's kernel is there and waits: Run All before that asks which kernel to take."""
    return any(session["kernel"]["execution_state"] == "idle" for session in ask(url, "api/sessions"))


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def wait_until(condition, seconds, what):
    """Poll until the condition holds, and return what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.2)
    return found
