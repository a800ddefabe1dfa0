"""The Lanczos process with full reorthogonalization: the smallest eigenvalue, and the saddle-free step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from hfnb.krylov.stopping import KrylovResult, Monitor, Status, Stopping
from hfnb.krylov.system import ROUNDING, Operator, System, as_operator, check_right_hand_side
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
    """The projection of a symmetric A onto a Krylov space: T = V A Vᵀ, a tridiagonal matrix.

    Attributes
    ----------
    V : ndarray (k, n)
        Orthonormal rows, a basis of the space.
    alphas : list of float, k of them
        The diagonal of T.
    betas : list of float, k of them
        The entries next to the diagonal of T and, as the last number, the norm β of the part of A Vᵀ outside
        of the space: A Vᵀ = Vᵀ T + β v eᵀ with a unit vector v and e = (0, …, 0, 1).
    """

    V: np.ndarray
    alphas: list[float]
    betas: list[float]

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the eigenvalues of T, ascending, and its eigenvectors.

        Returns
        -------
        values : ndarray (k,)
            The eigenvalues, ascending: the Ritz values of A.
        vectors : ndarray (k, k)
            The eigenvectors, a column for each value.
        """
        return eigh_tridiagonal(self.alphas, self.betas[:-1])

    def failure(self, bound: float) -> float:
        """Return an upper bound on the probability of a T like this one although λmin < ``bound``.

        Parameters
        ----------
        bound : float
            A number that the smallest eigenvalue λmin of A is compared with.

        Returns
        -------
        float
            A probability over starts drawn uniformly from the sphere; 1 if a Ritz value is at most ``bound``.

        Notes
        -----
        With u the eigenvector of λmin and p the monic polynomial of the Ritz values θᵢ,
        |uᵀv| Π(θᵢ − λmin) = |uᵀp(A)v| ≤ ‖p(A)v‖ = Πβⱼ. The probability of |uᵀv| ≤ a is at most a√(2n/π),
        hence that of λmin < bound is at most √(2n/π) Π βⱼ/(θᵢ − bound). This holds after any number of steps.

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
        T with one more row and column each time; the arrays are shared, not copied.

    Raises
    ------
    TypeError, ValueError
        If the start is zero or of another size, or ``steps`` is below 1.

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
        ‖Ad − eigenvalue d‖; A has an eigenvalue within this distance of ``eigenvalue``.
    largest : float
        The largest Ritz value.
    products : int
        How often A was applied.
    seed : int or None
        The seed of the random start; None if the start was given.
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


def lanczos(
    A: Operator,
    start: np.ndarray | None = None,
    *,
    seed: int | None = None,
    tol: float = 1e-3,
    max_iter: int = 100,
    check: bool = False,
) -> LanczosResult:
    """Return the smallest Ritz pair of a symmetric A by the Lanczos process with full reorthogonalization.

    Parameters
    ----------
    A : LinearOperator, ndarray, sparse matrix or nested list (n, n)
        A symmetric operator.
    start : ndarray (n,), optional
        The first vector, such as the last direction found. By default it is random: a fixed start can be
        orthogonal to the only direction of negative curvature.
    seed : int, optional
        The seed of a random start; a fresh one by default, which the result records.
    tol : float
        Stop when the residual bound β|sₖ| is at most tol × the largest |Ritz value|.
    max_iter : int
        The largest number of products, and of basis vectors kept.
    check : bool
        Whether to spend two products on a probe of A's symmetry; a matrix is always probed.

    Returns
    -------
    LanczosResult
        The smallest Ritz value, its vector, and how close they are to an eigenpair.

    Raises
    ------
    TypeError, ValueError, NonFiniteProduct
        As `cg` does; ValueError also if the norm of the start is 0 or overflows.

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


def random_start(A: Operator, seed: int | None = None) -> tuple[np.ndarray, int]:
    """Return a vector whose direction is uniformly random.

    Parameters
    ----------
    A : LinearOperator, ndarray, sparse matrix or nested list (n, n)
        The operator, which gives the vector its size, and the precision float32 if it has that.
    seed : int, optional
        The seed of the draw; a fresh one by default.

    Returns
    -------
    start : ndarray (n,)
        A vector of normal random numbers, float64 unless A is float32.
    seed : int
        The seed with which it was drawn.

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


def saddle_free(
    A: Operator,
    b: np.ndarray,
    x0: np.ndarray | None = None,
    *,
    damping: float = 0.0,
    M: None = None,
    check: bool = False,
    **stopping: Any,
) -> KrylovResult:
    """Return x = x0 + V(|T| + damping I)⁻¹Vᵀ(b − (A + damping I)x0), T = VᵀAV on a Lanczos basis V.

    Along eigenvectors of negative curvature this step leads away from the saddle, while a Newton step leads
    to it.

    Parameters
    ----------
    A : LinearOperator, ndarray, sparse matrix or nested list (n, n)
        A symmetric operator.
    b : ndarray (n,)
        The right-hand side, float32 or float64, which is the precision of the solve.
    x0 : ndarray (n,), optional
        The first iterate; 0 by default.
    damping : float
        λ, added to |T| in the subspace.
    M : None
        No preconditioner is taken, because |A| depends on the coordinates.
    check : bool
        Whether to spend two products on a probe of A's symmetry; a matrix is always probed.
    **stopping
        The fields of `Stopping`, except ``overhead`` and ``stop_indefinite``. The solve ends if the part of
        A(x − x0) outside of the subspace has a norm of at most max(rtol ‖b‖, atol). ``max_iter``, 100 by
        default, is the largest number of basis vectors, all of which are kept.

    Returns
    -------
    KrylovResult
        ``residual_norms`` and ``models`` are those of A, not of |A|; ``direction`` is the lowest Ritz vector.

    Raises
    ------
    TypeError, ValueError, NonFiniteProduct
        As `cg` does; ValueError also if an M is given.

    References
    ----------
    Dauphin et al., "Identifying and attacking the saddle point problem in high-dimensional non-convex
    optimization" (2014), algorithm 1.

    Examples
    --------
    >>> saddle_free(np.diag([1.0, -4.0]), np.array([1.0, 1.0])).x
    array([1.  , 0.25])
    """
    if M is not None:
        raise ValueError("M: expected None, because saddle_free takes no preconditioner")
    options = Stopping.from_options(saddle_free, stopping)
    system = System(A, b, x0, damping=damping, check=check)
    monitor = Monitor(system, options, default_max_iter=100)
    start, r = system.start()
    x, lengths, reason = start, norm(r), monitor.stop(start, r)
    if reason is not None:
        return monitor.result(x, reason)
    for lanczos in lanczos_process(system, r, monitor.max_iter):
        ritz, S = lanczos.ritz()
        weights = np.abs(ritz - system.damping) + system.damping
        regular = weights > ROUNDING * float(np.finfo(start.dtype).eps) * system.norm
        y = lengths * S @ np.divide(S[0], weights, out=np.zeros_like(ritz), where=regular)
        x = start + combine(y, lanczos.V)
        Ty, left_out = S @ (ritz * (S.T @ y)), lanczos.betas[-1] * abs(y[-1])
        q = monitor.models[0] + 0.5 * y @ Ty - lengths * y[0]
        Ty[0] -= lengths
        reason = monitor.record(x, q, float(np.hypot(np.linalg.norm(Ty), left_out)))
        if left_out <= monitor.tolerance and regular.all():
            reason = Status.SUBSPACE_CONVERGED
            monitor.success = True
        if reason is not None:
            break
    monitor.solved, monitor.success = True, monitor.success or reason is None
    system.observe(combine(S[:, 0], lanczos.V), ritz[0] - system.damping)
    return monitor.result(x, reason or Status.SUBSPACE_EXHAUSTED)
