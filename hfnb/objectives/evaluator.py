"""Sums of losses, gradients and curvature products over the samples that this process holds.

How many rows a chunk has, which thread evaluates it, and in how much memory linearizations are kept between
products is decided here.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from hfnb import threads
from hfnb.models.backprop import ManualBackprop
from hfnb.models.network import Network
from hfnb.objectives import compensated_sums, run_identity
from hfnb.objectives.cells import Cells
from hfnb.objectives.curvature import Autograd, curvature_sum
from hfnb.objectives.profiler import Clock
from hfnb.objectives.protocols import CurvatureFunction, Model, Product, Task
from hfnb.objectives.residuals import jacobian_of, residuals_of
from hfnb.objectives.sampling import Batch, Sample, Shards

CHUNK = 512  # rows in a chunk: with more, activations leave the cache; with fewer, matrix products are slower
APART = 16  # average rows in a partition below which a float64 mini-batch is summed as a whole
THREADED = 2e7  # samples × parameters from which chunks are shared among threads: for less it does not pay
SHARE = 8  # linearizations are kept in at most one part in so many of the machine's memory
UNKNOWN = 2**33  # bytes that a machine is taken to have if the system does not tell: 8 GiB
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # where Linux tells a container its memory

Backend: TypeAlias = ManualBackprop | Autograd  # what evaluates one chunk
Term: TypeAlias = Callable[..., None]  # (*vectors, total, workspace, first), see `LocalEvaluator._total`
Groups: TypeAlias = list[list[Batch]]  # chunks whose sum is a plain one; the groups are added as totals


@cache
def default_memory() -> int:
    """Return the bytes for what is kept between products: an eighth of the memory of machine or container.

    Returns
    -------
    int
        Bytes.
    """
    found = UNKNOWN
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(ValueError, OSError):  # the limit may be the word "max"
        found = min(found, int(CONTAINER_LIMIT.read_text(encoding="ascii")))
    return found // SHARE


def point_along(w: np.ndarray, d: np.ndarray, alphas: np.ndarray, number: int) -> np.ndarray:
    """Return w + αd, a point of a line search, in the precision of w.

    Parameters
    ----------
    w : ndarray, shape (p,)
        Parameters.
    d : ndarray, shape (p,) or (k, p)
        A direction, or one for each α.
    alphas : ndarray, shape (k,)
        Step lengths α.
    number : int
        Which of them.

    Returns
    -------
    ndarray, shape (p,)
        The point.
    """
    return w + w.dtype.type(alphas[number]) * (d if d.ndim == 1 else d[number])


class LocalEvaluator:
    """Sums of losses, gradients and curvature products over the samples that this process holds.

    Parameters
    ----------
    net : Network or Model
        The model; a `Network` is evaluated by hand-written back-propagation, any other model by autograd.
    shards : Shards
        The partitions of the data that this process holds.
    chunk : int, optional
        The maximum number of rows evaluated at a time; `CHUNK` by default.
    memory : int, optional
        The bytes that a linearization may keep between products, at least 0; `default_memory` by default.
        Chunks beyond it are linearized again for each product.
    cells : Cells, optional
        Which cells the partitions are, if the data was put in their order (`hfnb.objectives.cells`).

    Attributes
    ----------
    cells : int or None
        Number of cells of the whole dataset; None if the partitions are not cells.

    Notes
    -----
    Sums are *totals* (`hfnb.objectives.compensated_sums`). In float64 the chunks of each partition are added
    in their order, and the sums of the partitions as totals, so that a total does not depend on which process
    holds which partition. In float32, and for mini-batches of few rows, chunks have rows of several
    partitions, which is faster.

    The chunks of a large network are shared among the threads that `hfnb.set_threads` requests, each with
    a single-threaded BLAS. In float64 BLAS always has one thread, because it splits a matrix product
    differently for each number of threads, and a thread takes whole partitions. A float64 total therefore
    does not depend on the number of threads. `average` lets one cell work after the other, which keeps one
    linearization at a time. A cell is a dataset of one partition: its float64 sums use one thread.
    """

    clock: Clock | None = None  # one process waits for no other, so that there is nothing to profile

    def __init__(
        self,
        net: Model,
        shards: Shards,
        chunk: int | None = None,
        memory: int | None = None,
        cells: Cells | None = None,
    ) -> None:
        self.net, self.shards, self.n, self.chunk = net, shards, shards.n, chunk or CHUNK
        self.memory = default_memory() if memory is None else memory
        self.cells, self._drawn = cells.number if cells else None, cells
        self._of_cell: dict[int, LocalEvaluator] = {}
        self.autograd = Autograd(net)
        self.model: Backend = ManualBackprop(net) if isinstance(net, Network) else self.autograd
        self._workspaces: dict[tuple[type, np.dtype], list[Any]] = {}

    def identity(self, gather: run_identity.Gather = dict) -> dict[str, str]:
        """Return a description of the data; ``gather`` adds the digests that other processes hold."""
        return run_identity.of_data(self.shards.by_stratum(), self.n, gather, self._drawn)

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the losses, as `Evaluator.loss` says."""
        model = self.model

        def add(X: np.ndarray, Y: np.ndarray, total: np.ndarray, work: Any, first: bool) -> None:
            loss = model.loss(w, X.astype(w.dtype, copy=False), Y, work)
            total[0] = loss if first else total[0] + loss

        shares = self._shares(model, w, sample)
        return self._total(model, _terms(add, shares), 1, np.dtype(float), w)

    def losses_along(
        self, w: np.ndarray, d: np.ndarray, alphas: np.ndarray, sample: Sample | None = None
    ) -> np.ndarray:
        """Return the totals of the losses at several points, as `Evaluator.losses_along` says."""
        model = self.model
        if d.ndim == 2 or not isinstance(model, ManualBackprop):
            points = (point_along(w, d, alphas, number) for number in range(len(alphas)))
            return np.concatenate([self.loss(point, sample) for point in points], axis=-1)

        def add(X: np.ndarray, Y: np.ndarray, total: np.ndarray, work: Any, first: bool) -> None:
            losses = model.losses_along(w, d, alphas, X.astype(w.dtype, copy=False), Y, work)
            total[:] = losses if first else total + losses

        shares = self._shares(model, w, sample)
        return self._total(model, _terms(add, shares), len(alphas), np.dtype(float), w)

    def average(self, task: Task, w: np.ndarray, arguments: tuple[Any, ...], size: int) -> np.ndarray:
        """Return the total of what a task returns for the cells held here, as `Evaluator.average` says."""
        total = compensated_sums.zeros(size, w.dtype)
        for number in self.shards.held:
            compensated_sums.add(total, task(self._cell(number), number, w, *arguments))
        return total

    def _cell(self, number: int) -> "LocalEvaluator":
        """Return the evaluator of one cell, as a dataset of its own, which is made once."""
        if number not in self._of_cell:
            X, Y = self.shards.parts[number]
            shards = Shards(len(X), 1, {range(1): (X, Y)})
            cell = LocalEvaluator(self.net, shards, self.chunk, self.memory)
            cell._workspaces = self._workspaces  # cells work one after the other, in the same memory
            self._of_cell[number] = cell
        return self._of_cell[number]

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the gradients and of the losses, as `Evaluator.gradient` says."""
        model = self.model

        def add(X: np.ndarray, Y: np.ndarray, total: np.ndarray, work: Any, first: bool) -> None:
            X = X.astype(w.dtype, copy=False)
            loss = model.add_gradient(w, X, Y, total[:-1], work, first)
            total[-1] = loss if first else total[-1] + loss

        shares = self._shares(model, w, sample)
        return self._total(model, _terms(add, shares), w.size + 1, w.dtype, w)

    def residuals(self, w: np.ndarray) -> np.ndarray:
        """Return the residuals of all samples held here, (m,), if the loss is least squares."""
        return np.concatenate([residuals_of(self.net, w, X, Y) for X, Y in self._pieces(w)])

    def jacobian(self, w: np.ndarray) -> np.ndarray:
        """Return the Jacobian of `residuals`, (m, p); ValueError if it exceeds the memory to be used."""
        nbytes = w.itemsize * w.size * len(self.residuals(w))
        if nbytes > self.memory:
            raise ValueError(
                f"objective: expected a Jacobian of at most memory = {self.memory / 2**20:,.0f} MiB, got one "
                f"of {nbytes / 2**20:,.0f} MiB; hfnb.hessian_free needs products only"
            )
        return np.concatenate([jacobian_of(self.net, w, X) for X, _ in self._pieces(w)])

    def _pieces(self, w: np.ndarray) -> Iterator[Batch]:
        """Yield all rows in their order, in chunks, in the precision of w."""
        for X, Y in self.shards.pieces(None, apart=True):
            for rows, targets in _cut(X, Y, self.chunk):
                yield rows.astype(w.dtype, copy=False), targets

    def linearize(
        self, w: np.ndarray, kind: str | CurvatureFunction, sample: Sample | None = None
    ) -> Product:
        """Return v ↦ the total of the curvature products, as `Evaluator.linearize` says."""
        curvature_sum(kind)
        model: Any = self.autograd if callable(kind) else self.model
        shares = self._shares(model, w, sample)
        spaces, budget = self._workspaces_for(model, w, len(shares)), self.memory / max(len(shares), 1)

        def linearized(X: np.ndarray, Y: np.ndarray, work: Any, keep: bool) -> Any:
            return model.linearize(w, X.astype(w.dtype, copy=False), Y, kind, work, keep)

        def recomputed(
            X: np.ndarray, Y: np.ndarray, v: np.ndarray, total: np.ndarray, work: Any, first: bool
        ) -> None:
            linearized(X, Y, work, False).add_product(v, total, work, first)

        def share_terms(number: int, groups: Groups) -> list[list[Term]]:
            """Return the terms of one thread: kept linearizations as long as they fit, others made anew."""
            left = budget

            def term(X: np.ndarray, Y: np.ndarray) -> Term:
                nonlocal left
                if left > 0:
                    kept = linearized(X, Y, spaces[number], True)
                    copied = sample is not None or X.dtype != w.dtype  # and then kept as well
                    left -= kept.nbytes + (len(X) * X[:1].size * w.itemsize if copied else 0)
                    if left >= 0:
                        return kept.add_product
                return partial(recomputed, X, Y)

            return [[term(X, Y) for X, Y in group] for group in groups]

        with _blas_threads(w):
            terms = threads.parallel_map(share_terms, shares)
        return partial(self._total, model, terms, w.size, w.dtype, w)

    def _shares(self, model: Backend, w: np.ndarray, sample: Sample | None) -> list[Groups]:
        """Return the chunks (X, Y) of a sample in groups, one list of groups for each thread.

        In float64 a group has the rows of one partition, and its chunks are the same for any number of
        threads. In float32 each thread has one group, and all have about the same number of rows.
        """
        rows, chunk, exact = self.shards.count(sample), self.chunk, w.dtype == np.float64
        count = threads.shares() if model.parallel and rows * w.size >= THREADED else 1
        apart = exact and (sample is None or sample.size >= APART * self.shards.partitions)
        if not exact and count > 1 and rows >= count * chunk:
            chunk = -(-rows // (count * -(-rows // (count * chunk))))
        groups = [list(_cut(X, Y, chunk)) for X, Y in self.shards.pieces(sample, apart)]
        if not exact:
            chunks = [each for group in groups for each in group]
            return [[chunks[number::count]] for number in range(min(count, len(chunks)))]
        return [groups[number::count] for number in range(min(count, len(groups)))]

    def _workspaces_for(self, model: Backend, w: np.ndarray, count: int) -> list[Any]:
        """Return the workspaces of at least ``count`` threads; they are made once and used again."""
        spaces = self._workspaces.setdefault((type(model), w.dtype), [])
        while len(spaces) < count:
            spaces.append(model.workspace(self.chunk, w.dtype))
        return spaces

    def _total(
        self,
        model: Backend,
        shares: list[list[list[Term]]],
        size: int,
        dtype: DTypeLike,
        w: np.ndarray,
        *vectors: np.ndarray,
    ) -> np.ndarray:
        """Return the total of all terms, given as groups of terms for each thread.

        A term is a function (*vectors, total, workspace, first) that adds its part to ``total``, or
        stores it there if it is the ``first`` of its group.
        """
        if not shares:  # no sample is held here
            return compensated_sums.zeros(size, dtype)
        spaces = self._workspaces_for(model, w, len(shares))

        def add_up(number: int, groups: list[list[Term]]) -> np.ndarray:
            total, later = compensated_sums.empty(size, dtype), None
            for group in groups:
                part = compensated_sums.rounded(total) if later is None else later
                for index, term in enumerate(group):
                    term(*vectors, part, spaces[number], index == 0)
                if later is None:
                    later = np.empty(size, dtype) if len(groups) > 1 else part
                else:
                    compensated_sums.add(total, part)
            return total

        with _blas_threads(w):
            # A single share is added up without the thread pool, which would delay every product of a solver.
            totals = [add_up(0, shares[0])] if len(shares) == 1 else threads.parallel_map(add_up, shares)
        for other in totals[1:]:
            compensated_sums.merge(totals[0], other)
        return totals[0]


def _terms(add: Term, shares: list[Groups]) -> list[list[list[Term]]]:
    """Return the terms add(X, Y, ·) of all chunks."""
    return [[[partial(add, X, Y) for X, Y in group] for group in groups] for groups in shares]


def _cut(X: np.ndarray, Y: np.ndarray, chunk: int) -> Iterator[Batch]:
    """Yield the rows in chunks of about equal size, at most ``chunk``."""
    step = -(-len(X) // -(-len(X) // chunk))
    for start in range(0, len(X), step):
        yield X[start : start + step], Y[start : start + step]


def _blas_threads(w: np.ndarray) -> AbstractContextManager[None]:
    """Limit BLAS to one thread in float64, and to the requested number in float32."""
    return threads.limited(1 if w.dtype == np.float64 else threads.count())
