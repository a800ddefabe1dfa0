"""Sums of losses, gradients and curvature products over the samples that this process holds."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from hfnb import threads
from hfnb.models.backprop import ManualBackprop
from hfnb.models.network import Network
from hfnb.objectives import compensated_sums, run_identity
from hfnb.objectives.curvature import Autograd, curvature_sum
from hfnb.objectives.profiler import Clock
from hfnb.objectives.protocols import CurvatureFunction, Model, Product
from hfnb.objectives.sampling import Sample, Shards

CHUNK = 512  # rows in a chunk: with more, activations leave the cache; with fewer, matrix products are slower
KEPT = 16384  # linearizations of up to this many rows are kept between products; those of more rows are not
APART = 16  # average rows in a partition below which a float64 mini-batch is summed as a whole
THREADED = 2e7  # samples × parameters from which chunks are shared among threads: for less it does not pay

Batch: TypeAlias = tuple[np.ndarray, np.ndarray]  # (X, Y)
Backend: TypeAlias = ManualBackprop | Autograd  # what evaluates one chunk
Term: TypeAlias = Callable[..., None]  # (*vectors, total, workspace, first), see `LocalEvaluator._total`


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

    Notes
    -----
    Sums are *totals* (`hfnb.objectives.compensated_sums`). In float64 a total is made of one sum for each
    chunk, and no chunk has rows of two partitions, so that a total does not depend on which process holds
    which partition. In float32, and for mini-batches of few rows, all rows are summed together, which is
    faster.

    The chunks of a large network are shared among the threads that `hfnb.set_threads` requests, each with
    a single-threaded BLAS. In float64 BLAS always has one thread, because it splits a matrix product
    differently for each number of threads. A float64 total therefore does not depend on that number.
    """

    clock: Clock | None = None  # one process waits for no other, so that there is nothing to profile

    def __init__(self, net: Model, shards: Shards, chunk: int | None = None) -> None:
        self.net, self.shards, self.n, self.chunk = net, shards, shards.n, chunk or CHUNK
        self.autograd = Autograd(net)
        self.model: Backend = ManualBackprop(net) if isinstance(net, Network) else self.autograd
        self._workspaces: dict[tuple[type, np.dtype], list[Any]] = {}

    def identity(self, gather: run_identity.Gather = dict) -> dict[str, str]:
        """Return a description of the data; ``gather`` adds the digests that other processes hold."""
        return run_identity.of_data(self.shards.parts, self.n, gather)

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the losses, as `Evaluator.loss` says."""
        model = self.model

        def add(X: np.ndarray, Y: np.ndarray, total: np.ndarray, work: Any, first: bool) -> None:
            total += model.loss(w, X.astype(w.dtype, copy=False), Y, work)

        shares = self._shares(model, w, sample)
        terms: list[list[Term]] = [[partial(add, *batch) for batch in share] for share in shares]
        return self._total(model, terms, 1, np.dtype(float), w)

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the gradients and of the losses, as `Evaluator.gradient` says."""
        model = self.model

        def add(X: np.ndarray, Y: np.ndarray, total: np.ndarray, work: Any, first: bool) -> None:
            X = X.astype(w.dtype, copy=False)
            total[-1] += model.add_gradient(w, X, Y, total[:-1], work, first)

        shares = self._shares(model, w, sample)
        terms: list[list[Term]] = [[partial(add, *batch) for batch in share] for share in shares]
        return self._total(model, terms, w.size + 1, w.dtype, w)

    def linearize(
        self, w: np.ndarray, kind: str | CurvatureFunction, sample: Sample | None = None
    ) -> Product:
        """Return v ↦ the total of the curvature products, as `Evaluator.linearize` says."""
        curvature_sum(kind)
        model: Any = self.autograd if callable(kind) else self.model
        shares = self._shares(model, w, sample)

        def linearized(X: np.ndarray, Y: np.ndarray, work: Any, keep: bool) -> Any:
            return model.linearize(w, X.astype(w.dtype, copy=False), Y, kind, work, keep)

        def recomputed(
            X: np.ndarray, Y: np.ndarray, v: np.ndarray, total: np.ndarray, work: Any, first: bool
        ) -> None:
            linearized(X, Y, work, False).add_product(v, total, work, first)

        if self.shards.count(sample) <= KEPT:
            spaces = self._workspaces_for(model, w, len(shares))

            def kept(number: int, share: list[Batch]) -> list[Term]:
                return [linearized(X, Y, spaces[number], True).add_product for X, Y in share]

            with _blas_threads(w):
                terms = threads.parallel_map(kept, shares)
        else:
            terms = [[partial(recomputed, *batch) for batch in share] for share in shares]
        return partial(self._total, model, terms, w.size, w.dtype, w)

    def _shares(self, model: Backend, w: np.ndarray, sample: Sample | None) -> list[list[Batch]]:
        """Return the chunks (X, Y) of a sample, one list of them for each thread.

        In float64 the chunks are the same for any number of threads; in float32 each thread gets the same
        number of rows.
        """
        rows, chunk, exact = self.shards.count(sample), self.chunk, w.dtype == np.float64
        count = threads.shares() if model.parallel and rows * w.size >= THREADED else 1
        if not exact and count > 1 and rows >= count * chunk:
            chunk = -(-rows // (count * -(-rows // (count * chunk))))
        apart = exact and (sample is None or sample.size >= APART * self.shards.partitions)
        chunks = list(self.shards.batches(sample, chunk, apart))
        count = min(count, len(chunks)) or 1
        return [chunks[number::count] for number in range(count)]

    def _workspaces_for(self, model: Backend, w: np.ndarray, count: int) -> list[Any]:
        """Return the workspaces of at least ``count`` threads; they are made once and used again."""
        spaces = self._workspaces.setdefault((type(model), w.dtype), [])
        while len(spaces) < count:
            spaces.append(model.workspace(self.chunk, w.dtype))
        return spaces

    def _total(
        self,
        model: Backend,
        terms: list[list[Term]],
        size: int,
        dtype: DTypeLike,
        w: np.ndarray,
        *vectors: np.ndarray,
    ) -> np.ndarray:
        """Return the total of all terms, given as one list for each thread.

        A term is a function (*vectors, total, workspace, first) that adds its part to ``total``. For the
        ``first`` term, ``total`` is still zero and may be overwritten.
        """
        spaces = self._workspaces_for(model, w, len(terms))

        def add_up(number: int, share: list[Term]) -> np.ndarray:
            total = compensated_sums.zeros(size, dtype)
            part = total if total.ndim == 1 else np.empty(size, dtype)
            for index, term in enumerate(share):
                if part is total:
                    term(*vectors, total, spaces[number], index == 0)
                else:
                    part.fill(0)
                    term(*vectors, part, spaces[number], True)
                    compensated_sums.add(total, part)
            return total

        with _blas_threads(w):
            # A single share is added up without the thread pool, which would delay every product of a solver.
            totals = [add_up(0, terms[0])] if len(terms) == 1 else threads.parallel_map(add_up, terms)
        for other in totals[1:]:
            compensated_sums.merge(totals[0], other)
        return totals[0]


def _blas_threads(w: np.ndarray) -> AbstractContextManager[None]:
    """Limit BLAS to one thread in float64, and to the requested number in float32."""
    return threads.limited(1 if w.dtype == np.float64 else threads.count())
