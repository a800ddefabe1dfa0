"""Engine-driven runs: every engine runs the same optimizer on its own partitions, an iteration at a time.

The first half is the client's side, with progress, the user's callback and a clean stop; the second half
runs on the engines.
"""

import hashlib
import inspect
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.engines import worker
from hfnb.engines.client_evaluator import ClientEvaluator, warn_not_finite
from hfnb.engines.mpi_evaluator import MPIEvaluator, SharedCheckpoint, communicator
from hfnb.engines.pool import EngineFailure, EngineLost, pack
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.objective import Objective
from hfnb.objectives.profiler import of_engines
from hfnb.objectives.sampling import Shards
from hfnb.optimizers.progress import Progress, report_interrupt
from hfnb.validation import asks_to_stop


class Watch:
    """Shows each record, and asks to stop where the user's callback does or after Ctrl-C.

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
            report_interrupt(result.nit)
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
            {engine: (begin, evaluator.key, held[engine], order, w0, job) for engine in pool.engines}
        )
        return _follow(evaluator, watch)
    except BaseException:
        # An interrupt or an error of the callback, too: the engines must not wait for an answer.
        pool.notify_all(abandon)
        raise


def _follow(evaluator: ClientEvaluator, watch: Watch) -> OptimizeResult:
    """Let the engines go on from iteration to iteration, until they have a result."""
    pool, partitions = evaluator.placement.pool, len(evaluator.placement.offsets) - 1
    stop, kind, entries = False, "record", dict[str, Any]()
    while kind == "record":
        replies = pool.call_all(step, evaluator.key, stop, entries)
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


class Abandoned(BaseException):
    """Ends an optimizer that goes on after its callback stopped it because the client has left."""


class Run:
    """One optimizer's run on this engine, in a thread that halts after each iteration.

    It goes on once the client has seen the record. The client's answer, whether to stop, reaches every engine
    alike, so all stop at the same iteration.
    """

    def __init__(self, evaluator: MPIEvaluator, w0: np.ndarray, optimizer: Callable, options: dict):
        self.evaluator = evaluator
        arguments = Objective.from_evaluator(evaluator.local.net, evaluator), w0, optimizer, options
        self._records: queue.SimpleQueue = queue.SimpleQueue()
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._optimize, args=arguments, daemon=True)
        self._started, self._abandoned, self._idle = False, False, 0.0
        self.spent: tuple = ()  # the laps of the last iteration, its seconds, and those of the halt before it

    def _optimize(self, objective: Objective, w0: np.ndarray, optimizer: Callable, options: dict):
        try:
            self._records.put(("result", optimizer(objective, w0, callback=self._halt, **options)))
        except BaseException as error:
            self._records.put(("error", error))

    def _halt(self, record) -> bool:
        if self._abandoned:
            raise Abandoned
        self.spent = *self.evaluator.clock.take(), self._idle
        self._records.put(("record", record))
        start = time.perf_counter()
        stop, entries = self._answers.get()
        self._idle = time.perf_counter() - start
        if stop is None:
            raise RuntimeError("the client has left this run")
        record.update(entries)
        return stop

    def step(self, stop: bool, entries: dict) -> tuple:
        """Go on to the end of the next iteration: ("record", record) or ("result", result).

        ``entries``: the last record as the client has completed it, so that history and checkpoints keep it.
        """
        if self._started:
            self._answers.put((stop, entries))
        else:
            self._started = True
            self._thread.start()
        kind, value = self._records.get()
        if kind == "error":
            raise value
        return kind, value

    def abandon(self) -> None:
        """End a run that its client has left: its engines all halt after the same iteration."""
        self._abandoned = True
        if self._started:
            self._answers.put((True, {}))
            self._answers.put((None, {}))  # to an optimizer that goes on all the same
            self._thread.join()


def abandon() -> None:
    """End the run that there is, whose client no longer waits for it: it frees its checkpoint folder."""
    while worker.RUNS:
        worker.RUNS.popitem()[1].abandon()


def begin(evaluator: str, blocks: list[int], ranks: list[int], w0: np.ndarray, job: bytes) -> None:
    """Set up a run of the engines with these ranks on the blocks that this one holds."""
    abandon()
    net, dataset, chunk = worker.NETS[evaluator]
    optimizer, options = worker.unpack("optimizer or its options", job)
    comm = communicator(tuple(ranks))
    if options.get("checkpoint") is not None:
        options["checkpoint"] = SharedCheckpoint(options["checkpoint"], comm)
    shards = [worker.BLOCKS[dataset, block] for block in blocks]
    mine = Shards(shards[0].offsets, {number: part for held in shards for number, part in held.parts.items()})
    worker.RUNS[evaluator] = Run(
        MPIEvaluator(LocalEvaluator(net, mine, chunk), comm), np.array(w0), optimizer, options
    )


def step(evaluator: str, stop: bool, entries: dict) -> tuple:
    """Run one iteration; return "record" or "result", what it is, a digest of the final parameters, the
    partitions found not finite, and where the time went. The first engine alone returns what it is: the
    others have the same. RuntimeError if the run is no longer there.
    """
    if evaluator not in worker.RUNS:
        raise RuntimeError(
            "the run was ended by another one on the same engines, of another client or of a callback"
        )
    run = worker.RUNS.pop(evaluator)
    kind, value = run.step(stop, entries)
    digest = None
    if kind == "result":
        digest = hashlib.sha256(value.x.tobytes()).hexdigest()
    else:
        worker.RUNS[evaluator] = run
    not_finite, run.evaluator.not_finite = run.evaluator.not_finite, []
    first = run.evaluator.comm.rank == 0
    return kind, value if first else None, digest, not_finite, run.spent
