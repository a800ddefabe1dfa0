"""Capped conjugate gradients: a solution or enough negative curvature, within a bound on products."""

import numpy as np

from hfnb.krylov._cg import cg
from hfnb.krylov.stopping import Monitor
from hfnb.krylov.system import KrylovResult, System
from hfnb.krylov.vectors import axpy, dot, norm
from hfnb.validation import check_finite, check_positive


def capped_cg(
    A,
    b,
    x0=None,
    *,
    damping=0.0,
    accuracy=0.5,
    rtol=1e-5,
    atol=0.0,
    progress=5e-4,
    maxiter=None,
    M=None,
    callback=None,
    check=False,
) -> KrylovResult:
    """Solve (A + 2εI) x = b, ε = damping / 2, or find a direction d with dᵀAd ≤ −ε‖d‖².

    Conjugate gradients that stop where the direction p or the step y = x − x0 has curvature of A + 2εI
    below ε, where ‖r‖ ≤ accuracy/(3κ) ‖r0‖, κ = (‖A‖ + 2ε)/ε (or within rtol, atol), or where ‖r‖ falls
    slower than without negative curvature, ‖r‖ > √T τ^(j/2) ‖r0‖, τ = √κ/(√κ + 1), T = 4κ⁴/(1 − √τ)²:
    then some difference of two iterates has such curvature, and the iterates are made once more to find
    it. ‖A‖ is estimated from below by the products met. Parameters, shapes and errors as ``cg``;
    ValueError also where damping is not positive, and for an M, for the bounds hold in the Euclidean
    norm.

    Source: Royer, O'Neill & Wright, "A Newton-CG algorithm with complexity guarantees for smooth
    unconstrained optimization", Math. Program. 180 (2020), algorithm 1.

    >>> capped_cg(np.diag([1.0, -4.0]), np.array([1.0, 1.0]), damping=0.1).curvature
    -1.5
    """
    if M is not None:
        raise ValueError("M: expected None, for capped_cg takes no preconditioner")
    check_positive("accuracy", accuracy, finite=True)
    if not check_finite("damping", damping) > 0:
        raise ValueError(f"damping: expected 2ε > 0, for capped_cg solves (A + 2εI)x = b, got {damping}")
    system = System(A, b, x0, damping=damping, check=check)
    monitor = Monitor(system, rtol=rtol, atol=atol, progress=progress, maxiter=maxiter, callback=callback)
    x, r = system.start()
    x_start, r_start, eps, rr_before = x.copy(), r.copy(), damping / 2, 1.0
    p, Ap, y = np.zeros_like(x), np.empty_like(x), np.empty_like(x)
    while (reason := monitor.stop(x, r)) is None:
        rr = dot(r, r)
        p *= 0.0 if monitor.replaced else rr / rr_before
        p += r
        pAp = system.product(p, out=Ap)
        if pAp < eps * dot(p, p):
            reason = "negative curvature: at most -damping/2 along the last direction"
            break
        tolerance, cap = _bounds(system.norm, eps, accuracy, monitor.iteration)
        monitor.tolerance = max(rtol * system.b_norm, atol, tolerance * norm(r_start))
        axpy(x, rr / pAp, p)
        axpy(r, -rr / pAp, Ap)
        rr_before = rr
        np.subtract(x, x_start, out=y)
        if dot(y, r_start) - dot(y, r) < eps * dot(y, y):
            monitor.stop(x, r)
            system.product(y, out=Ap)
            reason = "negative curvature: at most -damping/2 along the step from x0"
            break
        if np.sqrt(rr) > cap * norm(r_start):
            monitor.stop(x, r)
            _observe_difference(A, system, monitor, r_start, y)
            reason = "negative curvature: the residual falls too slowly for positive curvature"
            break
    return monitor.result(x, reason)


def _bounds(A_norm: float, eps: float, accuracy: float, iteration: int) -> tuple[float, float]:
    """Return the relative residual to reach, and the largest that positive curvature allows by now."""
    kappa = (A_norm + 2 * eps) / eps
    tau = np.sqrt(kappa) / (np.sqrt(kappa) + 1)
    return accuracy / (3 * kappa), 2 * kappa**2 / (1 - np.sqrt(tau)) * tau ** (iteration / 2)


def _observe_difference(A, system: System, monitor: Monitor, r_start: np.ndarray, y: np.ndarray) -> None:
    """Find a difference d of the last and an earlier iterate with dᵀ(A + 2εI)d < ε‖d‖².

    By conjugacy the left-hand side is twice the fall of q between the two iterates, which is known.
    """
    earlier = iter(monitor.models[1:])

    def falls_too_little(y_earlier):
        d = y - y_earlier
        return 2 * (next(earlier) - monitor.models[-1]) < system.damping / 2 * dot(d, d)

    options = {"rtol": 0.0, "progress": 0.0, "maxiter": monitor.iteration}
    again = cg(A, r_start, damping=system.damping, callback=falls_too_little, **options)
    system.products += again.products
    system.product(y - again.x, out=np.empty_like(y))
