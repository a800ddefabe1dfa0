"""What the tests ask of a JupyterLab that they have started, and `first_figure.py` too."""

import json
import urllib.request
from contextlib import suppress
from pathlib import Path

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
