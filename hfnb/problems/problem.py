"""A function with a known stationary point, its index and its least value."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from autograd import hessian, make_hvp, value_and_grad
from scipy.sparse.linalg import LinearOperator

from hfnb.objectives.costs import Counts
from hfnb.validation import check_nonnegative, check_nonnegative_int, check_vector


@dataclass(eq=False)
class Problem:
    """A function f of a vector, written with ``autograd.numpy``, about which everything is known.

    ``stationary`` is a point where ∇f = 0 exactly and the Hessian has ``index`` negative eigenvalues: a
    strict saddle where index > 0. ``minimum`` is the least value of f, ``start`` where a run usually
    begins. It has the methods of an ``hfnb.Objective`` (a sample is all there is), and goes wherever one
    does.
    """

    name: str
    f: Callable
    stationary: np.ndarray
    index: int
    minimum: float
    start: np.ndarray
    n: int = 1
    counts: Counts = field(default_factory=Counts, repr=False)

    @property
    def size(self) -> int:
        return self.stationary.size

    def value(self, w: np.ndarray, sample=None) -> float:
        """Return f(w)."""
        check_vector("w", w, self.size)
        self.counts.add("losses", 1, 0)
        return float(self.f(w))

    def value_and_gradient(self, w: np.ndarray, sample=None) -> tuple[float, np.ndarray]:
        """Return f(w) and ∇f(w)."""
        check_vector("w", w, self.size)
        self.counts.add("gradients", 1, 0)
        value, gradient = value_and_grad(self.f)(w)
        return float(value), gradient

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Return ∇f(w)."""
        return self.value_and_gradient(w)[1]

    def curvature(self, w: np.ndarray, kind: str = "hessian", sample=None) -> LinearOperator:
        """Return the Hessian at w as an operator; ValueError for another kind, which f does not have."""
        if kind != "hessian":
            raise ValueError(f"curvature: expected 'hessian', the only one {self.name} has, got {kind!r}")
        check_vector("w", w, self.size)
        apply, _ = make_hvp(self.f)(np.array(w))  # its own point: the tape refers to it

        def product(v):
            self.counts.add("products", 1, 0)
            return apply(v.ravel().astype(w.dtype, copy=False))

        return LinearOperator((w.size, w.size), matvec=product, rmatvec=product, dtype=w.dtype)

    def hessian_product(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return ∇²f(w) v."""
        check_vector("v", v, self.size)
        return self.curvature(w) @ v

    def hessian(self, w: np.ndarray) -> np.ndarray:
        """Return the dense Hessian at w, for small sizes."""
        check_vector("w", w, self.size)
        return hessian(self.f)(w)

    def scaled(self, loss: float = 1.0, stretch: float | np.ndarray = 1.0) -> "Problem":
        """Return the same problem in other units: w ↦ loss · f(w / stretch), all it knows scaled with it.

        ``stretch`` is a number or one for each coordinate. ValueError unless all of them are positive.

        >>> from hfnb.problems import rosenbrock
        >>> wide = rosenbrock().scaled(loss=1e-8, stretch=1e6)
        >>> wide.stationary, bool(np.isclose(wide.value(wide.start), 24.2e-8))
        (array([1000000., 1000000.]), True)
        """
        unit = np.broadcast_to(np.asarray(stretch, dtype=float), self.stationary.shape)
        for name, value in (("loss", np.asarray(loss)), ("stretch", unit)):
            if not np.all((value > 0) & np.isfinite(value)):
                raise ValueError(f"{name}: expected positive numbers, got {value}")

        def f(w):
            return loss * self.f(w / unit.astype(w.dtype))

        name = f"{self.name}, scaled"
        return Problem(name, f, unit * self.stationary, self.index, loss * self.minimum, unit * self.start)

    def near(self, distance: float, seed: int = 0) -> np.ndarray:
        """Return a point at ``distance`` from the stationary one, in a random direction."""
        check_nonnegative("distance", distance, finite=True)
        direction = np.random.default_rng(check_nonnegative_int("seed", seed)).standard_normal(self.size)
        return self.stationary + distance * direction / np.linalg.norm(direction)
