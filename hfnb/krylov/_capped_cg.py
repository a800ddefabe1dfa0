"""Capped conjugate gradients: a solution or enough negative curvature, in a bounded number of products."""

from typing import Any

import numpy as np

from hfnb.krylov._cg import cg
from hfnb.krylov.result import KrylovResult, Status
from hfnb.krylov.stopping import Monitor, Stopping
from hfnb.krylov.system import Operator, System
from hfnb.krylov.vectors import axpy, dot, norm
from hfnb.validation import check_finite, check_positive


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
