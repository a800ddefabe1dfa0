"""Saddle-free Newton: |A| in place of A, in a Lanczos subspace (Dauphin et al. 2014)."""

import numpy as np

from hfnb.krylov._lanczos import lanczos_process
from hfnb.krylov.stopping import Monitor
from hfnb.krylov.system import ROUNDING, KrylovResult, System
from hfnb.krylov.vectors import combine, norm


def saddle_free(
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
) -> KrylovResult:
    """Return x = x0 + V(|T| + damping I)⁻¹Vᵀ(b − (A + damping I)x0), T = VᵀAV on a Lanczos basis V.

    Along eigenvectors of negative curvature this steps away from the saddle, where a Newton step goes to
    it. The basis starts at the residual and grows until what (|A| + damping I)x leads out of it is within
    the tolerance, until q gains too little (``progress``), or until it has ``maxiter`` vectors (100 if
    None), which are all kept. ``residual_norms`` and ``models`` are those of A, not of |A|; ``direction``
    is the lowest Ritz vector. Parameters, shapes and errors as ``cg``; ValueError also for an M, since
    |A| depends on the coordinates.

    Source: Dauphin et al., "Identifying and attacking the saddle point problem in high-dimensional
    non-convex optimization" (2014), algorithm 1.

    >>> saddle_free(np.diag([1.0, -4.0]), np.array([1.0, 1.0])).x
    array([1.  , 0.25])
    """
    if M is not None:
        raise ValueError("M: expected None, for saddle_free takes no preconditioner")
    maxiter = 100 if maxiter is None else maxiter
    system = System(A, b, x0, damping=damping, check=check)
    monitor = Monitor(system, rtol=rtol, atol=atol, progress=progress, maxiter=maxiter, callback=callback)
    start, r = system.start()
    x, lengths, reason = start, norm(r), monitor.stop(start, r)
    if reason is not None:
        return monitor.result(x, reason)
    for lanczos in lanczos_process(system, r, monitor.maxiter):
        ritz, S = lanczos.ritz()
        weights = np.abs(ritz - system.damping) + system.damping
        regular = weights > ROUNDING * float(np.finfo(start.dtype).eps) * system.norm
        y = lengths * S @ np.divide(S[0], weights, out=np.zeros_like(ritz), where=regular)
        x = start + combine(y, lanczos.V)
        Ty, left_out = S @ (ritz * (S.T @ y)), lanczos.betas[-1] * abs(y[-1])
        q = monitor.models[0] + 0.5 * y @ Ty - lengths * y[0]
        Ty[0] -= lengths
        reason = monitor.record(x, q, float(np.hypot(np.linalg.norm(Ty), left_out)))
        if left_out <= monitor.tolerance and regular.all():
            reason = "converged: what is left out of the Krylov space is within the tolerance"
            monitor.success = True
        if reason is not None:
            break
    monitor.solved, monitor.success = True, monitor.success or reason is None
    system.observe(combine(S[:, 0], lanczos.V), ritz[0] - system.damping)
    return monitor.result(x, reason or "converged: the Krylov space is exhausted")
