"""Bi-CG-STAB, the paper's solver of the indefinite Newton system (van der Vorst 1992)."""

import numpy as np

from hfnb.krylov.stopping import Monitor
from hfnb.krylov.system import KrylovResult, System
from hfnb.krylov.vectors import axpy, dot, norm


def bicgstab(
    A,
    b,
    x0=None,
    *,
    damping=0.0,
    rtol=1e-5,
    atol=0.0,
    progress=5e-4,
    maxiter=None,
    M=None,
    callback=None,
    check=False,
    stop_indefinite=False,
) -> KrylovResult:
    """Solve (A + damping I) x = b for a symmetric A that may be indefinite, by Bi-CG-STAB.

    With v = Ap and t = As it takes two products an iteration and sees two curvatures, pᵀv and sᵀt.
    Neither ‖r‖ nor q(x) = ½xᵀ(A + damping I)x − bᵀx falls at every step: the result holds the iterate of
    least q, and ``progress`` looks at the least q so far. Where r̂ᵀv, r̂ᵀr or ω is lost in rounding
    beside the norms of its factors, it begins anew from its iterate with r̂ = r; where that r̂ is
    orthogonal to v = A r at once, with r̂ = r/‖r‖ + v/‖v‖, for which r̂ᵀr and r̂ᵀv are both positive.
    ``stop_indefinite`` ends the solve, as ``cg`` does, where A + damping I has proved not to be positive
    definite: solved further, it leads to a saddle of q. Other parameters, shapes and errors as ``cg``.

    Source: van der Vorst, "Bi-CGSTAB", SIAM J. Sci. Stat. Comput. 13 (1992), with right preconditioning.

    >>> result = bicgstab(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0]))
    >>> np.round(result.x, 6), result.products
    (array([0., 1.]), 2)
    """
    system = System(A, b, x0, damping=damping, M=M, check=check)
    stops = {"rtol": rtol, "atol": atol, "progress": progress, "maxiter": maxiter, "callback": callback}
    monitor = Monitor(system, stop_indefinite=stop_indefinite, **stops)
    x, r = system.start()
    v, t, fresh = np.empty_like(x), np.empty_like(x), True
    while (reason := monitor.stop(x, r)) is None:
        if fresh or monitor.replaced:
            shadow, p, rho, size, fresh = r.copy(), r.copy(), dot(r, r), norm(r), True
        z = p if M is None else system.precondition(p)[0]
        system.product(z, out=v)
        sigma, v_norm = dot(shadow, v), norm(v)
        if _lost(sigma, size * v_norm, x.dtype):
            if not v.any():
                reason = "breakdown: A maps the residual to zero, so that no step reduces it"
                break
            if not fresh:
                fresh = True
                continue
            shadow = r / norm(r) + v / v_norm
            rho, sigma, size = dot(shadow, r), dot(shadow, v), norm(shadow)
        alpha = rho / sigma
        axpy(x, alpha, z)
        axpy(r, -alpha, v)  # r is s from here to the next axpy
        if (s_norm := norm(r)) <= monitor.tolerance:
            continue
        z = r if M is None else system.precondition(r)[0]
        system.product(z, out=t)
        ts, tt = dot(t, r), dot(t, t)
        if fresh := _lost(ts, np.sqrt(tt) * s_norm, x.dtype):
            continue
        omega = ts / tt
        axpy(x, omega, z)
        axpy(r, -omega, t)
        rho, rho_before = dot(shadow, r), rho
        if fresh := _lost(rho, size * norm(r), x.dtype):
            continue
        axpy(p, -omega, v)
        p *= rho / rho_before * (alpha / omega)
        p += r
    return monitor.result(x, reason)


def _lost(xy: float, scale: float, dtype) -> bool:
    """Whether xᵀy is zero to the rounding of its own terms, with scale = ‖x‖‖y‖."""
    return abs(xy) <= float(np.finfo(dtype).eps) * scale
