"""Hessian-free optimization that explores negative curvature (He, Mudigere, Smelyanskiy, Takáč 2016)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.certificate import Certificate, certify_operator
from hfnb.globalization import STEPS, Step, negative_curvature_step
from hfnb.history import Recorder
from hfnb.krylov import SOLVERS, KrylovResult, NonFiniteProduct, find_solver
from hfnb.sampling import Sample

# How far our own solvers go: Martens' rule; Bi-CG-STAB, like CG, not beyond negative curvature.
TRUNCATION: dict[str, dict] = {name: {"progress": 5e-4, "maxiter": 100} for name in SOLVERS}
TRUNCATION["bicgstab"]["stop_indefinite"] = True
REJECTIONS = 10  # steps rejected one after another before the run gives up: λ has grown 57-fold by then


def hessian_free(
    objective,
    w0: np.ndarray,
    *,
    solver: str | Callable = "bicgstab",
    curvature: str | Callable = "hessian",
    step: str = "better",
    curvature_batch: int | None = None,
    batch: int | None = None,
    damping: float = 1.0,
    warm_start: float = 0.95,
    max_iter: int = 50,
    tol: float = 1e-6,
    seed: int = 0,
    callback: Callable | None = None,
    resume=None,
    solver_options: dict | None = None,
) -> OptimizeResult:
    """Minimize an objective by truncated Newton steps and steps along directions of negative curvature.

    Each iteration solves (B + λI) s = −∇F(w) approximately, B the Hessian ("hessian") or Gauss–Newton matrix
    ("gauss-newton") on ``curvature_batch`` samples, starting from ``warm_start`` times the last solution. It
    takes the better of s and of the direction of most negative curvature that the solver met, each by a line
    search, and adapts λ (from ``damping`` on). The paper's method is solver="bicgstab", curvature="hessian";
    Martens' (2010) is solver="cg", curvature="gauss-newton".

    ``step``: how the two directions become a step, "better" of the two, "curvilinear" or "subspace".
    ``batch``: samples for loss and gradient, all if None; ``curvature_batch``: samples for B, those of the
    gradient if None. ``tol``: gradient norm at which to stop, unless at a saddle. ``callback(record)`` finds
    the parameters as ``record.w`` and may stop the run by returning True. ``resume``: a `hfnb.Checkpoint` to
    continue from, if it holds anything, and to save to at each iteration. Returns an ``OptimizeResult`` with
    ``history``. ValueError for unknown names or a start that is not finite.

    >>> from hfnb import Dataset, Objective, models
    >>> net = models.mlp([2, 3, 2])
    >>> objective = Objective(net, Dataset(np.eye(2), np.array([0, 1])))
    >>> bool(hessian_free(objective, net.init(0, dtype=float), max_iter=20).fun < 1e-3)
    True
    """
    if step not in STEPS:
        raise ValueError(f"step: expected one of {', '.join(STEPS)}, got {step!r}")
    solve, samples = find_solver(solver), _Samples(seed, batch, curvature_batch)
    options = {**(TRUNCATION[solver] if isinstance(solver, str) else {}), **(solver_options or {})}
    saved = resume.load() if resume else None
    recorder = Recorder(objective, callback, saved.pop("history") if saved else None)
    state = _State(**saved) if saved else _start(objective, w0, damping, samples)
    stop = not saved and recorder.add(state.w, iteration=0, **state.entries())

    verdict = None
    while not (stop or state.iteration >= max_iter or state.rejected >= REJECTIONS):
        if state.gradient_norm <= tol:
            solution, verdict = None, _certify(objective, state, samples)
            if verdict.verdict != "saddle":
                break
            taken, new_damping = _leave(objective, state, verdict, samples), state.damping
        else:
            B = objective.curvature(state.w, curvature, samples.curvature(state.iteration))
            solution, verdict = _solve(solve, B, state, warm_start, options), None
            taken, new_damping = _choose(objective, state, B, solution, samples, STEPS[step])
        state = _move(objective, state, taken, solution, new_damping, samples)
        stop = recorder.add(state.w, iteration=state.iteration, **state.entries(taken, solution or verdict))
        if resume:
            resume.save({**vars(state), "history": recorder.history})

    if verdict and verdict.verdict != "saddle":
        message = f"gradient norm {state.gradient_norm:.1e} <= tol; {verdict.verdict}: {verdict.reason}"
        return recorder.result(state.w, verdict.verdict == "minimum", message)
    reasons = {
        "stopped by the callback": stop,
        f"no step lowered the loss in {REJECTIONS} iterations": state.rejected >= REJECTIONS,
        f"max_iter = {max_iter} reached": True,
    }
    return recorder.result(state.w, False, next(reason for reason, holds in reasons.items() if holds))


@dataclass
class _State:
    """All that one iteration hands to the next, and a checkpoint keeps."""

    w: np.ndarray
    g: np.ndarray
    loss: float
    damping: float
    warm: np.ndarray | None = None
    iteration: int = 0
    rejected: int = 0

    @property
    def gradient_norm(self) -> float:
        return float(np.linalg.norm(self.g))

    def entries(self, step: Step | None = None, found: KrylovResult | Certificate | None = None) -> dict:
        """What the history says of this iteration, ``found`` being what its products went to."""
        step = None if self.rejected else step
        solution = found if isinstance(found, KrylovResult) else None
        certificate = found if isinstance(found, Certificate) else None
        return {
            "loss": self.loss,
            "gradient_norm": self.gradient_norm,
            "damping": self.damping,
            "direction": step.name if step else "none",
            "alpha": step.alpha if step else 0.0,
            "step_norm": step.alpha * float(np.linalg.norm(step.direction)) if step else 0.0,
            "curvature": certificate.eigenvalue if certificate else solution and solution.curvature,
            "krylov_iterations": solution.iterations if solution else 0,
            "krylov_status": solution.status if solution else certificate.reason if certificate else "",
        }


@dataclass(frozen=True)
class _Samples:
    """Which samples an iteration uses: draws belong to (seed, iteration), never to an engine."""

    seed: int
    batch: int | None
    curvature_batch: int | None

    def loss(self, iteration):
        return Sample(self.batch, self.seed, iteration) if self.batch else None

    def function(self, objective, state):
        """The loss as a function of w, over the samples of this iteration."""
        return lambda w: objective.value(w, self.loss(state.iteration))

    def curvature(self, iteration):
        if self.curvature_batch is None:
            return self.loss(iteration)
        return Sample(self.curvature_batch, self.seed + 1, iteration)


def _start(objective, w0, damping, samples):
    w = np.array(w0)
    loss, g = objective.value_and_gradient(w, samples.loss(0))
    if not (np.isfinite(loss) and np.all(np.isfinite(g))):
        raise ValueError("w0: expected a start with finite loss and gradient, got NaN or infinity")
    return _State(w, g, loss, damping)


def _certify(objective, state, samples):
    """Ask whether a point without gradient is a minimum, by a new seed each time, equal on all engines."""
    H = objective.curvature(state.w, "hessian", samples.loss(state.iteration))
    seed = np.random.SeedSequence([samples.seed, state.iteration]).generate_state(1)[0]
    return certify_operator(H, seed=int(seed))


def _leave(objective, state, certificate, samples):
    """Step off a saddle along the direction that proves it to be one."""
    f, d = samples.function(objective, state), certificate.direction
    return negative_curvature_step(f, state.w, d, state.loss, state.g, certificate.eigenvalue)


def _solve(solve, B, state, warm_start, options):
    """Solve for the step; None where a product is not finite."""
    x0 = None if state.warm is None else state.warm * state.w.dtype.type(warm_start)
    try:
        return solve(B, -state.g, x0, damping=state.damping, **options)
    except NonFiniteProduct:
        return None


def _choose(objective, state, B, solution, samples, choose):
    """Return the step to take, and the new λ."""
    if solution is None:
        return Step(0.0, state.loss, np.zeros_like(state.w), "none"), state.damping * 1.5
    f = samples.function(objective, state)
    return choose(f, state.w, state.loss, state.g, B, solution, state.damping)


def _move(objective, state, step, solution, damping, samples):
    """Take the step, unless it goes nowhere or to a loss or gradient not finite: then only raise λ."""
    after = state.iteration + 1
    if step.alpha > 0:
        w = state.w + state.w.dtype.type(step.alpha) * step.direction
        loss, g = objective.value_and_gradient(w, samples.loss(after))
        if np.isfinite(loss) and np.all(np.isfinite(g)):
            if not samples.batch:
                loss = step.loss  # the same number, not rounded to the precision of the packed gradient
            return _State(w, g, loss, damping, solution.x if solution else None, after)
    damping = max(damping, 1.5 * state.damping)
    return _State(state.w, state.g, state.loss, damping, None, after, state.rejected + 1)
