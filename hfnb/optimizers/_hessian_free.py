"""Hessian-free optimization that explores negative curvature (He, Mudigere, Smelyanskiy, Takáč 2016)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.krylov import NonFiniteProduct, norm
from hfnb.objectives.sampling import Draws
from hfnb.optimizers.certificate import Certificate, certify_operator, gradient_scale
from hfnb.optimizers.checkpoint import resumable
from hfnb.optimizers.history import Recorder
from hfnb.optimizers.iteration import State
from hfnb.optimizers.options import check_hessian_free
from hfnb.optimizers.presets import STOPPING_RULES, expand, truncated
from hfnb.optimizers.progress import watched
from hfnb.optimizers.steps import (
    LONGEST_INTERVAL,
    PLATEAU,
    STEPS,
    Step,
    negative_curvature_step,
    probe_negative_curvature,
)
from hfnb.validation import renamed

REJECTIONS = 10  # steps rejected one after another before the certificate is asked: λ has grown 5·10⁹-fold
LEAVES = 3  # times that a run then tries to leave a saddle, by a fresh certificate each time


@renamed(
    batch="batch_size",
    curvature_batch="curvature_batch_size",
    warm_start="warm_start_decay",
    resume="checkpoint",
)
@watched
@resumable
def hessian_free(
    objective,
    w0: np.ndarray,
    *,
    method: str = "paper",
    solver: str | Callable | None = None,
    curvature: str | Callable | None = None,
    stopping_rule: str | None = None,
    probe: bool | None = None,
    line_search_sample: str | None = None,
    step: str = "better",
    curvature_batch_size: int | None = None,
    batch_size: int | None = None,
    damping: float = 1.0,
    warm_start_decay: float = 0.95,
    max_iter: int = 50,
    tol: float = 1e-6,
    seed: int = 0,
    callback: Callable | None = None,
    checkpoint=None,
    solver_options: dict | None = None,
) -> OptimizeResult:
    """Minimize an objective by truncated Newton steps and steps along directions of negative curvature.

    Each iteration solves (B + λI) s = −∇F(w) approximately, B the Hessian or the Gauss–Newton matrix on a
    sample. It takes the better of s and of the direction of most negative curvature that the solver met, each
    by a line search, and adapts λ.

    Parameters
    ----------
    objective : Objective
        What has its methods ``value``, ``value_and_gradient`` and ``curvature`` and its ``n``, ``counts``.
    w0 : ndarray, shape (p,)
        The start, of float32 or float64.
    method : {"paper", "martens", "auto"}
        A name for the next five options (`presets.METHODS`); each of them that is given takes the place of
        the method's. "paper" is our reading of He et al. (2016), "martens" is Martens (2010). "auto" is
        Martens' with solves that end when they no longer pay, line searches on the sample of curvature, and
        a probe for negative curvature of the Hessian on plateaus.
    solver : str or callable
        "bicgstab", "cg", another name of `krylov.SOLVERS`, or a function of the same form.
    curvature : str or callable
        "hessian", "gauss-newton", or a function (net, w, X, Y) -> product.
    stopping_rule : {"martens", "marginal-gain"}
        How a solver by name is stopped (`presets.STOPPING_RULES`); CG alone has a marginal-gain rule.
    probe : bool
        Whether to look for negative curvature of the Hessian on plateaus, where the loss hardly falls
        (`steps.probe_negative_curvature`).
    line_search_sample : {"loss", "curvature"}
        The samples on which line searches evaluate the loss. "curvature" is meant for runs without mini-
        batches and is not used on a plateau; the step is kept only if the loss over all samples falls.
    step : {"better", "curvilinear", "subspace"}
        How the solution and the direction of negative curvature become a step.
    curvature_batch_size, batch_size : int, optional
        Samples for B (those of the gradient by default), and for loss and gradient (all by default).
    damping : float
        The first λ.
    warm_start_decay : float
        Each solve starts from this multiple of the last solution.
    max_iter : int
        The most iterations.
    tol : float
        Where ‖g‖ ≤ tol × min(1, the largest ‖g‖ met) a `certificate` is asked for: at a saddle the run goes
        on along its negative curvature, else it ends, with success at a minimum. So tol is absolute where
        gradients are large, and relative where the whole problem is small. A start with ‖g‖ ≤ tol is asked
        about at once; it is a minimum if ‖g‖ ≤ tol × min(1, `gradient_scale`). Ten rejected steps ask, too:
        a minimum is a success if what ‖g‖ promises is lost in the rounding of the loss. With tol = 0 only a
        gradient of zero asks.
    seed : int
        Of the samples and of the certificate.
    callback : callable, optional
        ``callback(record)`` finds the parameters as ``record.w``; any true value that it returns stops.
    checkpoint : Checkpoint or path, optional
        To continue from, if it holds anything, and to save to at each iteration (`checkpoint.resumable`).
    solver_options : dict, optional
        Options of the solver, which take the place of the stopping rule's.

    Returns
    -------
    OptimizeResult
        ``x``, ``fun``, ``nit``, ``message`` (why it ended), ``success`` (only at a certified minimum), and
        ``history``, a `Record` for each iteration.

    Raises
    ------
    ValueError
        For unknown names, numbers out of range, a start that is not finite, another run's checkpoint.
    TypeError
        For arguments of another kind.

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
    run = {"max_iter": max_iter, "tol": tol, "seed": seed, "callback": callback, "checkpoint": checkpoint}
    given = {"solver": solver, "curvature": curvature, "stopping_rule": stopping_rule, "probe": probe}
    chosen = expand(method, **given, line_search_sample=line_search_sample)
    check_hessian_free(
        objective, w0, chosen, step, batch_size, curvature_batch_size, damping, warm_start_decay, **run
    )
    samples = Draws(seed, batch_size, curvature_batch_size)
    solve = truncated(chosen["solver"], STOPPING_RULES[chosen["stopping_rule"]], solver_options)
    saved = checkpoint.load() if checkpoint else None
    recorder = Recorder(objective, callback, saved.pop("history") if saved else None)
    state = State(**saved) if saved else _start(objective, w0, damping, samples)
    stop = not saved and recorder.add(state.w, iteration=0, **state.entries())

    end = None
    while not (stop or state.iteration >= max_iter or _gives_up(state, tol)):
        verdict = _certify(objective, state, samples) if _asks(state, tol) else None
        if verdict and verdict.verdict == "saddle":
            # Steps that were lost in rounding say nothing against the λ from before them.
            solution, new_damping, own = None, state.trusted, True
            taken, state = _leave(objective, state, verdict, samples)
        elif verdict and (end := _settled(state, verdict, tol)):
            break
        else:
            B = objective.curvature(state.w, chosen["curvature"], samples.curvature(state.iteration))
            own = _searches_over_all(state, samples, chosen["line_search_sample"])
            f, f0 = _searched(objective, state, samples, own)
            solution, state = _solve(state, solve, warm_start_decay, B)
            taken, new_damping = _step(f, f0, state, STEPS[step], B, solution)
            if chosen["probe"] and state.plateau and state.iteration >= state.next_probe:
                taken = _probe(objective, f, f0, state, taken, samples)
        state = _move(objective, state, taken, solution, new_damping, samples, own)
        stop = recorder.add(state.w, iteration=state.iteration, **state.entries(taken, solution or verdict))
        if checkpoint:
            checkpoint.save({**vars(state), "history": recorder.history})

    if end:
        return recorder.result(state.w, *end)
    limit = _stuck(state) if _gives_up(state, tol) else f"max_iter = {max_iter} reached"
    return recorder.result(state.w, False, "stopped by the callback" if stop else limit)


def _start(objective, w0, damping, samples):
    w = np.array(w0)
    loss, g = objective.value_and_gradient(w, samples.loss(0))
    if not (np.isfinite(loss) and np.all(np.isfinite(g))):
        raise ValueError("w0: expected a start with finite loss and gradient, got NaN or infinity")
    return State(w, g, loss, damping)


def _asks(state, tol):
    """Whether to ask for a certificate: the gradient vanishes, or one step after the other was rejected."""
    vanishing = tol * (min(1.0, state.steepest) if state.iteration else 1.0)
    return state.gradient_norm <= vanishing or (tol > 0 and state.rejected >= REJECTIONS)


def _gives_up(state, tol):
    """Whether too many steps were rejected; a certificate says nothing of what is not finite."""
    return state.rejected >= REJECTIONS + (LEAVES if tol > 0 and not state.trouble else 0)


def _stuck(state):
    """Say why a run gave up."""
    message = f"no step lowered the loss in {state.rejected} iterations"
    if state.trouble:
        return f"{message}: {state.trouble}"
    if state.rejected > REJECTIONS:
        return f"{message}, not even along the negative curvature of the saddle at which it stands"
    return message


def _certify(objective, state, samples):
    """Ask whether a point without gradient is a minimum, by a new seed each time, equal on all engines."""
    H = objective.curvature(state.w, "hessian", samples.loss(state.iteration))
    seed = int(np.random.SeedSequence([samples.seed, state.iteration]).generate_state(1)[0])
    try:
        return certify_operator(H, seed=seed)
    except NonFiniteProduct as error:
        reason = f"the products with the Hessian are not finite ({error})"
        return Certificate("undecided", reason, np.nan, np.nan, 1.0, 0.0, 0, seed, np.zeros_like(state.w))


def _settled(state, verdict, tol):
    """Return (success, message) where a certificate of no saddle ends the run, None where it does not.

    A point is a minimum where its gradient is small at the problem's own scale. It also is where no step
    lowered the loss because what it promises, at least ‖g‖²/2κ by a step along −g with κ the largest
    curvature, is less than rounding: 10 units of that of the loss, and what those of w make of it.
    """
    g_norm, w_norm, largest = state.gradient_norm, norm(state.w), verdict.largest
    scale = max(state.steepest, gradient_scale(largest, state.w, state.loss))
    limit, said = tol * min(1.0, scale), f"{verdict.verdict}: {verdict.reason}"
    if g_norm <= limit:
        how = f"tol = {tol:g}" if limit == tol else f"{limit:.1e} = tol x {scale:.1e}, the largest gradient"
        return verdict.verdict == "minimum", f"gradient norm {g_norm:.1e} <= {how}; {said}"
    if state.rejected < REJECTIONS:
        return None
    eps = float(np.finfo(state.w.dtype).eps)
    fall = g_norm**2 / (2 * largest) if largest else np.inf
    rounding = 10 * eps * (abs(state.loss) + g_norm * w_norm + eps * largest * w_norm**2)
    lost = f"lost in rounding, {rounding:.1e}" if fall <= rounding else "more than rounding can hide"
    message = (
        f"no step lowered the loss in {state.rejected} iterations; the gradient norm {g_norm:.1e} > "
        f"{limit:.1e} promises a fall of {fall:.1e}, {lost}; {said}"
    )
    return verdict.verdict == "minimum" and fall <= rounding, message


def _leave(objective, state, certificate, samples):
    """Return a step off a saddle along the direction that proves it to be one, and the state.

    A run that starts at a saddle has met no gradient by which to tell small from large: this step s makes one
    of about |dᵀHd|‖s‖.
    """
    f, d = partial(objective.value, sample=samples.loss(state.iteration)), certificate.direction
    step = negative_curvature_step(f, state.w, d, state.loss, state.g, certificate.eigenvalue)
    met = abs(certificate.eigenvalue) * step.alpha * norm(step.direction)
    return step, replace(state, steepest=max(state.steepest, met))


def _searches_over_all(state, samples, sample):
    """Whether line searches lower the loss itself, not that over the sample of curvature.

    They do on a plateau and with mini-batches: there the noise of a sample outweighs what is to gain.
    """
    return sample == "loss" or bool(samples.batch_size) or state.plateau


def _searched(objective, state, samples, own):
    """Return the loss that line searches lower, and its value at w."""
    if own:
        return partial(objective.value, sample=samples.loss(state.iteration)), state.loss
    f = partial(objective.value, sample=samples.curvature(state.iteration))
    return f, f(state.w)


def _solve(state, solve, warm_start_decay, B):
    """Solve (B + λI) s = −g; return the solution, None where a product is not finite, and the state."""
    x0 = None if state.warm is None else state.warm * state.w.dtype.type(warm_start_decay)
    try:
        solution = solve(B, -state.g, x0, damping=state.damping)
    except NonFiniteProduct as error:
        return None, replace(state, trouble=f"the curvature products are not finite ({error})")
    return solution, replace(state, trouble="")


def _step(f, f0, state, choose, B, solution):
    """Return the step that a solution leads to, and the new λ."""
    if solution is None:
        return Step(0.0, f0, np.zeros_like(state.w), "none", state.trouble), state.damping
    return choose(f, state.w, f0, state.g, B, solution, state.damping)


def _probe(objective, f, f0, state, step, samples):
    """Add negative curvature of the Hessian to the step; after a probe in vain wait for longer."""
    H = objective.curvature(state.w, "hessian", samples.curvature(state.iteration))
    try:
        found = probe_negative_curvature(f, state.w, f0, state.g, H, step)
    except NonFiniteProduct:
        return step
    state.interval = min(2 * state.interval, LONGEST_INTERVAL) if found is step else 1
    state.next_probe = state.iteration + state.interval
    return found


def _move(objective, state, step, solution, damping, samples, own):
    """Take the step, unless it leads nowhere, up, or to what is not finite: then only raise λ.

    λ × 1.5 at first, and faster with each further rejection: it may be far below the scale of the curvature.
    """
    state, before = replace(state, iteration=state.iteration + 1, plateau=True), state.loss
    trouble = step.trouble
    if step.alpha > 0:
        w = state.w + state.w.dtype.type(step.alpha) * step.direction
        loss, g = objective.value_and_gradient(w, samples.loss(state.iteration))
        finite = np.isfinite(loss) and np.all(np.isfinite(g))
        if finite and own and not samples.batch_size:  # else the search lowered a loss over other samples
            loss = step.loss  # the same number, not rounded to the precision of the packed gradient
        if finite and (samples.batch_size or loss < before):
            plateau, warm = before - loss <= PLATEAU * abs(before), solution.x if solution else None
            accepted = {"w": w, "g": g, "loss": loss, "warm": warm, "plateau": plateau, "rejected": 0}
            return replace(state, damping=damping, trusted=damping, trouble="", **accepted)
        trouble = "" if finite else "the loss or its gradient is not finite after the step"
    damping = max(damping, 1.5 ** (state.rejected + 1) * state.damping)
    return replace(state, damping=damping, warm=None, rejected=state.rejected + 1, trouble=trouble)
