"""What a Krylov solver does beside its products: the time of whole solves whose products cost nearly nothing.

``python -m bench vectors`` prints milliseconds for each product, and how many axpys they are.
"""

import time

import numpy as np
from scipy.linalg import get_blas_funcs
from scipy.sparse.linalg import LinearOperator
from threadpoolctl import threadpool_limits

import hfnb
from bench.report import about, save, show
from bench.worker import before_others
from hfnb.krylov import SOLVERS, axpy, dot

SIZE, PRODUCTS, DAMPING = 375_660, 40, 0.1  # the size is that of the network 784-400-150-10
# What was asked in float32 on one thread: how many axpys, y += a * x in NumPy, each product may cost.
BARS = {"cg": 6.7, "bicgstab": 7.5, "minres": 11.7}
AXPY = "axpy in NumPy"


def diagonal_system(dtype):
    """Return a positive definite diagonal operator that multiplies into one array, and a right-hand side."""
    random = np.random.default_rng(0)
    diagonal, out = np.geomspace(1e-3, 1e3, SIZE).astype(dtype), np.empty(SIZE, dtype)
    random.shuffle(diagonal)

    def product(v):
        return np.multiply(diagonal, v, out=out)

    operator = LinearOperator((SIZE, SIZE), matvec=product, dtype=dtype)
    return operator, random.standard_normal(SIZE).astype(dtype)


def operations(A, b):
    """Return {what: a call of it}: the product, and operations on vectors that times are compared with."""
    x, y, a, blas_axpy = b.copy(), b.copy(), b.dtype.type(1e-6), get_blas_funcs("axpy", dtype=b.dtype)

    def numpy_axpy():
        nonlocal y
        y += a * x

    return {
        "product": lambda: A.matvec(x),
        AXPY: numpy_axpy,
        "axpy in BLAS": lambda: blas_axpy(x, y, SIZE, 1e-6),
        "axpy": lambda: axpy(y, 1e-6, x),
        "dot": lambda: dot(x, y),
    }


def solve(name, A, b):
    """Make PRODUCTS products: the start is 0 and no test ends the solve, so each belongs to an iteration."""
    iterations = PRODUCTS // 2 if name == "bicgstab" else PRODUCTS
    result = SOLVERS[name](A, b, damping=DAMPING, rtol=0.0, progress=0.0, max_iter=iterations)
    assert result.products == PRODUCTS, f"{name} made {result.products} products, not {PRODUCTS}"


def keep_freed_memory():
    """Let the C library keep the memory of freed vectors, as it does once a run has freed an array of 30 MB.

    Until then, glibc returns it to the system, and every new vector costs the time of its page faults.
    """
    np.empty(30_000_000, np.uint8)


def measure(dtype, rounds: int, priority: int) -> dict[str, list[float]]:
    """Return {what: [seconds, one a round]}; those of a solver are for each product, without the product."""
    A, b = diagonal_system(dtype)
    calls = [(what, call, 10) for what, call in operations(A, b).items()]
    calls += [(name, lambda name=name: solve(name, A, b), 1) for name in BARS]
    times: dict[str, list[float]] = {what: [] for what, _, _ in calls}
    for _ in range(rounds):
        with before_others(priority):
            for what, call, repeats in calls:
                start = time.perf_counter()
                for _ in range(repeats):
                    call()
                times[what].append((time.perf_counter() - start) / repeats)
    for name in BARS:
        times[name] = list(np.divide(times[name], PRODUCTS) - times["product"])
    return times


def rows(dtype, threads: int, rounds: int, priority: int):
    """Yield a row for each operation and each solver."""
    hfnb.set_threads(threads)
    with threadpool_limits(threads, user_api="blas"):
        times = measure(dtype, rounds + 1, priority)
    hfnb.set_threads(None)
    axpys = {what: np.divide(found, times[AXPY])[1:] for what, found in times.items()}  # the first warms up
    for what, found in times.items():
        low, median, high = np.quantile(found[1:], [0.25, 0.5, 0.75]) * 1e3
        low_axpys, in_axpys, high_axpys = np.quantile(axpys[what], [0.25, 0.5, 0.75])
        yield {
            "what": what,
            "dtype": np.dtype(dtype).name,
            "threads": threads,
            "ms": float(median),
            "quartiles": f"{low:.3f}-{high:.3f}",
            "axpys": float(in_axpys),
            "quartiles of axpys": f"{low_axpys:.1f}-{high_axpys:.1f}",
            "asked": BARS.get(what) if (dtype, threads) == (np.float32, 1) else None,
        }


def run(options):
    """Print the table and save it."""
    keep_freed_memory()
    rounds, dtypes = 5 if options.quick else 30, (np.float32, np.float64)
    measured = (rows(dtype, n, rounds, options.priority) for dtype in dtypes for n in options.threads)
    found = show(row for table in measured for row in table)
    save("vectors", {"about": about(size=SIZE, rounds=rounds, damping=DAMPING), "times": found})
