"""The client drives: w or v goes out to the engines, partial sums come back."""

import uuid
from collections.abc import Callable

import numpy as np

from hfnb.curvature import curvature_sum
from hfnb.engines import worker
from hfnb.engines.placement import Placement
from hfnb.engines.pool import pack
from hfnb.reduction import value
from hfnb.sampling import Sample


class RemoteSums:
    """Sums over a dataset whose partitions are on engines; the same methods as `hfnb.objective.LocalSums`.

    Where an engine is lost its partitions move to the others, and only its part of the sum is computed again.
    """

    def __init__(self, net, placement: Placement, chunk: int | None = None):
        self.placement, self.n, self.key = placement, placement.n, uuid.uuid4().hex
        placement.pool.ask_all(worker.prepare, self.key, pack("net", net), placement.key, chunk)
        placement.forget_with(self)

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the sum of losses, (1,)."""
        return self.add(lambda blocks: (worker.loss, self.key, blocks, w, sample))

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the sum of gradients and, last, of losses: (p + 1,)."""
        return self.add(lambda blocks: (worker.gradient, self.key, blocks, w, sample))

    def linearize(self, w: np.ndarray, kind, sample: Sample | None = None) -> "RemoteProduct":
        """Return v ↦ the sum of curvature products at w; what it needs stays on the engines while in use."""
        curvature_sum(kind)  # an unknown kind is an error here, not on the engines
        return RemoteProduct(self, w, kind, sample)

    def add(self, call: Callable) -> np.ndarray:
        """Add up what ``call(blocks)`` = (function, *arguments) gives on each engine, in block order."""
        parts: dict[int, np.ndarray] = {}
        held = self.placement.held()
        while held:
            values, lost = self.placement.pool.ask({engine: call(blocks) for engine, blocks in held.items()})
            parts |= {held[engine][0]: value for engine, value in values.items()}
            held = self.placement.move(lost) if lost else {}
        return value(worker.add(parts[block] for block in sorted(parts)))


class RemoteProduct:
    """v ↦ the sum of curvature products at w; taped on the engines at the first product, freed with this."""

    def __init__(self, sums: RemoteSums, w: np.ndarray, kind, sample: Sample | None):
        self.sums, self.key = sums, uuid.uuid4().hex
        self.at = np.array(w), pack("kind", kind), sample
        self.taped: set[int] = set()
        sums.placement.forget_with(self)

    def __call__(self, v: np.ndarray) -> np.ndarray:
        """Return the product, (p,)."""
        total = self.sums.add(
            lambda blocks: (worker.multiply, self.sums.key, blocks, self.key, v, self._at(blocks))
        )
        self.taped = set(self.sums.placement.blocks)
        return total

    def _at(self, blocks: list[int]) -> tuple | None:
        """What engines need to tape where they have not: at the first product, and for blocks that moved."""
        return None if self.taped.issuperset(blocks) else self.at
