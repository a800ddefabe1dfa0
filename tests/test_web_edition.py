"""The web edition in a real browser: every page and link, search, no network, and accessibility by axe-core.

Links to other sites are not followed.
"""

import re
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urldefrag

import pytest
from chromium import CHROMIUM, lacks

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.needs("browser", lacks("playwright", "axe_playwright_python")),
    pytest.mark.slow,
]

# One page of each kind in both themes, and all lessons in one; axe-core takes seconds for a page.
KINDS = (
    "index",
    "notebooks/02_solve_with_products",
    "docs/findings",
    "docs/results",
    "reference/hfnb.krylov",
)
LESSONS = sorted(f"notebooks/{path.stem}" for path in ROOT.glob("notebooks/*.ipynb"))
EXAMINED = [(name, "light") for name in dict.fromkeys((*KINDS, *LESSONS))] + [
    (name, "dark") for name in KINDS
]
LINKS = "nodes => nodes.map(node => node.href)"


class Quiet(SimpleHTTPRequestHandler):
    """A server that writes no log."""

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the pages, unpacked from the archive that is handed out."""
    subprocess.run([sys.executable, ROOT / "tools" / "bootstrap.py", "html"], check=True)
    folder = tmp_path_factory.mktemp("web")
    with zipfile.ZipFile(ROOT / "hfnb-course.zip") as archive:
        archive.extractall(folder)
    return folder / "hfnb-course"


@pytest.fixture(scope="module")
def server(site):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def is_fault(request):
    """Whether a request failed by itself: the next page ends what the last one was still asking for."""
    return request.failure != "net::ERR_ABORTED"


@contextmanager
def page(**options):
    """A page, and the list of what goes wrong in it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            opened, faults = browser.new_context(**options).new_page(), []
            opened.on("console", lambda m: m.type == "error" and faults.append(f"console: {m.text}"))
            opened.on("pageerror", lambda error: faults.append(f"script: {error}"))
            opened.on("requestfailed", lambda r: is_fault(r) and faults.append(f"failed: {r.url}"))
            opened.on("response", lambda r: r.status >= 400 and faults.append(f"{r.status}: {r.url}"))
            yield opened, faults
        finally:
            browser.close()


def names(site):
    """The pages, with those of source code; what lies in _static belongs to the theme."""
    found = (path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return sorted(name for name in found if not name.startswith("_static/"))


def test_every_page_loads_by_itself_and_every_link_leads_somewhere(site, server):
    links = {}
    with page() as (opened, faults):
        opened.on("request", lambda r: r.url.startswith((server, "data:")) or faults.append(f"asks {r.url}"))
        for name in names(site):
            opened.goto(server + name)
            assert not faults, name
            for link in opened.eval_on_selector_all("a[href]", LINKS):
                links.setdefault(link, name)
        lessons = [name for name in names(site) if name.startswith("notebooks/")]
    assert len(lessons) == len(list(ROOT.glob("notebooks/*.ipynb")))
    inside = {link: name for link, name in links.items() if link.startswith(server)}
    assert len(inside) > 500
    known = {}
    for link, name in inside.items():
        address, fragment = urldefrag(link[len(server) :])
        target = site / unquote(address.partition("?")[0] or "index.html")
        assert target.exists(), f"{name} links to {link}"
        if fragment and target.suffix == ".html":
            if target not in known:
                known[target] = set(re.findall(r'\bid="([^"]*)"', target.read_text(encoding="utf-8")))
            assert unquote(fragment) in known[target], f"{name} links to {link}"


def test_every_lesson_follows_the_one_before(site):
    lessons = sorted(path.stem for path in ROOT.glob("notebooks/*.ipynb"))
    for lesson, following in pairwise(lessons):
        text = (site / "notebooks" / f"{lesson}.html").read_text(encoding="utf-8")
        assert re.search(rf'class="right-next"\s+href="{following}.html"', text), lesson


def test_figures_say_what_is_seen(site):
    for path in site.glob("notebooks/*.html"):
        pictures = re.findall(r"<img[^>]*>", path.read_text(encoding="utf-8"))
        shown = [picture for picture in pictures if "_images/" in picture]
        assert shown, path.name
        for picture in shown:
            assert len(re.search(r'alt="([^"]*)"', picture)[1].split()) > 4, picture


def test_all_is_there_without_a_network(site):
    """From the unpacked archive: formulas are set, pictures are shown, and search finds a word."""
    with page(offline=True) as (opened, faults):
        opened.goto((site / "notebooks" / "02_solve_with_products.html").as_uri())
        opened.wait_for_selector("mjx-container")
        shown = "nodes => nodes.every(node => node.complete && node.naturalWidth > 0)"
        assert opened.eval_on_selector_all("article img", shown)
        opened.goto((site / "search.html").as_uri() + "?q=certificate")
        opened.wait_for_selector("#search-results li a")
        found = opened.eval_on_selector_all("#search-results li a", LINKS)
        assert any("05_escape_saddle_points" in link for link in found)
        assert not faults


@pytest.mark.parametrize(("name", "scheme"), EXAMINED)
def test_axe_finds_nothing_serious(server, name, scheme):
    from axe_playwright_python.sync_playwright import Axe

    with page(color_scheme=scheme) as (opened, faults):
        opened.goto(f"{server}{name}.html")
        assert opened.evaluate("document.documentElement.dataset.theme") == scheme
        # Preloading reads style sheets by addresses that are wrong inside folders; no rule here needs them.
        # To describe the thousands of elements that pass would take as long as to examine them.
        options = {"preload": False, "resultTypes": ["violations"]}
        found = Axe().run(opened, options=options).response["violations"]
        assert not faults
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not [(each["id"], each["nodes"][0]["html"]) for each in serious]
