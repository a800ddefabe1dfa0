#!/usr/bin/env python3
"""Make the project's own environment and work in it: ``python3 tools/bootstrap.py lab``, or another command.

It needs the standard library only, and every Python 3 can read it, so that an old one gets a clear line.
"""

import argparse
import os
import shutil
import subprocess
import sys

from environments import ROOT, python_of, say, setup, write_lock

# What `make clean` removes: in the checkout, and in each of its folders.
MADE = (".venv", ".venv-*", "html", "hfnb-course.zip", "hfnb-classroom.tar*", "figures/run")
CACHES = ("__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache")


def environment(folder):
    """The variables of everything started here: the environment's programs first on PATH (``mpiexec`` among
    them), and what numpy's BLAS reads only once, when it is imported: the kernel that suits this processor,
    and one thread unless the user says otherwise. Lessons share the cores with their engines, and BLAS
    threads that wait for a core which another program has make minutes of seconds."""
    variables = dict(os.environ, VIRTUAL_ENV=str(folder), PYTHONUNBUFFERED="1", PIP_USER="0")
    variables["PATH"] = str(python_of(folder).parent) + os.pathsep + variables.get("PATH", "")
    if (ROOT / "hfnb" / "engines" / "blas.py").exists():
        command = [str(python_of(folder)), "-m", "hfnb.engines.blas"]
        asked = subprocess.run(command, cwd=str(ROOT), env=variables, stdout=subprocess.PIPE, text=True)
        for name, _, value in (line.partition("=") for line in asked.stdout.splitlines() if "=" in line):
            variables.setdefault(name, value)  # what the user has set stays
    return variables


def start(command, variables, **options):
    """Run a program to its end and return its exit code; Ctrl-C reaches it too, and is its to handle."""
    process = subprocess.Popen([str(part) for part in command], cwd=str(ROOT), env=variables, **options)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def fetch_data(folder, variables):
    if start([python_of(folder), "-m", "hfnb.datasets"], variables):
        say("MNIST is not here (see above): going on; what needs it will say so")


def lab(arguments):
    """JupyterLab at the first notebook; more arguments go to JupyterLab."""
    folder = setup()
    variables = environment(folder)
    fetch_data(folder, variables)
    options = [f"--ServerApp.root_dir={ROOT}", "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    # Its settings go before the user's own, which stay in force; see tools/jupyter.
    paths = [str(ROOT / "tools" / "jupyter"), variables.get("JUPYTER_CONFIG_PATH")]
    variables["JUPYTER_CONFIG_PATH"] = os.pathsep.join(path for path in paths if path)
    say("starting JupyterLab; Ctrl-C twice ends it")
    return start([python_of(folder), "-m", "jupyterlab", *options, *arguments], variables)


def test(arguments):
    """The unit tests, then every notebook under strict nbval (--units, --notebooks: only those)."""
    folder = setup()
    variables = dict(environment(folder), HFNB_MODE="fast")
    fetch_data(folder, variables)
    only = [part for part in ("--units", "--notebooks") if part in arguments]
    arguments = [argument for argument in arguments if argument not in only]
    failed = 0
    if only != ["--notebooks"]:
        say("unit tests")
        without_screen = dict({"MPLBACKEND": "agg"}, **variables)
        # Two workers for each core: half of the time, tests of engines wait for processes.
        options = ["-q", "-n", 2 * (os.cpu_count() or 1), "--dist", "loadscope"]
        failed = start([python_of(folder), "-m", "pytest", *options, *arguments], without_screen)
    if only != ["--units"]:
        say("notebooks: every output is compared with the committed one")
        check = ROOT / "tools" / "check_notebooks.py"
        failed = start([python_of(folder), check, *arguments], variables) or failed
    return failed


def run(arguments):
    """The notebooks in order, or those named; --save keeps outputs and figures, --figures only these."""
    folder = setup()
    variables = environment(folder)
    fetch_data(folder, variables)
    return start([python_of(folder), ROOT / "tools" / "run_notebooks.py", *arguments], variables)


def bench(arguments):
    """The benchmarks against the peers, in an environment of their own."""
    if not (ROOT / "bench" / "requirements.lock").exists():
        sys.exit("hfnb: there are no benchmarks here (bench/requirements.lock is missing)")
    folder = setup(".venv-bench", "bench/requirements.lock")
    variables = environment(folder)
    fetch_data(folder, variables)
    return start([python_of(folder), "-m", "bench", *arguments], variables)


def student(arguments):
    """The lessons without solutions, in student/; --nbgrader marks their exercises for nbgrader."""
    folder = setup()
    script = ROOT / "tools" / "student_edition.py"
    return start([python_of(folder), script, *arguments], environment(folder))


def html(arguments):
    """The course and the reference as web pages in html/, and as a zip that needs no network."""
    folder = setup(".venv-docs", "docs/requirements.lock")
    return start([python_of(folder), ROOT / "tools" / "web_edition.py", *arguments], environment(folder))


def bundle(arguments):
    """All that a class room without a network needs, in hfnb-classroom.tar."""
    folder = setup()
    script = ROOT / "tools" / "classroom_bundle.py"
    return start([python_of(folder), script, *arguments], environment(folder))


def clean(arguments):
    """Remove environments and all else that these commands make again; lessons, answers and data stay."""
    for folder, names in ((ROOT.glob, MADE), (ROOT.rglob, CACHES)):
        for path in sorted(path for name in names for path in folder(name)):
            say(f"removing {path.relative_to(ROOT)}")
            if path.is_dir():
                shutil.rmtree(str(path))
            else:
                path.unlink()


def only_setup(arguments):
    """The environment alone."""
    setup()


COMMANDS = {
    "lab": lab,
    "test": test,
    "run": run,
    "bench": bench,
    "student": student,
    "html": html,
    "bundle": bundle,
    "clean": clean,
    "setup": only_setup,
    "lock": write_lock,
}


def main():
    lines = [f"  {name:<7} {command.__doc__}" for name, command in COMMANDS.items()]
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(formatter_class=layout, description="\n".join(lines))
    parser.add_argument("command", choices=list(COMMANDS))
    chosen, arguments = parser.parse_known_args()
    try:
        return COMMANDS[chosen.command](arguments)
    except KeyboardInterrupt:
        return "hfnb: interrupted; the same command starts again where it can"


if __name__ == "__main__":
    sys.exit(main())
