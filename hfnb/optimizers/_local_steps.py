"""Local steps: every cell of the data runs an optimizer alone, and then the mean of the steps is taken."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.krylov import norm
from hfnb.objectives import Objective
from hfnb.optimizers._first_order import METHODS, Update
from hfnb.optimizers.certificate import REJECTIONS
from hfnb.optimizers.checkpoint import CheckpointLike, resumable
from hfnb.optimizers.history import Record, Recorder, Status, watched
from hfnb.optimizers.local_optimizers import RoundState, in_cell, local_optimizer
from hfnb.optimizers.options import check_run
from hfnb.validation import check_choice, check_fraction, check_methods, check_positive, shown

LENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)  # of the mean step, at which a search evaluates the loss in one reduction
SHORTER = (0.25, 0.125, 0.0625)  # tried in a second reduction if none of these lowers the loss
LONGER = (1.5, 2.0, 3.0)  # multiples of the longest, tried while the longest is the best
EXTENSIONS = 3  # the most reductions for longer lengths: up to 81 mean steps

# outer: the update that takes the negative of the mean step as its gradient, and the default of its rate
OUTER = {"mean": ("sgd", 1.0), "momentum": ("momentum", 0.7), "nesterov": ("nesterov", 0.7)}

# Moves by the mean step: (objective, state, step) ↦ the next state and the step length, 0 if rejected.
Move: TypeAlias = Callable[[Objective, RoundState, np.ndarray], tuple[RoundState, float]]


@watched
@resumable
def local_steps(
    objective: Objective,
    w0: np.ndarray,
    *,
    inner: str | Callable[..., np.ndarray] = "hessian_free",
    iterations: int = 6,
    options: dict[str, Any] | None = None,
    outer: str = "search",
    outer_learning_rate: float | None = None,
    outer_momentum: float = 0.9,
    max_iter: int = 20,
    tol: float = 0.0,
    seed: int = 0,
    callback: Callable[[Record], Any] | None = None,
    checkpoint: CheckpointLike | str | os.PathLike[str] | None = None,
) -> OptimizeResult:
    """Minimize an objective by rounds in which every cell of its data runs some iterations alone.

    However many iterations the cells run, a round has one reduction of little more than p numbers, the mean
    of their steps. ``outer`` says what is done with it.

    Parameters
    ----------
    objective : Objective
        What is minimized. It must have cells: ``Objective(net, data, cells=16)``.
    w0 : ndarray, shape (p,)
        The start, of float32 or float64.
    inner : {"hessian_free", "sgd", "momentum", "nesterov", "adam"} or callable
        What each cell runs on its own samples: `hessian_free`, a method of `first_order`, or a function
        ``(cell, w, iterations, seed, **options) -> w``, in which ``cell`` is an `Objective`.
    iterations : int
        Number of iterations that a cell runs in a round. Those of first-order methods are epochs over the
        cell, unless the option ``batches_per_iteration`` says otherwise.
    options : dict, optional
        Options of the inner optimizer. For "hessian_free" those of `hessian_free`; by default
        ``method="auto"``, ``curvature_batch_size="part"``, ``batch_size="all"`` and ``tol=0``. ``damping`` is
        that of the first round. For first-order methods ``learning_rate``, ``batch_size`` and ``momentum`` as
        for `first_order`; ``batches_per_iteration``, the number of mini-batches in an iteration, by default
        an epoch; and ``moments``: "reset", the default, if moments begin at zero in every round, or
        "average", if they are averaged over the cells together with the steps. A function is called with the
        options as keyword arguments.
    outer : {"search", "mean", "momentum", "nesterov"}
        What follows from the mean step s. "search": w + αs with the α of lowest loss over all samples, which
        takes one more reduction of a few numbers. "mean": w + s. "momentum" and "nesterov": a step of that
        first-order method in which −s takes the place of the gradient.
    outer_learning_rate : float, optional
        The factor of s if there is no search; 1 for "mean", 0.7 for "momentum" and "nesterov" by default.
    outer_momentum : float
        The momentum of "momentum" and "nesterov", in [0, 1).
    max_iter : int
        The maximum number of rounds.
    tol : float
        The run ends, with success, when the norm of the gradient over all samples is at most this. With
        tol > 0 the gradient is evaluated after each round, which is not counted as a cost of the method. With
        tol = 0 it is not evaluated.
    seed : int
        Seed of all draws. Each cell draws by the seed, its number, and the number of the round or step.
    callback : callable, optional
        ``callback(record)`` after each round; any true value that it returns stops the run.
    checkpoint : Checkpoint or path, optional
        The run is saved to it after each round, and continues from it if it holds a state.

    Returns
    -------
    OptimizeResult
        The fields of the result of `hessian_free`; success means that the gradient norm is at most tol. The
        `Record` of a round has ``loss``; ``alpha``, the length α or the outer learning rate, 0 after a
        rejected step; ``step_norm``; ``present``, the fraction of all samples whose cells gave a step;
        ``gradient_norm`` if tol > 0; and for "hessian_free", from the first round on, ``damping``, λ for the
        next round. Where the method itself does not need the loss, its evaluation for the record is not
        counted as a cost.

    Raises
    ------
    ValueError
        If the objective has no cells, a name is unknown, a number is out of range, the start is not finite,
        or the checkpoint belongs to another run.
    TypeError
        If an argument is of another kind.

    Notes
    -----
    With cells of n₁, n₂, … of all n samples, cell k runs from w to wₖ. The mean step is
    s = Σₖ nₖ (wₖ − w) / n. A cell with a result that is not finite, or an optimizer that ends by an error of
    arithmetic, counts as absent: the mean is that of the other cells.

    A search evaluates the loss at `LENGTHS` in one reduction, in the first round also at 0. While the longest
    is the best and a parabola through the last three falls further, it goes on to longer ones, and if none
    lowers the loss, it tries `SHORTER`: in all at most four reductions. If no length lowers the loss, or all
    cells are absent, the step is rejected.

    If the best length is below ½, the cells have run too far from each other, and the next rounds are more
    careful (`local_optimizers.RoundState.after`). Each rejected step halves the learning rate of first-order
    methods for the rest of the run, as schedules do on a plateau. "hessian_free" and functions run half as
    many iterations, but at least one, and the step of each cell is shortened to at most a trust radius, a
    quarter of the mean step at first, so that no cell outweighs the others; both return when the best length
    is 1 or more, and without a search in each round that is not rejected. The λ of "hessian_free" is
    multiplied by 4 after a rejected step. The run ends after ten rejected steps in a row. Cells whose data
    differ, such as those of data sorted by label, remain hard for "hessian_free".

    The cells of "hessian_free" hand on log λ in the reduction of the steps, so that the next round starts
    with the geometric mean of their λ. Nothing stays in a cell between rounds: a cell may move to another
    engine, and a run that is resumed is the same.

    The methods are known by many names. "mean" with first-order methods is local SGD [1]_ or federated
    averaging [2]_, and with "hessian_free" and a search of α it is close to LocalNewton [3]_ and the methods
    compared in [4]_. "nesterov" with ``moments="reset"`` is DiLoCo, apart from its inner optimizer [5]_.

    References
    ----------
    .. [1] S. Stich, "Local SGD converges fast and communicates little", ICLR 2019.
    .. [2] B. McMahan et al., "Communication-efficient learning of deep networks from decentralized data",
       AISTATS 2017.
    .. [3] V. Gupta et al., "LocalNewton: reducing communication rounds for distributed learning", UAI 2021.
    .. [4] S. Bischoff, S. Günnemann, M. Jaggi, S. Stich, "On second-order optimization methods for federated
       learning", arXiv 2109.02388 (2021).
    .. [5] A. Douillard et al., "DiLoCo: distributed low-communication training of language models", arXiv
       2311.08105 (2023).

    Examples
    --------
    >>> from hfnb import Dataset, Objective, models
    >>> net = models.mlp([3, 4, 2])
    >>> X = np.random.default_rng(0).standard_normal((200, 3))
    >>> objective = Objective(net, Dataset(X, (X[:, 0] > X[:, 1]).astype(int)), cells=4)
    >>> newton = local_steps(objective, net.init(0, dtype=float), max_iter=4)
    >>> sgd = local_steps(objective, net.init(0, dtype=float), inner="sgd", outer="mean", max_iter=4)
    >>> bool(newton.fun < sgd.fun < newton.history[0].loss), sgd.history[-1].reductions
    (True, 4)
    """
    run = {"max_iter": max_iter, "tol": tol, "seed": seed, "callback": callback, "checkpoint": checkpoint}
    _check_objective(objective, w0, **run)
    local = local_optimizer(objective, np.array(w0), inner, iterations, options, seed)
    move = _outer(outer, outer_learning_rate, outer_momentum)
    store = cast(CheckpointLike | None, checkpoint)  # `resumable` has opened it
    saved = store.load() if store else None
    recorder = Recorder(objective, callback, saved.pop("history") if saved else None)
    state = RoundState(**saved) if saved else RoundState(np.array(w0))
    stop = False
    if not saved:
        start = _measured(recorder, state, tol)
        if not np.isfinite(start["loss"]):
            raise ValueError("w0: expected a start with finite loss, got NaN or infinity")
        stop = recorder.add(state.w, iteration=0, **start)

    while (ending := _ending(recorder.history[-1], state, stop, max_iter, tol)) is None:
        number, before = recorder.history[-1].iteration + 1, state.w
        run_in_cell, arguments = local.plan(state, number)
        size = before.size + local.handed + 1
        mean = objective.average(partial(in_cell, run_in_cell, size), before, *arguments, size=size)
        present, alpha = float(mean[-1]), 0.0
        if present > 0:
            mean /= mean[-1]
            state = replace(state, handed=mean[before.size : -1].copy())
            state, alpha = move(objective, state, mean[: before.size])
        else:
            state = state.after(0.0, np.inf)
        entries = {"alpha": alpha, "step_norm": norm(state.w - before), "present": present}
        entries |= _measured(recorder, state, tol) | local.entries(state)
        stop = recorder.add(state.w, iteration=number, **entries)
        if store:
            store.save(vars(state) | {"history": recorder.history})

    return recorder.result(state.w, *ending)


# What a caller may read to see that the objective must have cells.
local_steps.needs_cells = True  # type: ignore[attr-defined]


def _measured(recorder: Recorder, state: RoundState, tol: float) -> dict[str, float]:
    """Return the loss and, with tol > 0, the gradient norm for a record; uncounted if not known already."""
    loss, gradient_norm = state.loss, {}
    with recorder.uncounted():
        if tol > 0:
            found, g = recorder.objective.value_and_gradient(state.w)
            loss, gradient_norm = found if loss is None else loss, {"gradient_norm": norm(g)}
        elif loss is None:
            loss = recorder.objective.value(state.w)
    return {"loss": loss, **gradient_norm}


def _ending(
    last: Record, state: RoundState, stop: bool, max_iter: int, tol: float
) -> tuple[Status, str] | None:
    """Return the status and the message with which the run ends after this record; None if it goes on."""
    gradient_norm = last.get("gradient_norm", np.inf)
    if tol > 0 and gradient_norm <= tol:
        return Status.SMALL_GRADIENT, f"gradient norm {gradient_norm:.1e} <= tol = {tol:.1e}"
    if stop:
        return Status.CALLBACK, "stopped by the callback"
    if not np.isfinite(last.loss):
        return Status.DIVERGED, "diverged: the loss is not finite"
    if state.rejected >= REJECTIONS:
        absent = ": no cell gave a finite step" if last.present == 0 else ""
        return Status.NO_PROGRESS, f"no step lowered the loss in {state.rejected} rounds{absent}"
    return (Status.MAX_ITER, f"max_iter = {max_iter} rounds reached") if last.iteration >= max_iter else None


def _outer(outer: str, rate: float | None, momentum: float) -> Move:
    """Return the function that moves the parameters by the mean step."""
    check_choice("outer", outer, ("search", *OUTER))
    momentum = check_fraction("outer_momentum", momentum, below_one=True)
    if outer == "search":
        if rate is not None:
            raise ValueError(f'outer_learning_rate: expected None with outer="search", got {shown(rate)}')
        return _search
    method, usual = OUTER[outer]
    rate = usual if rate is None else check_positive("outer_learning_rate", rate, finite=True)
    return partial(_follow, METHODS[method](momentum), rate)


def _follow(
    update: Update, rate: float, objective: Objective, state: RoundState, step: np.ndarray
) -> tuple[RoundState, float]:
    """Move by an update of a first-order method in which −s takes the place of the gradient."""
    w, memory = state.w.copy(), {name: moment.copy() for name, moment in state.memory.items()}
    update(w, -step, w.dtype.type(rate), 0, memory)
    return replace(state.after(1.0, norm(step)), w=w, memory=memory, loss=None), rate


def _search(objective: Objective, state: RoundState, step: np.ndarray) -> tuple[RoundState, float]:
    """Move to the best of several multiples of the mean step, or stay if none lowers the loss."""

    def losses(alphas: tuple[float, ...]) -> dict[float, float]:
        values = objective.values_along(state.w, step, alphas)
        return dict(zip(alphas, np.where(np.isfinite(values), values, np.inf).tolist(), strict=True))

    found = losses(LENGTHS if state.loss is not None else (0.0, *LENGTHS))
    before = found.pop(0.0) if state.loss is None else state.loss
    for _ in range(EXTENSIONS):
        longest = max(found)
        if found[longest] >= before or not _falls(found, LONGER[0] * longest):
            break
        found |= losses(tuple(factor * longest for factor in LONGER))
    if min(found.values()) >= before:
        found |= losses(SHORTER)
    alpha, loss = min(found.items(), key=lambda each: each[1])
    if loss >= before:
        return replace(state, loss=before).after(0.0, norm(step)), 0.0
    w = state.w + state.w.dtype.type(alpha) * step
    return replace(state, w=w, loss=loss).after(alpha, norm(step)), alpha


def _falls(found: dict[float, float], alpha: float) -> bool:
    """Whether the longest length is the best, and a parabola through the last three falls up to α."""
    (a, b, c), values = sorted(found)[-3:], found
    if values[c] > min(values.values()):
        return False
    first, last = (values[b] - values[a]) / (b - a), (values[c] - values[b]) / (c - b)
    return bool(last + (last - first) * (alpha - b) / (c - a) < 0)  # Newton's form of the parabola


def _check_objective(objective: Any, w0: Any, **run: Any) -> None:
    """Check the objective and the arguments that every optimizer takes; an error names the argument."""
    check_run(objective, w0, **run)
    check_methods("objective", objective, ("average", "values_along"), "hfnb.Objective(net, data, cells=16)")
    if objective.cells is None:
        raise ValueError(
            "objective: expected one with cells, got one without: give cells=16 where it is made"
        )
