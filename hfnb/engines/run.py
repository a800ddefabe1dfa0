"""The engines drive: each of them runs the same optimizer on its own partitions, an iteration at a time."""

import hashlib
import queue
import threading
import time
from collections.abc import Callable

import numpy as np

from hfnb.engines import worker
from hfnb.engines.mpi_evaluator import MPIEvaluator, SharedCheckpoint, communicator
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.objective import Objective
from hfnb.objectives.sampling import Shards


class Abandoned(BaseException):
    """Ends an optimizer that goes on after its callback stopped it because the client has left."""


class Run:
    """One optimizer's run on this engine, in a thread that halts after each iteration.

    It goes on once the client has seen the record. The client's answer, whether to stop, reaches every engine
    alike, so all stop at the same iteration.
    """

    def __init__(self, evaluator: MPIEvaluator, w0: np.ndarray, optimizer: Callable, options: dict):
        self.evaluator, arguments = (
            evaluator,
            (Objective.from_evaluator(evaluator.local.net, evaluator), w0, optimizer, options),
        )
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
    return kind, value if run.evaluator.comm.rank == 0 else None, digest, not_finite, run.spent
