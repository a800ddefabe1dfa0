"""The Lanczos process with full reorthogonalization, and the smallest eigenvalue from a random start."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

from hfnb.krylov.result import Status
from hfnb.krylov.system import ROUNDING, System, as_operator, check_right_hand_side
from hfnb.krylov.vectors import coefficients, combine, norm
from hfnb.validation import (
    check_finite,
    check_nonnegative,
    check_nonnegative_int,
    check_positive_int,
    check_vector,
)


@dataclass
class Tridiagonal:
    """A symmetric A in a Krylov space: T = V A Vᵀ, a tridiagonal matrix.

    Attributes
    ----------
    V : ndarray (k, n)
        Orthonormal rows, a basis of the space.
    alphas : list of float, k of them
        The diagonal of T.
    betas : list of float, k of them
        What stands beside the diagonal, and at the end the norm of what A leads out of the space:
        A Vᵀ = Vᵀ T + β v eᵀ.
    """

    V: np.ndarray
    alphas: list[float]
    betas: list[float]

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the eigenvalues of T, ascending, and its eigenvectors.

        Returns
        -------
        values : ndarray (k,)
        vectors : ndarray (k, k)
            A column for each value.
        """
        return eigh_tridiagonal(self.alphas, self.betas[:-1])

    def failure(self, bound: float) -> float:
        """Return an upper bound on the probability that λmin < ``bound`` in spite of this T.

        Parameters
        ----------
        bound : float

        Returns
        -------
        float
            A probability over starts v drawn uniformly from the sphere; 1 where a Ritz value is at most
            ``bound``.

        Notes
        -----
        With u the eigenvector of λmin and p the monic polynomial of the Ritz values θᵢ,
        |uᵀv| Π(θᵢ − λmin) = |uᵀp(A)v| ≤ ‖p(A)v‖ = Πβⱼ. As |uᵀv| ≤ a has probability at most a√(2n/π),
        λmin < bound has at most √(2n/π) Π βⱼ/(θᵢ − bound), whatever the number of steps after which one
        looks.

        References
        ----------
        van Dorsselaer, Hochstenbach & van der Vorst, "Computing probabilistic bounds for extreme eigenvalues
        of symmetric matrices with the Lanczos method", SIAM J. Matrix Anal. Appl. 22 (2000).
        """
        bound = check_finite("bound", bound)
        ritz, _ = self.ritz()
        if ritz[0] <= bound:
            return 1.0
        with np.errstate(divide="ignore"):
            logs = np.log(self.betas) - np.log(ritz - bound)
        return float(min(1.0, np.exp(logs.sum()) * np.sqrt(2 * self.V.shape[1] / np.pi)))


def lanczos_process(system: System, start: np.ndarray, steps: int) -> Iterator[Tridiagonal]:
    """Yield T after each product of A + damping I, until ``steps`` or an invariant subspace is reached.

    Parameters
    ----------
    system : System
        The operator; its right-hand side is not used.
    start : ndarray (n,)
        The first vector of the basis, of any length.
    steps : int
        The largest number of products, and of basis vectors kept.

    Yields
    ------
    Tridiagonal
        The same arrays each time, longer by one.

    Raises
    ------
    TypeError, ValueError
        For a start that is zero or of another size, and for ``steps`` below 1.

    Notes
    -----
    Orthogonalizing twice keeps V orthonormal to rounding.

    References
    ----------
    Parlett, The Symmetric Eigenvalue Problem (1980), §6.9.

    Examples
    --------
    >>> A, start = np.diag([1.0, 2.0, -3.0]), np.ones(3)
    >>> *_, last = lanczos_process(System(A, start), start, 3)
    >>> last.ritz()[0]
    array([-3.,  1.,  2.])
    """
    check_vector("start", start, system.b.size)
    if not 0 < norm(start) < np.inf:
        raise ValueError(f"start: expected a vector with a norm in (0, ∞), got {norm(start)}")
    steps = min(check_positive_int("steps", steps), start.size)
    V, w = np.empty((steps, start.size), start.dtype), np.empty_like(start)
    alphas: list[float] = []
    betas: list[float] = []
    np.multiply(start, 1 / norm(start), out=V[0])
    for k in range(1, steps + 1):
        alphas.append(system.product(V[k - 1], out=w))
        for _ in range(2):
            w -= combine(coefficients(V[:k], w), V[:k])
        betas.append(norm(w))
        yield Tridiagonal(V[:k], alphas, betas)
        if k == steps or betas[-1] <= ROUNDING * float(np.finfo(w.dtype).eps) * system.norm:
            return
        np.multiply(w, 1 / betas[-1], out=V[k])


@dataclass
class LanczosResult:
    """The smallest Ritz pair of a symmetric A.

    Attributes
    ----------
    eigenvalue : float
        dᵀAd ≥ λmin, the smallest Ritz value.
    direction : ndarray (n,)
        The unit vector d.
    residual_norm : float
        ‖Ad − eigenvalue d‖; an eigenvalue of A is at most so far from ``eigenvalue``.
    largest : float
        The largest Ritz value.
    products : int
        How often A was applied.
    seed : int or None
        What the start was drawn with; None where it was given.
    status : Status
        Why the process stopped.
    success : bool
        Whether the residual test was met.
    """

    eigenvalue: float
    direction: np.ndarray
    residual_norm: float
    largest: float
    products: int
    seed: int | None
    status: Status
    success: bool


def lanczos(A, start=None, *, seed=None, tol=1e-3, max_iter=100, check=False) -> LanczosResult:
    """Return the smallest Ritz pair of a symmetric A by the Lanczos process with full reorthogonalization.

    Parameters
    ----------
    A : LinearOperator, ndarray, sparse matrix or nested list (n, n)
        A symmetric operator.
    start : ndarray (n,), optional
        The first vector, such as the last direction found. By default it is random: a fixed start can be
        orthogonal to the only direction of negative curvature.
    seed : int, optional
        What a random start is drawn with; a fresh one by default, which the result records.
    tol : float
        Stop where the residual bound β|sₖ| is at most tol × the largest |Ritz value|.
    max_iter : int
        The largest number of products, and of basis vectors kept.
    check : bool
        As for `cg`.

    Returns
    -------
    LanczosResult

    Raises
    ------
    TypeError, ValueError, NonFiniteProduct
        As `cg` does; ValueError also for a start whose norm is 0 or overflows.

    References
    ----------
    Parlett, The Symmetric Eigenvalue Problem (1980), ch. 13.

    Examples
    --------
    >>> result = lanczos(np.diag([1.0, 2.0, -3.0]), seed=0)
    >>> result.eigenvalue, result.products, result.success
    (-3.0, 3, True)
    """
    tol, max_iter = check_nonnegative("tol", tol), check_positive_int("max_iter", max_iter)
    start, seed = random_start(A, seed) if start is None else (check_right_hand_side("start", start), None)
    system = System(A, start, check=check)
    if not 0 < system.b_norm < np.inf:
        raise ValueError(f"start: expected a vector with a norm in (0, ∞), got {system.b_norm}")
    status = Status.MAX_PRODUCTS
    for lanczos in lanczos_process(system, system.b, max_iter):
        ritz, S = lanczos.ritz()
        residual_norm = lanczos.betas[-1] * abs(S[-1, 0])
        if residual_norm <= tol * np.abs(ritz).max():
            status = Status.CONVERGED
            break
    direction = combine(S[:, 0], lanczos.V)
    direction /= norm(direction)
    return LanczosResult(
        eigenvalue=float(ritz[0]),
        direction=direction,
        residual_norm=float(residual_norm),
        largest=float(ritz[-1]),
        products=system.products,
        seed=seed,
        status=status,
        success=status is Status.CONVERGED,
    )


def random_start(A, seed: int | None = None) -> tuple[np.ndarray, int]:
    """Return a vector whose direction is uniformly random.

    Parameters
    ----------
    A : LinearOperator, ndarray, sparse matrix or nested list (n, n)
        What the vector is to be multiplied by: it has A's size, and its precision where that is float32.
    seed : int, optional
        A fresh one by default.

    Returns
    -------
    start : ndarray (n,)
    seed : int
        What it was drawn with.

    Examples
    --------
    >>> start, seed = random_start(np.eye(3), seed=1)
    >>> start.shape, seed
    ((3,), 1)
    """
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    check_nonnegative_int("seed", seed)
    operator = as_operator("A", A)
    dtype = np.float32 if operator.dtype == np.float32 else np.float64
    return np.random.default_rng(seed).standard_normal(operator.shape[1]).astype(dtype), seed
