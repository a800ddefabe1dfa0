"""Run every notebook under strict nbval, on a copy: the checkout stays as it is. Arguments: pytest's."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS_A_CELL = 300


def main() -> int:
    if not list(ROOT.glob("notebooks/*.ipynb")):
        print("hfnb: there are no notebooks yet")
        return 0
    # A notebook's engines take a core each, so a notebook has two.
    workers = (os.cpu_count() or 1) // 2
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        shutil.copytree(ROOT / "notebooks", Path(temporary, "notebooks"))
        variables = dict(os.environ, IPYTHONDIR=str(Path(temporary, "ipython")))
        variables.pop("MPLBACKEND", None)
        options = ["-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", temporary, "-p", "no:cacheprovider"]
        options += ["--nbval", "--nbval-current-env", f"--nbval-cell-timeout={SECONDS_A_CELL}"]
        options += ["-n", str(workers if workers > 1 else 0), "--dist", "loadscope"]
        command = [sys.executable, "-m", "pytest", *options, *sys.argv[1:], "notebooks"]
        try:
            return subprocess.call(command, cwd=temporary, env=variables)
        finally:
            subprocess.call([sys.executable, Path(__file__).with_name("reap_clusters.py")], env=variables)


if __name__ == "__main__":
    sys.exit(main())
