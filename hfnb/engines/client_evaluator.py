"""Client-driven evaluation: w or v goes out to the engines, partial sums come back."""

import time
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np

from hfnb.engines import worker
from hfnb.engines.placement import Placement
from hfnb.engines.pool import EngineFailure, pack
from hfnb.objectives import identity
from hfnb.objectives.curvature import curvature_sum
from hfnb.objectives.profiler import ClientClock
from hfnb.objectives.sampling import Sample, Shards
from hfnb.objectives.summation import value, zeros


class ClientEvaluator:
    """Sums over a dataset whose partitions are on engines; the same methods as `LocalEvaluator`.

    Where an engine is lost its partitions move to the others, and only its part of the sum is computed again.
    """

    def __init__(self, net, placement: Placement, chunk: int | None = None):
        self.placement, self.n, self.clock = placement, placement.n, ClientClock()
        self.key = placement.pool.key()
        prepare = worker.prepare, self.key, pack("net", net), placement.key, chunk
        placement.pool.forget_with(self)  # before the engines have it, so that no exception leaves it behind
        _, lost = placement.pool.call(dict.fromkeys(placement.held(), prepare))
        placement.move(lost)

    def identity(self) -> dict[str, str]:
        """Return what the data is, by name, as `hfnb.objectives.evaluator.LocalEvaluator` does.

        It is read here: ValueError where the data was edited in place, so that the engines have another.
        """
        if self.placement.edited():
            raise ValueError(
                "objective: expected one on the data as it is, but the data was edited in place after the "
                "objective was made, and no checkpoint could tell one from the other: make a new objective"
            )
        shards = Shards.of(self.placement, len(self.placement.offsets) - 1)
        return identity.of_data(shards.parts, self.n)

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the sum of losses, (1,)."""
        return self.add("loss", lambda blocks: (worker.loss, self.key, blocks, w, sample), w, sample)

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the sum of gradients and, last, of losses: (p + 1,)."""
        return self.add("gradient", lambda blocks: (worker.gradient, self.key, blocks, w, sample), w, sample)

    def linearize(self, w: np.ndarray, kind, sample: Sample | None = None) -> "RemoteProduct":
        """Return v ↦ the sum of curvature products at w; what it needs stays on the engines while in use."""
        curvature_sum(kind)  # an unknown kind is an error here, not on the engines
        return RemoteProduct(self, w, kind, sample)

    def add(self, what: str, call: Callable, w: np.ndarray, sample: Sample | None) -> np.ndarray:
        """Add up what ``call(blocks)`` = (function, *arguments) gives on each engine, in block order.

        Where the sum at w over the sample is not finite, a warning names the partitions to blame.
        """
        start, parts, computing = time.perf_counter(), dict[int, np.ndarray](), Counter[int]()
        held = self.placement.held()
        while held:
            values, lost = self.placement.pool.call({engine: call(blocks) for engine, blocks in held.items()})
            check_shapes(what, values, w)
            parts |= {held[engine][0]: value for engine, value in values.items()}
            computing.update(self.placement.pool.seconds)
            held = self.placement.move(lost) if lost else {}
        total = value(worker.add(parts[block] for block in sorted(parts)))
        seconds = time.perf_counter() - start
        self.clock.lap(what, {engine: (own, seconds - own) for engine, own in computing.items()})
        if not np.isfinite(total).all():
            held = self.placement.held()
            calls = {e: (worker.not_finite, self.key, blocks, w, sample) for e, blocks in held.items()}
            warn_not_finite(self.placement.pool.call(calls)[0], len(self.placement.offsets) - 1)
        return total


def check_shapes(what: str, totals: dict[int, np.ndarray], w: np.ndarray) -> None:
    """EngineFailure naming an engine whose total at w has another shape, so that it cannot be added up."""
    size, dtype = {"loss": (1, float), "gradient": (w.size + 1, w.dtype), "product": (w.size, w.dtype)}[what]
    expected = zeros(size, dtype).shape
    for engine, total in totals.items():
        if np.shape(total) != expected:
            raise EngineFailure(
                f"engine {engine} returned a {what} of shape {np.shape(total)}, expected {expected}: "
                "does it run another version of hfnb?",
                engine,
            )


def warn_not_finite(found: dict[int, list[int]], partitions: int) -> None:
    """Name the partitions, {engine: numbers}, whose loss is not finite; if all are, the step is to blame."""
    if 0 < sum(map(len, found.values())) < partitions:
        names = [f"partition {i} (engine {e})" for e, numbers in found.items() for i in numbers]
        warnings.warn(f"the loss is not finite in {', '.join(names)}", RuntimeWarning, stacklevel=2)


class RemoteProduct:
    """v ↦ the sum of curvature products at w; taped on the engines at the first product, freed with this."""

    def __init__(self, evaluator: ClientEvaluator, w: np.ndarray, kind, sample: Sample | None):
        self.evaluator, self.key = evaluator, evaluator.placement.pool.key()
        self.where = np.array(w), sample
        self.kind = pack("kind", kind)
        self.taped: set[int] = set()
        evaluator.placement.pool.forget_with(self)

    def __call__(self, v: np.ndarray) -> np.ndarray:
        """Return the product, (p,)."""
        total = self.evaluator.add(
            "product",
            lambda blocks: (worker.multiply, self.evaluator.key, blocks, self.key, v, self._at(blocks)),
            *self.where,
        )
        self.taped = set(self.evaluator.placement.blocks)
        return total

    def _at(self, blocks: list[int]) -> tuple | None:
        """What engines need to tape where they have not: at the first product, and for blocks that moved."""
        return None if self.taped.issuperset(blocks) else (*self.where, self.kind)
