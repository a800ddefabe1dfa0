"""How many threads the sums over samples use, and work dealt to them, each with a single-threaded BLAS.

One by default. OpenBLAS would take a thread for every core, and its threads wait for each other by spinning:
while another program computes, a run can take fifty times as long. And it spreads a matrix product over
threads but leaves every pass over the activations to one. Where chunks of a batch are dealt to threads
instead, all of the work is spread, no thread spins, and a float64 sum is the same on any number of threads.
NumPy frees Python's lock while it computes.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from threading import Lock, get_ident
from typing import Any

import numpy  # noqa: F401  (its BLAS must be loaded before it can be found)
from threadpoolctl import ThreadpoolController

from hfnb.validation import check_positive_int

# The variables by which a user says how many threads BLAS may have, those of one BLAS before that of all.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")
_ONE_AT_A_TIME = Lock()  # shares are dealt by one caller at a time: the pool has no threads for a second one
_LOCK = Lock()  # protects the two tables below
_LIMITS: dict[int, list[int]] = {}  # thread: the limits that it is within, the innermost last
_BEFORE: list[tuple["Shared", int]] = []  # each shared BLAS, and its number of threads before any limit
_requested: int | None = None


class Shared:
    """An OpenBLAS with threads of its own, whose number is one for all threads of the process.

    It is set by the library's own function: threadpoolctl lets only the first thread that has set it do so
    again, and ignores all others without a word, such as the one in which an engine runs an optimizer.
    """

    def __init__(self, library):
        self.library = library
        affixes = [(prefix, suffix) for prefix in ("", "scipy_") for suffix in ("", "64_", "_64")]
        names = [f"{prefix}openblas_set_num_threads{suffix}" for prefix, suffix in affixes]
        found = (getattr(library.dynlib, name, None) for name in names)
        self.set = next(filter(None, found), library.set_num_threads)

    @property
    def number(self) -> int:
        return self.library.num_threads


@cache
def _blas() -> tuple[list[Shared], list]:
    """The BLAS libraries with one number of threads for all of the process, and those with one for each."""
    shared, own = [], []
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        if (library.internal_api, library.threading_layer) == ("openblas", "pthreads"):
            shared.append(Shared(library))
        else:
            own.append(library)
    return shared, own


@cache
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="hfnb")


def set_threads(n: int | None) -> None:
    """Let hfnb's sums over samples use ``n`` threads in this process; None: as many as the environment says.

    Parameters
    ----------
    n : int or None
        At least 1. Until this is called, and after ``set_threads(None)``, it is the first of the variables
        ``OPENBLAS_NUM_THREADS``, ``MKL_NUM_THREADS``, ``VECLIB_MAXIMUM_THREADS`` and ``OMP_NUM_THREADS``
        that is set (at most the number of cores), and 1 if none is.

    Raises
    ------
    ValueError, TypeError
        If ``n`` is not a whole number of at least 1.

    Notes
    -----
    In float64 the sums are the same on any number of threads. BLAS is limited only while hfnb computes; what
    it is set to for the rest of the program stays. Threads are dealt chunks of samples where numpy has
    OpenBLAS with its own threads, as numpy's wheels for Linux and Windows have. With another BLAS that can be
    limited (MKL, OpenBLAS with OpenMP) float32 sums leave ``n`` threads to BLAS and float64 sums use one.
    Accelerate (macOS) cannot be limited by a running program: it has as many threads as
    ``VECLIB_MAXIMUM_THREADS`` said when Python was started.

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
    """Return how many threads have been requested, by `set_threads` or else by the environment."""
    if _requested is not None:
        return _requested
    for name in THREAD_VARIABLES:
        value = os.environ.get(name, "").partition(",")[0].strip()  # OMP_NUM_THREADS may be a list
        if value.isdecimal() and int(value) > 0:
            return min(int(value), _cores())
    return 1


@cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares() -> int:
    """Return how many shares work should be dealt in: `count`, or 1 where BLAS cannot be limited in all."""
    shared, own = _blas()
    return count() if shared and not own else 1


@contextmanager
def limited(number: int) -> Iterator[None]:
    """Hold BLAS to so many threads for what this thread does inside; what it was set to comes back.

    Of limits within each other the innermost holds. While several Python threads are inside, the lowest of
    theirs holds for all, since OpenBLAS has one number of threads for the whole process.
    """
    thread, (_, own) = get_ident(), _blas()
    before = [each.num_threads for each in own]
    with _LOCK:
        _LIMITS.setdefault(thread, []).append(number)
        _apply()
    try:
        for each in own:
            each.set_num_threads(number)
        yield
    finally:
        for each, threads in zip(own, before, strict=True):
            each.set_num_threads(threads)
        with _LOCK:
            _LIMITS[thread].pop()
            if not _LIMITS[thread]:
                del _LIMITS[thread]
            _apply()


def _apply() -> None:
    """Set every shared BLAS to the lowest of the limits or, where none is left, to what it had before."""
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
    """Forget in a forked process what threads of the first one hold: it has none of them but the forking one.

    A lock that another thread held would never be free, nor a limit of it end.
    """
    global _LOCK, _ONE_AT_A_TIME
    _LOCK, _ONE_AT_A_TIME = Lock(), Lock()
    for thread in _LIMITS.keys() - {get_ident()}:
        del _LIMITS[thread]
    _apply()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def parallel_map(task: Callable[[int, Any], Any], shares: Sequence) -> list:
    """Return [task(0, shares[0]), task(1, shares[1]), …], each in a thread of its own, the first in this one.

    An exception is raised once all have ended. A single share, and shares dealt while others are being worked
    on, run here one after another, with BLAS as it is.

    >>> parallel_map(lambda number, share: number + sum(share), [[1, 2], [3, 4]])
    [3, 8]
    """
    lock = _ONE_AT_A_TIME  # this one is freed, even where a share forks
    if len(shares) == 1 or not lock.acquire(blocking=False):
        return [task(number, share) for number, share in enumerate(shares)]
    try:
        with limited(1):
            pool, rest = _pool(len(shares) - 1, os.getpid()), list(enumerate(shares))[1:]
            others = [pool.submit(copy_context().run, task, number, share) for number, share in rest]
            try:
                first = task(0, shares[0])
            finally:
                wait(others)
            return [first, *(each.result() for each in others)]
    finally:
        lock.release()
