"""Build the course and the reference as web pages, in ``html/``, and as an archive that needs no network.

Sphinx is given README, the lessons as they were saved, the pages of ``docs`` and of the benchmarks, and a
page for each public module. Nothing is computed. ``docs/web/conf.py`` says how the pages look.
"""

import argparse
import importlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nbformat
import result_tables
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "html"
ARCHIVE = ROOT / "hfnb-course.zip"
# Pages beside the lessons and the reference, in the order of the navigation.
OTHERS = [
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
COPIED = ["notebooks", "figures", "bench/results", "CITATION.cff", *(f"{page}.md" for page in OTHERS)]
# The parts of the reference, and their modules; what a page shows is what `__all__` of its module names, or
# else its public functions and classes. No name stands on two pages: its source could link back to one only.
REFERENCE = {
    "Optimizers": ["hfnb.optimizers", "hfnb.optimizers.steps", "hfnb.optimizers.damping"],
    "Krylov solvers": ["hfnb.krylov"],
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


def adapt(path):
    """Fold what a reader is to find out, and name each figure for readers who cannot see it."""
    notebook = nbformat.read(path, as_version=4)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        folded, tags = cell.metadata.get("jupyter", {}), cell.metadata.get("tags", [])
        if folded.get("outputs_hidden"):
            cell.metadata["tags"] = [*tags, "hide-cell" if folded.get("source_hidden") else "hide-output"]
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            cell.metadata["mystnb"] = {"image": {"alt": titles(cell.source)}}
    nbformat.write(notebook, path)


def titles(source):
    """The titles of the figures that a cell saves, which `hfnb.plots.save` writes into their files."""
    names = re.findall(r'plots\.save\(\w+, f?"([^"]+)"', source)
    found = []
    for path in (ROOT / "figures" / name.replace("{mode}", "fast") for name in names):
        if path.exists():
            with Image.open(path) as picture:
                found.append(picture.info.get("Title", ""))
    return "; ".join(filter(None, found)) or "A figure that is drawn by the code above, and described below"


def gather(source):
    """Write all that Sphinx reads to a folder."""
    for each in COPIED:
        place = source / each
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / each).is_dir():
            ignored = shutil.ignore_patterns("run", ".ipynb_checkpoints")
            shutil.copytree(ROOT / each, place, ignore=ignored)
        else:
            shutil.copy(ROOT / each, place)
    for path in (source / "notebooks").glob("*.ipynb"):
        adapt(path)
    (source / "reference").mkdir()
    overview = ["# Reference", "Every public name, from the docstrings."]
    for part, modules in REFERENCE.items():
        overview += [f"## {part}", "\n".join(f"- [{name}]({name}.rst)" for name in modules)]
        for name in modules:
            (source / "reference" / f"{name}.rst").write_text(reference_page(name), encoding="utf-8")
    (source / "reference" / "index.md").write_text("\n\n".join(overview), encoding="utf-8")
    lessons = sorted(f"notebooks/{path.stem}" for path in (source / "notebooks").glob("*.ipynb"))
    # All pages stand at one level: the theme's buttons that unfold a level have no name for screen readers.
    modules = [f"reference/{name}" for part in REFERENCE.values() for name in part]
    (source / "docs" / "results.md").write_text(result_tables.page(), encoding="utf-8")
    pages = [OTHERS[0], "docs/results", *OTHERS[1:]]
    navigation = {"Lessons": lessons, "Pages": pages, "Reference": ["reference/index", *modules]}
    home = (ROOT / "README.md").read_text(encoding="utf-8")
    trees = [toctree(caption, entries) for caption, entries in navigation.items()]
    (source / "index.md").write_text("\n\n".join([home, *trees]), encoding="utf-8")


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
