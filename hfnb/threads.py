"""The number of threads for sums over samples, a parallel map, and limits on the threads of BLAS.

One thread is used unless the environment or `set_threads` says otherwise. OpenBLAS by itself would take one
for every core, and its threads wait for each other by spinning: while another program computes, a run can
take fifty times as long. OpenBLAS also spreads only the matrix products over threads, not the passes over the
activations. With more than one thread, hfnb therefore gives each thread some chunks of the batch and a
single-threaded BLAS: all of the work is spread, no thread spins, and a float64 sum is the same on any number
of threads. NumPy releases Python's lock while it computes.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from threading import Lock, get_ident
from typing import Any, TypeVar

import numpy  # noqa: F401  (its BLAS must be loaded before it can be found)
from threadpoolctl import ThreadpoolController

from hfnb.validation import check_positive_int

# Environment variables for the number of threads: those of one library first, then the common one.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")
Part = TypeVar("Part")
Result = TypeVar("Result")

_POOL_IN_USE = Lock()  # held by the one caller whose parts run in parallel: the pool has no threads for two
_LOCK = Lock()  # protects the two tables below
_LIMITS: dict[int, list[int]] = {}  # by thread: the limits that it is within, the innermost last
_BEFORE: list[tuple["_ProcessWideBLAS", int]] = []  # each, and its number of threads before any limit
_requested: int | None = None


class _ProcessWideBLAS:
    """An OpenBLAS library with one number of threads, which all Python threads of the process share.

    The number is set by a function of the library itself. threadpoolctl obeys only the first thread that sets
    the number and ignores the others without an error (see its ``OpenBLASController``). An engine runs the
    optimizer in another thread, so the library is called directly.
    """

    def __init__(self, library: Any):
        self.library = library
        affixes = [(prefix, suffix) for prefix in ("", "scipy_") for suffix in ("", "64_", "_64")]
        names = [f"{prefix}openblas_set_num_threads{suffix}" for prefix, suffix in affixes]
        found = (getattr(library.dynlib, name, None) for name in names)
        self.set: Callable[[int], None] = next(filter(None, found), library.set_num_threads)

    @property
    def number(self) -> int:
        """The number of threads now."""
        return self.library.num_threads


@cache
def _blas() -> tuple[list[_ProcessWideBLAS], list[Any]]:
    """Return the BLAS libraries with one number of threads for the process, and those with one per thread."""
    process_wide, by_thread = [], []
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        if (library.internal_api, library.threading_layer) == ("openblas", "pthreads"):
            process_wide.append(_ProcessWideBLAS(library))
        else:
            by_thread.append(library)
    return process_wide, by_thread


@cache
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    """Return a pool of so many threads; a forked process, which has none of them, gets a pool of its own."""
    return ThreadPoolExecutor(count, thread_name_prefix="hfnb")


def set_threads(n: int | None) -> None:
    """Set how many threads the sums over samples use in this process.

    Parameters
    ----------
    n : int or None
        At least 1. None stands for the default, which holds until the first call: the first of the variables
        ``OPENBLAS_NUM_THREADS``, ``MKL_NUM_THREADS``, ``VECLIB_MAXIMUM_THREADS`` and ``OMP_NUM_THREADS``
        that is set (at most the number of cores), and 1 if none is.

    Raises
    ------
    ValueError, TypeError
        If ``n`` is not a whole number of at least 1.

    Notes
    -----
    In float64 the sums are the same on any number of threads. BLAS is limited only while hfnb computes; for
    the rest of the program its number of threads stays what it is.

    Samples are spread over threads where NumPy has OpenBLAS with its own threads, as NumPy's wheels for Linux
    and Windows have. With another BLAS that can be limited (MKL, OpenBLAS with OpenMP) float32 sums leave
    ``n`` threads to BLAS and float64 sums use one. Accelerate (macOS) cannot be limited by a running program:
    it has as many threads as ``VECLIB_MAXIMUM_THREADS`` said when Python was started.

    Examples
    --------
    >>> set_threads(2)
    >>> count()
    2
    >>> set_threads(None)
    """
    global _requested
    _requested = None if n is None else check_positive_int("n", n)


def count() -> int:
    """Return how many threads were requested, by `set_threads` or else by the environment.

    Returns
    -------
    int
        At least 1.
    """
    if _requested is not None:
        return _requested
    for name in THREAD_VARIABLES:
        value = os.environ.get(name, "").partition(",")[0].strip()  # OMP_NUM_THREADS may be a list
        if value.isdecimal() and int(value) > 0:
            return min(int(value), _cores())
    return 1


@cache
def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares() -> int:
    """Return in how many parts to divide work for `parallel_map`.

    Returns
    -------
    int
        `count`, or 1 where the threads of BLAS cannot be limited for the whole process.
    """
    process_wide, by_thread = _blas()
    return count() if process_wide and not by_thread else 1


def blas_is_sequential() -> bool:
    """Return whether BLAS computes in the calling thread alone; this takes 1 µs, much less than `limited`.

    Returns
    -------
    bool
        False also for a BLAS with a number of threads for each thread of Python, which takes longer to ask.
    """
    process_wide, by_thread = _blas()
    return not by_thread and all(library.number == 1 for library in process_wide)


@contextmanager
def limited(number: int) -> Iterator[None]:
    """Return a context in which BLAS has at most ``number`` threads; afterwards it has as many as before.

    Of nested contexts the innermost counts. All Python threads share OpenBLAS's number of threads: while
    several of them are in such contexts, the lowest of their limits counts for all.

    Parameters
    ----------
    number : int
        At least 1.

    Yields
    ------
    None
        The block of the ``with`` statement runs with the limit.

    Examples
    --------
    >>> with limited(1):
    ...     pass  # matrix products use one thread here
    """
    thread, (_, by_thread) = get_ident(), _blas()
    before = [library.num_threads for library in by_thread]
    with _LOCK:
        _LIMITS.setdefault(thread, []).append(number)
        _apply()
    try:
        for library in by_thread:
            library.set_num_threads(number)
        yield
    finally:
        for library, threads in zip(by_thread, before, strict=True):
            library.set_num_threads(threads)
        with _LOCK:
            _LIMITS[thread].pop()
            if not _LIMITS[thread]:
                del _LIMITS[thread]
            _apply()


def _apply() -> None:
    """Set every process-wide BLAS to the lowest limit; without any limit, to what it had before the first."""
    if _LIMITS and not _BEFORE:
        _BEFORE.extend((library, library.number) for library in _blas()[0])
    lowest = min((limits[-1] for limits in _LIMITS.values()), default=None)
    for library, before in _BEFORE:
        wanted = before if lowest is None else lowest
        if library.number != wanted:
            library.set(wanted)
    if not _LIMITS:
        _BEFORE.clear()


def _after_fork() -> None:
    """Forget, in a forked process, the locks and limits of threads that only the parent process has.

    A lock that another thread held would never be released, and its limit would never end.
    """
    global _LOCK, _POOL_IN_USE
    _LOCK, _POOL_IN_USE = Lock(), Lock()
    for thread in _LIMITS.keys() - {get_ident()}:
        del _LIMITS[thread]
    _apply()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def parallel_map(task: Callable[[int, Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Return [task(0, parts[0]), task(1, parts[1]), …], computed in parallel threads.

    If there is at most one part, or if another call of `parallel_map` is running, the calling thread computes
    all parts one after another, without a limit for BLAS.

    Parameters
    ----------
    task : callable
        ``task(number, part)``. While several run, BLAS has one thread in each.
    parts : sequence
        The work. The calling thread takes the first part.

    Returns
    -------
    list
        The results, in the order of ``parts``.

    Raises
    ------
    Exception
        What a task raised, once all tasks have ended; the one of the first part that failed.

    Examples
    --------
    >>> parallel_map(lambda number, part: number + sum(part), [[1, 2], [3, 4]])
    [3, 8]
    """
    lock = _POOL_IN_USE  # the same object is released, even where a task forks the process
    if len(parts) <= 1 or not lock.acquire(blocking=False):
        return [task(number, part) for number, part in enumerate(parts)]
    try:
        with limited(1):
            pool, rest = _pool(len(parts) - 1, os.getpid()), list(enumerate(parts))[1:]
            others = [pool.submit(copy_context().run, task, number, part) for number, part in rest]
            try:
                first = task(0, parts[0])
            finally:
                wait(others)
            return [first, *(each.result() for each in others)]
    finally:
        lock.release()
