"""Conjugate gradients inside a trust region (Steihaug 1983, Toint 1981)."""

import numpy as np

from hfnb.krylov.stopping import Monitor
from hfnb.krylov.system import KrylovResult, System
from hfnb.krylov.vectors import axpy, dot, norm
from hfnb.validation import check_positive


def steihaug(
    A,
    b,
    x0=None,
    *,
    radius=np.inf,
    damping=0.0,
    rtol=1e-5,
    atol=0.0,
    progress=5e-4,
    maxiter=None,
    M=None,
    callback=None,
    check=False,
) -> KrylovResult:
    """Minimize q(x) = ½xᵀ(A + damping I)x − bᵀx over ‖x‖ ≤ radius by conjugate gradients, up to the boundary.

    Where pᵀ(A + damping I)p ≤ 0, or where the step would leave the region, the result is the point at
    which x + τp, τ > 0, crosses the boundary; q falls all the way there. Without a radius it stops as
    ``cg`` does. The norm is Euclidean with a preconditioner, too. Parameters, shapes and errors as
    ``cg``; ValueError also for a radius that is not positive and for x0 outside of the region.

    Source: Steihaug, "The conjugate gradient method and trust regions", SIAM J. Numer. Anal. 20 (1983).

    >>> steihaug(np.diag([1.0, -4.0]), np.array([1.0, 1.0]), radius=np.sqrt(2)).x
    array([1., 1.])
    """
    system = System(A, b, x0, damping=damping, M=M, check=check)
    monitor = Monitor(system, rtol=rtol, atol=atol, progress=progress, maxiter=maxiter, callback=callback)
    x, r = system.start()
    if norm(x) > check_positive("radius", radius):
        raise ValueError(f"radius: expected a number of at least ‖x0‖ = {norm(x):.3g}, got {radius}")
    p, Ap, rz_before = np.zeros_like(x), np.empty_like(x), 1.0
    while (reason := monitor.stop(x, r)) is None:
        z, rz = system.precondition(r)
        p *= 0.0 if monitor.replaced else rz / rz_before
        p += z
        pAp = system.product(p, out=Ap)
        alpha = rz / pAp if pAp > system.rounding else np.inf
        to_boundary = _to_boundary(x, p, radius)
        step = min(alpha, to_boundary)
        if step == np.inf:
            reason = "non-positive curvature: the model has no minimum along the last direction"
            break
        axpy(x, step, p)
        axpy(r, -step, Ap)
        if step == to_boundary:
            monitor.stop(x, r)
            monitor.success = True
            cause = "non-positive curvature" if alpha == np.inf else "a longer step"
            reason = f"boundary: {cause} leads out of the trust region"
            break
        rz_before = rz
    return monitor.result(x, reason)


def _to_boundary(x: np.ndarray, p: np.ndarray, radius: float) -> float:
    """Return the τ > 0 with ‖x + τp‖ = radius, in the form that does not cancel."""
    if radius == np.inf:
        return np.inf
    xp, pp, left = dot(x, p), dot(p, p), max(radius**2 - dot(x, x), 0.0)
    root = np.sqrt(xp**2 + pp * left)
    return left / (xp + root) if xp > 0 else (root - xp) / pp
