"""The client's side of a run that the engines drive: progress, the reader's callback, a clean stop."""

import inspect
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.engines import run
from hfnb.engines.client_evaluator import ClientEvaluator, warn_not_finite
from hfnb.engines.pool import EngineFailure, EngineLost, pack
from hfnb.objectives.profiler import of_engines
from hfnb.optimizers.progress import Progress, interrupted
from hfnb.validation import asks_to_stop


class Watch:
    """Shows each record, and asks to stop where the reader's callback does or after Ctrl-C.

    The first Ctrl-C lets the iteration under way end, and the run with it; the second one interrupts.
    """

    def __init__(self, callback: Callable | None, total: int | None):
        self.interrupted, self.iteration = False, 0
        self._bar = Progress(total, callback, unit="iteration") if total else None
        self._show = self._bar or callback

    def __call__(self, record) -> bool:
        """Show a record; return True to stop."""
        self.iteration = record.get("iteration", self.iteration + 1)
        stop = self._show is not None and asks_to_stop(self._show, record)
        return stop or self.interrupted

    @contextmanager
    def watching(self) -> Iterator["Watch"]:
        """Take Ctrl-C as the wish to stop while the run lasts."""
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, self._interrupt) if main else None
        with self._bar or nullcontext():
            try:
                yield self
            finally:
                if main:
                    signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_):
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def finish(self, result: OptimizeResult) -> OptimizeResult:
        """Say in the result that it was Ctrl-C that ended the run."""
        if self.interrupted:
            result.update(success=False, message=f"interrupted after iteration {result.nit}")
            print(interrupted(result.nit))
        return result


def run_engine_driven(
    evaluator: ClientEvaluator,
    ranks: dict[int, int],
    w0: np.ndarray,
    optimizer: Callable,
    options: dict,
    watch: Watch,
) -> OptimizeResult:
    """Run the optimizer on every engine ({engine: its rank}); EngineFailure if one is lost."""
    pool, held = evaluator.placement.pool, evaluator.placement.held()
    order = [ranks[engine] for engine in pool.engines]
    job = pack("optimizer or its options", (optimizer, options))
    try:
        pool.call_each(
            {engine: (run.begin, evaluator.key, held[engine], order, w0, job) for engine in pool.engines}
        )
        return _drive(evaluator, watch)
    except (
        BaseException
    ):  # an interrupt or an error of the callback, too: engines must not wait for an answer
        pool.notify_all(run.abandon)
        raise


def _drive(evaluator: ClientEvaluator, watch: Watch) -> OptimizeResult:
    """Let the engines go on from iteration to iteration, until they have a result."""
    pool, partitions = evaluator.placement.pool, len(evaluator.placement.offsets) - 1
    stop, kind, entries = False, "record", dict[str, Any]()
    while kind == "record":
        replies = pool.call_all(run.step, evaluator.key, stop, entries)
        kind, value, *_ = replies[0]
        warn_not_finite(
            {engine: reply[3] for engine, reply in zip(pool.engines, replies, strict=True)}, partitions
        )
        if kind == "record":
            value["profile"] = of_engines(
                {e: reply[4] for e, reply in zip(pool.engines, replies, strict=True)}
            )
            stop, entries = watch(value), dict(value)
    if len({reply[2] for reply in replies}) > 1:
        raise EngineFailure("the engines ended with different parameters")
    return value


def run_with_restarts(
    attempt: Callable, restart: Callable, watch: Watch, max_failures: int
) -> OptimizeResult:
    """Return attempt(), made again after restart() where engines were lost; EngineLost lists the causes."""
    causes: list[str] = []
    while True:
        try:
            return attempt()
        except EngineLost as failure:
            causes.append(f"{failure}, after iteration {watch.iteration}")
            if len(causes) > max_failures:
                times = f"gave up after {len(causes)} failures: " if max_failures else ""
                raise EngineLost(times + "; ".join(causes)) from None
            print(f"{failure}: starting the engines again, from the last checkpoint.")
            restart()


def iterations(optimizer: Callable, options: dict) -> int | None:
    """Return the most iterations that the optimizer will make, where it has such a limit.

    None, too, for a limit that the optimizer will refuse by its own name.
    """
    try:
        parameter = inspect.signature(optimizer).parameters.get("max_iter")
    except ValueError:  # a builtin function without a signature
        parameter = None
    limit = options.get("max_iter", parameter.default if parameter else None)
    return int(limit) if isinstance(limit, (int, np.integer)) and limit >= 0 else None
