"""Engine-driven evaluation: each engine sums over its partitions, and MPI's Allreduce adds up the totals."""

import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import cache

import numpy as np

from hfnb.engines import worker
from hfnb.objectives.compensated_sums import merge, zeros
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.profiler import Clock
from hfnb.objectives.sampling import Sample
from hfnb.validation import check_extra

# Variables that are set by mpiexec of MPICH, by that of Open MPI, and by srun.
LAUNCHED_BY_MPI = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")


class PeerFailure(RuntimeError):
    """Another engine of the same run raised an exception, which ends the run on this engine as well."""


def mpi_rank() -> int | None:
    """Return this engine's MPI rank; None if MPI did not start it or mpi4py is missing."""
    if not any(name in os.environ for name in LAUNCHED_BY_MPI):
        return None
    try:
        from mpi4py import MPI
    except ImportError:
        return None
    return MPI.COMM_WORLD.rank


@cache
def communicator(ranks: tuple[int, ...]):
    """Return the MPI communicator of the engines with these ranks, in this order; all must call this."""
    check_extra("hfnb.engines.mpi_evaluator", "mpi", "mpi4py")
    from mpi4py import MPI

    return MPI.COMM_WORLD.Create_group(MPI.COMM_WORLD.group.Incl(ranks))


class MPIEvaluator:
    """Sums over the engines of an MPI communicator, by the methods of `hfnb.objectives.Evaluator`.

    Parameters
    ----------
    local : LocalEvaluator
        The partitions that this engine holds.
    comm : mpi4py.MPI.Intracomm
        The engines that hold all partitions together. All must call the same methods in the same order.

    Attributes
    ----------
    n : int
        Number of samples on all engines.
    clock : Clock
        Where the time of each sum went.

    Notes
    -----
    Each sum is one Allreduce of its numbers. An engine that fails to compute its part gives NaN instead, and
    after a sum that is not finite the engines tell each other whether one failed. An exception on one engine
    therefore ends the run on all of them, on the others as a PeerFailure, and none is left waiting.
    """

    def __init__(self, local: LocalEvaluator, comm):
        self.n, self.clock = local.n, Clock()
        self._local, self._comm = local, comm
        self._not_finite: list[int] = []

    @property
    def rank(self) -> int:
        """The place of this engine among those of the communicator, from 0."""
        return self._comm.rank

    def take_not_finite(self) -> list[int]:
        """Return the partitions held here whose loss was found not to be finite since the last call."""
        found, self._not_finite = self._not_finite, []
        return found

    def identity(self) -> dict[str, str]:
        """Return what the data is, by name, as `LocalEvaluator.identity` does; all engines must call this."""
        return self._local.identity(
            lambda mine: {i: each for part in self._comm.allgather(mine) for i, each in part.items()}
        )

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the losses, as `Evaluator.loss` says."""
        with self._reduced("loss", 1, np.dtype(float), w, sample) as total:
            total.append(self._local.loss(w, sample))
        return total[0]

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the gradients and of the losses, as `Evaluator.gradient` says."""
        with self._reduced("gradient", w.size + 1, w.dtype, w, sample) as total:
            total.append(self._local.gradient(w, sample))
        return total[0]

    def linearize(self, w: np.ndarray, kind, sample: Sample | None = None) -> Callable:
        """Return the function v ↦ the sum of curvature products at w.

        Parameters
        ----------
        w : ndarray, shape (p,)
        kind : str or callable
            The curvature, as `hfnb.Objective.curvature` takes it.
        sample : Sample, optional
            The samples to sum over; None for all.

        Returns
        -------
        callable
            ``product(v)`` returns a total of p numbers in the precision of w. Nothing is computed before the
            first product, so that an exception in the linearization reaches all engines in the same way as
            one in a product.
        """
        w = np.array(w)  # a copy: the caller may change its own
        local = None

        def product(v):
            nonlocal local
            with self._reduced("product", w.size, w.dtype, w, sample) as total:
                local = local or self._local.linearize(w, kind, sample)
                total.append(local(v))
            return total[0]

        return product

    @contextmanager
    def _reduced(self, what: str, size: int, dtype: np.dtype, w: np.ndarray, sample) -> Iterator[list]:
        """Yield a list for this engine's total, which is then replaced by the sum over the engines.

        It is a context manager, not a function that takes another one, so that the call stack stays short.
        """
        totals: list[np.ndarray] = []
        start, error = time.perf_counter(), None
        try:
            yield totals
        except Exception as raised:
            totals[:], error = [zeros(size, dtype) + dtype.type(np.nan)], raised
        computed = time.perf_counter()
        totals[0] = _allreduce(totals[0], self._comm)
        self.clock.lap(what, {self.rank: (computed - start, time.perf_counter() - computed)})
        if not np.isfinite(totals[0]).all():
            self._find_fault(error, w, sample)

    def _find_fault(self, error: Exception | None, w: np.ndarray, sample) -> None:
        """Raise if an engine raised; else find the partitions held here whose loss is not finite."""
        if self._comm.allreduce(error is not None):
            raise error or PeerFailure("another engine raised an exception")
        with suppress(Exception):  # raised on this engine alone, it would leave the others waiting
            self._not_finite = worker.partitions_not_finite(self._local, w, sample)


def _allreduce(total: np.ndarray, comm) -> np.ndarray:
    """Return the sum of the engines' totals; remainders travel beside their sums, as pairs."""
    from mpi4py import MPI

    if total.ndim == 1:
        comm.Allreduce(MPI.IN_PLACE, total)
        return total
    pairs, kind, operation = np.ascontiguousarray(total.T), *_pairs()
    comm.Allreduce(MPI.IN_PLACE, [pairs, len(pairs), kind], operation)
    return pairs.T


@cache
def _pairs() -> tuple:
    """Return the MPI datatype of a pair, and the operation that merges pairs."""
    from mpi4py import MPI

    def operation(received, kept, _):
        merge(np.frombuffer(kept).reshape(-1, 2).T, np.frombuffer(received).reshape(-1, 2).T)

    return MPI.DOUBLE.Create_contiguous(2).Commit(), MPI.Op.Create(operation, commute=True)


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
