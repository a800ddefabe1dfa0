"""Run the unit tests on every Python that this machine has, and once with the oldest dependencies admitted.

``python tools/check_versions.py [--oldest] [pytest's arguments]``. Each Python from 3.11 on, except the one
of ``.venv``, gets an environment of its own, ``.venv-3.12`` for example. ``--oldest`` installs the lowest
versions that pyproject.toml names into ``.venv-oldest`` instead, on the oldest of these Pythons.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from environments import OLDEST, ROOT, pip, python_of, say

NEWEST = 14  # the minor version of the newest Python that is looked for
EXTRAS = "test,speech"


def interpreters():
    """Return {(major, minor): path} of the Pythons that can make environments, from old to new.

    They are looked for on PATH, among the versions that pyenv keeps, and where this program itself runs. A
    name on PATH need not be a Python that works: pyenv puts one there for each version that it has, switched
    on or not.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = {}
    for minor in range(OLDEST[1], NEWEST + 1):
        name = f"python3.{minor}"
        kept = sorted(str(path) for path in pyenv.glob(f"3.{minor}.*/bin/{name}"))
        for candidate in [getattr(sys, "_base_executable", sys.executable), shutil.which(name), *kept]:
            if candidate and version(candidate) == (3, minor):
                found[3, minor] = candidate
                break
    return found


def version(python):
    """Return (major, minor) of an interpreter that can make environments, None for any other program."""
    code = "import ensurepip, sys, venv; print(*sys.version_info[:2])"
    try:
        asked = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return tuple(int(part) for part in asked.stdout.split()) if asked.returncode == 0 else None


def units(python, name, arguments):
    """Run the unit tests by ``make test``'s own way, in the environment ``name``; return the exit code."""
    command = [python, ROOT / "tools" / "bootstrap.py", "test", "--units", *arguments]
    return subprocess.call([str(part) for part in command], env=dict(os.environ, HFNB_VENV=name))


def oldest(python, arguments):
    """Run the unit tests with the lowest versions of what pyproject.toml names; return the exit code."""
    folder = ROOT / ".venv-oldest"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.check_call([python, "-m", "venv", str(folder)])
    installer = ROOT / ".venv-oldest" / "uv"
    venv.create(installer, with_pip=True)
    pip(installer, "uv, which finds the oldest versions", ["uv"])
    command = [python_of(installer), "-m", "uv", "pip", "install", "--quiet", "--python", python_of(folder)]
    command += ["--resolution", "lowest-direct", "--editable", f"{ROOT}[{EXTRAS}]"]
    subprocess.check_call([str(part) for part in command])
    variables = dict(os.environ, OPENBLAS_NUM_THREADS="1", MPLBACKEND="agg", HFNB_MODE="fast")
    variables["PATH"] = str(python_of(folder).parent) + os.pathsep + variables.get("PATH", "")
    tests = ["-m", "pytest", "-q", "-n", str(2 * (os.cpu_count() or 1)), "--dist", "loadscope", *arguments]
    return subprocess.call([str(python_of(folder)), *tests], cwd=ROOT, env=variables)


def main():
    arguments = sys.argv[1:]
    found = interpreters()
    if "--oldest" in arguments:
        arguments.remove("--oldest")
        minor = min(found)
        say(f"unit tests on Python {minor[0]}.{minor[1]} with the oldest dependencies")
        return oldest(found[minor], arguments)
    failed = 0
    for (major, minor), python in found.items():
        if (major, minor) == sys.version_info[:2]:
            continue
        say(f"unit tests on Python {major}.{minor}")
        failed = units(python, f".venv-{major}.{minor}", arguments) or failed
    return failed


if __name__ == "__main__":
    sys.exit(main())
