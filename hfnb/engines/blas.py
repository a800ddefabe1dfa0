"""The kernel of the BLAS under numpy: which one runs, which one is best, and whether engines have the same.

OpenBLAS chooses a kernel by the processor's name. On a processor that it does not know it takes a slower
kernel than the instruction set allows. It reads the environment once, when numpy is imported. So a kernel can
only be chosen for programs that are yet to be started, as `hfnb.Cluster` and the project's own commands do.

Run as a program, it prints the variables of `environment`, one a line.
"""

import os
import platform
import warnings
from hashlib import sha256
from pathlib import Path

from threadpoolctl import threadpool_info

from hfnb.threads import THREAD_VARIABLES

KERNEL_VARIABLE = "OPENBLAS_CORETYPE"
OLD = {"Katmai", "Prescott", "Core2", "Penryn", "Nehalem", "Sandybridge"}
# Kernels, the best first: the processor flags that each needs, and the kernels that are slower with them.
BETTER = (
    ("SkylakeX", {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}, {"Haswell", "Zen", *OLD}),
    ("Haswell", {"avx2", "fma"}, OLD),
)


def kernel() -> str | None:
    """Return the name of the kernel that numpy's OpenBLAS runs in this process.

    Returns
    -------
    str or None
        As threadpoolctl reports it ("Haswell", "SkylakeX", ...); None if numpy has another BLAS.
    """
    import numpy  # noqa: F401  (loads the BLAS that threadpoolctl then looks for)

    for library in threadpool_info():
        if library["internal_api"] == "openblas":
            return library.get("architecture")
    return None


def _flags() -> set[str]:
    """Return the processor's flags, as Linux names them; an empty set where they are not known."""
    info = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not info.exists():
        return set()
    lines = info.read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def better() -> str | None:
    """Return the kernel that this processor should run instead of the one in use.

    Returns
    -------
    str or None
        The name of the kernel; None if the one in use is the best known.

    Notes
    -----
    The processor's flags decide, not a timing, so that two programs on one machine never choose differently.
    OpenBLAS chooses this kernel itself on the processors with these flags that it recognizes.
    """
    name, flags = kernel(), _flags()
    return next((best for best, needed, slower in BETTER if needed <= flags and name in slower), None)


def environment() -> dict[str, str]:
    """Return the variables that a program should be started with, except those that the user has set.

    Returns
    -------
    dict of str to str
        One BLAS thread, unless a variable of `hfnb.threads.THREAD_VARIABLES` is set already; the kernel of
        `better`, where there is one and the user has chosen none.
    """
    chosen = any(os.environ.get(name) for name in THREAD_VARIABLES)
    variables = {} if chosen else dict.fromkeys(THREAD_VARIABLES, "1")
    if not os.environ.get(KERNEL_VARIABLE) and (best := better()):
        variables[KERNEL_VARIABLE] = best
    return variables


def report() -> str:
    """Return one line on which kernel is in use, whether a better one exists, and how to get it.

    Returns
    -------
    str

    Examples
    --------
    >>> "BLAS kernel" in report()
    True
    """
    name, best = kernel(), better()
    if name is None:
        return "BLAS kernel: not OpenBLAS; nothing to set."
    if best is None:
        return f"BLAS kernel: {name}, the best known for this processor."
    setting = f"{KERNEL_VARIABLE}={best}"
    return f"BLAS kernel: {name}; {best} is better: start Python with {setting} in its environment."


def arithmetic() -> tuple[str | None, str]:
    """Return the kernel of this process and a digest of how its arithmetic rounds.

    Returns
    -------
    kernel : str or None
        As `kernel` returns it.
    digest : str
        SHA-256 of float64 results that differ wherever rounding does: matrix products, sums, exponentials
        and hyperbolic tangents, of which a network is made.

    Notes
    -----
    Two processes with the same digest have the same BLAS kernel, the same numpy and vector instructions of
    the same width, as far as these results can tell.
    """
    import numpy as np

    # Sizes that are no multiple of a kernel's block, and too small for BLAS to use more than one thread.
    numbers = np.random.default_rng(0).standard_normal(37 * 53)
    A = numbers.reshape(37, 53)
    found = [A @ A.T, A.T @ A, A @ A[0], numbers[:1000] @ numbers[-1000:], A.sum(axis=0), np.sum(numbers)]
    found += [np.tanh(A), np.exp(A), np.log1p(A**2)]
    return kernel(), sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in found)).hexdigest()


def warn_of_others(engines: dict[int, tuple[str | None, str]]) -> None:
    """Warn in one line of engines that round differently from this process.

    Parameters
    ----------
    engines : dict
        {engine: what `arithmetic` returns there}.

    Warns
    -----
    RuntimeWarning
        Names the engines, their kernels, and the option of `hfnb.Cluster` that makes kernels agree.
    """
    own, digest = arithmetic()
    others = {engine: name for engine, (name, other) in engines.items() if other != digest}
    if others:
        names = ", ".join(f"engine {engine}: {name}" for engine, name in others.items())
        warnings.warn(
            f"float64 results of engines will not equal those of this process to 1e-12: its BLAS kernel is "
            f"{own}, {names}, or their numpy or processor differs. On processors of one kind "
            f'environment={{"{KERNEL_VARIABLE}": "{own}"}} makes kernels agree',
            RuntimeWarning,
            stacklevel=2,
        )


if __name__ == "__main__":
    print("\n".join(f"{key}={value}" for key, value in environment().items()))
