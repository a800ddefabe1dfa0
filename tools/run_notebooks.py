"""Execute the notebooks in order with a progress bar; their figures go to figures/run, which git ignores.

What is committed changes by request only: ``--save`` keeps outputs and figures, ``--figures`` only these.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from file_kernels import FileKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT = ("tags", "jupyter", "collapsed")


def normalize(notebook: nbformat.NotebookNode) -> None:
    """Drop what differs from run to run and from machine to machine, so that differences mean something."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in KEPT if key in cell.metadata})
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data.pop(WIDGET, None)  # names a model that lived in the kernel; its text stays
            if output.output_type == "error":
                output.traceback = [
                    f"{output.ename}: {output.evalue}"
                ]  # the rest names this machine's folders


def execute(path: Path, timeout: int, keep: bool, variables: dict[str, str]) -> None:
    """Run one notebook in its folder, with these environment variables; one step of the bar a code cell."""
    notebook = nbformat.read(path, as_version=4)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    with tqdm(total=cells, desc=f"{path.stem:<42}", unit="cell", dynamic_ncols=True) as bar:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            kernel_manager_class=FileKernelManager,
            resources={"metadata": {"path": str(path.parent)}},
            record_timing=False,
            extra_arguments=["--log-level=ERROR"],  # ipykernel warns on the terminal of how it talks
            coalesce_streams=True,
            on_cell_executed=lambda **_: bar.update(),
        )
        client.execute(env=variables)
    if keep:
        normalize(notebook)
        nbformat.write(notebook, path)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="beginnings of notebook names, such as 05 06 (default: all)")
    parser.add_argument(
        "--save",
        action="store_true",
        help="write the executed notebooks in place, and their figures to figures/",
    )
    parser.add_argument(
        "--figures", action="store_true", help="write figures and results to figures/, not to figures/run"
    )
    parser.add_argument(
        "--timeout", type=int, default=7200, help="seconds a cell may take (default: %(default)s)"
    )
    chosen = parser.parse_args(arguments)
    every = sorted(ROOT.glob("notebooks/*.ipynb"))
    chosen.paths = [path for path in every if path.name.startswith(tuple(chosen.names or [""]))]
    if not chosen.paths:
        parser.error(
            f"no notebook begins with {chosen.names or 'anything'}; there are {[path.stem for path in every]}"
        )
    return chosen


def main() -> int:
    chosen, began = parse(sys.argv[1:]), time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Only clusters that were started here are stopped at the end. A progress bar would be saved.
        variables = dict(os.environ, IPYTHONDIR=folder, TQDM_DISABLE="1")
        if chosen.save or chosen.figures:
            variables["HFNB_FIGURES"] = str(ROOT / "figures")
        try:
            for path in chosen.paths:
                execute(path, chosen.timeout, chosen.save, variables)
        except CellExecutionError as error:
            print(f"{path.name} stopped at a cell that failed:\n{error}", file=sys.stderr)
            return 1
        finally:
            subprocess.call([sys.executable, Path(__file__).with_name("reap_clusters.py")], env=variables)
    written_to = variables.get("HFNB_FIGURES", "figures/run")
    print(f"{len(chosen.paths)} notebooks in {time.monotonic() - began:.0f} s; figures are in {written_to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
