"""Engine-driven runs: every engine runs the same optimizer on its own partitions, and the client watches.

The first half is the client's side: progress, the user's callback, a clean stop, restarts. The second half
runs on the engines.
"""

import hashlib
import inspect
import logging
import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.engines import worker
from hfnb.engines.distributed_evaluators import ClientEvaluator, MPIEvaluator, communicator, warn_not_finite
from hfnb.engines.pool import EngineFailure, EngineLost, pack
from hfnb.objectives.objective import Objective
from hfnb.objectives.profiler import of_engines
from hfnb.optimizers.history import Progress, check_result, report_interrupt
from hfnb.validation import asks_to_stop

log = logging.getLogger(__name__)


class Watch:
    """The client's view of a run: it shows each record, and stops the run when the user wants it to.

    The first Ctrl-C ends the run after the iteration under way; the second one interrupts at once.

    Parameters
    ----------
    callback : callable or None
        ``callback(record)`` returns a true value to stop the run.
    total : int or None
        The most iterations, for a progress bar; None for no bar.

    Attributes
    ----------
    iteration : int
        The iteration of the last record.
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
        """Note the first Ctrl-C, raise at the second."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def finish(self, result: OptimizeResult) -> OptimizeResult:
        """Return the result, which says so if Ctrl-C ended the run."""
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
    """Run an optimizer on every engine, beside the data.

    Parameters
    ----------
    evaluator : ClientEvaluator
        The network and the data, which the engines hold.
    ranks : dict
        {engine: its MPI rank}.
    w0 : ndarray, shape (p,)
        Start.
    optimizer : callable
        ``optimizer(objective, w0, callback=..., **options)`` returns an OptimizeResult.
    options : dict
        Options of the optimizer.
    watch : Watch
        Called with each record; returns whether to stop.

    Returns
    -------
    scipy.optimize.OptimizeResult
        As the optimizer returns it on the first engine.

    Raises
    ------
    EngineFailure
        If an engine raises, or the engines end with different parameters.
    EngineLost
        If an engine is lost.
    """
    pool, held = evaluator.pool, evaluator.held()
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
    pool, stop, entries = evaluator.pool, False, dict[str, Any]()
    while True:
        engines = list(pool.engines)
        replies = dict(zip(engines, pool.call_all(step, evaluator.key, stop, entries), strict=True))
        found = {engine: reply.not_finite for engine, reply in replies.items()}
        warn_not_finite(found, evaluator.partitions)
        first = replies[engines[0]]
        if first.is_result:
            break
        record = first.value
        record["profile"] = of_engines({engine: reply.spent for engine, reply in replies.items()})
        stop, entries = watch(record), dict(record)
    if len({reply.digest for reply in replies.values()}) > 1:
        raise EngineFailure("the engines ended with different parameters")
    return first.value


def run_with_restarts(
    attempt: Callable, restart: Callable, watch: Watch, max_failures: int
) -> OptimizeResult:
    """Run until an attempt succeeds, with new engines after each loss of one.

    Parameters
    ----------
    attempt : callable
        ``attempt()`` returns the result, from the last checkpoint on.
    restart : callable
        ``restart()`` starts the engines again.
    watch : Watch
        Knows the iteration of the last record.
    max_failures : int
        The most attempts that may fail.

    Returns
    -------
    scipy.optimize.OptimizeResult

    Raises
    ------
    EngineLost
        With the causes of all failures, if there are more than ``max_failures``.
    """
    causes: list[str] = []
    while True:
        try:
            return attempt()
        except EngineLost as failure:
            causes.append(f"{failure}, after iteration {watch.iteration}")
            if len(causes) > max_failures:
                times = f"gave up after {len(causes)} failures: " if max_failures else ""
                raise EngineLost(times + "; ".join(causes)) from None
            log.warning("%s: starting the engines again, from the last checkpoint.", failure)
            restart()


def iterations(optimizer: Callable, options: dict) -> int | None:
    """Return the most iterations that an optimizer will make.

    Parameters
    ----------
    optimizer : callable
    options : dict
        What it is called with.

    Returns
    -------
    int or None
        Its ``max_iter``; None if it has no such option, or will refuse the value.
    """
    try:
        parameter = inspect.signature(optimizer).parameters.get("max_iter")
    except ValueError:  # a builtin function without a signature
        parameter = None
    limit = options.get("max_iter", parameter.default if parameter else None)
    return int(limit) if isinstance(limit, (int, np.integer)) and limit >= 0 else None


class Abandoned(BaseException):
    """Ends an optimizer that ignores its callback's wish to stop, because the client has left."""


class Run:
    """One optimizer's run on this engine, in a thread that halts after each iteration.

    It goes on once the client has seen the record. The client's answer, whether to stop, is the same for
    every engine, so that all stop at the same iteration.

    Parameters
    ----------
    net : object
        The network.
    evaluator : MPIEvaluator
    w0 : ndarray, shape (p,)
    optimizer : callable
    options : dict
        Options of the optimizer.

    Attributes
    ----------
    spent : tuple
        (laps, seconds, idle): the clock's laps and seconds in the last iteration, and the wait before it.
    """

    def __init__(self, net, evaluator: MPIEvaluator, w0: np.ndarray, optimizer: Callable, options: dict):
        self.evaluator = evaluator
        self.spent: tuple = ()
        self._clock = evaluator.clock
        self._records: queue.SimpleQueue = queue.SimpleQueue()
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        arguments = Objective.from_evaluator(net, evaluator), w0, optimizer, options
        self._thread = threading.Thread(target=self._optimize, args=arguments, daemon=True)
        self._started, self._abandoned, self._idle = False, False, 0.0

    def _optimize(self, objective: Objective, w0: np.ndarray, optimizer: Callable, options: dict):
        """Run the optimizer in its thread; its result or its error comes after its records."""
        try:
            result = check_result(optimizer(objective, w0, callback=self._halt, **options))
            self._records.put(("result", result))
        except BaseException as error:
            self._records.put(("error", error))

    def _halt(self, record) -> bool:
        """Hand over a record, and wait until the client says whether to stop."""
        if self._abandoned:
            raise Abandoned
        self.spent = *self._clock.take(), self._idle
        self._records.put(("record", record))
        start = time.perf_counter()
        stop, entries = self._answers.get()
        self._idle = time.perf_counter() - start
        record.update(entries)
        return stop

    def step(self, stop: bool, entries: dict) -> tuple[str, Any]:
        """Go on to the end of the next iteration.

        Parameters
        ----------
        stop : bool
            Whether the run is to stop, which is the client's answer to the last record.
        entries : dict
            The last record as the client has completed it, for the history and the checkpoints.

        Returns
        -------
        kind : {"record", "result"}
        value : Record or scipy.optimize.OptimizeResult
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
        """End a run that its client has left; all its engines end after the same iteration."""
        self._abandoned = True
        if self._started:
            self._answers.put((True, {}))
            self._thread.join()


class SharedCheckpoint:
    """A checkpoint that the first engine reads and writes; all engines get the same state or the same error.

    Parameters
    ----------
    checkpoint : object
        With the methods of `hfnb.Checkpoint`; only the first engine calls them.
    comm : mpi4py.MPI.Intracomm
        The engines of the run.
    """

    def __init__(self, checkpoint, comm):
        self.checkpoint, self.comm, self.folder = checkpoint, comm, getattr(checkpoint, "folder", None)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep other runs out of the folder: the first engine holds the lock for all."""
        with ExitStack() as stack:
            keep_out = getattr(self.checkpoint, "in_use", nullcontext)
            self._first(lambda: stack.enter_context(keep_out()))
            yield

    def load(self):
        """Return the last state saved, or None."""
        return self._first(self.checkpoint.load)

    def save(self, state: dict) -> None:
        """Save a state."""
        self._first(lambda: self.checkpoint.save(state))

    def _first(self, action: Callable):
        """Return on all engines what the action returns on the first one, or raise what it raises there."""
        value = error = None
        if self.comm.rank == 0:
            try:
                value = action()
            except Exception as raised:
                error = _sendable(raised)
        value, error = self.comm.bcast((value, error))
        if error is not None:
            raise error
        return value


def _sendable(error: Exception) -> Exception:
    """Return the error, or its text if it cannot be sent: the other engines wait for it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Reply(NamedTuple):
    """What an engine answers at the end of an iteration.

    Attributes
    ----------
    is_result : bool
        Whether the run has ended.
    value : Record, scipy.optimize.OptimizeResult or None
        The record or the result; None on all engines but the first, since the others have the same.
    digest : str or None
        SHA-256 of the final parameters.
    not_finite : list of int
        The partitions held there whose loss was found not to be finite.
    spent : tuple
        As `Run.spent`.
    """

    is_result: bool
    value: Any
    digest: str | None
    not_finite: list[int]
    spent: tuple


def abandon() -> None:
    """End every run on this engine, since no client waits for it; its checkpoint folder becomes free."""
    while worker.RUNS:
        worker.RUNS.popitem()[1].abandon()


def begin(evaluator: str, blocks: Sequence[int], ranks: Sequence[int], w0: np.ndarray, job: bytes) -> None:
    """Set up a run on this engine.

    Parameters
    ----------
    evaluator : str
        The key of the network and the data.
    blocks : sequence of int
        The blocks of partitions that this engine holds.
    ranks : sequence of int
        The MPI ranks of all engines of the run.
    w0 : ndarray, shape (p,)
        Start.
    job : bytes
        The optimizer and its options, packed.
    """
    abandon()
    optimizer, options = worker.unpack("optimizer or its options", job)
    comm = communicator(tuple(ranks))
    if options.get("checkpoint") is not None:
        options["checkpoint"] = SharedCheckpoint(options["checkpoint"], comm)
    local = worker.evaluator_of(evaluator, blocks)
    run = Run(local.net, MPIEvaluator(local, comm), np.array(w0), optimizer, options)
    worker.RUNS[evaluator] = run


def step(evaluator: str, stop: bool, entries: dict) -> Reply:
    """Run one iteration on this engine.

    Parameters
    ----------
    evaluator : str
        The key of the run.
    stop, entries
        As `Run.step` takes them.

    Returns
    -------
    Reply

    Raises
    ------
    RuntimeError
        If another client has ended the run.
    """
    if evaluator not in worker.RUNS:
        raise RuntimeError(
            "another run on the same engines, started by another client or by a callback, ended this run"
        )
    run = worker.RUNS.pop(evaluator)
    kind, value = run.step(stop, entries)
    digest = None
    if kind == "result":
        digest = hashlib.sha256(value.x.tobytes()).hexdigest()
    else:
        worker.RUNS[evaluator] = run
    first, not_finite = run.evaluator.rank == 0, run.evaluator.take_not_finite()
    return Reply(kind == "result", value if first else None, digest, not_finite, run.spent)
