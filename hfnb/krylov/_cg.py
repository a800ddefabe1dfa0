"""Conjugate gradients as Hessian-free optimization uses them, with an optional trust region."""

import math
from typing import Any

import numpy as np

from hfnb.krylov.result import KrylovResult, Status
from hfnb.krylov.stopping import Monitor, Stopping
from hfnb.krylov.system import Operator, System
from hfnb.krylov.vectors import axpy, dot, norm
from hfnb.validation import check_positive


def cg(
    A: Operator,
    b: np.ndarray,
    x0: np.ndarray | None = None,
    *,
    damping: float = 0.0,
    M: Operator | None = None,
    check: bool = False,
    radius: float = np.inf,
    overhead: float | None = None,
    **stopping: Any,
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
        The trust region ‖x‖ ≤ radius. The norm is the Euclidean one, also with a preconditioner.
    overhead : float, optional
        As in `Stopping`.
    **stopping
        The other fields of `Stopping`, except ``stop_indefinite``: this solver always stops at non-positive
        curvature.

    Returns
    -------
    KrylovResult
        ``iterates`` holds several iterates for backtracking; with a radius, only the best one.

    Raises
    ------
    TypeError, ValueError
        If arguments do not fit together, an option is unknown, a matrix is not symmetric, M is not positive
        definite, or x0 is outside of the trust region.
    NonFiniteProduct
        If A or M returns NaN or infinity.

    Notes
    -----
    Each iteration takes one product. If pᵀ(A + damping I)p ≤ 0, q has no minimum along p. Without a radius
    the solve then ends; the curvature is reported and never used as a divisor. With a radius the solve ends
    at the point where x + τp, τ > 0, crosses the boundary, and likewise if a step would leave the region; q
    falls all the way to that point (Steihaug's method).

    A step αp lowers q by α rᵀz/2, z = M r, which holds to rounding although the residuals lose their
    orthogonality (Strakoš & Tichý), so that q costs no dot product.

    References
    ----------
    Hestenes & Stiefel, "Methods of conjugate gradients for solving linear systems" (1952); Martens, "Deep
    learning via Hessian-free optimization" (2010), §4; Steihaug, "The conjugate gradient method and trust
    regions", SIAM J. Numer. Anal. 20 (1983); Strakoš & Tichý, "On error estimation in the conjugate gradient
    method and why it works in finite precision computations", ETNA 13 (2002).

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
    monitor = Monitor(system, options, keep=radius == np.inf, descends=True)
    x, r = system.start()
    if radius < np.inf and norm(x) > radius:
        raise ValueError(f"radius: expected a number of at least ‖x0‖ = {norm(x):.3g}, got {radius}")
    p, Ap, rz_before, pp = np.zeros_like(x), np.empty_like(x), 1.0, 0.0
    q = None  # q(x), known after the first step
    while (reason := monitor.stop(x, r, q=q)) is None:
        z, rz = system.precondition(r, monitor.residual_norms[-1])
        beta = 0.0 if monitor.replaced else rz / rz_before
        p *= beta
        p += z
        pp = rz + beta * beta * pp  # pᵀp without an M, because r is orthogonal to the p before
        pAp = system.product(p, out=Ap, vv=pp if M is None else None)
        alpha = rz / pAp if pAp > system.rounding else np.inf
        to_boundary = np.inf if radius == np.inf else _to_boundary(x, p, radius)
        step = min(alpha, to_boundary)
        if step == np.inf:
            reason = Status.NON_POSITIVE_CURVATURE
            break
        axpy(x, step, p)
        axpy(r, -step, Ap)
        q = monitor.models[-1] - step * (rz - step * pAp / 2)  # because rᵀp = rᵀz
        if step == to_boundary:
            monitor.stop(x, r, q=q)
            monitor.success = True
            reason = Status.BOUNDARY_BY_CURVATURE if alpha == np.inf else Status.BOUNDARY
            break
        rz_before = rz
    return monitor.result(x, reason)


def _to_boundary(x: np.ndarray, p: np.ndarray, radius: float) -> float:
    """Return the τ > 0 with ‖x + τp‖ = radius, in the form that does not cancel."""
    xp, pp, left = dot(x, p), dot(p, p), max(radius**2 - dot(x, x), 0.0)
    root = math.sqrt(xp * xp + pp * left)
    return left / (xp + root) if xp > 0 else (root - xp) / pp
