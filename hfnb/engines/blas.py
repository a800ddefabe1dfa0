"""The BLAS under numpy: its kernel, how many threads it has, and the variables that set both.

OpenBLAS picks a kernel by the processor's name. On a processor that it does not know it takes a lesser kernel
than the instruction set allows. It reads the variables once, when numpy is imported, so they can only be set
for programs that are yet to be started: `hfnb.Cluster` and the project's own commands do so.

This file imports nothing of hfnb: tools/bootstrap.py runs it as a script.
"""

import os
import platform
import warnings
from hashlib import sha256
from pathlib import Path

from threadpoolctl import threadpool_info

VARIABLE = "OPENBLAS_CORETYPE"
# The variables by which a user says how many threads BLAS may have, those of one BLAS before that of all.
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")
# A kernel, the processor flags that it needs, and kernels that are lesser on a processor with these flags.
OLD = {"Katmai", "Prescott", "Core2", "Penryn", "Nehalem", "Sandybridge"}
BETTER = (
    ("SkylakeX", {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}, {"Haswell", "Zen", *OLD}),
    ("Haswell", {"avx2", "fma"}, OLD),
)


def kernel() -> str | None:
    """Return the name of the kernel that numpy's OpenBLAS runs in this process; None with another BLAS."""
    import numpy  # noqa: F401  (loads the BLAS that threadpoolctl then looks for)

    for library in threadpool_info():
        if library["internal_api"] == "openblas":
            return library.get("architecture")
    return None


def _flags() -> set[str]:
    """Return the processor's flags, as Linux names them; none where they are not known."""
    info = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not info.exists():
        return set()
    lines = info.read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def better() -> str | None:
    """Return the kernel that this processor should run instead of the one in use; None if that is best.

    The processor's flags decide, not a timing: it is the kernel that OpenBLAS itself picks on the processors
    with these flags that it knows, and two programs on one machine never choose differently.
    """
    name, flags = kernel(), _flags()
    return next((best for best, needed, lesser in BETTER if needed <= flags and name in lesser), None)


def environment() -> dict[str, str]:
    """Return the variables that a program should be started with, apart from those that the user has set.

    One BLAS thread, unless a variable already says how many; the better kernel, where there is one and no
    kernel has been chosen.
    """
    variables = {} if any(os.environ.get(name) for name in THREADS) else dict.fromkeys(THREADS, "1")
    if not os.environ.get(VARIABLE) and (best := better()):
        variables[VARIABLE] = best
    return variables


def report() -> str:
    """Say in a line which kernel is in use, whether a better one exists, and how to get it.

    >>> "BLAS kernel" in report()
    True
    """
    name, best = kernel(), better()
    if name is None:
        return "BLAS kernel: not OpenBLAS; nothing to set."
    if best is None:
        return f"BLAS kernel: {name}, the best known for this processor."
    return f"BLAS kernel: {name}; {best} is better: start Python with {VARIABLE}={best} in its environment."


def arithmetic() -> tuple[str | None, str]:
    """Return the kernel, and a digest of float64 results that differ wherever rounding does.

    The digest covers what a network is made of: matrix products, sums, exponentials and hyperbolic tangents.
    Two processes with the same digest have the same BLAS kernel, the same numpy and vector instructions of
    the same width, as far as these results can tell.
    """
    import numpy as np

    # Sizes that are no multiple of a kernel's block; a thread count does not matter below its threshold.
    numbers = np.random.default_rng(0).standard_normal(37 * 53)
    A = numbers.reshape(37, 53)
    found = [A @ A.T, A.T @ A, A @ A[0], numbers[:1000] @ numbers[-1000:], A.sum(axis=0), np.sum(numbers)]
    found += [np.tanh(A), np.exp(A), np.log1p(A**2)]
    return kernel(), sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in found)).hexdigest()


def warn_of_others(engines: dict[int, tuple[str | None, str]]) -> None:
    """Warn in one line where engines, {engine: its `arithmetic`}, round otherwise than this process."""
    own, digest = arithmetic()
    others = {engine: name for engine, (name, other) in engines.items() if other != digest}
    if others:
        names = ", ".join(f"engine {engine}: {name}" for engine, name in others.items())
        warnings.warn(
            f"float64 results of engines will not equal those of this process to 1e-12: its BLAS kernel is "
            f"{own}, {names}, or their numpy or processor differs. On processors of one kind "
            f'environment={{"{VARIABLE}": "{own}"}} makes kernels agree',
            RuntimeWarning,
            stacklevel=2,
        )


if __name__ == "__main__":
    print("\n".join(f"{key}={value}" for key, value in environment().items()))
