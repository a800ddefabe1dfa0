#!/usr/bin/env python3
"""How long a newcomer waits: seconds from ``git clone`` to the first figure in JupyterLab, with empty caches.

``.venv/bin/python tools/first_figure.py`` clones this checkout into a folder that it makes, with a home
folder of its own, so that pip and the data sets find no cache. It runs ``make lab``, opens the page in a
browser, clicks Run All and waits until a cell has drawn a figure. It counts the cells that failed, and the
messages in the browser's console.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from chromium import CHROMIUM, lacks
from playwright import sync_api as playwright
from running_server import TOKEN, address, code_cells, kernel_is_idle, wait_until

ROOT = Path(__file__).parent.parent
SECONDS = 600


def main():
    if missing := lacks("playwright"):
        sys.exit(f"first_figure: {missing} is missing")
    if subprocess.check_output(["git", "status", "--porcelain"], cwd=ROOT):
        print("first_figure: changes that are not committed are not in the clone", file=sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        home, clone = Path(temporary, "home"), Path(temporary, "hfnb")
        home.mkdir()
        kept = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy")
        variables = {name: os.environ[name] for name in os.environ if name in kept or name.startswith("PIP_")}
        variables["HOME"] = str(home)
        begin = time.monotonic()

        def tell(what):
            print(f"{time.monotonic() - begin:6.1f} s  {what}", flush=True)

        subprocess.check_call(["git", "clone", "-q", str(ROOT), str(clone)])
        tell("cloned")
        arguments = f"--no-browser --ip=127.0.0.1 --port=0 --IdentityProvider.token={TOKEN}"
        with Path(temporary, "log").open("w") as log:
            command = ["make", "lab", f"ARGS={arguments}"]
            server = subprocess.Popen(command, cwd=clone, env=variables, stdout=log, stderr=log)
        try:
            runtime = home / ".local" / "share" / "jupyter" / "runtime"
            url = wait_until(
                lambda: server.poll() is None and address(runtime), SECONDS, "JupyterLab answers"
            )
            tell("JupyterLab answers")
            look(url, tell, clone / "notebooks" / "00_start_here.ipynb")
        finally:
            programs = psutil.Process(server.pid).children(recursive=True)
            for program in programs:
                if "jupyterlab" in program.cmdline():
                    program.send_signal(signal.SIGTERM)
            server.wait(60)
            print("what the terminal says:", Path(temporary, "log").read_text(), sep="\n")


def look(url, tell, lesson):
    """Open the first lesson, click Run All, wait for its first figure and for its last cell, and save it."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, messages = browser.new_page(viewport={"width": 1400, "height": 1000}), []
        page.on("console", lambda message: messages.append(message.text) if message.type == "error" else None)
        page.goto(f"{url}?token={TOKEN}")
        page.wait_for_selector(".jp-Notebook .jp-MarkdownCell img", timeout=1000 * SECONDS)
        tell("the lesson stands on the screen, with the picture at its top")
        wait_until(lambda: kernel_is_idle(url), SECONDS, "the kernel is idle")
        page.click("li.lm-MenuBar-item:has-text('Edit')")
        page.click("[data-command='editmenu:clear-all']")
        figures = page.locator(".jp-OutputArea-output img")
        wait_until(lambda: not figures.count(), SECONDS, "outputs are cleared")
        tell("the saved results are cleared")
        page.click("li.lm-MenuBar-item:has-text('Run')")
        page.click("[data-command='runmenu:run-all']")
        page.wait_for_selector(".jp-OutputArea-output img", state="attached", timeout=1000 * SECONDS)
        tell("a cell has drawn the first figure")
        wait_until(lambda: rests(url), SECONDS, "the lesson ends")
        tell("all cells have run")
        page.keyboard.press("Control+s")
        wait_until(lambda: code_cells(lesson)[-1].execution_count, SECONDS, "the lesson is saved")
        kinds = [output.output_type for cell in code_cells(lesson) for output in cell.outputs]
        print(f"cells that failed: {kinds.count('error')}; errors in the browser's console: {len(messages)}")
        print(*messages, sep="\n")
        browser.close()


def rests(url):
    """Whether the kernel does nothing for two seconds: it is idle for a moment between two cells as well."""
    for _ in range(10):
        if not kernel_is_idle(url):
            return False
        time.sleep(0.2)
    return True


if __name__ == "__main__":
    main()
