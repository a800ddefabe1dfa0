"""The client's side of a run that the engines drive: progress, the reader's callback, a clean stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.engines import run
from hfnb.engines.pool import EngineFailure, pack
from hfnb.engines.remote import RemoteSums
from hfnb.progress import Progress


class Watch:
    """Shows each record, and asks to stop where the reader's callback does or after Ctrl-C.

    The first Ctrl-C lets the iteration under way end, and the run with it; the second one interrupts.
    """

    def __init__(self, callback: Callable | None, total: int | None):
        self.interrupted = False
        self._bar = Progress(total, callback, unit="iteration") if total else None
        self._show = self._bar or callback

    def __call__(self, record) -> bool:
        """Show a record; return True to stop."""
        stop = self._show is not None and bool(self._show(record))
        return stop or self.interrupted

    @contextmanager
    def watching(self) -> Iterator["Watch"]:
        """Take Ctrl-C as the wish to stop while the run lasts."""
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, self._interrupt) if main else None
        try:
            yield self
        finally:
            if main:
                signal.signal(signal.SIGINT, before)
            if self._bar:
                self._bar.close()

    def _interrupt(self, *_):
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def finish(self, result: OptimizeResult) -> OptimizeResult:
        """Say in the result that it was Ctrl-C that ended the run."""
        if self.interrupted:
            result.update(success=False, message=f"interrupted after iteration {result.nit}")
        return result


def run_on_engines(
    sums: RemoteSums, ranks: dict[int, int], w0: np.ndarray, optimizer: Callable, options: dict, watch: Watch
) -> OptimizeResult:
    """Run the optimizer on every engine ({engine: its rank}); EngineFailure if one is lost."""
    pool, held = sums.placement.pool, sums.placement.held()
    order = [ranks[engine] for engine in pool.engines]
    job = pack("optimizer or its options", (optimizer, options))
    pool.ask_each({engine: (run.begin, sums.key, held[engine], order, w0, job) for engine in pool.engines})
    stop = False
    while True:
        kind, value, _ = (replies := pool.ask_all(run.step, stop))[0]
        if kind == "record":
            stop = watch(value)
            continue
        if len({digest for _, _, digest in replies}) > 1:
            raise EngineFailure("the engines ended with different parameters")
        return watch.finish(value)
