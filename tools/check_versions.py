"""Run the unit tests on every Python that this machine has, and once with the oldest dependencies admitted.

``python tools/check_versions.py [--only make|check] [pytest's arguments]``. Each Python from 3.11 on, except
the one that runs this program, gets an environment of its own: the oldest of them ``.venv-oldest``, with the
lowest versions that pyproject.toml names, any other one the versions of the lock, in ``.venv-3.13`` for
example. The environments are made at the same time; ``--only make`` does no more, and ``--only check`` runs
the tests in environments that are made already. The tests run in one environment after the other, as `make
test` runs them: those of engines start dozens of processes, and three suites at once would spend their time
waiting for each other. Tests of the repository itself (its tools, texts and style) are left out: each
environment has just been made by those tools.
"""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from environments import OLDEST, ROOT, python_of, say

NEWEST = 14  # the minor version of the newest Python that is looked for
EXTRAS = "all,test"
OF_THE_REPOSITORY = ("decisions", "docstrings", "house", "notebooks", "setup", "skips")  # tests/test_….py
WORKERS = 2 * (os.cpu_count() or 1)  # of pytest: half of the time, tests of engines wait for processes


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


def locked(python, name):
    """Make the environment ``name`` by the lock; return what that printed, None if it failed."""
    command = [python, str(ROOT / "tools" / "bootstrap.py"), "setup"]
    return printed(command, dict(os.environ, HFNB_VENV=name))


def oldest(python, name):
    """Make the environment ``name`` with the lowest versions; return what that printed, None if it failed."""
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    inside = str(python_of(folder))
    resolve = ["-m", "uv", "pip", "install", "--quiet", "--resolution", "lowest-direct"]
    steps = [
        [python, "-m", "venv", str(folder)],
        [inside, "-m", "pip", "install", "--quiet", "uv"],
        [inside, *resolve, "--python", inside, "--editable", f"{ROOT}[{EXTRAS}]"],
    ]
    said = [printed(step, dict(os.environ)) for step in steps]
    return None if None in said else "".join(said)


def printed(command, variables):
    """Return what a program printed; None, with the end of it on the screen, if it failed."""
    done = subprocess.run(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        say(f"{' '.join(command)} failed:\n{done.stdout[-20_000:]}")
        return None
    return done.stdout


def check(python, arguments):
    """Run the unit tests in an environment, given by its Python; return whether they passed."""
    folder = python.parent.parent
    variables = dict(os.environ, OPENBLAS_NUM_THREADS="1", MPLBACKEND="agg", HFNB_MODE="fast")
    variables |= {"HFNB_VENV": folder.name, "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]])}
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(WORKERS), "--dist", "loadscope"]
    tests += [f"--ignore=tests/test_{name}.py" for name in OF_THE_REPOSITORY]
    return subprocess.call([str(python), *tests, *arguments], cwd=ROOT, env=variables) == 0


def make(jobs):
    """Make the environments at the same time; return the names of those that failed."""
    say(f"making {', '.join(jobs)}")
    with ThreadPoolExecutor() as pool:
        made = dict(zip(jobs, pool.map(lambda name: jobs[name][0](jobs[name][1], name), jobs), strict=True))
    return [name for name in jobs if made[name] is None]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--only", choices=("make", "check"))
    (options, arguments), found = parser.parse_known_args(), interpreters()
    others = [number for number in sorted(found) if number != sys.version_info[:2]] or [min(found)]
    jobs = {f".venv-{major}.{minor}": (locked, found[major, minor]) for major, minor in others[1:]}
    jobs[".venv-oldest"] = oldest, found[others[0]]
    failed = [] if options.only == "check" else make(jobs)
    if options.only != "make":
        for name in jobs:
            if name not in failed:
                say(f"unit tests in {name}")
                failed += [] if check(python_of(ROOT / name), arguments) else [name]
    return f"hfnb: failed in {', '.join(failed)}" if failed else 0


if __name__ == "__main__":
    sys.exit(main())
