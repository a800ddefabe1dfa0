"""Preconditioners M ≈ (A + damping I)⁻¹, positive definite whatever A is."""

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb.krylov.system import Operator, as_operator
from hfnb.krylov.vectors import axpy, dot, norm
from hfnb.validation import check_finite, check_nonnegative, check_positive_int, check_vector


def diagonal(squares: np.ndarray, damping: float, exponent: float = 0.75) -> LinearOperator:
    """Return M = diag(squares + damping)^−exponent, Martens' preconditioner.

    Parameters
    ----------
    squares : ndarray (n,)
        The diagonal of the empirical Fisher matrix: Σᵢ(∇fᵢ)², entry by entry, over single samples.
    damping : float
        λ of the system to be solved.
    exponent : float
        An exponent below 1 damps the largest entries, which this diagonal overestimates.

    Returns
    -------
    LinearOperator (n, n)
        M, a diagonal operator.

    Raises
    ------
    ValueError
        If an entry of squares + damping is not positive.

    References
    ----------
    Martens, "Deep learning via Hessian-free optimization" (2010), §4.7.

    Examples
    --------
    >>> diagonal(np.array([0.0, 15.0]), damping=1.0) @ np.ones(2)
    array([1.   , 0.125])
    """
    check_vector("squares", squares)
    exponent = check_nonnegative("exponent", exponent, finite=True)
    shifted = squares + squares.dtype.type(check_finite("damping", damping))
    if not np.all((shifted > 0) & np.isfinite(shifted)):
        raise ValueError("squares: expected squares + damping to be positive and finite in every entry")
    inverse = shifted**-exponent
    return LinearOperator((inverse.size,) * 2, matvec=lambda r: inverse * r.ravel(), dtype=inverse.dtype)


class LBFGS:
    """The L-BFGS approximation of an inverse, made of the pairs (s, y = A s) of an earlier solve.

    Parameters
    ----------
    memory : int
        The largest number of pairs to keep; they are spread evenly over the solve.

    Attributes
    ----------
    pairs : list of (ndarray (n,), ndarray (n,))
        The pairs (s, y).

    Notes
    -----
    Solve with ``watch(A)`` in place of A to record pairs, then give ``operator(damping)`` to the next solve
    as its M. Pairs of non-positive curvature are left out, so that M is positive definite.

    References
    ----------
    Morales & Nocedal, "Automatic preconditioning by limited memory quasi-Newton updating", SIAM J. Optim. 10
    (2000).

    Examples
    --------
    >>> pairs, A = LBFGS(memory=2), np.diag([1.0, 100.0])
    >>> _ = [pairs.watch(A) @ e for e in np.eye(2)]
    >>> pairs.operator() @ np.ones(2)
    array([1.  , 0.01])
    """

    def __init__(self, memory: int = 20) -> None:
        self.memory = check_positive_int("memory", memory)
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self.clear()

    def clear(self) -> None:
        """Remove all pairs, before a solve whose pairs are to replace them."""
        self.pairs, self._seen, self._stride = [], 0, 1

    def watch(self, A: Operator) -> LinearOperator:
        """Return A as an operator that records the pair of each product.

        Parameters
        ----------
        A : LinearOperator, ndarray, sparse matrix or nested list (n, n)
            A symmetric operator.

        Returns
        -------
        LinearOperator (n, n)
            A, with products that add to ``pairs``.
        """
        inner = as_operator("A", A)

        def product(v: np.ndarray) -> np.ndarray:
            Av = inner.matvec(v)
            self._note(v, Av)
            return Av

        return LinearOperator(inner.shape, matvec=product, rmatvec=product, dtype=inner.dtype)

    def _note(self, s: np.ndarray, y: np.ndarray) -> None:
        """Keep every stride-th pair; beyond ``memory`` drop every second one and double the stride."""
        if self._seen % self._stride == 0:
            self.pairs.append((s.ravel().copy(), y.ravel().copy()))
        self._seen += 1
        if len(self.pairs) > self.memory:
            self.pairs, self._stride = self.pairs[::2], 2 * self._stride

    def operator(self, damping: float = 0.0) -> LinearOperator | None:
        """Return the preconditioner made of the pairs.

        Parameters
        ----------
        damping : float
            λ of the system to be solved: y + λs takes the place of y.

        Returns
        -------
        LinearOperator (n, n) or None
            M; None if no pair has positive curvature.
        """
        damping, usable = check_finite("damping", damping), []
        for s, y in self.pairs:
            z = y + y.dtype.type(damping) * s
            sz = dot(s, z)
            if sz > 10 * float(np.finfo(z.dtype).eps) * norm(s) * norm(z):
                usable.append((s, z, sz))
        if not usable:
            return None
        n, dtype = usable[0][0].size, usable[0][0].dtype
        return LinearOperator((n, n), matvec=lambda r: _two_loops(usable, r.ravel()), dtype=dtype)


def _two_loops(pairs: list[tuple[np.ndarray, np.ndarray, float]], r: np.ndarray) -> np.ndarray:
    """Return H r by the two-loop recursion (Nocedal & Wright, Numerical Optimization, algorithm 7.4)."""
    q, alphas = np.array(r), []
    for s, y, sy in reversed(pairs):
        alphas.append(dot(s, q) / sy)
        axpy(q, -alphas[-1], y)
    _, y, sy = pairs[-1]
    q *= sy / dot(y, y)
    for (s, y, sy), alpha in zip(pairs, reversed(alphas), strict=True):
        axpy(q, alpha - dot(y, q) / sy, s)
    return q
