"""Sums of losses, gradients and curvature products over the samples that this process holds."""

from collections.abc import Callable

import numpy as np

from hfnb import threads
from hfnb.backprop import Written
from hfnb.curvature import Product, Taped, curvature_sum
from hfnb.models import Network
from hfnb.sampling import Sample, Shards

CHUNK = 512  # rows a chunk: with more, activations leave the cache; with fewer, products suffer
KEPT = 16384  # rows whose linearization is kept between products; of more it is made anew for each product
ALONE = 256  # rows below which a batch is not worth dealing to threads


class LocalSums:
    """Sums over the samples that this process holds: the parts that every way of running adds up.

    The samples are worked through ``chunk`` rows at a time, so that memory does not grow with the dataset, and
    the chunks of our own networks are dealt to as many threads as BLAS may use.
    """

    def __init__(self, net, shards: Shards, chunk: int | None = None):
        self.net, self.shards, self.n, self.chunk = net, shards, shards.n, chunk or CHUNK
        self.written, self.taped = Written(net) if isinstance(net, Network) else Taped(net), Taped(net)
        self._workspaces: dict = {}

    def _shares(self, sample: Sample | None, parallel: bool) -> list[list]:
        """Deal the chunks of the sample to threads."""
        rows = self.shards.count(sample)
        workers = threads.count() if parallel and rows >= ALONE else 1
        chunks = list(self.shards.batches(sample, min(self.chunk, -(-rows // workers) or 1)))
        return [chunks[number::workers] for number in range(workers)]

    def _deal(self, parts, w: np.ndarray, shares: list[list], task: Callable) -> list:
        """Run task(share, workspace) for each share, in threads of their own."""
        key = (type(parts), w.dtype)
        spaces = self._workspaces.setdefault(key, [])
        while len(spaces) < len(shares):
            spaces.append(parts.workspace(self.chunk, w.dtype))
        return threads.deal(lambda number, share: task(share, spaces[number]), shares)

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the sum of losses, as (1,) float64."""

        def task(share, work):
            return sum(self.written.loss(w, _as(w, X), Y, work) for X, Y in share)

        return np.array([sum(self._deal(self.written, w, self._shares(sample, self.written.parallel), task))])

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the sum of gradients and, last, of losses: (p + 1,) in the precision of w, one reduction."""

        def task(share, work):
            total, loss = np.zeros(w.size + 1, w.dtype), 0.0
            for X, Y in share:
                loss += self.written.add_gradient(w, _as(w, X), Y, total[:-1], work)
            total[-1] = loss
            return total

        return _sum(self._deal(self.written, w, self._shares(sample, self.written.parallel), task))

    def linearize(self, w: np.ndarray, kind, sample: Sample | None = None) -> Product:
        """Return v ↦ the sum of curvature products at w, (p,); ValueError for an unknown kind."""
        curvature_sum(kind)
        parts = self.taped if callable(kind) else self.written
        shares = self._shares(sample, parts.parallel)
        kept = self.shards.count(sample) <= KEPT

        def make(share, work):
            return [parts.linearize(w, _as(w, X), Y, kind, work) for X, Y in share]

        linearized = self._deal(parts, w, shares, make) if kept else shares

        def product(v):
            def task(share, work):
                total = np.zeros_like(w)
                for item in share:
                    part = item if kept else make([item], work)[0]
                    part.add_product(v, total, work)
                return total

            return _sum(self._deal(parts, w, linearized, task))

        return product


def _as(w, X):
    return X.astype(w.dtype, copy=False)


def _sum(totals):
    for total in totals[1:]:
        totals[0] += total
    return totals[0]
