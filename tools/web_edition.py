"""Build the course and the reference as web pages, in ``html/``, and as an archive that needs no network.

Sphinx is given README, the lessons as they were saved, the pages of ``docs`` and of the benchmarks, and a
page for each public module. Nothing is computed. ``docs/web/conf.py`` says how the pages look.
"""

import argparse
import importlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "html"
ARCHIVE = ROOT / "hfnb-course.zip"
COPIED = [
    "notebooks",
    "figures",
    "docs",
    "bench/results",
    "bench/README.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "SECURITY.md",
]
IN_ORDER = [
    "docs/findings",
    "docs/glossary",
    "docs/teaching",
    "docs/installation",
    "docs/data",
    "docs/cluster",
    "docs/troubleshooting",
    "docs/architecture",
    "bench/README",
    "CONTRIBUTING",
    "CHANGELOG",
    "CODE_OF_CONDUCT",
    "SECURITY",
]
# The parts of the reference, and their modules; what a page shows is what `__all__` of its module names, or
# else its public functions and classes.
REFERENCE = {
    "Optimizers": ["hfnb.optimizers", "hfnb.optimizers.steps", "hfnb.optimizers.damping"],
    "Krylov solvers": ["hfnb.krylov", "hfnb.krylov.preconditioners"],
    "Objectives and curvature": ["hfnb.objectives", "hfnb.objectives.residuals", "hfnb.objectives.profiler"],
    "Models and data": ["hfnb.models", "hfnb.datasets", "hfnb.problems"],
    "Engines": ["hfnb.engines", "hfnb.threads"],
    "Figures and checks": ["hfnb.plots", "hfnb.checks"],
}


def toctree(caption, entries):
    """Return the source of a part of the navigation, which the page itself does not show."""
    return "\n".join([f"```{{toctree}}\n:hidden:\n:caption: {caption}\n", *entries, "```\n"])


def reference_page(name):
    """Return the source of the page of a module."""
    module = importlib.import_module(name)
    own = [each for each, found in vars(module).items() if getattr(found, "__module__", None) == name]
    public = getattr(module, "__all__", None) or [each for each in own if not each.startswith("_")]
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", ""]
    for each in public:
        found = getattr(module, each)
        if isinstance(found, type):
            lines += [f".. autoclass:: {name}.{each}", "   :members:", ""]
        elif callable(found):
            lines += [f".. autofunction:: {name}.{each}", ""]
    return "\n".join(lines)


def gather(source):
    """Write all that Sphinx reads to a folder."""
    for each in COPIED:
        place = source / each
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / each).is_dir():
            shutil.copytree(
                ROOT / each, place, ignore=shutil.ignore_patterns("run", "web", ".ipynb_checkpoints")
            )
        else:
            shutil.copy(ROOT / each, place)
    (source / "reference").mkdir()
    for name in (name for names in REFERENCE.values() for name in names):
        (source / "reference" / f"{name}.rst").write_text(reference_page(name), encoding="utf-8")
    parts = [
        f"## {part}\n\n" + "\n".join(f"- [{n}]({n}.rst)" for n in names) for part, names in REFERENCE.items()
    ]
    overview = ["# Reference", "Every public name, from the docstrings.", *parts]
    (source / "reference" / "index.md").write_text("\n\n".join(overview), encoding="utf-8")
    lessons = sorted(f"notebooks/{path.stem}" for path in (source / "notebooks").glob("*.ipynb"))
    home = (ROOT / "README.md").read_text(encoding="utf-8")
    # All pages stand at one level: the theme's buttons that unfold a level have no name for screen readers.
    reference = [
        f"reference/{name}" for name in ("index", *(n for names in REFERENCE.values() for n in names))
    ]
    navigation = [toctree("Lessons", lessons), toctree("Pages", IN_ORDER), toctree("Reference", reference)]
    (source / "index.md").write_text("\n\n".join([home, *navigation]), encoding="utf-8")


def build():
    """Build the pages and the archive; return the exit code of Sphinx."""
    with tempfile.TemporaryDirectory() as temporary:
        source, made = Path(temporary, "source"), Path(temporary, "html")
        source.mkdir()
        gather(source)
        settings = ["-c", str(ROOT / "docs" / "web"), "-d", str(Path(temporary, "doctrees"))]
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", *settings]
        code = subprocess.call([*command, str(source), str(made)])
        if code:
            return code
        shutil.rmtree(PAGES, ignore_errors=True)
        shutil.copytree(made, PAGES)
    with zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(PAGES.rglob("*")):
            archive.write(path, Path("hfnb-course", path.relative_to(PAGES)))
    megabytes = ARCHIVE.stat().st_size / 1e6
    print(f"hfnb: open html/index.html; the same, {megabytes:.0f} MB, is in {ARCHIVE.name}")
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    sys.exit(build())
