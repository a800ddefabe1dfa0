"""Run every notebook under strict nbval, on a copy: the checkout stays as it is. Other arguments: pytest's.

--kernel NAME   with another kernel of OpenBLAS, and one thread: Haswell, Zen, SkylakeX, Nehalem, Sandybridge
--perturb SEED  with the rounding of another machine, imitated: see tools/perturbation.py
--part K/N      every Nth notebook, from the Kth on: N runs with K from 1 to N share the notebooks among them
--folder PATH   the notebooks of another folder
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import perturbation

ROOT = Path(__file__).resolve().parent.parent
SECONDS_A_CELL = 300
# The instructions that each kernel of OpenBLAS is made of, as /proc/cpuinfo names them.
KERNELS = {
    "Nehalem": {"sse4_2"},
    "Sandybridge": {"avx"},
    "Haswell": {"avx2", "fma"},
    "Zen": {"avx2", "fma"},
    "SkylakeX": {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"},
}


def part(text: str) -> slice:
    """Return which notebooks "K/N" names, in the order of their names."""
    try:
        first, step = map(int, text.split("/"))
    except ValueError:
        first, step = 0, 0
    if not 1 <= first <= step:
        raise argparse.ArgumentTypeError(f"expected K/N with whole numbers 1 ≤ K ≤ N, got {text!r}")
    return slice(first - 1, None, step)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout, allow_abbrev=False)
    parser.add_argument("--kernel", choices=list(KERNELS))
    parser.add_argument("--perturb", type=int, metavar="SEED")
    parser.add_argument("--part", type=part, default=slice(None), metavar="K/N")
    parser.add_argument("--folder", type=Path, default=ROOT / "notebooks", metavar="PATH")
    return parser.parse_known_args(arguments)


def instructions() -> set[str]:
    """Return the flags of this processor; empty where they cannot be known or are none of x86-64."""
    info = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not info.exists():
        return set()
    lines = info.read_text(encoding="utf-8").splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def main(arguments: list[str]) -> int:
    chosen, others = parse(arguments)
    notebooks = sorted(chosen.folder.glob("*.ipynb"))
    if not notebooks[chosen.part]:
        print(f"hfnb: there are no notebooks in {chosen.folder}, or none in this part")
        return 1
    if chosen.kernel and not KERNELS[chosen.kernel] <= instructions():
        print(f"hfnb: skipped: this processor lacks the instructions of the BLAS kernel {chosen.kernel}")
        return 0
    # A notebook for each core: most compute on one, and those with engines need more for a part of the time.
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        shutil.copytree(chosen.folder, Path(temporary, "notebooks"))
        shutil.copy(Path(__file__).with_name("file_kernels.py"), Path(temporary, "conftest.py"))
        variables = dict(os.environ, IPYTHONDIR=str(Path(temporary, "ipython")), TQDM_DISABLE="1")
        variables.pop("MPLBACKEND", None)
        if chosen.kernel:
            variables |= {"OPENBLAS_CORETYPE": chosen.kernel, "OPENBLAS_NUM_THREADS": "1"}
        if chosen.perturb is not None:
            perturbation.write_startup(Path(variables["IPYTHONDIR"]), chosen.perturb)
        options = ["-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", temporary, "-p", "no:cacheprovider"]
        options += ["--nbval", "--nbval-current-env", f"--nbval-cell-timeout={SECONDS_A_CELL}"]
        options += ["-n", str(workers), "--dist", "loadscope"]
        names = [f"notebooks/{notebook.name}" for notebook in notebooks[chosen.part]]
        command = [sys.executable, "-m", "pytest", *options, *others, *names]
        try:
            return subprocess.call(command, cwd=temporary, env=variables)
        finally:
            subprocess.call([sys.executable, Path(__file__).with_name("reap_clusters.py")], env=variables)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
