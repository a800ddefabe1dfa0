"""MINRES, which detects non-positive curvature from its own scalars (Liu & Roosta's Newton-MR)."""

import math
from typing import Any

import numpy as np

from hfnb.krylov.stopping import KrylovResult, Monitor, Status, Stopping
from hfnb.krylov.system import Operator, System
from hfnb.krylov.vectors import axpy, norm
from hfnb.validation import check_bool


def minres(
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
    """Minimize ‖b − (A + damping I) x‖ over the Krylov space; one product an iteration, ‖r‖ never grows.

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
        A positive definite preconditioner M ≈ (A + damping I)⁻¹. With it, the
        norm that never grows is √(rᵀMr), not ‖r‖, and the curvature is measured along M r, not along r.
    check : bool
        Whether to spend two products on a probe of A's symmetry; a matrix is always probed.
    stop_indefinite : bool
        Whether to stop at the first residual with rᵀ(A + damping I)r ≤ 0, as Newton-MR does.
    **stopping
        The other fields of `Stopping`, except ``overhead``.

    Returns
    -------
    KrylovResult
        ``direction`` has the most negative curvature among the Lanczos vectors and the residuals.

    Raises
    ------
    TypeError, ValueError, NonFiniteProduct
        As `cg` does.

    Notes
    -----
    The solver knows the curvature along each residual, as well as along each Lanczos vector v, without a
    further product: rᵀ(A + damping I)r = −c γ ‖r‖², where c and γ are scalars of its QR factorization. An
    inconsistent system ends with a least-squares solution, when ‖(A + damping I) r‖ ≤ rtol ‖A‖‖r‖. The limit
    is √eps ‖A‖‖r‖ where the next step would lower ‖r‖ by less than a thousandth, because rounding seldom
    allows less. With M, all these norms are those of the preconditioned system.

    References
    ----------
    Paige & Saunders, "Solution of sparse indefinite systems of linear equations", SIAM J. Numer. Anal. 12
    (1975); Liu & Roosta, "MINRES: from negative curvature detection to monotonicity properties", SIAM J.
    Optim. 32 (2022).

    Examples
    --------
    >>> result = minres(np.diag([1.0, -4.0]), np.array([1.0, 1.0]))
    >>> result.x, result.products, result.curvature
    (array([ 1.  , -0.25]), 2, -1.5)
    """
    stop_indefinite = check_bool("stop_indefinite", stop_indefinite)
    options = Stopping.from_options(minres, stopping)
    system = System(A, b, x0, damping=damping, M=M, check=check)
    monitor = Monitor(system, options, restarts=False, descends=True)
    x, r = system.start()
    z, rz = system.precondition(r)
    beta = phi = math.sqrt(rz)
    u = r / (beta or 1.0)  # r / √(rᵀMr)
    v = u if M is None else z / (beta or 1.0)  # M r / √(rᵀMr)
    e = r if M is None else z.copy()  # M r, updated together with r
    u_before, w, d, d_before = (np.zeros_like(x) for _ in range(4))  # d is kept times its d_length
    c, s, delta, epsilon, d_length, sqrt_eps = -1.0, 0.0, 0.0, 0.0, 1.0, math.sqrt(system.eps)
    scale = 0.0  # with M: the norm of the preconditioned operator, estimated from its tridiagonal matrix
    while (reason := monitor.stop(x, r)) is None:
        alpha = system.product(v, out=w, vv=1.0 if M is None else None)
        axpy(w, -alpha, u)
        axpy(w, -beta, u_before)
        z, rz = system.precondition(w)
        beta = math.sqrt(rz)
        delta, gamma = c * delta + s * alpha, s * delta - c * alpha
        e_norm = monitor.residual_norms[-1] if M is None else norm(e)
        if e_norm:
            system.observe(e, -c * gamma * (phi / e_norm) ** 2 - system.damping)
        if -c * gamma <= 0:  # until then q falls in every iteration (Liu & Roosta)
            monitor.may_rise(x)
            if stop_indefinite:
                reason = Status.RESIDUAL_CURVATURE
                break
        length = math.hypot(gamma, beta)
        scale = system.norm + abs(system.damping) if M is None else max(scale, math.hypot(alpha, beta))
        Ar = math.hypot(gamma, c * beta) / (scale or 1.0)  # ‖A r‖ / ‖A‖‖r‖
        if Ar <= options.rtol or (Ar <= sqrt_eps and beta > 0.999 * length):
            reason = Status.LEAST_SQUARES
            monitor.success = monitor.solved = True
            break
        d, d_before = _combine(v, delta / d_length, d, epsilon, d_before), d
        epsilon, delta, c, s = s * beta / d_length, -c * beta, gamma / length, beta / length
        d_length = length
        axpy(x, c * phi / length, d)
        phi *= s
        u_before, u, w = u, w, u_before
        if beta:
            u *= 1 / beta
            v = u if M is None else np.multiply(z, 1 / beta, out=z)
        for residual, next_vector in ((r, u), (e, v))[: 1 if e is r else 2]:
            residual *= s**2
            axpy(residual, -phi * c, next_vector)
    return monitor.result(x, reason)


def _combine(v: np.ndarray, a: float, d: np.ndarray, b: float, d_before: np.ndarray) -> np.ndarray:
    """Return v − a d − b d_before, which overwrites d_before."""
    d_before *= -b
    d_before += v
    axpy(d_before, -a, d)
    return d_before
