"""The objective: mean loss of a network over a dataset, its gradient and curvature, from sums over parts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb.krylov import dot
from hfnb.objectives import identity, summation
from hfnb.objectives.costs import Counts
from hfnb.objectives.curvature import operator
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.profiler import Clock
from hfnb.objectives.sampling import Sample, Shards
from hfnb.validation import (
    check_callable,
    check_data,
    check_methods,
    check_nonnegative,
    check_plain_array,
    check_positive_int,
    check_vector,
    shown,
)


class Objective:
    """F(w) = (1/n) Σ loss(w; xᵢ, yᵢ) + ½ c ‖W‖², with gradient and curvature over all samples or a `Sample`.

    ``net``: a network of `hfnb.models` (or anything with its methods); ``data``: a `Dataset`, cut into
    ``partitions`` so that the draws of a `Sample` are the same on any number of engines; ``chunk``: the most
    rows worked through at a time. TypeError for a ``net`` or ``data`` of another kind, ValueError if the data
    does not fit the network or has no sample.

    >>> import numpy as np
    >>> from hfnb import Dataset, models
    >>> net = models.mlp([4, 3, 2])
    >>> objective = Objective(net, Dataset(np.eye(4), np.array([0, 1, 0, 1])))
    >>> round(objective.value(np.zeros(net.size)), 4)
    0.6931
    """

    def __init__(self, net, data, *, partitions: int = 24, chunk: int | None = None):
        chunk = check_objective(net, data, chunk)
        self._set(net, LocalEvaluator(net, Shards.of(data, partitions), chunk))

    @classmethod
    def from_evaluator(cls, net, evaluator) -> "Objective":
        """Return the objective whose global sums come from ``sums``, made by many engines, say."""
        objective = cls.__new__(cls)
        objective._set(net, evaluator)
        return objective

    @classmethod
    def from_loss(
        cls,
        loss: Callable,
        data,
        *,
        outputs: Callable | None = None,
        output_loss: Callable | None = None,
        weight_decay: float = 0.0,
        partitions: int = 24,
        chunk: int | None = None,
    ) -> "Objective":
        """Return the objective of any autograd loss(w, X, Y), a mean over the rows of X, plus ½ c ‖w‖².

        Gauss–Newton curvature needs the loss in two parts, output_loss(outputs(w, X), Y). ``weight_decay``
        is c, ``partitions`` and ``chunk`` as above: fewer partitions are quicker where a tape is long. Give
        the objective's ``net`` to `hfnb.Cluster` for the same on engines. ValueError for one part alone.

        >>> import autograd.numpy as np
        >>> from hfnb import Dataset
        >>> data = Dataset(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [5.0]]))
        >>> line = Objective.from_loss(lambda w, X, Y: np.mean((X * w[0] + w[1] - Y) ** 2), data)
        >>> line.value(np.zeros(2)), line.curvature(np.zeros(2)) @ np.array([0.0, 1.0])
        (11.666666666666666, array([2., 2.]))
        """
        return cls(
            AnyLoss(loss, outputs, output_loss, weight_decay), data, partitions=partitions, chunk=chunk
        )

    def _set(self, net, evaluator):
        self.net, self.evaluator, self.n, self.counts = net, evaluator, evaluator.n, Counts()
        self._decays = getattr(net, "weight_decay", 0) > 0
        self._at: tuple[np.ndarray, LinearOperator] | None = None

    @property
    def clock(self) -> Clock:
        """The clock that says where the time of each evaluation went (`hfnb.objectives.profiler`)."""
        return self.evaluator.clock

    def identity(self) -> dict[str, str]:
        """Return what this objective is, by name, wherever it is evaluated (`hfnb.objectives.identity`)."""
        return {"network": identity.describe(self.net), **self.evaluator.identity()}

    def _size(self, w, sample):
        """The number of samples; an error where w cannot be parameters."""
        check_vector("w", w, getattr(self.net, "size", None))
        if sample is None:
            return self.n
        if not isinstance(sample, Sample):
            raise TypeError(f"sample: expected a hfnb.Sample or None, got {shown(sample)}")
        return sample.size

    def value(self, w: np.ndarray, sample: Sample | None = None) -> float:
        """Return F(w); one reduction of one number."""
        size = self._size(w, sample)
        self.counts.add("losses", size, 1, summation.nbytes(1, float))
        value = float(summation.value(self.evaluator.loss(w, sample))[0]) / size
        return value + 0.5 * dot(w, self.net.decay(w)) if self._decays else value

    def value_and_gradient(self, w: np.ndarray, sample: Sample | None = None) -> tuple[float, np.ndarray]:
        """Return F(w) and ∇F(w), (p,); one reduction of p + 1 numbers."""
        size = self._size(w, sample)
        self.counts.add("gradients", size, w.size + 1, summation.nbytes(w.size + 1, w.dtype))
        total = summation.value(self.evaluator.gradient(w, sample))
        total /= w.dtype.type(size)
        value, gradient = float(total[-1]), total[:-1]
        if self._decays:
            decay = self.net.decay(w)
            value += 0.5 * dot(w, decay)
            gradient += decay
        return value, gradient

    def hessp(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return ∇²F(w) v as ``scipy.optimize.minimize`` asks for it; at one w, linearized once."""
        self._size(w, None)
        v = self._vector(v, w)
        if self._at is None or self._at[0].dtype != w.dtype or not np.array_equal(self._at[0], w):
            self._at = w.copy(), self.curvature(w)
        return self._at[1] @ v

    def curvature(
        self, w: np.ndarray, kind: str | Callable = "hessian", sample: Sample | None = None
    ) -> LinearOperator:
        """Return the (p, p) curvature at w: "hessian", "gauss-newton" or a function.

        The function has the form (net, w, X, Y) -> product, with the sum over the batch. Each product is one
        reduction of p numbers. The operator keeps its point: w may be changed afterwards. ValueError for an
        unknown kind.
        """
        size = self._size(w, sample)
        w = np.array(w)  # products read it again
        parts = self.evaluator.linearize(w, kind, sample)

        def product(v):
            v = self._vector(v, w)
            self.counts.add("products", size, w.size, summation.nbytes(w.size, w.dtype))
            total = summation.value(parts(v))
            total /= w.dtype.type(size)
            if self._decays:
                total += self.net.decay(v)
            return total

        return operator(product, w)

    def _vector(self, v, w):
        """Return v, (p,) or (p, 1), as a vector in the precision of w."""
        check_plain_array("v", v)
        v = np.asarray(v)
        if v.dtype.kind not in "fiub":  # the imaginary part would be dropped
            raise TypeError(f"v: expected real numbers, got {shown(v)}")
        if v.size != w.size:
            raise ValueError(f"v: expected shape ({w.size},) to match w, got {v.shape}")
        return np.ascontiguousarray(v, dtype=w.dtype).ravel()


def check_objective(net, data, chunk: int | None) -> int | None:
    """Return ``chunk`` if an objective can be made of these arguments; an error names the one at fault."""
    check_methods("net", net, ("loss", "decay"), "a network, as hfnb.models.mlp returns,")
    check_data("data", data)
    if hasattr(net, "check"):
        net.check(data)
    return None if chunk is None else check_positive_int("chunk", chunk)


@dataclass(frozen=True)
class AnyLoss:
    """A user's own loss(w, X, Y) with the methods that an objective needs of a network."""

    loss: Callable
    outputs: Callable | None = None
    output_loss: Callable | None = None
    weight_decay: float = 0.0

    def __post_init__(self):
        check_callable("loss", self.loss, "(w, X, Y) -> mean loss")
        check_callable("outputs", self.outputs, "(w, X) -> z", optional=True)
        check_callable("output_loss", self.output_loss, "(z, Y) -> mean loss", optional=True)
        if (self.outputs is None) != (self.output_loss is None):
            given = "outputs" if self.output_loss is None else "output_loss"
            raise ValueError(f"outputs, output_loss: expected both or none, got {given} alone")
        check_nonnegative("weight_decay", self.weight_decay, finite=True)

    def decay(self, v: np.ndarray) -> np.ndarray:
        """Return the gradient of ½ c ‖w‖² at v, (p,)."""
        return v.dtype.type(self.weight_decay) * v
