"""Hessian-free optimization that explores negative curvature (He, Mudigere, Smelyanskiy, Takáč 2016)."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.krylov import KrylovResult, NonFiniteProduct, dot, norm
from hfnb.objectives.objective import Objective
from hfnb.objectives.protocols import CurvatureFunction, ObjectiveLike
from hfnb.objectives.sampling import Draws
from hfnb.optimizers.certificate import (
    Certificate,
    certificate_at,
    ending_at,
    gives_up,
    needs_certificate,
    step_off_saddle,
    why_no_progress,
)
from hfnb.optimizers.checkpoint import CheckpointLike, resumable
from hfnb.optimizers.damping import first_damping, levenberg_marquardt, next_damping
from hfnb.optimizers.history import Record, Recorder, State, Status, watched
from hfnb.optimizers.local_solves import CellCurvature, LossInCells, mean_solution
from hfnb.optimizers.options import (
    STOPPING_RULES,
    check_combination,
    check_hessian_free,
    default_trial_steps,
    expand,
    shortened,
    truncated,
)
from hfnb.optimizers.preconditioning import PreconditionerFunction, find_preconditioner
from hfnb.optimizers.steps import (
    LONGEST_INTERVAL,
    PLATEAU,
    STEPS,
    LossAround,
    Step,
    Subproblem,
    backtrack,
    probe_negative_curvature,
)
from hfnb.validation import renamed


@renamed(
    batch="batch_size",
    curvature_batch="curvature_batch_size",
    warm_start="warm_start_decay",
    resume="checkpoint",
)
@watched
@resumable
def hessian_free(
    objective: ObjectiveLike,
    w0: np.ndarray,
    *,
    method: str = "paper",
    solver: str | Callable[..., KrylovResult] | None = None,
    curvature: str | CurvatureFunction | None = None,
    stopping_rule: str | None = None,
    probe: bool | None = None,
    line_search_sample: str | None = None,
    lengthen: bool | None = None,
    step: str = "better",
    curvature_batch_size: int | str | None = None,
    batch_size: int | str | None = None,
    damping: float | str | None = None,
    warm_start_decay: float = 0.95,
    preconditioner: str | PreconditionerFunction | None = None,
    solves: str = "global",
    trial_steps: int | None = None,
    max_iter: int = 50,
    tol: float = 1e-6,
    seed: int = 0,
    callback: Callable[[Record], Any] | None = None,
    checkpoint: CheckpointLike | str | os.PathLike[str] | None = None,
    solver_options: dict[str, Any] | None = None,
) -> OptimizeResult:
    """Minimize an objective by truncated Newton steps and steps along directions of negative curvature.

    Each iteration solves (B + λI) s = −∇F(w) approximately, where B is the Hessian or the Gauss–Newton matrix
    on a sample. It searches along s, and along the direction of most negative curvature that the solver met,
    takes the better of the two steps, and adapts λ.

    Parameters
    ----------
    objective : Objective or ObjectiveLike
        What is minimized: a `hfnb.Objective`, or an object of your own with the members of
        `hfnb.objectives.ObjectiveLike`.
    w0 : ndarray, shape (p,)
        The start, of float32 or float64.
    method : {"paper", "martens", "auto"}
        A name for values of other options (`options.METHODS`); each option that is given replaces the
        method's value. "paper" follows He et al. (2016), "martens" follows Martens (2010). "auto" is
        "martens" with the marginal-gain stopping rule, line searches on the curvature sample and to the
        solution at most, a probe for negative curvature of the Hessian on plateaus, mini-batches that grow,
        and a first λ from the problem.
    solver : str or callable
        "bicgstab", "cg", another name of `krylov.SOLVERS`, or a function of the same form.
    curvature : str or callable
        "hessian", "gauss-newton", or a function (net, w, X, Y) -> product.
    stopping_rule : {"martens", "marginal-gain"}
        When a solver that is given by name stops (`options.STOPPING_RULES`). "marginal-gain" affects "cg"
        only; other solvers then stop by "martens".
    probe : bool
        Whether to search for negative curvature of the Hessian on plateaus, where the loss hardly falls
        (`steps.probe_negative_curvature`); with global solves, from the second iteration on.
    line_search_sample : {"loss", "curvature"}
        The samples on which line searches evaluate the loss. "curvature" has no effect with mini-batches
        and on plateaus, where "loss" is used; the step is kept only if the loss over all samples falls.
    lengthen : bool
        Whether line searches may double a step beyond the solution while the loss falls. Long steps early in
        a run can saturate the units of a network, from where it hardly goes on; without them λ has to fall
        until the solution itself is long enough. The methods "paper" and "martens" stand for True, "auto" for
        False.
    step : {"better", "newton", "curvilinear", "subspace"}
        How the solution and the direction of negative curvature become a step. "newton" ignores the negative
        curvature; only a certificate may then still step along it.
    curvature_batch_size : int, "same" or "part"
        Samples for the curvature: a number; "same", those of the gradient; or "part", a quarter of a
        mini-batch and a tenth of all samples, but at least 125 and 500. The methods "paper" and "martens"
        stand for "same", "auto" for "part".
    batch_size : int, "all" or "growing"
        Samples for loss and gradient: a number; "all"; or "growing", at first 500, then twice as many
        whenever fresh samples do not show the decrease of the loss, and at last all
        (`hfnb.objectives.sampling.Draws`). All are taken from the start if there are fewer than 2,000, and at
        once after 10 rejected steps and where the gradient vanishes. Until then the loss of a `Record` is
        that of a fresh mini-batch, and so is ``fun`` if the run ends before. The methods "paper" and
        "martens" stand for "all", "auto" for "growing".
    damping : float or "gradient"
        The first λ: a number, or "gradient", a third of the curvature along the first gradient, which costs a
        product (`damping.first_damping`). The methods "paper" and "martens" stand for 1, "auto" for
        "gradient". If a number of samples is given, "auto" stands for the values of "martens" of these three
        options.
    warm_start_decay : float
        Each solve starts from this multiple of the last solution.
    preconditioner : {"lbfgs", "diagonal"} or callable, optional
        M ≈ (B + λI)⁻¹ for the solver, which is updated before each solve: from curvature pairs of the last
        solve, from an estimate of the diagonal, or by a function of the `State` that returns an operator,
        such as `SharedSamples` (`hfnb.optimizers.preconditioning`). "capped_cg" and "saddle_free" take no
        preconditioner.
    solves : {"global", "local"}
        Who solves the sub-problem. "global": all engines together, with a reduction for each product.
        "local": each cell, a random part of the data, alone, with the curvature of its own samples and the
        gradient over all samples; the mean of the solutions becomes the direction
        (`hfnb.optimizers.local_solves`). An iteration then has two or three reductions. The objective needs
        cells (``Objective(net, data, cells=16)``). Other options then have other defaults
        (`options.LOCAL`): loss, gradient, line searches and curvature take all samples, and a solve has at
        most 10 iterations. A ``curvature_batch_size`` is divided among the cells; "part" is a quarter of
        each, but at least 500.
    trial_steps : int, optional
        How many losses a line search evaluates in one reduction: those that it asks for, and others at
        lengths next to them, which it may ask for next. More losses are computed then, in fewer reductions;
        the steps are the same, to rounding. By default 1 in one process; on engines 3, or 8 if line searches
        take the curvature sample; 7 with local solves.
    max_iter : int
        The most iterations.
    tol : float
        The tolerance for the gradient norm. If ‖g‖ ≤ tol × min(1, the largest ‖g‖ so far), a `certificate` is
        made (see Notes). With tol = 0 it is made only if the gradient is zero.
    seed : int
        Seed of the samples and of the certificate.
    callback : callable, optional
        ``callback(record)`` after each iteration, with the parameters as ``record.w``; any true value that it
        returns stops the run.
    checkpoint : Checkpoint or path, optional
        The run is saved to it in each iteration, and continues from it if it holds a state
        (`checkpoint.resumable`).
    solver_options : dict, optional
        Options of the solver, which replace those of the stopping rule.

    Returns
    -------
    OptimizeResult
        ``x``, ``fun``, ``nit``, ``message`` (why it ended), ``success`` (only at a certified minimum), and
        ``history``, a `Record` for each iteration.

    Raises
    ------
    ValueError
        If a name is unknown, a number is out of range, the start is not finite, or the checkpoint belongs to
        another run.
    TypeError
        If an argument is of another kind.

    Notes
    -----
    The certificate (`certificate.certify_operator`) decides what follows. At a saddle the run goes on along
    the negative curvature; otherwise it ends, with success at a minimum. Because of the factor min(1, …),
    ``tol`` is absolute if the largest gradient norm exceeds 1, and relative to that norm otherwise. If ‖g‖ ≤
    tol at the start, the certificate is made at once, and the run ends there only if ‖g‖ ≤ tol × min(1,
    `gradient_scale`). A certificate is also made after ten rejected steps in a row: a minimum is then a
    success if the decrease to expect from ‖g‖ is smaller than the rounding error of the loss.

    References
    ----------
    He, Mudigere, Smelyanskiy, Takáč, "Distributed Hessian-Free Optimization for Deep Neural Network",
    arXiv 1606.00511 (2016). Martens, "Deep learning via Hessian-free optimization" (2010).

    Examples
    --------
    >>> from hfnb import Dataset, Objective, models
    >>> net = models.mlp([2, 3, 2])
    >>> objective = Objective(net, Dataset(np.eye(2), np.array([0, 1])))
    >>> bool(hessian_free(objective, net.init(0, dtype=float), max_iter=20).fun < 1e-3)
    True
    """
    given: dict[str, Any] = {"solver": solver, "curvature": curvature, "damping": damping, "probe": probe}
    given |= {"batch_size": batch_size, "curvature_batch_size": curvature_batch_size}
    given |= {"stopping_rule": stopping_rule, "line_search_sample": line_search_sample, "lengthen": lengthen}
    chosen = expand(method, solves=solves, **given)
    chosen["trial_steps"] = default_trial_steps(objective, chosen) if trial_steps is None else trial_steps
    run = {"max_iter": max_iter, "tol": tol, "seed": seed, "callback": callback, "checkpoint": checkpoint}
    check_hessian_free(objective, w0, chosen, step=step, warm_start_decay=warm_start_decay, **run)
    check_combination(objective, chosen, step=step, preconditioner=preconditioner)
    rule = STOPPING_RULES[chosen["stopping_rule"]]
    solve = truncated(chosen["solver"], rule if solves == "global" else shortened(rule), solver_options)
    solve = solve if solves == "global" else partial(mean_solution, solve)
    choose_step, preconditioned = STEPS[step], find_preconditioner(preconditioner)
    store = cast(CheckpointLike | None, checkpoint)  # `resumable` has opened it
    saved = store.load() if store else None
    recorder = Recorder(objective, callback, saved.pop("history") if saved else None)
    state = State.restored(saved) if saved else _start(objective, w0, chosen, seed)
    stop, ending = bool(not saved and recorder.add(state.w, **_entries(state))), None

    while not (stop or state.iteration >= max_iter or gives_up(state, tol)):
        if needs_certificate(state, tol):  # of all samples: the gradient of a mini-batch may vanish by chance
            state = _redrawn(objective, state, state.samples.enlarged(everything=True))
        certificate = certificate_at(objective, state) if needs_certificate(state, tol) else None
        if certificate and (ending := ending_at(state, certificate, tol)):
            break
        if certificate is None or certificate.verdict != "saddle":
            problem = _subproblem(objective, state, chosen)
            A, M = preconditioned.prepare(problem.B, state)
            start = None if state.solution is None else state.w.dtype.type(warm_start_decay) * state.solution
            try:
                found = solve(A, -state.g, start, damping=state.damping, **({} if M is None else {"M": M}))
            except NonFiniteProduct as error:
                solution, proposed, taken = None, state.damping, problem.no_step(error)
            else:
                candidate, solution = backtrack(problem, found), found
                taken = choose_step(problem, found, candidate)
                agreement = candidate.change, candidate.predicted, found.norm, problem.rounding
                proposed = levenberg_marquardt(state.damping, *agreement)
            state, exact = preconditioned.remember(state), problem.exact
            if chosen["probe"] and solves == "global" and state.probe_is_due:
                taken, state = _probe(objective, problem, state, taken)
            del problem, A, M  # to free their arrays before those of the next point are made
        else:  # a saddle: steps rejected here say nothing about λ, which returns to its last trusted value
            solution, proposed, exact = None, state.trusted, True
            taken, state = step_off_saddle(objective, state, certificate, chosen["trial_steps"])
        moved = _move(objective, state, taken, solution, exact)
        divisor = _lengthened(taken) if solves == "local" else _growth(state, moved, taken)
        state = moved.with_damping(next_damping(state.damping, proposed, moved.rejected, divisor))
        stop = recorder.add(state.w, **_entries(state, taken, solution or certificate))
        if store:
            store.save({**state.saved(), "history": recorder.history})

    return recorder.result(state.w, *(ending or _ending(state, stop, tol, max_iter)))


def _start(objective: ObjectiveLike, w0: np.ndarray, chosen: dict[str, Any], seed: int) -> State:
    """Return the state before the first iteration."""
    w, samples = np.array(w0), Draws(seed, chosen["batch_size"], chosen["curvature_batch_size"], objective.n)
    loss, g = objective.value_and_gradient(w, samples.loss(0))
    if not (np.isfinite(loss) and np.all(np.isfinite(g))):
        raise ValueError("w0: expected a start with finite loss and gradient, got NaN or infinity")
    damping = chosen["damping"]
    if damping == "gradient":
        B = objective.curvature(w, chosen["curvature"], samples.curvature(0))
        damping = first_damping(dot(g, B @ g), dot(g, g))
    return State(w, g, loss, damping, samples=samples)


def _redrawn(objective: ObjectiveLike, state: State, samples: Draws) -> State:
    """Return the state with other draws; if they have more samples, with loss and gradient over these."""
    if samples.size == state.samples.size:
        return replace(state, samples=samples)
    loss, g = objective.value_and_gradient(state.w, samples.loss(state.iteration))
    finite = np.isfinite(loss) and np.all(np.isfinite(g))
    return replace(state, loss=loss, g=g, samples=samples) if finite else state


def _subproblem(objective: ObjectiveLike, state: State, chosen: dict[str, Any]) -> Subproblem:
    """Return the sub-problem at w, with the loss that line searches are to lower.

    On a plateau and with mini-batches line searches evaluate the loss itself, because the noise of another
    sample would be larger than the decrease. Otherwise they may evaluate the loss over the curvature sample.
    """
    samples, sample, at_once = state.samples, state.samples.curvature(state.iteration), chosen["trial_steps"]
    if chosen["solves"] == "local":
        cells = cast(Objective, objective)
        probe = chosen["probe"] and state.plateau
        curvature = CellCurvature(cells, state.w, chosen["curvature"], samples, state.iteration, probe)
        f = LossInCells(cells, state.w, at_once=at_once)
        lengthen = bool(chosen["lengthen"])
        return Subproblem(f, state.w, state.loss, state.g, curvature, state.damping, lengthen=lengthen)
    B = objective.curvature(state.w, chosen["curvature"], sample)
    exact = chosen["line_search_sample"] == "loss" or not samples.whole or state.plateau
    around = LossAround(objective, state.w, samples.loss(state.iteration) if exact else sample, at_once)
    known = state.loss if exact else None
    return Subproblem(around, state.w, known, state.g, B, state.damping, exact, bool(chosen["lengthen"]))


def _probe(objective: ObjectiveLike, problem: Subproblem, state: State, step: Step) -> tuple[Step, State]:
    """Try to improve a step by negative curvature of the Hessian; if that fails, double the interval."""
    H = objective.curvature(state.w, "hessian", state.samples.curvature(state.iteration))
    try:
        found = probe_negative_curvature(problem.f, state.w, problem.loss, state.g, H, step)
    except NonFiniteProduct:
        return step, state
    interval = min(2 * state.interval, LONGEST_INTERVAL) if found is step else 1
    return found, replace(state, interval=interval, next_probe=state.iteration + interval)


def _ending(state: State, stop: bool, tol: float, max_iter: int) -> tuple[Status, str]:
    """Return the status and the message of a run that no certificate ended."""
    if stop:
        return Status.CALLBACK, "stopped by the callback"
    if gives_up(state, tol):
        return Status.NO_PROGRESS, why_no_progress(state)
    return Status.MAX_ITER, f"max_iter = {max_iter} reached"


def _move(
    objective: ObjectiveLike, state: State, step: Step, solution: KrylovResult | None, exact: bool
) -> State:
    """Return the state after the step, or the same point with one more rejection.

    A step is rejected if its length is zero, if loss or gradient is not finite after it, or, without
    mini-batches, if it does not lower the loss. ``exact`` says that the line search evaluated the loss
    itself, so that its value is known. Afterwards a growing mini-batch may have more samples.
    """
    before, trouble, samples = state.loss, step.trouble, state.samples
    state = replace(state, iteration=state.iteration + 1, plateau=True)
    if step.alpha > 0:
        w = state.w + state.w.dtype.type(step.alpha) * step.direction
        if step.gradient is None:
            loss, g = objective.value_and_gradient(w, samples.loss(state.iteration))
        else:
            loss, g = step.loss, step.gradient
        finite = np.isfinite(loss) and np.all(np.isfinite(g))
        if finite and exact and samples.whole:  # the next iteration has another mini-batch
            loss = step.loss  # the same loss in float64; value_and_gradient rounds it to the precision of w
        if finite and (not samples.whole or loss < before):
            plateau, start = before - loss <= PLATEAU * abs(before), solution.x if solution else None
            state = replace(
                state, w=w, g=g, loss=loss, solution=start, plateau=plateau, rejected=0, trouble=""
            )
            return _redrawn(objective, state, samples.after(before - step.loss, before - loss))
        trouble = "" if finite else "the loss or its gradient is not finite after the step"
    state = replace(state, solution=None, rejected=state.rejected + 1, trouble=trouble)
    return _redrawn(objective, state, samples.enlarged())


def _growth(before: State, after: State, step: Step) -> float:
    """Return the factor by which the mini-batch grew after a step, 1 if the loss hardly fell."""
    fell = before.loss - step.loss > PLATEAU * abs(before.loss)
    return after.samples.size / before.samples.size if fell else 1.0


def _lengthened(step: Step) -> float:
    """Return the length of a step along the solution if it is longer than the solution, else 1."""
    return max(step.alpha, 1.0) if step.name == "newton" else 1.0


def _entries(
    state: State, step: Step | None = None, found: KrylovResult | Certificate | None = None
) -> dict[str, Any]:
    """Return the entries {name: value} for the `Record` of an iteration.

    ``step`` is the step of the iteration, None before the first one. ``found`` is the result of the solve, or
    the certificate that replaced it; None if products were not finite.
    """
    step = None if state.rejected else step
    solution = found if isinstance(found, KrylovResult) else None
    certificate = found if isinstance(found, Certificate) else None
    status = solution.status if solution else certificate.reason if certificate else state.trouble
    return {
        "iteration": state.iteration,
        "loss": state.loss,
        "gradient_norm": state.gradient_norm,
        "batch_size": state.samples.size,
        "damping": state.damping,
        "direction": step.name if step else "none",
        "alpha": step.alpha if step else 0.0,
        "step_norm": step.alpha * norm(step.direction) if step else 0.0,
        "curvature": certificate.eigenvalue if certificate else solution and solution.curvature,
        "krylov_iterations": solution.iterations if solution else 0,
        "krylov_status": str(status),
    }
