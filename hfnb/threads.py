"""Work dealt to threads, each with a single-threaded BLAS.

BLAS spreads a matrix product over threads and leaves every pass over the activations to one. Where chunks of
a batch are dealt to threads instead, all of the work is spread: NumPy frees Python's lock while it computes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import cache
from os import getpid
from threading import Lock
from typing import Any

import numpy  # noqa: F401  (its BLAS must be loaded before it can be found)
from threadpoolctl import ThreadpoolController

_ONE_AT_A_TIME = Lock()  # the number of BLAS threads is the whole process's: who changes it, restores it


@cache
def _blas() -> list:
    return ThreadpoolController().select(user_api="blas").lib_controllers


@cache
def _pool(count: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="hfnb")


def count() -> int:
    """Return how many threads work can be dealt to: those that BLAS may use in this process.

    1 for a BLAS that keeps that number for each thread apart: here it could only be set for one of them.
    """
    found = _blas()
    if any((each.internal_api, each.threading_layer) != ("openblas", "pthreads") for each in found):
        return 1
    return min((each.num_threads for each in found), default=1)


def deal(task: Callable[[int, Any], Any], shares: Sequence) -> list:
    """Return [task(0, shares[0]), task(1, shares[1]), …], each in a thread of its own, the first in this one.

    An exception is raised once all have ended. A single share, and shares dealt while others are being worked
    on, run here one after another, with BLAS as it is.

    >>> deal(lambda number, share: number + sum(share), [[1, 2], [3, 4]])
    [3, 8]
    """
    if len(shares) == 1 or not _ONE_AT_A_TIME.acquire(blocking=False):
        return [task(number, share) for number, share in enumerate(shares)]
    before = [(library, library.num_threads) for library in _blas()]
    try:
        for library, _ in before:
            library.set_num_threads(1)
        pool, rest = _pool(len(shares) - 1, getpid()), list(enumerate(shares))[1:]
        others = [pool.submit(copy_context().run, task, number, share) for number, share in rest]
        try:
            first = task(0, shares[0])
        finally:
            wait(others)
        return [first, *(each.result() for each in others)]
    finally:
        for library, number in before:
            library.set_num_threads(number)
        _ONE_AT_A_TIME.release()
