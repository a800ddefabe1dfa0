"""Conjugate gradients: `cg`, also in a trust region, and `capped_cg`, in a bounded number of products."""

import math
from typing import Any

import numpy as np

from hfnb.krylov.stopping import KrylovResult, Monitor, Status, Stopping
from hfnb.krylov.system import Operator, System
from hfnb.krylov.vectors import axpy, dot, norm
from hfnb.validation import check_finite, check_positive


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


def capped_cg(
    A: Operator,
    b: np.ndarray,
    x0: np.ndarray | None = None,
    *,
    damping: float = 0.0,
    M: None = None,
    check: bool = False,
    accuracy: float = 0.5,
    **stopping: Any,
) -> KrylovResult:
    """Solve (A + 2εI) x = b, ε = damping / 2, or find a direction d with dᵀAd ≤ −ε‖d‖².

    Parameters
    ----------
    A : LinearOperator, ndarray, sparse matrix or nested list (n, n)
        A symmetric operator.
    b : ndarray (n,)
        The right-hand side, float32 or float64, which is the precision of the solve.
    x0 : ndarray (n,), optional
        The first iterate; 0 by default.
    damping : float
        2ε > 0, added to the diagonal of A.
    M : None
        No preconditioner is taken, because the bounds hold in the Euclidean norm.
    check : bool
        Whether to spend two products on a probe of A's symmetry; a matrix is always probed.
    accuracy : float
        The accuracy of a solution, in units of 1/(3κ) (see Notes).
    **stopping
        The fields of `Stopping`, except ``overhead`` and ``stop_indefinite``.

    Returns
    -------
    KrylovResult
        The solution or, where ``status`` reports negative curvature, a ``direction`` as asked for.

    Raises
    ------
    TypeError, ValueError, NonFiniteProduct
        As `cg` does; ValueError also if damping is not positive or an M is given.

    Notes
    -----
    Conjugate gradients end as soon as one of these conditions holds:

    - The direction p or the step y = x − x0 has curvature of A + 2εI below ε.
    - ‖r‖ ≤ accuracy/(3κ) ‖r0‖ with κ = (‖A‖ + 2ε)/ε, or ‖r‖ is within rtol, atol.
    - ‖r‖ falls more slowly than it can without negative curvature: in iteration j, ‖r‖ > √T τ^(j/2) ‖r0‖ with
      τ = √κ/(√κ + 1) and T = 4κ⁴/(1 − √τ)². The difference of two iterates then has curvature of A + 2εI
      below ε. To find these two, the iterates are computed a second time.

    ‖A‖ is estimated from below by the products made so far.

    References
    ----------
    Royer, O'Neill & Wright, "A Newton-CG algorithm with complexity guarantees for smooth unconstrained
    optimization", Math. Program. 180 (2020), algorithm 1.

    Examples
    --------
    >>> capped_cg(np.diag([1.0, -4.0]), np.array([1.0, 1.0]), damping=0.1).curvature
    -1.5
    """
    if M is not None:
        raise ValueError("M: expected None, because capped_cg takes no preconditioner")
    check_positive("accuracy", accuracy, finite=True)
    if not check_finite("damping", damping) > 0:
        raise ValueError(f"damping: expected 2ε > 0, because capped_cg solves (A + 2εI)x = b, got {damping}")
    system = System(A, b, x0, damping=damping, check=check)
    monitor = Monitor(system, Stopping.from_options(capped_cg, stopping))
    asked = monitor.tolerance
    x, r = system.start()
    x_start, r_start, r_start_norm, eps, rr_before = x.copy(), r.copy(), norm(r), damping / 2, 1.0
    p, Ap, y = np.zeros_like(x), np.empty_like(x), np.empty_like(x)
    while (reason := monitor.stop(x, r)) is None:
        r_norm = monitor.residual_norms[-1]
        rr = r_norm * r_norm
        p *= 0.0 if monitor.replaced else rr / rr_before
        p += r
        pp = dot(p, p)
        pAp = system.product(p, out=Ap, vv=pp)
        if pAp < eps * pp:
            reason = Status.DIRECTION_CURVATURE
            break
        tolerance, cap = _bounds(system.norm, eps, accuracy, monitor.iteration)
        monitor.tolerance = max(asked, tolerance * r_start_norm)
        axpy(x, rr / pAp, p)
        axpy(r, -rr / pAp, Ap)
        rr_before = rr
        np.subtract(x, x_start, out=y)
        if dot(y, r_start) - dot(y, r) < eps * dot(y, y):
            monitor.stop(x, r)
            system.product(y, out=Ap)
            reason = Status.STEP_CURVATURE
            break
        if r_norm > cap * r_start_norm:
            monitor.stop(x, r)
            _observe_difference(A, system, monitor, r_start, y)
            reason = Status.SLOW_RESIDUAL
            break
    return monitor.result(x, reason)


def _bounds(A_norm: float, eps: float, accuracy: float, iteration: int) -> tuple[float, float]:
    """Return the relative residual to reach, and the largest one if all curvature so far is at least ε."""
    kappa = (A_norm + 2 * eps) / eps
    tau = np.sqrt(kappa) / (np.sqrt(kappa) + 1)
    return accuracy / (3 * kappa), 2 * kappa**2 / (1 - np.sqrt(tau)) * tau ** (iteration / 2)


def _observe_difference(
    A: Operator, system: System, monitor: Monitor, r_start: np.ndarray, y: np.ndarray
) -> None:
    """Multiply by a difference d of the last and an earlier iterate with dᵀ(A + 2εI)d < ε‖d‖², to record d.

    By conjugacy the left-hand side is twice the decrease of q between the two iterates (``monitor.models``).
    """
    earlier = iter(monitor.models[1:])

    def falls_too_little(y_earlier: np.ndarray) -> bool:
        d = y - y_earlier
        return 2 * (next(earlier) - monitor.models[-1]) < system.damping / 2 * dot(d, d)

    stopping: dict[str, Any] = {"rtol": 0.0, "progress": 0.0, "max_iter": monitor.iteration}
    again = cg(A, r_start, damping=system.damping, callback=falls_too_little, **stopping)
    system.products += again.products
    system.product(y - again.x, out=np.empty_like(y))
