"""Sums of losses, gradients and curvature products over the samples that this process holds."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from hfnb import reduction
from hfnb.backprop import Written
from hfnb.curvature import Product, Taped, curvature_sum
from hfnb.models import Network
from hfnb.sampling import Sample, Shards

CHUNK = 512  # rows a chunk: more, and activations leave the cache; fewer, and products suffer
KEPT = 16384  # rows whose linearization is kept between products; of more it is made anew for each product
APART = 16  # rows a partition, on average, below which a mini-batch is worked through as a whole


class LocalSums:
    """Sums over the samples that this process holds: the parts that every way of running adds up.

    The samples are worked through ``chunk`` rows at a time, so that memory does not grow with the dataset.
    What is returned are totals of `hfnb.reduction`: in float64 made of a sum for each partition, so that it
    does not matter who holds which; in float32, where speed is all, and of few rows, a mini-batch is worked
    through as a whole.
    """

    def __init__(self, net, shards: Shards, chunk: int | None = None):
        self.net, self.shards, self.n, self.chunk = net, shards, shards.n, chunk or CHUNK
        self.written, self.taped = Written(net) if isinstance(net, Network) else Taped(net), Taped(net)
        self._workspaces: dict = {}

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of losses, 1 number in float64."""
        work = self._workspace(self.written, w)

        def add(total, batch):
            X, Y = batch
            total += self.written.loss(w, X, Y, work)

        return _total(self._batches(w, sample), add, 1, np.dtype(float))

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of gradients and, last, of losses: p + 1 numbers in the precision of w."""
        work = self._workspace(self.written, w)

        def add(total, batch):
            X, Y = batch
            total[-1] += self.written.add_gradient(w, X, Y, total[:-1], work)

        return _total(self._batches(w, sample), add, w.size + 1, w.dtype)

    def linearize(self, w: np.ndarray, kind, sample: Sample | None = None) -> Product:
        """Return v ↦ the total of curvature products at w, p numbers; ValueError for an unknown kind."""
        curvature_sum(kind)
        parts = self.taped if callable(kind) else self.written
        work = self._workspace(parts, w)

        def linearized():
            return (parts.linearize(w, *batch, kind, work) for batch in self._batches(w, sample))

        kept = list(linearized()) if self.shards.count(sample) <= KEPT else None

        def product(v):
            def add(total, part):
                part.add_product(v, total, work)

            return _total(linearized() if kept is None else kept, add, w.size, w.dtype)

        return product

    def _batches(self, w: np.ndarray, sample: Sample | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The chunks of the sample, in the precision of w."""
        apart = w.dtype == np.float64 and (sample is None or sample.size >= APART * self.shards.partitions)
        for X, Y in self.shards.batches(sample, self.chunk, apart):
            yield X.astype(w.dtype, copy=False), Y

    def _workspace(self, parts, w: np.ndarray):
        key = type(parts), w.dtype
        if key not in self._workspaces:
            self._workspaces[key] = parts.workspace(self.chunk, w.dtype)
        return self._workspaces[key]


def _total(items: Iterable, add: Callable, size: int, dtype: np.dtype) -> np.ndarray:
    """Return the total over all items of what add(total, item) adds to zeros for one."""
    total = reduction.zeros(size, dtype)
    for item in items:
        if total.ndim == 1:
            add(total, item)
        else:
            part = np.zeros(size, dtype)
            add(part, item)
            reduction.add(total, part)
    return total
