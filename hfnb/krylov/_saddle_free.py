"""Saddle-free Newton: |A| in place of A, in a Lanczos subspace (Dauphin et al. 2014)."""

from typing import Any

import numpy as np

from hfnb.krylov._lanczos import lanczos_process
from hfnb.krylov.result import KrylovResult, Status
from hfnb.krylov.stopping import Monitor, Stopping
from hfnb.krylov.system import ROUNDING, Operator, System
from hfnb.krylov.vectors import combine, norm


def saddle_free(
    A: Operator,
    b: np.ndarray,
    x0: np.ndarray | None = None,
    *,
    damping: float = 0.0,
    M: None = None,
    check: bool = False,
    **stopping: Any,
) -> KrylovResult:
    """Return x = x0 + V(|T| + damping I)⁻¹Vᵀ(b − (A + damping I)x0), T = VᵀAV on a Lanczos basis V.

    Along eigenvectors of negative curvature this step leads away from the saddle, while a Newton step leads
    to it.

    Parameters
    ----------
    A : LinearOperator, ndarray, sparse matrix or nested list (n, n)
        A symmetric operator.
    b : ndarray (n,)
        The right-hand side, float32 or float64, which is the precision of the solve.
    x0 : ndarray (n,), optional
        The first iterate; 0 by default.
    damping : float
        λ, added to |T| in the subspace.
    M : None
        No preconditioner is taken, because |A| depends on the coordinates.
    check : bool
        Whether to spend two products on a probe of A's symmetry; a matrix is always probed.
    **stopping
        The fields of `Stopping`, except ``overhead`` and ``stop_indefinite``. The solve ends if the part of
        A(x − x0) outside of the subspace has a norm of at most max(rtol ‖b‖, atol). ``max_iter``, 100 by
        default, is the largest number of basis vectors, all of which are kept.

    Returns
    -------
    KrylovResult
        ``residual_norms`` and ``models`` are those of A, not of |A|; ``direction`` is the lowest Ritz vector.

    Raises
    ------
    TypeError, ValueError, NonFiniteProduct
        As `cg` does; ValueError also if an M is given.

    References
    ----------
    Dauphin et al., "Identifying and attacking the saddle point problem in high-dimensional non-convex
    optimization" (2014), algorithm 1.

    Examples
    --------
    >>> saddle_free(np.diag([1.0, -4.0]), np.array([1.0, 1.0])).x
    array([1.  , 0.25])
    """
    if M is not None:
        raise ValueError("M: expected None, because saddle_free takes no preconditioner")
    options = Stopping.from_options(saddle_free, stopping)
    system = System(A, b, x0, damping=damping, check=check)
    monitor = Monitor(system, options, default_max_iter=100)
    start, r = system.start()
    x, lengths, reason = start, norm(r), monitor.stop(start, r)
    if reason is not None:
        return monitor.result(x, reason)
    for lanczos in lanczos_process(system, r, monitor.max_iter):
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
            reason = Status.SUBSPACE_CONVERGED
            monitor.success = True
        if reason is not None:
            break
    monitor.solved, monitor.success = True, monitor.success or reason is None
    system.observe(combine(S[:, 0], lanczos.V), ritz[0] - system.damping)
    return monitor.result(x, reason or Status.SUBSPACE_EXHAUSTED)
