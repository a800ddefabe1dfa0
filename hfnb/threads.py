"""Work dealt to threads, each with a single-threaded BLAS.

BLAS spreads a matrix product over threads and leaves every pass over the activations to one. Where the batch
is dealt to threads instead, each with its own chunks, all of the work is spread: NumPy frees Python's lock.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy  # noqa: F401  (its BLAS must be loaded before it can be found)
from threadpoolctl import ThreadpoolController


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="hfnb")


def count() -> int:
    """Return how many threads BLAS may use in this process (1 with a BLAS whose threads cannot be set)."""
    return max((library.num_threads or 1 for library in _blas().lib_controllers), default=1)


def deal(task: Callable[[int, Any], Any], shares: Sequence) -> list:
    """Return [task(0, shares[0]), task(1, shares[1]), …], each in a thread of its own.

    The first exception is raised once all have ended. A single share runs here, with BLAS as it is.

    >>> deal(lambda number, share: number + sum(share), [[1, 2], [3, 4]])
    [3, 8]
    """
    if len(shares) == 1:
        return [task(0, shares[0])]
    with _blas().limit(limits=1):
        return list(_pool(len(shares)).map(task, range(len(shares)), shares))
