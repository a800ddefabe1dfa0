"""What is done with every iterate of every solver: record it, keep the best, say when to stop."""

from collections.abc import Callable

import numpy as np

from hfnb.krylov.system import ROUNDING, KrylovResult, System
from hfnb.krylov.vectors import dot, norm
from hfnb.validation import (
    asks_to_stop,
    check_callable,
    check_nonnegative,
    check_positive,
    check_positive_int,
)


class Monitor:
    """Records the iterates of one solve and decides when it ends.

    q(x) = ½xᵀAx − bᵀx = −½xᵀ(b + r) comes from the residual, without a product. ``progress`` is Martens'
    ε (2010, §4.4): stop at iteration i where q fell, over the last k = max(10, 0.1 i) iterations, by less
    than the fraction kε of it; 0 turns the rule off. The least q so far stands for q, which not every
    solver lowers at every iteration. ``overhead`` stops where an iteration gained less than −q / (i +
    overhead), the mean over this solve and what surrounds it, whose cost is that of ``overhead`` iterations.

    A residual that is updated, not computed, drifts from b − Ax by rounding, eps(‖A‖‖x‖ + ‖r‖) each time.
    Before one smaller than the drift is believed it is computed; ``replaced`` then tells the solver that
    r is not what it left there, and a solver that cannot go on from there has ``restarts`` set to False.
    """

    def __init__(
        self,
        system: System,
        *,
        rtol=1e-5,
        atol=0.0,
        progress=0.0,
        overhead=None,
        maxiter=None,
        callback=None,
        keep=False,
        stop_indefinite=False,
    ):
        rtol, atol = check_nonnegative("rtol", rtol), check_nonnegative("atol", atol)
        self.overhead = None if overhead is None else check_positive("overhead", overhead)
        self.maxiter = 10 * system.b.size if maxiter is None else check_positive_int("maxiter", maxiter)
        self.system, self.progress, self.keep = system, check_nonnegative("progress", progress), keep
        self.stop_indefinite = stop_indefinite
        self.callback: Callable | None = check_callable("callback", callback, "(x) -> bool", optional=True)
        self.tolerance = max(rtol * system.b_norm, atol) if system.b_norm < np.inf else 0.0
        self.models: list[float] = []
        self.residual_norms: list[float] = []
        self.iterates: list[tuple[int, np.ndarray]] = []
        self.best, self.solved, self.success = np.empty_like(system.b), False, False
        self._least: list[float] = []
        self._next_kept, self._drift, self._attained = 1.0, 0.0, False
        self.restarts, self.replaced = True, False
        self._eps = float(np.finfo(system.b.dtype).eps)

    @property
    def iteration(self) -> int:
        return len(self.models) - 1

    def stop(self, x: np.ndarray, r: np.ndarray) -> str | None:
        """Record the iterate x with residual r; return the reason to stop there, or None to go on."""
        r_norm, self.replaced = norm(r), False
        rounding = self._eps * (self.system.norm * norm(x) + r_norm)
        self._drift += rounding
        if self.models and r_norm <= self.tolerance < self._drift:
            self.system.residual(x, out=r)
            r_norm, self._drift, self.replaced = norm(r), rounding, True
            self._attained = r_norm <= ROUNDING * rounding
        q = -0.5 * (dot(x, self.system.b) + dot(x, r))
        if self.models and not rounding < max(self.system.b_norm, self.residual_norms[0]):
            return "diverged: x grew until rounding leaves no digit of the residual"
        return self.record(x, q, r_norm)

    def record(self, x: np.ndarray, q: float, r_norm: float) -> str | None:
        """Record the iterate x with q(x) and ‖r‖; return the reason to stop there, or None to go on."""
        if not self._least or q < self._least[-1]:
            np.copyto(self.best, x)
        self.models.append(q)
        self.residual_norms.append(r_norm)
        self._least.append(min(q, self._least[-1]) if self._least else q)
        if self.keep and self.iteration >= self._next_kept:
            self._keep(x)
        stopped = False
        if self.iteration > 0 and self.callback is not None:
            stopped = asks_to_stop(self.callback, x)
        return self._reason(r_norm, stopped)

    def _reason(self, r_norm: float, stopped: bool) -> str | None:
        self.solved = r_norm <= self.tolerance or self._attained
        stalled = self.progress > 0 and self._stalled()
        costly = self.overhead is not None and self._costly(self.overhead)
        self.success = self.solved or stalled or costly
        if not 0 < self.system.b_norm < np.inf:
            return self._without_norm()
        if self.solved:
            goal = "as small as rounding allows" if self._attained else "within the tolerance"
            return f"converged: the residual is {goal}"
        if self.replaced and not self.restarts:
            return "stagnated: the true residual is above the tolerance"
        if stalled:
            return "truncated: the model gained too little over the last iterations"
        if costly:
            return "truncated: the last iteration gained less than the mean one"
        if self.stop_indefinite and self.system.indefinite:
            return "negative curvature: the model has no minimum"
        if stopped:
            return "stopped by the callback"
        return "maxiter iterations done" if self.iteration >= self.maxiter else None

    def _without_norm(self) -> str:
        """The reason not to begin: ‖b‖ is 0, or its squares leave the range of floating point."""
        if not np.any(self.system.b):
            return "the right-hand side is zero: x = 0"
        self.solved = self.success = False
        fault = "overflow" if self.system.b_norm else "vanish"
        return f"out of range: the squares of the right-hand side {fault}; scale the system"

    def _stalled(self) -> bool:
        k = max(10, self.iteration // 10)
        if self.iteration <= k or self._least[-1] >= 0:
            return False
        return self._least[-1] - self._least[-1 - k] > k * self.progress * self._least[-1]

    def _costly(self, overhead: float) -> bool:
        i, least = self.iteration, self._least
        return i > 1 and least[-1] < 0 and least[-2] - least[-1] < -least[-1] / (i + overhead)

    def _keep(self, x: np.ndarray) -> None:
        """Keep iterates ⌈1.3ʲ⌉ for backtracking (Martens 2010, §4.6): evenly many for each doubling."""
        self.iterates.append((self.iteration, x.copy()))
        while np.ceil(self._next_kept) <= self.iteration:
            self._next_kept *= 1.3

    def result(self, x: np.ndarray, status: str) -> KrylovResult:
        """Return what was found, x being the last iterate."""
        direction, curvature = self.system.lowest()
        chosen = x if self.solved else self.best
        if not self.keep:
            self.iterates = [(self.models.index(self._least[-1]), self.best)]
        elif not self.iterates or self.iterates[-1][0] != self.iteration:
            self.iterates.append((self.iteration, x))
        return KrylovResult(
            x=chosen,
            status=status,
            success=self.success,
            iterations=self.iteration,
            products=self.system.products,
            residual_norms=self.residual_norms,
            models=self.models,
            best=self.best,
            direction=direction,
            curvature=curvature,
            iterates=self.iterates,
            norm=float(self.system.norm),
        )
