"""A function whose stationary point, its index and the least value are known."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from autograd import hessian, make_hvp, value_and_grad
from scipy.sparse.linalg import LinearOperator

from hfnb.objectives.costs import Counts
from hfnb.objectives.sampling import Sample
from hfnb.validation import check_nonnegative, check_nonnegative_int, check_vector


@dataclass(eq=False)
class Problem:
    """A function f of a vector with a known stationary point and a known least value.

    It is an `hfnb.objectives.ObjectiveLike`, so that optimizers take it. There are no samples: the methods
    ignore their argument ``sample``.

    Parameters
    ----------
    name : str
        What messages and plots call it.
    f : callable
        ``f(w)``, from (p,) to a number, written in ``autograd.numpy``.
    stationary : ndarray, shape (p,)
        A point where ∇f = 0.
    index : int
        Number of negative eigenvalues of the Hessian there; the point is a strict saddle if it is positive.
    minimum : float
        The least value of f.
    start : ndarray, shape (p,)
        Where a run usually begins.
    n : int
        Number of samples that an evaluation counts as.
    counts : Counts
        What has been evaluated so far.

    Examples
    --------
    >>> from autograd.numpy import sum
    >>> bowl = Problem("bowl", lambda w: sum(w**2), np.zeros(2), 0, 0.0, np.ones(2))
    >>> bowl.value(bowl.start), bowl.gradient(bowl.start)
    (2.0, array([2., 2.]))
    """

    name: str
    f: Callable[[np.ndarray], float]
    stationary: np.ndarray
    index: int
    minimum: float
    start: np.ndarray
    n: int = 1
    counts: Counts = field(default_factory=Counts, repr=False)

    @property
    def size(self) -> int:
        """Number p of parameters."""
        return self.stationary.size

    def value(self, w: np.ndarray, sample: Sample | None = None) -> float:
        """Return f(w).

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        sample : optional
            Ignored.

        Returns
        -------
        float
            The value.
        """
        check_vector("w", w, self.size)
        self.counts.add("losses", 1, 0)
        return float(self.f(w))

    def value_and_gradient(self, w: np.ndarray, sample: Sample | None = None) -> tuple[float, np.ndarray]:
        """Return f(w) and ∇f(w).

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        sample : optional
            Ignored.

        Returns
        -------
        value : float
            f(w).
        gradient : ndarray, shape (p,)
            ∇f(w).
        """
        check_vector("w", w, self.size)
        self.counts.add("gradients", 1, 0)
        value, gradient = value_and_grad(self.f)(w)
        return float(value), gradient

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Return ∇f(w).

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.

        Returns
        -------
        ndarray, shape (p,)
            The gradient.
        """
        return self.value_and_gradient(w)[1]

    def curvature(self, w: np.ndarray, kind: str = "hessian", sample: Sample | None = None) -> LinearOperator:
        """Return the Hessian at w as an operator.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        kind : {"hessian"}
            The only curvature that a function without a network has.
        sample : optional
            Ignored.

        Returns
        -------
        LinearOperator, shape (p, p)
            The Hessian at this w, even if the array is changed later.

        Raises
        ------
        ValueError
            If ``kind`` is another one.
        """
        if kind != "hessian":
            raise ValueError(f"curvature: expected 'hessian', the only one {self.name} has, got {kind!r}")
        check_vector("w", w, self.size)
        apply, _ = make_hvp(self.f)(np.array(w))  # a copy, because the product refers to its point

        def product(v: np.ndarray) -> np.ndarray:
            self.counts.add("products", 1, 0)
            return apply(v.ravel().astype(w.dtype, copy=False))

        return LinearOperator((w.size, w.size), matvec=product, rmatvec=product, dtype=w.dtype)

    def hessian_product(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return ∇²f(w) v.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.
        v : ndarray, shape (p,)
            What is multiplied.

        Returns
        -------
        ndarray, shape (p,)
            The product.
        """
        check_vector("v", v, self.size)
        return self.curvature(w) @ v

    def hessian(self, w: np.ndarray) -> np.ndarray:
        """Return the Hessian at w as a dense matrix, which takes p products.

        Parameters
        ----------
        w : ndarray, shape (p,)
            Parameters.

        Returns
        -------
        ndarray, shape (p, p)
            The Hessian.
        """
        check_vector("w", w, self.size)
        return hessian(self.f)(w)

    def scaled(self, loss: float = 1.0, stretch: float | np.ndarray = 1.0) -> "Problem":
        """Return the same problem in other units: w ↦ loss · f(w / stretch).

        Parameters
        ----------
        loss : float
            Factor of the value, positive.
        stretch : float or ndarray, shape (p,)
            Factor of all coordinates, or of each one; positive.

        Returns
        -------
        Problem
            A problem whose stationary point, least value and start are scaled in the same way.

        Raises
        ------
        ValueError
            If a factor is not positive and finite.

        Examples
        --------
        >>> from hfnb.problems import rosenbrock
        >>> wide = rosenbrock().scaled(loss=1e-8, stretch=1e6)
        >>> wide.stationary, bool(np.isclose(wide.value(wide.start), 24.2e-8))
        (array([1000000., 1000000.]), True)
        """
        unit = np.broadcast_to(np.asarray(stretch, dtype=float), self.stationary.shape)
        for name, value in (("loss", np.asarray(loss)), ("stretch", unit)):
            if not np.all((value > 0) & np.isfinite(value)):
                raise ValueError(f"{name}: expected positive numbers, got {value}")

        def f(w: np.ndarray) -> float:
            return loss * self.f(w / unit.astype(w.dtype))

        name = f"{self.name}, scaled"
        return Problem(name, f, unit * self.stationary, self.index, loss * self.minimum, unit * self.start)

    def near(self, distance: float, seed: int = 0) -> np.ndarray:
        """Return a point near the stationary one, in a random direction from it.

        Parameters
        ----------
        distance : float
            Euclidean distance from the stationary point, at least 0.
        seed : int
            At least 0; a seed always gives the same direction.

        Returns
        -------
        ndarray, shape (p,)
            The point.
        """
        check_nonnegative("distance", distance, finite=True)
        direction = np.random.default_rng(check_nonnegative_int("seed", seed)).standard_normal(self.size)
        return self.stationary + distance * direction / np.linalg.norm(direction)
