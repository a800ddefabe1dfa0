"""Sums over engines that MPI connects: each adds up its own partitions, Allreduce does the rest."""

import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache, partial

import numpy as np

from hfnb.engines import worker
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.profiler import Clock
from hfnb.objectives.sampling import Sample
from hfnb.objectives.summation import merge, value, zeros
from hfnb.validation import check_extra

LAUNCHED_BY_MPI = (
    "PMI_RANK",
    "PMIX_RANK",
    "OMPI_COMM_WORLD_RANK",
)  # set by mpiexec (MPICH, Open MPI) and srun


class PeerFailure(RuntimeError):
    """Another engine of the same run raised an exception."""


def place() -> tuple[int, int] | None:
    """Return (rank, number of ranks) of this engine, or None where MPI did not start it."""
    if not any(name in os.environ for name in LAUNCHED_BY_MPI):
        return None
    try:
        from mpi4py import MPI
    except ImportError:
        return None
    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


@cache
def communicator(ranks: tuple[int, ...]):
    """Return the communicator of the engines with these ranks, in that order; they must all call this."""
    check_extra("hfnb.engines.mpi_evaluator", "mpi", "mpi4py")
    from mpi4py import MPI

    return MPI.COMM_WORLD.Create_group(MPI.COMM_WORLD.group.Incl(ranks))


class MPIEvaluator:
    """Sums over the engines of an MPI communicator; the same methods as `LocalEvaluator`.

    Each sum is one Allreduce of its numbers. An engine that fails to make its part gives NaN instead; after a
    sum that is not finite the engines tell each other whether one failed. So an exception on one engine ends
    the run on all of them, and none is left waiting.
    """

    def __init__(self, local: LocalEvaluator, comm):
        self.local, self.comm, self.n, self.clock = local, comm, local.n, Clock()
        self.not_finite: list[int] = []  # partitions found to blame for a sum that is not finite

    def identity(self) -> dict[str, str]:
        """Return what the data is, by name, as `LocalEvaluator` does; all engines must call this."""
        return self.local.identity(
            lambda mine: {i: each for part in self.comm.allgather(mine) for i, each in part.items()}
        )

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the sum of losses, (1,)."""
        return self._sum("loss", lambda: self.local.loss(w, sample), 1, np.dtype(float), w, sample)

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the sum of gradients and, last, of losses: (p + 1,)."""
        part = partial(self.local.gradient, w, sample)
        return self._sum("gradient", part, w.size + 1, w.dtype, w, sample)

    def linearize(self, w: np.ndarray, kind, sample: Sample | None = None) -> Callable:
        """Return v ↦ the sum of curvature products at w; nothing is reduced before the first product."""
        w, local = np.array(w), list[Callable]()  # a copy: the user may go on from w in place

        def product(v):
            if not local:  # not before: an exception here is told to all engines as one in a product is
                local.append(self.local.linearize(w, kind, sample))
            return local[0](v)

        return lambda v: self._sum("product", partial(product, v), w.size, w.dtype, w, sample)

    def _sum(self, what: str, part: Callable, size: int, dtype: np.dtype, w, sample) -> np.ndarray:
        start, error = time.perf_counter(), None
        try:
            total = part()
        except Exception as raised:
            total, error = zeros(size, dtype) + dtype.type(np.nan), raised
        made = time.perf_counter()
        numbers = allreduce(total, self.comm)
        self.clock.lap(what, {self.comm.rank: (made - start, time.perf_counter() - made)})
        if not np.isfinite(numbers).all():
            self._find_fault(error, w, sample)
        return numbers

    def _find_fault(self, error: Exception | None, w, sample) -> None:
        """Raise where an engine raised; else find the partitions held here that are to blame."""
        if self.comm.allreduce(error is not None):
            raise error or PeerFailure("another engine raised an exception")
        with suppress(Exception):  # raised on this engine alone, it would leave the others waiting
            self.not_finite = worker.partitions_not_finite(self.local, w, sample)


def allreduce(total: np.ndarray, comm) -> np.ndarray:
    """Return the sum of the engines' totals, (size,); remainders travel beside their sums, as pairs."""
    from mpi4py import MPI

    if total.ndim == 1:
        comm.Allreduce(MPI.IN_PLACE, total)
        return total
    pairs, kind, operation = np.ascontiguousarray(total.T), *_pairs()
    comm.Allreduce(MPI.IN_PLACE, [pairs, len(pairs), kind], operation)
    return value(pairs.T)


@cache
def _pairs() -> tuple:
    """The MPI datatype of a pair, and the operation that merges pairs."""
    from mpi4py import MPI

    def operation(received, kept, _):
        merge(np.frombuffer(kept).reshape(-1, 2).T, np.frombuffer(received).reshape(-1, 2).T)

    return MPI.DOUBLE.Create_contiguous(2).Commit(), MPI.Op.Create(operation, commute=True)


class SharedCheckpoint:
    """A checkpoint that the first engine reads and writes; all see the same state, or the same error."""

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
    """Return the error, or its text where it cannot be sent: the other engines wait for it."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
