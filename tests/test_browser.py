"""The notebooks as a reader meets them: JupyterLab in a real browser, Run All, wait for the last cell."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import pytest
from chromium import CHROMIUM, lacks
from running_server import address, code_cells, kernel_is_idle, wait_until

ROOT = Path(__file__).parent.parent
WALKTHROUGH = [path for name in ("00", "05", "06", "07") for path in ROOT.glob(f"notebooks/{name}_*.ipynb")]
SECONDS = 300
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}

pytestmark = [pytest.mark.needs("browser", lacks("playwright")), pytest.mark.slow]


@contextmanager
def jupyterlab(folder):
    """JupyterLab over a folder, with no token, on the loopback address, and none of the user's settings."""
    private = {
        name: str(folder / "jupyter" / name) for name in ("config", "data", "runtime", "settings", "ipython")
    }
    for name, settings in SETTINGS.items():
        path = Path(private["settings"], "@jupyterlab", f"{name}.jupyterlab-settings")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    variables = dict(
        os.environ,
        HFNB_MODE="fast",
        IPYTHONDIR=private["ipython"],
        JUPYTER_CONFIG_DIR=private["config"],
        JUPYTER_DATA_DIR=private["data"],
        JUPYTER_RUNTIME_DIR=private["runtime"],
        JUPYTERLAB_SETTINGS_DIR=private["settings"],
    )
    for name in ("MPLBACKEND", "OPENBLAS_NUM_THREADS"):  # the unit tests' choices, not the reader's
        variables.pop(name, None)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--port=0",
    ]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"]
    with (folder / "jupyter.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log)
    try:
        yield wait_until(lambda: address(private["runtime"]), 60, "JupyterLab starts")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        subprocess.call([sys.executable, ROOT / "tools" / "reap_clusters.py"], env=variables)


def unexpected(cell):
    """Whether a code cell failed without announcing it, or announced a failure that did not come."""
    failed = any(output.output_type == "error" for output in cell.outputs)
    ran = cell.execution_count is not None
    return ran and failed != ("raises-exception" in cell.metadata.get("tags", []))


def run_all(source, folder, seconds=SECONDS):
    """Copy a notebook and its folder, run it in the browser like a reader, and return its code cells."""
    from playwright import sync_api as playwright

    path = folder / "notebooks" / source.name
    shutil.copytree(source.parent, path.parent)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)
    with jupyterlab(folder) as url, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"{url}lab/tree/notebooks/{source.name}")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        wait_until(lambda: kernel_is_idle(url), 60, "the kernel is idle")
        page.click("li.lm-MenuBar-item:has-text('Run')")
        page.click("[data-command='runmenu:run-all']")

        def saved():
            if kernel_is_idle(url):
                page.keyboard.press("Control+s")
            with suppress(nbformat.reader.NotJSONError):  # read while JupyterLab writes it
                code = code_cells(path)
                return code[-1].execution_count or any(map(unexpected, code))
            return False

        wait_until(saved, seconds, "the last cell runs")
        browser.close()
    return code_cells(path)


@pytest.mark.parametrize("source", WALKTHROUGH, ids=lambda path: path.stem)
def test_run_all_in_jupyterlab(source, tmp_path):
    code = run_all(source, tmp_path)
    assert not [cell.source for cell in code if unexpected(cell)]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    # What a prediction has folded is unfolded when its cell runs.
    assert not [cell.source for cell in code if cell.metadata.get("jupyter", {}).get("outputs_hidden")]
