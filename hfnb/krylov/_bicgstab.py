"""Bi-CG-STAB, the paper's solver of the indefinite Newton system (van der Vorst 1992)."""

import math
from typing import Any

import numpy as np

from hfnb.krylov.stopping import KrylovResult, Monitor, Status, Stopping
from hfnb.krylov.system import Operator, System
from hfnb.krylov.vectors import axpy, dot, norm


def bicgstab(
    A: Operator,
    b: np.ndarray,
    x0: np.ndarray | None = None,
    *,
    damping: float = 0.0,
    M: Operator | None = None,
    check: bool = False,
    stop_indefinite: bool = False,
    **stopping: Any,
) -> KrylovResult:
    """Solve (A + damping I) x = b for a symmetric A that may be indefinite, by Bi-CG-STAB.

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
        A positive definite preconditioner M ≈ (A + damping I)⁻¹, applied from the right.
    check : bool
        Whether to spend two products on a probe of A's symmetry; a matrix is always probed.
    stop_indefinite : bool
        Whether to stop, as `cg` does, once a vector has shown that A + damping I is not positive definite:
        the solution of an indefinite system is a saddle point of q and not a minimum.
    **stopping
        The other fields of `Stopping`, except ``overhead``.

    Returns
    -------
    KrylovResult
        ``best`` is the iterate of least q(x) = ½xᵀ(A + damping I)x − bᵀx; q and ‖r‖ may rise from one
        iteration to the next.

    Raises
    ------
    TypeError, ValueError, NonFiniteProduct
        As `cg` does.

    Notes
    -----
    Each iteration takes two products, v = Ap and t = As, and sees two curvatures, pᵀv and sᵀt. If r̂ᵀv, r̂ᵀr
    or ω is zero to rounding, relative to the norms of its factors, the method restarts from its iterate with
    the shadow residual r̂ = r. If that r̂ is orthogonal to v = Ar, it restarts with r̂ = r/‖r‖ + v/‖v‖, for
    which r̂ᵀr and r̂ᵀv are both positive.

    References
    ----------
    van der Vorst, "Bi-CGSTAB", SIAM J. Sci. Stat. Comput. 13 (1992).

    Examples
    --------
    >>> result = bicgstab(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0]))
    >>> np.round(result.x, 6), result.products
    (array([0., 1.]), 2)
    """
    options = Stopping.from_options(bicgstab, stopping, stop_indefinite=stop_indefinite)
    system = System(A, b, x0, damping=damping, M=M, check=check)
    monitor = Monitor(system, options)
    x, r = system.start()
    v, t, fresh = np.empty_like(x), np.empty_like(x), True
    shadow, p, rho, size, alpha, omega = r, r, 1.0, 1.0, 1.0, 1.0  # what a fresh start does not use
    q = r_norm = None  # q(x) and ‖r‖, which are known after the first steps
    while (reason := monitor.stop(x, r, q=q, r_norm=r_norm)) is None:
        q, r_norm, fresh = monitor.models[-1], monitor.residual_norms[-1], fresh or monitor.replaced
        if not fresh:
            rho, rho_before = dot(shadow, r), rho
            fresh = _lost(rho, size * r_norm, system.eps)
        if fresh:
            shadow, p, rho, size = r.copy(), r.copy(), r_norm * r_norm, r_norm
        else:
            axpy(p, -omega, v)
            p *= rho / rho_before * (alpha / omega)
            p += r
        z, pz = system.precondition(p)
        zBz = system.product(z, out=v, vv=pz if M is None else None)
        sigma, v_norm = dot(shadow, v), system.product_norm
        if _lost(sigma, size * v_norm, system.eps):
            if not v.any():
                reason = Status.BREAKDOWN
                break
            if not fresh:
                fresh = True
                continue
            shadow = r / r_norm + v / v_norm
            rho, sigma, size = dot(shadow, r), dot(shadow, v), norm(shadow)
        alpha = rho / sigma
        q -= alpha * (dot(r, z) - alpha * zBz / 2)
        axpy(x, alpha, z)
        axpy(r, -alpha, v)  # r holds s until t is subtracted below
        if (r_norm := norm(r)) <= monitor.tolerance:
            continue
        z, rz = system.precondition(r, r_norm)
        zBz = system.product(z, out=t, vv=rz if M is None else None)
        tr, t_norm = zBz if M is None else dot(t, r), system.product_norm
        if fresh := _lost(tr, t_norm * r_norm, system.eps):
            continue
        omega = tr / (t_norm * t_norm)
        q -= omega * (rz - omega * zBz / 2)
        axpy(x, omega, z)
        axpy(r, -omega, t)
        rr = r_norm * r_norm - omega * tr  # ‖s‖² − ω tᵀs = ‖r‖², because r is orthogonal to t
        r_norm = math.sqrt(rr) if rr > 0.01 * r_norm * r_norm else None  # None if digits have cancelled
    return monitor.result(x, reason)


def _lost(xy: float, scale: float, eps: float) -> bool:
    """Whether xᵀy is zero to the rounding of its own terms, with scale = ‖x‖‖y‖."""
    return abs(xy) <= eps * scale
