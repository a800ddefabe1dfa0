"""Make a virtual environment from a lock file, once; standard library only, readable by every Python 3."""

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
STAMP, MARK = "hfnb.json", "hfnb.unfinished"  # in the environment: what it was made from; being made
LOCK = "requirements.lock"
WHEELS, MADE_FOR = "wheels", "made_for.txt"  # of a class room bundle, see classroom_bundle.py


def say(message):
    print(f"hfnb: {message}", flush=True)


def check_python():
    """End with one line where this Python cannot make the environment."""
    version = ".".join(str(part) for part in sys.version_info[:2])
    if sys.version_info < OLDEST:
        names = (f"python3.{minor}" for minor in range(20, 10, -1))
        newer = next((name for name in names if shutil.which(name)), None)
        hint = (
            f"say PYTHON={newer} after make" if newer else "install one and say PYTHON=python3.12 after make"
        )
        sys.exit(f"hfnb: needs Python 3.11 or newer, and this is {version} ({sys.executable}): {hint}")
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            f"hfnb: Python {version} lacks what makes environments; on Debian and Ubuntu: "
            f"sudo apt-get install python{version}-venv"
        )


def python_of(folder):
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def pip(folder, what, arguments, total=0):
    """Run pip quietly: a counter on a terminal, and all that pip said if it fails."""
    command = [str(python_of(folder)), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    variables = dict(os.environ, PYTHONUNBUFFERED="1", PIP_USER="0", PIP_QUIET="0")
    process = subprocess.Popen(
        command, cwd=str(ROOT), env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said, seen, began, terminal = [], 0, time.monotonic(), sys.stdout.isatty()
    for line in process.stdout or ():
        said.append(line)
        seen += line.startswith(("Collecting ", "Requirement already", "Ignoring "))
        if terminal:
            state = "unpacking" if line.startswith("Installing") else f"{seen} of {max(seen, total)}"
            print(f"\rhfnb: {what}: {state:<20}", end="", flush=True)
    if terminal:
        print("\r", end="")
    if process.wait():
        sys.exit("".join(said[-30:]) + f"hfnb: {what}: pip failed, its last words are above")
    say(f"{what}: done in {time.monotonic() - began:.0f} s")


def machine():
    """What wheels are made for: the minor version of Python, the system and the processor."""
    version = ".".join(str(part) for part in sys.version_info[:2])
    return f"Python {version} on {platform.system()} {platform.machine()}"


def offline_options(lock_name):
    """Return the options by which pip installs from the wheels of a class room bundle, none elsewhere.

    They are of requirements.lock only: other environments need a network in a bundle, too.
    """
    wheels = ROOT / WHEELS
    if lock_name != LOCK or not wheels.is_dir():
        return []
    mark = wheels / MADE_FOR
    made_for = mark.read_text().strip() if mark.exists() else machine()
    if made_for != machine():
        sys.exit(
            f"hfnb: the packages in {WHEELS}/ are for {made_for}, and this is {machine()}: "
            f"name such a Python by PYTHON= after make, or remove {WHEELS}/ where there is a network"
        )
    return ["--no-index", "--find-links", str(wheels)]


def read_stamp(folder):
    with contextlib.suppress(OSError, ValueError):
        return json.loads((folder / STAMP).read_text())
    return None


def is_sound(folder):
    """Whether an environment can be brought up to date; if not, it is made anew."""
    stamp = read_stamp(folder)
    if (folder / MARK).exists() or (stamp and stamp["folder"] != str(ROOT)):
        return False  # an install was cut off, or the checkout moved, and programs name their folder
    check = f"import pip, sys; sys.exit(sys.version_info < {OLDEST})"
    try:
        return subprocess.call([str(python_of(folder)), "-c", check], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def setup(name=None, lock_name=LOCK):
    """Make the environment, or bring it up to date if the lock or the project changed; return its folder.

    The folder is ``name`` in the checkout, by default what HFNB_VENV says, else ``.venv``. The stamp is
    removed first and written last: an install that was cut off starts again from nothing.
    """
    name = name or os.environ.get("HFNB_VENV") or ".venv"
    folder, requirements = ROOT / name, ROOT / lock_name
    depends_on = (requirements, ROOT / "pyproject.toml")
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in depends_on]
    wanted = {"folder": str(ROOT), "hashes": hashes}
    stamp, mark = folder / STAMP, folder / MARK
    if read_stamp(folder) == wanted and python_of(folder).exists():
        return folder
    offline = offline_options(lock_name)
    if not is_sound(folder):
        check_python()
        say(f"making {name} with {sys.executable}")
        if folder.exists():
            shutil.rmtree(str(folder))
        folder.mkdir()
        mark.touch()
        venv.create(str(folder), with_pip=True, symlinks=os.name != "nt")
    mark.touch()
    if stamp.exists():
        stamp.unlink()
    total = sum("==" in line for line in requirements.read_text().splitlines())
    pip(folder, f"{total} packages from {lock_name}", [*offline, "-r", str(requirements)], total)
    pip(folder, "hfnb itself", [*offline, "--no-deps", "-e", str(ROOT)])
    # The first import of matplotlib lists the fonts, and tells a notebook so if that takes long.
    fonts = "import matplotlib.font_manager"
    subprocess.call([str(python_of(folder)), "-c", fonts], stderr=subprocess.DEVNULL)
    stamp.write_text(json.dumps(wanted))
    mark.unlink()
    return folder


GPU = ("cuda-", "nvidia-", "triton")  # pip adds them where the PyTorch that it finds needs them


def write_lock(arguments):
    """Write the lock files anew, each for every system, naming no host and no folder."""
    check_python()
    options = "--universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate --quiet"
    wanted = (
        "--output-file requirements.lock --extra all --extra test pyproject.toml",
        "--output-file bench/requirements.lock --constraint requirements.lock bench/requirements.txt",
        "--output-file docs/requirements.lock --constraint requirements.lock docs/requirements.txt",
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        venv.create(str(folder), with_pip=True)
        pip(folder, "uv, which makes the lock", ["uv"])
        command = [str(python_of(folder)), "-m", "uv", "pip", "compile", *options.split()]
        failed = any(subprocess.call(command + each.split() + arguments, cwd=str(ROOT)) for each in wanted)
    lock = ROOT / "bench" / "requirements.lock"
    lines = lock.read_text().splitlines(keepends=True)
    lock.write_text("".join(line for line in lines if not line.startswith(GPU)))
    return failed
