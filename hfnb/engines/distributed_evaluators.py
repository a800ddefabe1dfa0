"""Sums over samples on engines: losses, gradients and curvature products; and averages over cells.

Client-driven, `ClientEvaluator` sends w or v to the engines and adds up what they return. Engine-driven, each
engine's `MPIEvaluator` sums over its partitions, and MPI's Allreduce adds up the totals.
"""

import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

import numpy as np

from hfnb.engines import worker
from hfnb.engines.placement import Placement
from hfnb.engines.pool import EngineFailure, Pool, pack
from hfnb.objectives import run_identity
from hfnb.objectives.cells import Cells
from hfnb.objectives.compensated_sums import merge, zeros
from hfnb.objectives.curvature import curvature_sum
from hfnb.objectives.evaluator import LocalEvaluator, point_along
from hfnb.objectives.profiler import ClientClock, Clock
from hfnb.objectives.protocols import Task
from hfnb.objectives.sampling import Sample, Shards
from hfnb.validation import check_extra

# Variables that are set by mpiexec of MPICH, by that of Open MPI, and by srun.
LAUNCHED_BY_MPI = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")


class ClientEvaluator:
    """Sums over a dataset whose partitions are on engines; the same methods as `LocalEvaluator`.

    Parameters
    ----------
    net : object
        A network of `hfnb.models`, or what has its methods.
    placement : Placement
        The dataset on the engines.
    chunk : int, optional
        The most rows that an engine works through at a time.
    memory : int, optional
        Bytes that an engine may keep between curvature products.
    cells : Cells, optional
        Which cells the partitions of the placement are, if they are cells.

    Attributes
    ----------
    n : int
        Number of samples.
    cells : int or None
        Number of cells; None if the partitions are not cells.
    clock : ClientClock
        Where the time of each sum went.
    key : str
        The key of the network on the engines.

    Notes
    -----
    The methods are those of `hfnb.objectives.Evaluator`. If an engine is lost, its partitions move to the
    others, and only its part of a sum is computed again. Each sum raises EngineFailure for an exception on an
    engine, and EngineLost if no engine is left.
    """

    def __init__(
        self,
        net,
        placement: Placement,
        chunk: int | None = None,
        memory: int | None = None,
        cells: Cells | None = None,
    ):
        self.placement, self.n, self.clock = placement, placement.n, ClientClock()
        self.cells, self._drawn = cells.number if cells else None, cells
        self._task: bytes | None = None  # what all engines have kept as the task of the last average
        self.key = self.pool.key()
        options = chunk, memory, cells, len(self.pool.engines)
        prepare = worker.prepare, self.key, pack("net", net), placement.key, *options
        self.pool.forget_with(self)  # before the engines have it, so that no exception leaves it behind
        _, lost = self.pool.call(dict.fromkeys(placement.held(), prepare))
        placement.move(lost)

    @property
    def pool(self) -> Pool:
        """The engines."""
        return self.placement.pool

    @property
    def partitions(self) -> int:
        """Number of partitions of the dataset."""
        return self.placement.partitions

    def held(self) -> dict[int, list[int]]:
        """Return {engine: numbers of its blocks of partitions}."""
        return self.placement.held()

    def identity(self) -> dict[str, str]:
        """Return what the data is, by name, as `LocalEvaluator.identity` does.

        Returns
        -------
        dict of str to str

        Raises
        ------
        ValueError
            If the data here was edited in place, so that it is no longer what the engines hold.
        """
        if self.placement.is_edited():
            raise ValueError(
                "objective: expected unchanged data, but the data was edited in place after the objective "
                "was made, so that no checkpoint could identify it: make a new objective"
            )
        shards = Shards.of(self.placement, self.partitions, self.placement.order)
        return run_identity.of_data(shards.by_stratum(), self.n, cells=self._drawn)

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the losses, as `Evaluator.loss` says."""

        def call(blocks):
            return worker.loss, self.key, blocks, w, sample

        return self.total("loss", zeros(1, float), call, lambda _: (w, sample))

    def losses_along(
        self, w: np.ndarray, d: np.ndarray, alphas: np.ndarray, sample: Sample | None = None
    ) -> np.ndarray:
        """Return the totals of the losses at several points, as `Evaluator.losses_along` says."""

        def call(blocks):
            return worker.losses_along, self.key, blocks, w, d, alphas, sample

        def where(number):
            return point_along(w, d, alphas, number), sample

        return self.total("loss", zeros(len(alphas), float), call, where)

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the gradients and of the losses, as `Evaluator.gradient` says."""

        def call(blocks):
            return worker.gradient, self.key, blocks, w, sample

        return self.total("gradient", zeros(w.size + 1, w.dtype), call, lambda _: (w, sample))

    def average(self, task: Task, w: np.ndarray, arguments: tuple, size: int) -> np.ndarray:
        """Return the total of what a task returns for each cell, as `Evaluator.average` says.

        The task is sent only if it differs from the last one. Arrays among the arguments are sent as arrays.
        """
        packed = pack("task", task)
        sent = None if packed == self._task else packed
        given = [each if _is_plain(each) else pack("arguments", each) for each in arguments]
        self._task = None  # if this call fails, some engines may have kept the task and others not

        def call(blocks):
            return worker.average, self.key, blocks, sent, size, w, *given

        total = self.total("cells", zeros(size, w.dtype), call)
        self._task = packed
        return total

    def linearize(self, w: np.ndarray, kind, sample: Sample | None = None) -> "RemoteProduct":
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
            ``product(v)`` returns a total of p numbers in the precision of w. Engines linearize at the first
            product, and keep the linearization as long as the function exists here.

        Raises
        ------
        ValueError
            If the kind is unknown.
        """
        curvature_sum(kind)  # an unknown kind is an error here, not on the engines
        return RemoteProduct(self, w, kind, sample)

    def total(
        self, what: str, zero: np.ndarray, call: Callable, where: Callable[[int], tuple] | None = None
    ) -> np.ndarray:
        """Return the sum of the totals that a call gives on each engine, in the order of their blocks.

        Parameters
        ----------
        what : {"loss", "gradient", "product", "cells"}
            What is summed.
        zero : ndarray
            A total of the same shape.
        call : callable
            ``call(blocks)`` returns the call, (function, *arguments), of an engine with these blocks.
        where : callable, optional
            ``where(k)`` returns the parameters and the sample at which number k of the sum was evaluated. The
            loss there is looked at if that number is not finite; nothing is by default.

        Returns
        -------
        ndarray
            A total.

        Raises
        ------
        EngineFailure, EngineLost
            If an engine raises an exception, or no engine is left.

        Warns
        -----
        RuntimeWarning
            If the sum is not finite, and the loss is not finite in some but not all partitions; it names
            these.

        Notes
        -----
        If an engine is lost, its blocks move to others, which compute only the part of these blocks.
        """
        start, parts, computing = time.perf_counter(), dict[int, np.ndarray](), Counter[int]()
        held = self.held()
        while held:
            values, lost = self.pool.call({engine: call(blocks) for engine, blocks in held.items()})
            _check_shapes(what, values, zero.shape)
            parts |= {held[engine][0]: value for engine, value in values.items()}
            computing.update(self.pool.seconds)
            held = self.placement.move(lost) if lost else {}
        total = worker.merged([parts[block] for block in sorted(parts)])
        seconds = time.perf_counter() - start
        self.clock.lap(what, {engine: (own, seconds - own) for engine, own in computing.items()})
        if where and (bad := _first_not_finite(total)) is not None:
            calls = {
                engine: (worker.not_finite, self.key, blocks, *where(bad))
                for engine, blocks in self.held().items()
            }
            warn_not_finite(self.pool.call(calls)[0], self.partitions)
        return total


class RemoteProduct:
    """The function v ↦ the sum of curvature products at w, whose linearization the engines keep.

    Parameters
    ----------
    evaluator : ClientEvaluator
    w : ndarray, shape (p,)
    kind : str or callable
        The curvature.
    sample : Sample or None
        The samples to sum over; None for all.

    Notes
    -----
    The engines linearize at the first product, and free the linearization when nothing refers to this object.
    """

    def __init__(self, evaluator: ClientEvaluator, w: np.ndarray, kind, sample: Sample | None):
        self.key = evaluator.pool.key()
        self._evaluator, self._w, self._sample = evaluator, np.array(w), sample
        self._kind = pack("kind", kind)
        self._linearized: set[int] = set()  # blocks
        evaluator.pool.forget_with(self)

    def __call__(self, v: np.ndarray) -> np.ndarray:
        """Return the product with v, (p,): a total of p numbers."""

        def call(blocks):
            # What engines need to linearize: at the first product, and for blocks that have moved since.
            known = self._linearized.issuperset(blocks)
            point = None if known else (self._w, self._sample, self._kind)
            return worker.multiply, self._evaluator.key, blocks, self.key, v, point

        zero = zeros(self._w.size, self._w.dtype)
        total = self._evaluator.total("product", zero, call, lambda _: (self._w, self._sample))
        self._linearized = {block for blocks in self._evaluator.held().values() for block in blocks}
        return total


def _is_plain(value) -> bool:
    """Whether a value is an array of numbers, which travels as its bytes."""
    return isinstance(value, np.ndarray) and not value.dtype.hasobject


def _first_not_finite(total: np.ndarray) -> int | None:
    """Return the number of the first sum of a total that is not finite; None if all are finite."""
    finite = np.isfinite(total)
    return None if finite.all() else int(np.argmin(np.atleast_2d(finite).all(axis=0)))


def _check_shapes(what: str, totals: dict[int, np.ndarray], expected: tuple[int, ...]) -> None:
    """Raise EngineFailure for an engine whose total has another shape than the expected one."""
    for engine, total in totals.items():
        if np.shape(total) != expected:
            raise EngineFailure(
                f"engine {engine} returned a {what} of shape {np.shape(total)}, expected {expected}: "
                "does it run another version of hfnb?",
                engine,
            )


def warn_not_finite(found: dict[int, list[int]], partitions: int) -> None:
    """Warn of the partitions whose loss is not finite, unless all are: then the parameters are to blame.

    Parameters
    ----------
    found : dict
        {engine: the numbers of such partitions}.
    partitions : int
        Number of all partitions.

    Warns
    -----
    RuntimeWarning
        Names the partitions and their engines.
    """
    if 0 < sum(map(len, found.values())) < partitions:
        names = [f"partition {i} (engine {e})" for e, numbers in found.items() for i in numbers]
        warnings.warn(f"the loss is not finite in {', '.join(names)}", RuntimeWarning, stacklevel=2)


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
    check_extra("hfnb.engines.distributed_evaluators", "mpi", "mpi4py")
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
    cells : int or None
        Number of cells on all engines; None if the partitions are not cells.
    clock : Clock
        Where the time of each sum went.

    Notes
    -----
    Each sum is one Allreduce of its numbers. An engine that fails to compute its part gives NaN instead, and
    after a sum that is not finite the engines tell each other whether one failed. An exception on one engine
    therefore ends the run on all of them, on the others as a PeerFailure, and none is left waiting.
    """

    def __init__(self, local: LocalEvaluator, comm):
        self.n, self.cells, self.clock = local.n, local.cells, Clock()
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
        with self._reduced("loss", zeros(1, float), lambda _: (w, sample)) as total:
            total.append(self._local.loss(w, sample))
        return total[0]

    def losses_along(
        self, w: np.ndarray, d: np.ndarray, alphas: np.ndarray, sample: Sample | None = None
    ) -> np.ndarray:
        """Return the totals of the losses at several points, as `Evaluator.losses_along` says."""

        def where(number):
            return point_along(w, d, alphas, number), sample

        with self._reduced("loss", zeros(len(alphas), float), where) as total:
            total.append(self._local.losses_along(w, d, alphas, sample))
        return total[0]

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the gradients and of the losses, as `Evaluator.gradient` says."""
        with self._reduced("gradient", zeros(w.size + 1, w.dtype), lambda _: (w, sample)) as total:
            total.append(self._local.gradient(w, sample))
        return total[0]

    def average(self, task: Task, w: np.ndarray, arguments: tuple, size: int) -> np.ndarray:
        """Return the total of what a task returns for each cell, as `Evaluator.average` says."""
        with self._reduced("cells", zeros(size, w.dtype)) as total:
            total.append(self._local.average(task, w, arguments, size))
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
            with self._reduced("product", zeros(w.size, w.dtype), lambda _: (w, sample)) as total:
                local = local or self._local.linearize(w, kind, sample)
                total.append(local(v))
            return total[0]

        return product

    @contextmanager
    def _reduced(
        self, what: str, zero: np.ndarray, where: Callable[[int], tuple] | None = None
    ) -> Iterator[list]:
        """Yield a list for this engine's total, which is then replaced by the sum over the engines.

        The arguments are those of `ClientEvaluator.total`. This is a context manager, not a function that
        takes another one, so that the call stack stays short.
        """
        totals: list[np.ndarray] = []
        start, error = time.perf_counter(), None
        try:
            yield totals
        except Exception as raised:
            totals[:], error = [np.full_like(zero, np.nan)], raised
        computed = time.perf_counter()
        totals[0] = _allreduce(totals[0], self._comm)
        self.clock.lap(what, {self.rank: (computed - start, time.perf_counter() - computed)})
        if (bad := _first_not_finite(totals[0])) is None:
            return
        if self._comm.allreduce(error is not None):
            raise error or PeerFailure("another engine raised an exception")
        if where:
            with suppress(Exception):  # raised on this engine alone, it would leave the others waiting
                self._not_finite = worker.partitions_not_finite(self._local, *where(bad))


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
