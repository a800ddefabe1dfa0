"""Sums of losses, gradients and curvature products over the samples that this process holds."""

from collections.abc import Callable

import numpy as np

from hfnb import threads
from hfnb.models.backprop import ManualBackprop
from hfnb.models.network import Network
from hfnb.objectives import identity, summation
from hfnb.objectives.curvature import Autograd, Product, curvature_sum
from hfnb.objectives.sampling import Sample, Shards

CHUNK = 512  # rows a chunk: more, and activations leave the cache; fewer, and products suffer
KEPT = 16384  # rows whose linearization is kept between products; of more it is made anew for each product
APART = 16  # rows a partition, on average, below which a mini-batch is worked through as a whole
DEALT = 2e7  # samples × parameters from which on chunks are dealt to threads: less is not worth their start


class LocalEvaluator:
    """Sums over the samples that this process holds: the parts that every way of running adds up.

    The samples are worked through ``chunk`` rows at a time, so that memory does not grow with the dataset.
    What is returned are totals (see `summation`): in float64 made of a sum for each partition, so that it
    does not matter who holds which; in float32, where speed is all, and of few rows, a mini-batch is worked
    through as a whole. The chunks of a large network are dealt to the threads that `hfnb.set_threads`
    requests, each with a single-threaded BLAS. In float64 BLAS has one thread in any case, because it splits
    a matrix product differently for each number of threads: so a total does not depend on that number.
    """

    def __init__(self, net, shards: Shards, chunk: int | None = None):
        self.net, self.shards, self.n, self.chunk = net, shards, shards.n, chunk or CHUNK
        self.autograd = Autograd(net)
        self.backprop = ManualBackprop(net) if isinstance(net, Network) else self.autograd
        self._workspaces: dict = {}

    def identity(self, gather: Callable[[dict], dict] = dict) -> dict[str, str]:
        """Return what the data is, by name; ``gather`` adds the partitions that others hold."""
        return identity.of_data(self.shards.parts, self.n, gather)

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of losses, 1 number in float64."""

        def add(total, batch, work, first):
            X, Y = _as(w, batch)
            total += self.backprop.loss(w, X, Y, work)

        shares = self._shares(self.backprop, w, sample)
        return self._total(self.backprop, w, shares, add, 1, np.dtype(float))

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of gradients and, last, of losses: p + 1 numbers in the precision of w."""

        def add(total, batch, work, first):
            X, Y = _as(w, batch)
            total[-1] += self.backprop.add_gradient(w, X, Y, total[:-1], work, first)

        shares = self._shares(self.backprop, w, sample)
        return self._total(self.backprop, w, shares, add, w.size + 1, w.dtype)

    def linearize(self, w: np.ndarray, kind, sample: Sample | None = None) -> Product:
        """Return v ↦ the total of curvature products at w, p numbers; ValueError for an unknown kind."""
        curvature_sum(kind)
        parts = self.autograd if callable(kind) else self.backprop
        shares, keep = self._shares(parts, w, sample), self.shards.count(sample) <= KEPT
        spaces = self._workspaces_of(parts, w, len(shares))

        def linearized(batch, work):
            X, Y = _as(w, batch)
            return parts.linearize(w, X, Y, kind, work, keep)

        def task(number, share):
            return [linearized(batch, spaces[number]) for batch in share]

        items = _dealt(task, shares, w.dtype) if keep else shares

        def product(v):
            def add(total, item, work, first):
                (item if keep else linearized(item, work)).add_product(v, total, work, first)

            return self._total(parts, w, items, add, w.size, w.dtype)

        return product

    def _shares(self, parts, w: np.ndarray, sample: Sample | None) -> list[list[tuple]]:
        """The chunks of the sample, dealt to threads if there is enough to do.

        In float64 they are the same chunks on any number of threads; in float32 each thread gets as many.
        """
        rows, chunk, exact = self.shards.count(sample), self.chunk, w.dtype == np.float64
        count = threads.shares() if parts.parallel and rows * w.size >= DEALT else 1
        if not exact and count > 1 and rows >= count * chunk:
            chunk = -(-rows // (count * -(-rows // (count * chunk))))
        apart = exact and (sample is None or sample.size >= APART * self.shards.partitions)
        chunks = list(self.shards.batches(sample, chunk, apart))
        count = min(count, len(chunks)) or 1
        return [chunks[number::count] for number in range(count)]

    def _workspaces_of(self, parts, w: np.ndarray, count: int) -> list:
        """The workspaces of so many threads."""
        spaces = self._workspaces.setdefault((type(parts), w.dtype), [])
        while len(spaces) < count:
            spaces.append(parts.workspace(self.chunk, w.dtype))
        return spaces

    def _total(self, parts, w, shares, add: Callable, size: int, dtype: np.dtype) -> np.ndarray:
        """Return the total over all items of what add(total, item, workspace, first) adds to zeros for one.

        ``first``: the total is zeros still, and may as well be written over.
        """
        spaces = self._workspaces_of(parts, w, len(shares))

        def task(number, share):
            total = summation.zeros(size, dtype)
            part = np.empty(size, dtype) if total.ndim == 2 else None
            for index, item in enumerate(share):
                if part is None:
                    add(total, item, spaces[number], index == 0)
                else:
                    part.fill(0)
                    add(part, item, spaces[number], True)
                    summation.add(total, part)
            return total

        total, *others = _dealt(task, shares, w.dtype)
        for other in others:
            summation.merge(total, other)
        return total


def _dealt(task: Callable, shares: list, dtype: np.dtype) -> list:
    """Return parallel_map(task, shares): one BLAS thread in float64, the requested number in float32."""
    with threads.limited(1 if dtype == np.float64 else threads.count()):
        return threads.parallel_map(task, shares)


def _as(w, batch):
    """The batch with its inputs in the precision of w."""
    X, Y = batch
    return X.astype(w.dtype, copy=False), Y
