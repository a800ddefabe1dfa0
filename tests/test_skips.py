"""A suite that cannot run here is skipped, and fails where CI=true."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

@pytest.mark.needs("hosts", {lacks!r})
def test_one():
    pass
"""


@pytest.mark.parametrize(
    ("lacks", "ci", "outcome"),
    [
        (None, "true", "1 passed"),
        ("root on Linux", "true", "1 error"),
        ("root on Linux", "", "1 skipped"),
        ("root on Linux", None, "1 skipped"),
    ],
)
def test_a_suite_that_cannot_run(lacks, ci, outcome, tmp_path):
    """The rule of this folder's conftest.py, in a folder of its own."""
    (tmp_path / "test_suite.py").write_text(SUITE.format(lacks=lacks))
    here = Path(__file__).parent
    (tmp_path / "conftest.py").write_text((here / "conftest.py").read_text())
    variables = {name: value for name, value in os.environ.items() if name != "CI"}
    variables["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent)])
    alone = ["-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *alone, str(tmp_path)],
        cwd=tmp_path,
        env=variables | ({} if ci is None else {"CI": ci}),
        capture_output=True,
        text=True,
    )
    assert outcome in done.stdout, done.stdout
    assert ("it needs root on Linux" in done.stdout) == (outcome == "1 error")
