"""The BLAS under numpy: the kernel that runs, the best for this processor, and the variable that asks for it.

OpenBLAS picks a kernel by the processor's name; on one that it does not know it settles for a lesser kernel
than the instruction set allows. The choice is made as numpy is imported, so it can only be set for programs
yet to be started: `hfnb.Cluster` and the project's own commands do so for all that they start.
"""

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

from threadpoolctl import threadpool_info

VARIABLE = "OPENBLAS_CORETYPE"
# The better kernel, the processor flags that it needs, and the kernels that are lesser on such a processor.
BETTER = (
    "SkylakeX",
    {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"},
    {"Haswell", "Zen", "Sandybridge"},
)
GAIN = 1.1  # what the better kernel must at least win to be set
_PROBE = """
import time, numpy as np
a = np.ones((1024, 1024), np.float32); best = 1e9
for _ in range(5):
    start = time.perf_counter(); a @ a; best = min(best, time.perf_counter() - start)
print(2 * 1024**3 / best)
"""


def kernel() -> str | None:
    """Return the name of the kernel that numpy's OpenBLAS runs in this process; None with another BLAS."""
    import numpy  # noqa: F401  (loads the BLAS that threadpoolctl then looks for)

    for library in threadpool_info():
        if library["internal_api"] == "openblas":
            return library.get("architecture")
    return None


def _flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not info.exists():
        return set()
    lines = info.read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _rate(**extra: str) -> float:
    """Matrix-product rate, in operations a second, of a fresh process with ``extra`` in its environment."""
    found = subprocess.run([sys.executable, "-c", _PROBE], env={**os.environ, **extra}, capture_output=True)
    return float(found.stdout) if found.returncode == 0 else 0.0


@cache
def environment() -> dict[str, str]:
    """Return the variables to set before numpy is imported; empty where nothing is to be gained.

    The better kernel is named only if the processor has its instructions, numpy would not choose it by
    itself, the reader has not chosen one, and a measured matrix product is faster with it.
    """
    name, needed, lesser = BETTER
    if os.environ.get(VARIABLE) or kernel() not in lesser or not needed <= _flags():
        return {}
    return {VARIABLE: name} if _rate(**{VARIABLE: name}) >= GAIN * _rate() else {}


def report() -> str:
    """Say in a line or two which kernel is in use, what is possible, and how to get it.

    >>> "BLAS kernel" in report()
    True
    """
    name = kernel()
    if name is None:
        return "BLAS kernel: not OpenBLAS; nothing to set."
    better = environment()
    if not better:
        return f"BLAS kernel: {name}, the best known for this processor."
    setting = " ".join(f"{key}={value}" for key, value in better.items())
    return (
        f"BLAS kernel: {name}; {better[VARIABLE]} is faster: start Python with {setting} in its environment."
    )


if __name__ == "__main__":
    if "--environment" in sys.argv:
        print("\n".join(f"{key}={value}" for key, value in environment().items()))
    else:
        print(report())
