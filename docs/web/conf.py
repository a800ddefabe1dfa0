"""How Sphinx builds the web edition; `tools/web_edition.py` gathers the pages and starts it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

project = "hfnb"
author = copyright = "The hfnb authors"
release = re.search(r'__version__ = "(.+)"', (ROOT / "hfnb" / "__init__.py").read_text(encoding="utf-8"))[1]  # type: ignore[index]

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # formulas need no network
]

# Pages. The notebooks are shown as they were saved: nothing is computed.
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the {type}"
nb_code_prompt_hide = "Hide the {type}"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
# A slider has no kernel here: the picture beside it is shown alone.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]

# The reference.
default_role = "py:obj"
add_module_names = False
autodoc_typehints = "none"  # numpydoc's sections say the types in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
toc_object_entries = False

# The look.
html_theme = "sphinx_book_theme"
html_title = "hfnb"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "home_page_in_toc": False,
    "show_navbar_depth": 1,
    "use_download_button": True,
    "toc_title": "On this page",
}
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["hfnb.css"]
html_show_search_summary = False  # it is fetched, which a browser refuses for files
html_favicon = str(Path(__file__).parent / "static" / "hfnb.svg")


def escape_bars(app, what, name, found, options, lines):
    """Let |x| in a docstring be an absolute value, which reStructuredText takes for the name of a text."""
    for number, line in enumerate(lines):
        parts = line.split("``")  # every other part is code
        lines[number] = "``".join(
            part if index % 2 else part.replace("|", r"\|") for index, part in enumerate(parts)
        )


def setup(app):
    app.connect("autodoc-process-docstring", escape_bars, priority=900)  # numpydoc comes first
