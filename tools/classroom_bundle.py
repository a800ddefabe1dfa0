"""Write ``hfnb-classroom.tar``, from which the course is set up and runs without a network.

It holds the committed files, the wheels of all that ``.venv`` needs, which ``environments.py`` finds in
``wheels``, and MNIST, which ``hfnb.datasets.mnist`` finds in ``data/mnist``. The wheels are for the system
and the minor version of Python that this runs on. A tar archive keeps the modes of files.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from pathlib import Path

from environments import LOCK, MADE_FOR, ROOT, WHEELS, machine, say

ARCHIVE = ROOT / "hfnb-classroom.tar"
INSIDE = "hfnb-classroom"  # the folder that unpacking makes


def git(*arguments):
    """Return what git prints; end with one line where that fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("hfnb: the bundle holds the committed files, and git is not installed here")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["git failed"])[-1]
        sys.exit(f"hfnb: the bundle holds the committed files of a clone: {reason}")
    return done.stdout


def write_committed(path):
    """Write the committed files to a new tar archive."""
    if not (ROOT / ".git").exists():  # git would take a repository of a folder above
        sys.exit("hfnb: the bundle holds the committed files of a clone, and this folder is no clone of git")
    if git("status", "--porcelain"):
        say("changes that are not committed stay out of the bundle")
    git("archive", "--format=tar", f"--prefix={INSIDE}/", f"--output={path}", "HEAD")


def requirements():
    """Return the arguments by which pip gets what the set-up installs, and what building hfnb needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    # hatchling asks for editables when a package is installed in place, as the set-up does.
    return ["-r", str(ROOT / LOCK), *project["build-system"]["requires"], "editables"]


def write_wheels(folder):
    """Fill a folder with wheels for this Python on this system; a package without one is built."""
    say("fetching packages, which takes a minute or more")
    command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--retries=1"]
    command += ["--wheel-dir", str(folder), *requirements()]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ, PIP_USER="0"), capture_output=True, text=True
    )
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = words[-1].removeprefix("ERROR: ") if words else f"exit code {done.returncode}"
        sys.exit(f"hfnb: pip cannot fetch the packages of the bundle (is there a network?): {reason}")
    (folder / MADE_FOR).write_text(f"{machine()}\n", encoding="utf-8")


def write_mnist(folder):
    """Write MNIST's four files, from wherever `hfnb.datasets.mnist` has them, as gzip files."""
    from hfnb.datasets._mnist import read_files

    try:
        content, _ = read_files()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"hfnb: {error}")
    folder.mkdir(parents=True)
    for name, data in content.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(data, 6, mtime=0))


def for_everybody(member):
    """Return a member of the archive that every user can read once it is unpacked."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = 0o755 if member.isdir() else 0o644
    return member


def build():
    """Write the archive, completely or not at all."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        made, wheels, data = (Path(temporary, name) for name in (ARCHIVE.name, WHEELS, "data"))
        write_committed(made)
        wheels.mkdir()
        write_wheels(wheels)
        write_mnist(data / "mnist")
        with tarfile.open(made, "a") as archive:
            for folder in (wheels, data):
                archive.add(folder, f"{INSIDE}/{folder.name}", filter=for_everybody)
        part = ARCHIVE.with_name(f"{ARCHIVE.name}.part")
        shutil.move(made, part)
        part.replace(ARCHIVE)
    size, seconds = ARCHIVE.stat().st_size / 1e6, time.monotonic() - began
    say(f"{ARCHIVE.name}: {size:.0f} MB for {machine()}, made in {seconds:.0f} s")
    say(f"there: tar -xf {ARCHIVE.name}, cd {INSIDE}, make lab")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    build()
