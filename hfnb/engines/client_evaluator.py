"""Client-driven evaluation: the client sends w or v to the engines and adds up what they return."""

import time
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np

from hfnb.engines import worker
from hfnb.engines.placement import Placement
from hfnb.engines.pool import EngineFailure, Pool, pack
from hfnb.objectives import run_identity
from hfnb.objectives.compensated_sums import zeros
from hfnb.objectives.curvature import curvature_sum
from hfnb.objectives.profiler import ClientClock
from hfnb.objectives.sampling import Sample, Shards


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

    Attributes
    ----------
    n : int
        Number of samples.
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

    def __init__(self, net, placement: Placement, chunk: int | None = None, memory: int | None = None):
        self.placement, self.n, self.clock = placement, placement.n, ClientClock()
        self.key = self.pool.key()
        options = chunk, memory, len(self.pool.engines)
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
        return run_identity.of_data(Shards.of(self.placement, self.partitions).by_stratum(), self.n)

    def loss(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the losses, as `Evaluator.loss` says."""
        return self.total("loss", lambda blocks: (worker.loss, self.key, blocks, w, sample), w, sample)

    def gradient(self, w: np.ndarray, sample: Sample | None = None) -> np.ndarray:
        """Return the total of the gradients and of the losses, as `Evaluator.gradient` says."""
        return self.total(
            "gradient", lambda blocks: (worker.gradient, self.key, blocks, w, sample), w, sample
        )

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

    def total(self, what: str, call: Callable, w: np.ndarray, sample: Sample | None) -> np.ndarray:
        """Return the sum of the totals that a call gives on each engine, in the order of their blocks.

        Parameters
        ----------
        what : {"loss", "gradient", "product"}
            What is summed.
        call : callable
            ``call(blocks)`` returns the call, (function, *arguments), of an engine with these blocks.
        w : ndarray, shape (p,)
        sample : Sample or None
            Where the sum is evaluated.

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
        """
        start, parts, computing = time.perf_counter(), dict[int, np.ndarray](), Counter[int]()
        held = self.held()
        while held:
            values, lost = self.pool.call({engine: call(blocks) for engine, blocks in held.items()})
            _check_shapes(what, values, w)
            parts |= {held[engine][0]: value for engine, value in values.items()}
            computing.update(self.pool.seconds)
            held = self.placement.move(lost) if lost else {}
        total = worker.merged([parts[block] for block in sorted(parts)])
        seconds = time.perf_counter() - start
        self.clock.lap(what, {engine: (own, seconds - own) for engine, own in computing.items()})
        if not np.isfinite(total).all():
            calls = {
                engine: (worker.not_finite, self.key, blocks, w, sample)
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

        total = self._evaluator.total("product", call, self._w, self._sample)
        self._linearized = {block for blocks in self._evaluator.held().values() for block in blocks}
        return total


def _check_shapes(what: str, totals: dict[int, np.ndarray], w: np.ndarray) -> None:
    """Raise EngineFailure for an engine whose total has another shape than a total at w."""
    size = {"loss": 1, "gradient": w.size + 1, "product": w.size}[what]
    expected = zeros(size, float if what == "loss" else w.dtype).shape
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
