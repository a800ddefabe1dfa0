"""Least squares to high precision: Levenberg–Marquardt steps on parabolas, with the Jacobian itself."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
from scipy import linalg
from scipy.optimize import OptimizeResult

from hfnb.krylov import dot, norm
from hfnb.objectives.objective import Objective
from hfnb.objectives.residuals import check_least_squares
from hfnb.objectives.sampling import Draws
from hfnb.optimizers.certificate import (
    certificate_at,
    ending_at,
    gives_up,
    needs_certificate,
    step_off_saddle,
    why_no_progress,
)
from hfnb.optimizers.checkpoint import CheckpointLike, resumable
from hfnb.optimizers.history import Record, Recorder, State, Status, watched
from hfnb.optimizers.options import check_run
from hfnb.optimizers.steps import Step
from hfnb.validation import check_nonnegative

DAMPING = 1e-2  # the first λ, relative to ‖JᵀJ‖
LEAST = 1e-14  # the smallest λ, relative to ‖JᵀJ‖: a smaller one is lost in rounding
SHORTEST = 2.0**-9  # the shortest step that is tried
LONG, SHORT = 2.0**-3, 2.0**-4  # λ falls after steps of at least the first length, and grows below the second
FALL, RISE, REJECTED = 10.0, 3.0, 10.0  # the factors by which λ falls, grows, and grows after a rejected step
ROUNDING = 10  # units of rounding by which a loss may rise: the gradient norm then says which point is better
NOT_FINITE = "the Jacobian is not finite after the step"
DIFFERENCE = 1e-3  # length of the difference that yields the second derivative, relative to ‖w‖


class Factorization:
    """Solves of (JᵀJ + λI) s = Jᵀr by a Cholesky factorization of the smaller of JJᵀ + λI and JᵀJ + λI.

    Parameters
    ----------
    J : ndarray, shape (m, p)
        The Jacobian of the residuals.
    """

    def __init__(self, J: np.ndarray) -> None:
        self.J, self.wide = J, len(J) < J.shape[1]
        (product,) = linalg.get_blas_funcs(["syrk"], [J])
        self.gram = product(1.0, J.T, trans=self.wide)  # its upper triangle only, in half of the time
        squares = 2 * np.vdot(self.gram, self.gram) - np.vdot(diagonal := self.gram.diagonal(), diagonal)
        self.size = float(np.sqrt(squares))  # ‖JᵀJ‖: at least the largest eigenvalue, and near it here
        self.finite = bool(np.isfinite(self.size))
        self._factor: tuple[np.ndarray, bool] | None = None

    def factorize(self, damping: float) -> float:
        """Factorize with λ, or, where rounding makes the matrix indefinite, a larger λ; return that λ."""
        while True:
            damped = self.gram.copy(order="F")
            damped.T.flat[:: len(damped) + 1] += damping
            try:
                self._factor = linalg.cho_factor(damped, overwrite_a=True, check_finite=False)
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
        The first λ as a multiple of ‖JᵀJ‖, the Frobenius norm; so are the values in the history. To continue
        a run on other points or samples, give the last of them.
    max_iter : int
        The most iterations.
    tol : float
        The tolerance for the gradient norm, as for `hessian_free`: a certificate says whether a point with a
        small gradient is a minimum; at a saddle the run goes on along the negative curvature.
    seed : int
        Seed of the certificate.
    callback : callable, optional
        ``callback(record)`` after each iteration, with the parameters as ``record.w``; any true value that it
        returns stops the run.
    checkpoint : Checkpoint or path, optional
        The run is saved to it in each iteration, and continues from it if it holds a state.

    Returns
    -------
    OptimizeResult
        The fields of the result of `hessian_free`; success means a certified minimum. A run also ends where
        ten steps in a row do not lower the loss, the usual end near the precision of float64.

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
    rule, progress along directions of small curvature is slow. r″ is a difference of residuals. Where
    rounding hides the decrease of the loss, a whole step is kept if it lowers the norm of the gradient.

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
    w = saved["w"] if saved else np.array(w0)
    r, matrix = objective.residuals(w), Factorization(objective.jacobian(w))
    state = State.restored(saved) if saved else _start(w, r, matrix, damping, seed)
    stop, ending = bool(not saved and recorder.add(state.w, **_entries(state))), None

    while not (stop or state.iteration >= max_iter or gives_up(state, tol)):
        certificate = certificate_at(objective, state) if needs_certificate(state, tol) else None
        if certificate and (ending := ending_at(state, certificate, tol)):
            break
        used = None
        if certificate is None or certificate.verdict != "saddle":
            used = matrix.factorize(max(state.damping, LEAST) * matrix.size) / matrix.size
            with np.errstate(over="ignore", invalid="ignore"):  # far points are tried, and refused
                step = _search(objective, state.w, r, matrix)
        else:
            step, state = step_off_saddle(objective, state, certificate, 1)
        state = replace(state, iteration=state.iteration + 1, rejected=state.rejected + 1)
        if step.alpha > 0:
            w = state.w + state.w.dtype.type(step.alpha) * step.direction
            after, there = objective.residuals(w), Factorization(objective.jacobian(w))
            g, loss = there.J.T @ after, 0.5 * dot(after, after)
            if there.finite and (loss < state.loss or norm(g) < state.gradient_norm):
                r, matrix = after, there
                state = replace(state, w=w, g=g, loss=loss, rejected=0, trouble="")
            elif not there.finite:
                state = replace(state, trouble=NOT_FINITE)
        # Steps that were rejected near a saddle say nothing about λ, which returns to its last trusted value.
        alpha = 0.0 if state.rejected else step.alpha
        state = state.with_damping(state.trusted if used is None else _adapted(used, alpha))
        stop = recorder.add(state.w, **_entries(state, step))
        if store:
            store.save({**state.saved(), "history": recorder.history})

    if ending is None and stop:
        ending = Status.CALLBACK, "stopped by the callback"
    elif ending is None and gives_up(state, tol):
        ending = Status.NO_PROGRESS, why_no_progress(state)
    return recorder.result(state.w, *(ending or (Status.MAX_ITER, f"max_iter = {max_iter} reached")))


def _start(w: np.ndarray, r: np.ndarray, matrix: Factorization, damping: float, seed: int) -> State:
    """Return the state before the first iteration."""
    if not (np.isfinite(r).all() and matrix.finite):
        raise ValueError("w0: expected a start with finite residuals and Jacobian, got NaN or infinity")
    samples = Draws(seed, "all", "same", 1)
    return State(w, matrix.J.T @ r, 0.5 * dot(r, r), damping, samples=samples)


def _search(objective: Objective, w: np.ndarray, r: np.ndarray, matrix: Factorization) -> Step:
    """Return the step along the parabola: α is halved until the loss stops falling.

    If no step lowers the loss, but the whole one changes it by rounding only, that one is returned.
    """
    v = -matrix.solve(r)
    a = -matrix.solve(_second_derivative(objective, w, r, v))
    before = 0.5 * dot(r, r)
    best, alpha = Step(0.0, before, v, "newton"), w.dtype.type(1)
    whole = np.inf  # the loss after the whole step along the line
    while alpha >= SHORTEST:
        last = best
        for d in (v, v + alpha / 2 * a):
            there = objective.residuals(w + alpha * d)  # as r is computed, so that rounding lets no step pass
            loss = 0.5 * dot(there, there)
            whole = loss if alpha == 1 and d is v else whole
            if loss < best.loss:  # never true of NaN
                best = Step(float(alpha), loss, d, "newton")
        if best is last and best.alpha:
            break
        alpha /= 2
    if not best.alpha and whole <= before * (1 + ROUNDING * np.finfo(w.dtype).eps):
        return Step(1.0, whole, v, "newton")
    return best


def _second_derivative(objective: Objective, w: np.ndarray, r: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return d²r(w + tv)/dt² at t = 0, by a central difference."""
    length = norm(v)
    if length == 0:
        return np.zeros_like(r)
    h = w.dtype.type(DIFFERENCE * (norm(w) or 1.0) / length)
    return (objective.residuals(w + h * v) - 2 * r + objective.residuals(w - h * v)) / (h * h)


def _adapted(damping: float, alpha: float) -> float:
    """Return the next λ by the length of the step."""
    if not alpha:
        return damping * REJECTED
    return damping / FALL if alpha >= LONG else damping if alpha >= SHORT else damping * RISE


def _entries(state: State, step: Step | None = None) -> dict[str, Any]:
    """Return the entries {name: value} for the `Record` of an iteration; ``step`` is None before it."""
    step = None if state.rejected else step
    return {
        "iteration": state.iteration,
        "loss": state.loss,
        "gradient_norm": state.gradient_norm,
        "damping": state.damping,
        "direction": step.name if step else "none",
        "alpha": step.alpha if step else 0.0,
        "step_norm": step.alpha * norm(step.direction) if step else 0.0,
    }
