"""What benchmarks of many runs share: which runs are asked for, and how several are made at a time."""

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

from hfnb.threads import THREAD_VARIABLES


def chosen(asked: list[str] | None, known: Iterable[str], option: str) -> list[str]:
    """Return the names that an option of the command line asks for, all by default."""
    known = list(known)
    if unknown := [name for name in asked or [] if name not in known]:
        raise SystemExit(f"{option}: expected names of {', '.join(known)}, got {', '.join(unknown)}")
    return asked or known


@contextmanager
def at_once(count: int) -> Iterator[tuple[ProcessPoolExecutor, ThreadPoolExecutor]]:
    """Give processes with one BLAS thread each, and as many threads that wait for their runs.

    An interrupt or an error ends all, after the runs that are being made.
    """
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit locks of BLAS threads
    with (
        ProcessPoolExecutor(count, mp_context=fresh, initializer=threadpool_limits, initargs=(1,)) as pool,
        ThreadPoolExecutor(count) as threads,
    ):
        try:
            yield pool, threads
        except BaseException:
            for each in (threads, pool):
                each.shutdown(wait=False, cancel_futures=True)
            raise
