"""Conjugate gradients as Hessian-free optimization uses them (Martens 2010)."""

import numpy as np

from hfnb.krylov.stopping import Monitor
from hfnb.krylov.system import KrylovResult, System
from hfnb.krylov.vectors import axpy


def cg(
    A,
    b,
    x0=None,
    *,
    damping=0.0,
    rtol=1e-5,
    atol=0.0,
    progress=5e-4,
    overhead=None,
    maxiter=None,
    M=None,
    callback=None,
    check=False,
) -> KrylovResult:
    """Minimize q(x) = ½xᵀ(A + damping I)x − bᵀx by conjugate gradients, up to non-positive curvature.

    A is a symmetric (n, n) operator or matrix, b and x0 (n,) vectors, M ≈ (A + damping I)⁻¹ a positive
    definite preconditioner. It stops where ‖r‖ ≤ max(rtol‖b‖, atol), where q gains too little (``progress``
    is ε of Martens 2010, §4.4; 0 turns this off and leaves the residual to decide), where an iteration gained
    less than −q/(i + ``overhead``), the mean over the i so far and a cost of ``overhead`` products around the
    solve (None: never), after ``maxiter`` iterations (10 n if None), where ``callback(x)`` returns True, or
    where pᵀ(A + damping I)p ≤ 0: q has no minimum along that p, which is reported and never divided by. One
    product an iteration, and two more at the start where ``check`` asks to probe the symmetry of an operator
    (a matrix is always probed).

    Raises ValueError for arguments that do not fit together, a non-symmetric matrix or an indefinite M;
    NonFiniteProduct for NaN or infinity out of A or M.
    Sources: Hestenes & Stiefel (1952); Martens, "Deep learning via Hessian-free optimization" (2010), §4;
    for ``overhead`` Charnov, "Optimal foraging, the marginal value theorem", Theor. Popul. Biol. 9 (1976).

    >>> cg(np.diag([1.0, 4.0]), np.array([1.0, 1.0])).x
    array([1.  , 0.25])
    >>> cg(np.diag([1.0, -4.0]), np.array([1.0, 1.0])).curvature
    -1.5
    """
    system = System(A, b, x0, damping=damping, M=M, check=check)
    monitor = Monitor(
        system,
        rtol=rtol,
        atol=atol,
        progress=progress,
        overhead=overhead,
        maxiter=maxiter,
        callback=callback,
        keep=True,
    )
    x, r = system.start()
    p, Ap, rz_before = np.zeros_like(x), np.empty_like(x), 1.0
    while (reason := monitor.stop(x, r)) is None:
        z, rz = system.precondition(r)
        p *= 0.0 if monitor.replaced else rz / rz_before
        p += z
        pAp = system.product(p, out=Ap)
        if pAp <= system.rounding:
            reason = "non-positive curvature: the model has no minimum along the last direction"
            break
        axpy(x, rz / pAp, p)
        axpy(r, -rz / pAp, Ap)
        rz_before = rz
    return monitor.result(x, reason)
