"""Conjugate gradients as Hessian-free optimization uses them, with a trust region where one is given."""

import numpy as np

from hfnb.krylov.result import KrylovResult, Status
from hfnb.krylov.stopping import Monitor, Stopping
from hfnb.krylov.system import System
from hfnb.krylov.vectors import axpy, dot, norm
from hfnb.validation import check_positive


def cg(
    A, b, x0=None, *, damping=0.0, M=None, check=False, radius=np.inf, overhead=None, **stopping
) -> KrylovResult:
    """Minimize q(x) = ½xᵀ(A + damping I)x − bᵀx by conjugate gradients, up to non-positive curvature.

    Parameters
    ----------
    A : LinearOperator, ndarray, sparse matrix or nested list (n, n)
        A symmetric operator.
    b : ndarray (n,)
        The right-hand side, float32 or float64, which is the precision of the solve.
    x0 : ndarray (n,), optional
        The first iterate; 0 by default.
    damping : float
        λ, added to the diagonal of A.
    M : as A, optional
        A positive definite preconditioner M ≈ (A + damping I)⁻¹.
    check : bool
        Whether to spend two products on a probe of A's symmetry; a matrix is always probed.
    radius : float
        The trust region ‖x‖ ≤ radius, in the Euclidean norm with a preconditioner, too.
    overhead : float, optional
        As in `Stopping`.
    **stopping
        The other fields of `Stopping`, except ``stop_indefinite``: this solver always stops there.

    Returns
    -------
    KrylovResult
        With a radius the best iterate alone is kept in ``iterates``, otherwise several for backtracking.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit together, an unknown option, a matrix that is not symmetric, an M that
        is not positive definite, and an x0 outside of the trust region.
    NonFiniteProduct
        Where A or M returns NaN or infinity.

    Notes
    -----
    One product an iteration. Where pᵀ(A + damping I)p ≤ 0, q has no minimum along p. Without a radius the
    solve ends there; that curvature is reported and never divided by. With a radius the result is the point
    at which x + τp, τ > 0, crosses the boundary, as it is where a step would leave the region; q falls all
    the way there (Steihaug's method).

    References
    ----------
    Hestenes & Stiefel, "Methods of conjugate gradients for solving linear systems" (1952); Martens, "Deep
    learning via Hessian-free optimization" (2010), §4; Steihaug, "The conjugate gradient method and trust
    regions", SIAM J. Numer. Anal. 20 (1983).

    Examples
    --------
    >>> cg(np.diag([1.0, 4.0]), np.array([1.0, 1.0])).x
    array([1.  , 0.25])
    >>> cg(np.diag([1.0, -4.0]), np.array([1.0, 1.0])).curvature
    -1.5
    >>> cg(np.diag([1.0, -4.0]), np.array([1.0, 1.0]), radius=np.sqrt(2)).x
    array([1., 1.])
    """
    options = Stopping.from_options(cg, stopping, overhead=overhead)
    radius = check_positive("radius", radius)
    system = System(A, b, x0, damping=damping, M=M, check=check)
    monitor = Monitor(system, options, keep=radius == np.inf)
    x, r = system.start()
    if radius < np.inf and norm(x) > radius:
        raise ValueError(f"radius: expected a number of at least ‖x0‖ = {norm(x):.3g}, got {radius}")
    p, Ap, rz_before = np.zeros_like(x), np.empty_like(x), 1.0
    while (reason := monitor.stop(x, r)) is None:
        z, rz = system.precondition(r)
        p *= 0.0 if monitor.replaced else rz / rz_before
        p += z
        pAp = system.product(p, out=Ap)
        alpha = rz / pAp if pAp > system.rounding else np.inf
        to_boundary = np.inf if radius == np.inf else _to_boundary(x, p, radius)
        step = min(alpha, to_boundary)
        if step == np.inf:
            reason = Status.NON_POSITIVE_CURVATURE
            break
        axpy(x, step, p)
        axpy(r, -step, Ap)
        if step == to_boundary:
            monitor.stop(x, r)
            monitor.success = True
            reason = Status.BOUNDARY_BY_CURVATURE if alpha == np.inf else Status.BOUNDARY
            break
        rz_before = rz
    return monitor.result(x, reason)


def _to_boundary(x: np.ndarray, p: np.ndarray, radius: float) -> float:
    """Return the τ > 0 with ‖x + τp‖ = radius, in the form that does not cancel."""
    xp, pp, left = dot(x, p), dot(p, p), max(radius**2 - dot(x, x), 0.0)
    root = np.sqrt(xp**2 + pp * left)
    return left / (xp + root) if xp > 0 else (root - xp) / pp
