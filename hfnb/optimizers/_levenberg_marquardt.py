"""Least squares to high precision: Levenberg–Marquardt steps on parabolas, with the Jacobian itself."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from scipy import linalg
from scipy.optimize import OptimizeResult

from hfnb.krylov import dot, norm
from hfnb.objectives.objective import Objective
from hfnb.objectives.residuals import check_least_squares
from hfnb.optimizers.checkpoint import CheckpointLike, resumable
from hfnb.optimizers.history import Record, Recorder, Status, watched
from hfnb.optimizers.options import check_run
from hfnb.validation import check_nonnegative

DAMPING = 1e-2  # the first λ, relative to the size of JᵀJ
LEAST = 1e-14  # the smallest λ, relative to the size of JᵀJ: a smaller one is lost in rounding
SHORTEST = 2.0**-9  # the shortest step that is tried
LONG, SHORT = 2.0**-3, 2.0**-4  # λ falls after steps of at least the first length, and grows below the second
FALL, RISE, REJECTED = 10.0, 3.0, 10.0  # the factors by which λ falls, grows, and grows after a rejected step
PATIENCE = 12  # rejected steps in a row after which a run ends
DIFFERENCE = 1e-3  # length of the difference that yields the second derivative, relative to ‖w‖


class Arc(NamedTuple):
    """A step along a parabola, w + αv + ½ α² a.

    Attributes
    ----------
    alpha : float
        α; 0 if no length lowered the loss.
    step : ndarray, shape (p,)
        αv + ½ α² a, or αv where the straight line was better.
    loss : float
        The loss after the step.
    """

    alpha: float
    step: np.ndarray
    loss: float


class Factorization:
    """Solves of (JᵀJ + λI) s = Jᵀr by a Cholesky factorization of the smaller of JJᵀ + λI and JᵀJ + λI.

    Parameters
    ----------
    J : ndarray, shape (m, p)
        The Jacobian of the residuals.
    """

    def __init__(self, J: np.ndarray) -> None:
        self.J, self.wide = J, len(J) < J.shape[1]
        self.gram = J @ J.T if self.wide else J.T @ J
        self.size = float(linalg.norm(self.gram))  # at least the largest eigenvalue, and near it here
        self._factor: tuple[np.ndarray, bool] | None = None

    def factorize(self, damping: float) -> float:
        """Factorize with λ, or, where rounding makes the matrix indefinite, a larger λ; return that λ."""
        while True:
            damped = self.gram.copy()
            damped.flat[:: len(damped) + 1] += damping
            try:
                self._factor = linalg.cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
            except linalg.LinAlgError:
                damping *= REJECTED
            else:
                return damping

    def solve(self, r: np.ndarray) -> np.ndarray:
        """Return s."""
        if self.wide:
            return self.J.T @ linalg.cho_solve(self._factor, r, check_finite=False)
        return linalg.cho_solve(self._factor, self.J.T @ r, check_finite=False)


@watched
@resumable
def levenberg_marquardt(
    objective: Objective,
    w0: np.ndarray,
    *,
    damping: float = DAMPING,
    max_iter: int = 100,
    tol: float = 1e-12,
    seed: int = 0,
    callback: Callable[[Record], Any] | None = None,
    checkpoint: CheckpointLike | str | os.PathLike[str] | None = None,
) -> OptimizeResult:
    """Minimize least squares to high precision, where the Jacobian of the residuals fits in memory.

    Each iteration solves (JᵀJ + λI) v = −Jᵀr exactly, with a λ that is soon far below the eigenvalues of JᵀJ
    that matter. The step follows the parabola w + αv + ½ α² a with the geodesic acceleration a, which solves
    (JᵀJ + λI) a = −Jᵀ r″ for the second derivative r″ of the residuals along v.

    Parameters
    ----------
    objective : Objective
        Least squares in this process: what `Objective.from_residuals` returns, or the objective of a network
        with the loss "squared_error".
    w0 : ndarray, shape (p,)
        The start, of float64 for high precision.
    damping : float
        The first λ, as a multiple of the Frobenius norm of JᵀJ at the start.
    max_iter : int
        The most iterations.
    tol : float
        The run ends, with success, when ‖∇F(w)‖ ≤ tol × min(1, the largest ‖∇F‖ so far).
    seed : int
        Without effect, since nothing is random; all optimizers take it.
    callback : callable, optional
        ``callback(record)`` after each iteration, with the parameters as ``record.w``; any true value that it
        returns stops the run.
    checkpoint : Checkpoint or path, optional
        The run is saved to it in each iteration, and continues from it if it holds a state.

    Returns
    -------
    OptimizeResult
        The fields of the result of `hessian_free`. It also ends where no step lowers the loss 12 times in a
        row, which near the precision of float64 is the usual end.

    Raises
    ------
    ValueError
        If the objective is not least squares or not in this process, the Jacobian does not fit in memory, a
        number is out of range, or the start is not finite.
    TypeError
        If an argument is of another kind.

    Notes
    -----
    An iteration computes J, with m × p entries for m residuals, and factorizes a matrix of size min(m, p).
    Steps are halved until the loss stops falling; at each length the better of the parabola and the line is
    taken. Then λ is divided by 10 if α ≥ 1/8, kept if α = 1/16, and multiplied by 3 if α is smaller. A λ that
    is small from early on costs short steps at first. It pays later: with a λ that keeps α = 1, the usual
    rule, progress along directions of small curvature is slow. r″ is a difference of residuals.

    References
    ----------
    Marquardt, "An algorithm for least-squares estimation of nonlinear parameters" (1963). Transtrum & Sethna,
    "Improvements to the Levenberg-Marquardt algorithm for nonlinear least-squares minimization", arXiv
    1201.5885 (2012). Müller & Zeinhofer, "Achieving high accuracy with PINNs via energy natural gradient
    descent" (2023), for steps with hardly any damping and a line search.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from hfnb import Dataset, Objective
    >>> t = np.linspace(0, 1, 20)[:, None]
    >>> data = Dataset(t, 3 * np.exp(-2 * t))
    >>> decay = Objective.from_residuals(lambda w, X, Y: w[0] * np.exp(w[1] * X) - Y, data)
    >>> levenberg_marquardt(decay, np.array([1.0, 0.0])).x.round(9)
    array([ 3., -2.])
    """
    check_run(objective, w0, max_iter=max_iter, tol=tol, seed=seed, callback=callback, checkpoint=checkpoint)
    check_least_squares(getattr(objective, "net", None))
    damping = check_nonnegative("damping", damping, finite=True)
    store = cast(CheckpointLike | None, checkpoint)  # `resumable` has opened it
    saved = store.load() if store else None
    recorder = Recorder(objective, callback, saved.pop("history") if saved else None)
    if saved:
        w, lam, steepest, rejected = (saved[name] for name in ("w", "damping", "steepest", "rejected"))
    else:
        w, lam, steepest, rejected = np.array(w0), None, 0.0, 0
    r, iteration, stop = objective.residuals(w), recorder.history[-1].iteration if saved else 0, False
    if not np.isfinite(r).all():
        raise ValueError("w0: expected a start with finite residuals, got NaN or infinity")

    while True:
        J = objective.jacobian(w)
        if not np.isfinite(J).all():
            raise ValueError("objective: expected a finite Jacobian of the residuals, got NaN or infinity")
        g = J.T @ r
        steepest = max(steepest, norm(g))
        if not recorder.history:
            first = _entries(0, r, g, damping, None)
            stop = recorder.add(w, **first)
        if stop or norm(g) <= tol * min(1.0, steepest) or iteration >= max_iter or rejected >= PATIENCE:
            break
        matrix = Factorization(J)
        lam = damping * matrix.size if lam is None else lam
        used = matrix.factorize(max(lam, LEAST * matrix.size))
        arc = _search(objective, w, r, matrix)
        iteration, rejected, lam = iteration + 1, 0 if arc.alpha else rejected + 1, _adapted(used, arc.alpha)
        if arc.alpha:
            w = w + arc.step
            r = objective.residuals(w)
        stop = recorder.add(w, **_entries(iteration, r, g, lam, arc))
        if store:
            state = {"w": w, "damping": lam, "steepest": steepest, "rejected": rejected}
            store.save({**state, "history": recorder.history})

    return recorder.result(w, *_ending(norm(g), tol * min(1.0, steepest), stop, rejected, max_iter))


def _search(objective: Objective, w: np.ndarray, r: np.ndarray, matrix: Factorization) -> Arc:
    """Return the step along the parabola: α is halved until the loss stops falling."""
    v = -matrix.solve(r)
    a = -matrix.solve(_second_derivative(objective, w, r, v))
    a = a if np.isfinite(a).all() else np.zeros_like(a)
    best, alpha = Arc(0.0, np.zeros_like(w), 0.5 * dot(r, r)), w.dtype.type(1)
    while alpha >= SHORTEST:
        before = best
        for step in (alpha * v, alpha * v + alpha * alpha / 2 * a):
            loss = objective.value(w + step)
            if loss < best.loss:
                best = Arc(float(alpha), step, loss)
        if best is before and best.alpha:
            break
        alpha /= 2
    return best


def _second_derivative(objective: Objective, w: np.ndarray, r: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return d²r(w + tv)/dt² at t = 0, by a central difference."""
    length = norm(v)
    if length == 0:
        return np.zeros_like(r)
    h = w.dtype.type(DIFFERENCE * (norm(w) or 1.0) / length)
    with np.errstate(over="ignore", invalid="ignore"):
        return (objective.residuals(w + h * v) - 2 * r + objective.residuals(w - h * v)) / (h * h)


def _entries(iteration: int, r: np.ndarray, g: np.ndarray, damping: float, arc: Arc | None) -> dict[str, Any]:
    """Return the entries {name: value} for the `Record` of an iteration; ``arc`` is None before the first."""
    return {
        "iteration": iteration,
        "loss": 0.5 * dot(r, r),
        "gradient_norm": norm(g),
        "damping": damping,
        "direction": "newton" if arc and arc.alpha else "none",
        "alpha": arc.alpha if arc else 0.0,
        "step_norm": norm(arc.step) if arc else 0.0,
    }


def _adapted(damping: float, alpha: float) -> float:
    """Return the next λ by the length of the step."""
    if not alpha:
        return damping * REJECTED
    return damping / FALL if alpha >= LONG else damping if alpha >= SHORT else damping * RISE


def _ending(gradient_norm: float, tol: float, stop: bool, rejected: int, max_iter: int) -> tuple[Status, str]:
    """Return why a run ended, as a status and with numbers."""
    if gradient_norm <= tol:
        return Status.SMALL_GRADIENT, f"gradient norm {gradient_norm:.1e} <= {tol:.1e}"
    if stop:
        return Status.CALLBACK, "stopped by the callback"
    if rejected >= PATIENCE:
        return Status.NO_PROGRESS, f"no step lowered the loss in {PATIENCE} iterations"
    return Status.MAX_ITER, f"max_iter = {max_iter} reached"
