"""The objective: mean loss of a network over a dataset, its gradient and curvature, from sums over parts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb import reduction
from hfnb.curvature import operator
from hfnb.history import Counts
from hfnb.sampling import Sample, Shards
from hfnb.sums import LocalSums


class Objective:
    """F(w) = (1/n) Σ loss(w; xᵢ, yᵢ) + ½ c ‖W‖², with gradient and curvature over all samples or a `Sample`.

    ``net``: a network of `hfnb.models` (or anything with its methods); ``data``: a `Dataset`, cut into
    ``partitions`` so that the draws of a `Sample` are the same on any number of engines. ValueError if the
    data does not fit the network.

    >>> import numpy as np
    >>> from hfnb import Dataset, models
    >>> net = models.mlp([4, 3, 2])
    >>> objective = Objective(net, Dataset(np.eye(4), np.array([0, 1, 0, 1])))
    >>> round(objective.value(np.zeros(net.size)), 4)
    0.6931
    """

    def __init__(self, net, data, *, partitions: int = 24, chunk: int | None = None):
        if hasattr(net, "check"):
            net.check(data)
        self._set(net, LocalSums(net, Shards.of(data, partitions), chunk))

    @classmethod
    def from_sums(cls, net, sums) -> "Objective":
        """Return the objective whose global sums come from ``sums``, made by many engines, say."""
        objective = cls.__new__(cls)
        objective._set(net, sums)
        return objective

    @classmethod
    def from_loss(
        cls, loss: Callable, data, *, outputs: Callable | None = None, output_loss: Callable | None = None
    ) -> "Objective":
        """Return the objective of any autograd loss(w, X, Y), a mean over the rows of X.

        Gauss–Newton curvature needs the loss in two parts, output_loss(outputs(w, X), Y).
        """
        return cls(AnyLoss(loss, outputs, output_loss), data)

    def _set(self, net, sums):
        self.net, self.sums, self.n, self.counts = net, sums, sums.n, Counts()
        self._decays = getattr(net, "weight_decay", 0) > 0
        self._at: tuple[np.ndarray, LinearOperator] | None = None

    def _size(self, sample):
        return self.n if sample is None else sample.size

    def value(self, w: np.ndarray, sample: Sample | None = None) -> float:
        """Return F(w); one reduction of one number."""
        size = self._size(sample)
        self.counts.add("losses", size, 1)
        value = float(reduction.value(self.sums.loss(w, sample))[0]) / size
        return value + 0.5 * float(w @ self.net.decay(w)) if self._decays else value

    def value_and_gradient(self, w: np.ndarray, sample: Sample | None = None) -> tuple[float, np.ndarray]:
        """Return F(w) and ∇F(w), (p,); one reduction of p + 1 numbers."""
        size = self._size(sample)
        self.counts.add("gradients", size, w.size + 1)
        total = reduction.value(self.sums.gradient(w, sample)) / w.dtype.type(size)
        value, gradient = float(total[-1]), total[:-1]
        if self._decays:
            decay = self.net.decay(w)
            value, gradient = value + 0.5 * float(w @ decay), gradient + decay
        return value, gradient

    def hessp(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return ∇²F(w) v as ``scipy.optimize.minimize`` asks for it; at one w, linearized once."""
        if self._at is None or not np.array_equal(self._at[0], w):
            self._at = w.copy(), self.curvature(w)
        return self._at[1] @ v

    def curvature(
        self, w: np.ndarray, kind: str | Callable = "hessian", sample: Sample | None = None
    ) -> LinearOperator:
        """Return the (p, p) curvature at w: "hessian", "gauss-newton" or a function.

        The function has the form (net, w, X, Y) -> product, with the sum over the batch. Each product is one
        reduction of p numbers. ValueError for an unknown kind.
        """
        size, parts = self._size(sample), self.sums.linearize(w, kind, sample)

        def product(v):
            v = np.ascontiguousarray(v, dtype=w.dtype).ravel()
            self.counts.add("products", size, w.size)
            total = reduction.value(parts(v)) / w.dtype.type(size)
            return total + self.net.decay(v) if self._decays else total

        return operator(product, w)


@dataclass(frozen=True)
class AnyLoss:
    """A reader's own loss(w, X, Y) with the methods that an objective needs of a network."""

    loss: Callable
    outputs: Callable | None = None
    output_loss: Callable | None = None
