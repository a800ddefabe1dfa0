"""Local steps: every cell of the data runs an optimizer alone, and then the mean of the steps is taken."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Protocol, TypeAlias, cast

import numpy as np
from scipy.optimize import OptimizeResult
from scipy.sparse.linalg import LinearOperator

from hfnb.krylov import dot, norm
from hfnb.objectives import Objective
from hfnb.objectives.costs import Counts
from hfnb.objectives.curvature import operator
from hfnb.objectives.sampling import Sample
from hfnb.optimizers._first_order import METHODS, MOMENTS, Memory, Update, first_order, schedule, take_steps
from hfnb.optimizers._hessian_free import hessian_free
from hfnb.optimizers.certificate import REJECTIONS
from hfnb.optimizers.checkpoint import CheckpointLike, resumable
from hfnb.optimizers.history import Record, Recorder, Status, watched
from hfnb.optimizers.options import check_run
from hfnb.validation import (
    check_choice,
    check_fraction,
    check_methods,
    check_positive,
    check_positive_int,
    shown,
)

LENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)  # of the mean step, at which a search evaluates the loss in one reduction
SHORTER = (0.25, 0.125, 0.0625)  # tried in a second reduction if none of these lowers the loss
LONGER = (1.5, 2.0, 3.0)  # multiples of the longest, tried while the longest is the best
EXTENSIONS = 3  # the most reductions for longer lengths: up to 81 mean steps
RAISE = 4.0  # the factor of λ after a rejected step

# outer: the update that takes the negative of the mean step as its gradient, and the default of its rate
OUTER = {"mean": ("sgd", 1.0), "momentum": ("momentum", 0.7), "nesterov": ("nesterov", 0.7)}
# What `hessian_free` uses in a cell unless the user's options say otherwise.
DEFAULTS: dict[str, Any] = {
    "method": "martens",
    "batch_size": "all",  # growing mini-batches would begin anew in every round
    "curvature_batch_size": "part",
    "tol": 0.0,  # a certificate for the samples of one cell says nothing about all of them
}
RESERVED = ("max_iter", "seed", "callback", "checkpoint")  # options that a round sets itself

# What a cell does: (cell, w, *arguments) ↦ the parameters at the end, and the numbers that it hands on.
Run: TypeAlias = Callable[..., tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class RoundState:
    """What one round passes on to the next, and a checkpoint saves.

    Attributes
    ----------
    w : ndarray, shape (p,)
        Parameters.
    loss : float, optional
        F(w), if the method has evaluated it.
    handed : ndarray, optional
        The mean of what the cells handed on besides their steps: log λ, or moments; None before the first
        round.
    memory : dict
        The moments of the outer update.
    rejected : int
        Number of steps in a row that were rejected; 0 after an accepted step.
    rejections : int
        Number of all rejected steps.
    """

    w: np.ndarray
    loss: float | None = None
    handed: np.ndarray | None = None
    memory: Memory = field(default_factory=dict)
    rejected: int = 0
    rejections: int = 0


# Moves by the mean step: (objective, state, step) ↦ the next state and the step length, 0 if rejected.
Move: TypeAlias = Callable[[Objective, RoundState, np.ndarray], tuple[RoundState, float]]


@watched
@resumable
def local_steps(
    objective: Objective,
    w0: np.ndarray,
    *,
    optimizer: str | Callable[..., np.ndarray] = "hessian_free",
    iterations: int = 4,
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

    A round has one reduction of p + 4 numbers or so, however many iterations the cells run: the mean of their
    steps. What is done with it is the choice ``outer``.

    Parameters
    ----------
    objective : Objective
        What is minimized. It must have cells: ``Objective(net, data, cells=16)``.
    w0 : ndarray, shape (p,)
        The start, of float32 or float64.
    optimizer : {"hessian_free", "sgd", "momentum", "nesterov", "adam"} or callable
        What each cell runs on its own samples: `hessian_free`, a method of `first_order`, or a function
        ``(cell, w, iterations, seed, **options) -> w``, in which ``cell`` is an `Objective`.
    iterations : int
        Number of iterations that a cell runs in a round. Those of first-order methods are epochs over the
        cell, unless the option ``batches_per_iteration`` says otherwise.
    options : dict, optional
        Options of the optimizer. For "hessian_free" those of `hessian_free`; by default ``method="martens"``,
        ``curvature_batch_size="part"``, ``batch_size="all"`` and ``tol=0``. ``damping`` is that of the first
        round. For first-order methods ``learning_rate``, ``batch_size`` and ``momentum`` as for
        `first_order`; ``batches_per_iteration``, the number of mini-batches in an iteration, by default an
        epoch; and ``moments``: "reset", the default, if moments begin at zero in every round, or "average",
        if they are averaged over the cells together with the steps. A function is called with the options as
        keyword arguments.
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

    A search evaluates the loss at `LENGTHS` in one reduction, at the first round also at 0. While the longest
    is the best, it goes on to longer ones, and if none lowers the loss, it tries `SHORTER`: in all at most
    four reductions. If no length lowers the loss, or all cells are absent, the step is rejected. The cells
    have then run too far from each other, so that the next rounds are more careful: each rejected step halves
    the learning rate of first-order methods for the rest of the run, as schedules do on a plateau.
    "hessian_free" and functions run half as many iterations after each rejected step in a row, but at least
    one, until a step is accepted, and λ is multiplied by 4. A cell with one iteration and a large λ, and one
    with a small learning rate, steps along its gradient, and the mean of the gradients is the gradient of F.
    The run ends after ten rejected steps in a row.

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
    >>> sgd = local_steps(objective, net.init(0, dtype=float), optimizer="sgd", outer="mean", max_iter=4)
    >>> bool(newton.fun < sgd.fun < newton.history[0].loss), sgd.history[-1].reductions
    (True, 4)
    """
    run = {"max_iter": max_iter, "tol": tol, "seed": seed, "callback": callback, "checkpoint": checkpoint}
    _check_objective(objective, w0, **run)
    local = _local_optimizer(objective, np.array(w0), optimizer, iterations, options, seed)
    move = _outer(outer, outer_learning_rate, outer_momentum)
    store = cast(CheckpointLike | None, checkpoint)  # `resumable` has opened it
    saved = store.load() if store else None
    recorder = Recorder(objective, callback, saved.pop("history") if saved else None)
    state = RoundState(**saved) if saved else RoundState(np.array(w0))
    stop = not saved and recorder.add(state.w, iteration=0, **_measured(recorder, state, tol))
    if not np.isfinite(recorder.history[0].loss):
        raise ValueError("w0: expected a start with finite loss, got NaN or infinity")

    while (ending := _ending(recorder.history[-1], state, stop, max_iter, tol)) is None:
        number, before = recorder.history[-1].iteration + 1, state.w
        steps, arguments = local.plan(state, number)
        size = before.size + local.handed + 1
        mean = objective.average(partial(_in_cell, steps, size), before, *arguments, size=size)
        present, alpha = float(mean[-1]), 0.0
        if present > 0:
            mean /= mean[-1]
            state = replace(state, handed=mean[before.size : -1].copy())
            state, alpha = move(objective, state, mean[: before.size])
        rejected = 0 if alpha else state.rejected + 1
        state = replace(state, rejected=rejected, rejections=state.rejections + (alpha == 0))
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
    return replace(state, w=w, memory=memory, loss=None), rate


def _search(objective: Objective, state: RoundState, step: np.ndarray) -> tuple[RoundState, float]:
    """Move to the best of several multiples of the mean step, or stay if none lowers the loss."""

    def losses(alphas: tuple[float, ...]) -> dict[float, float]:
        values = objective.values_along(state.w, step, alphas)
        return dict(zip(alphas, np.where(np.isfinite(values), values, np.inf).tolist(), strict=True))

    found = losses(LENGTHS if state.loss is not None else (0.0, *LENGTHS))
    before = found.pop(0.0) if state.loss is None else state.loss
    for _ in range(EXTENSIONS):
        longest = max(found)
        if found[longest] >= before or found[longest] > min(found.values()):
            break
        found |= losses(tuple(factor * longest for factor in LONGER))
    if min(found.values()) >= before:
        found |= losses(SHORTER)
    alpha = min(found, key=found.__getitem__)
    if found[alpha] >= before:
        return replace(state, loss=before), 0.0
    return replace(state, w=state.w + state.w.dtype.type(alpha) * step, loss=found[alpha]), alpha


def _in_cell(run: Run, size: int, cell: Objective, w: np.ndarray, *arguments: Any) -> np.ndarray:
    """Return a cell's step, what it hands on, and 1; only zeros if it is absent."""
    try:
        end, handed = run(cell, w, *arguments)
    except (ArithmeticError, np.linalg.LinAlgError):
        return np.zeros(size, w.dtype)
    vector = np.concatenate([end - w, handed, [1]]).astype(w.dtype)
    return vector if np.isfinite(vector).all() else np.zeros(size, w.dtype)


def _draws(seed: int, cell: Objective, number: int = 0) -> int:
    """Return the seed of the draws of one cell, in one round."""
    return int(np.random.SeedSequence([seed, cell.number, number]).generate_state(1)[0])


class LocalOptimizer(Protocol):
    """What the cells run: `handed` is how many numbers each hands on besides its step."""

    @property
    def handed(self) -> int:
        """Number of these numbers."""

    def plan(self, state: RoundState, number: int) -> tuple[Run, tuple[Any, ...]]:
        """Return what every cell runs in a round, and the arguments besides cell and w."""

    def entries(self, state: RoundState) -> dict[str, float]:
        """Return entries for the record of a round."""


@dataclass(frozen=True)
class LocalHessianFree:
    """Every cell runs `hessian_free` and hands on log λ."""

    iterations: int
    options: dict[str, Any]
    seed: int
    handed: ClassVar[int] = 1

    def entries(self, state: RoundState) -> dict[str, float]:
        """Return λ for the next round, once the cells have handed one on."""
        if state.handed is None:
            return {}
        if self.options.get("damping") == 0:  # which no rule changes, and which has no logarithm
            return {"damping": 0.0}
        return {"damping": float(np.exp(state.handed[0])) * (RAISE if state.rejected else 1.0)}

    def plan(self, state: RoundState, number: int) -> tuple[Run, tuple[Any, ...]]:
        """Return the run, with fewer iterations and a larger λ after rejected steps."""
        iterations = max(1, self.iterations >> state.rejected)
        options = self.options | self.entries(state)
        return _run_hessian_free, (iterations, options, self.seed, number)


def _run_hessian_free(
    cell: Objective, w: np.ndarray, iterations: int, options: dict[str, Any], seed: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Run `hessian_free` in one cell."""
    try:
        result = hessian_free(cell, w, max_iter=iterations, seed=_draws(seed, cell, number), **options)
    except ValueError:
        loss, g = cell.value_and_gradient(w)  # a start that is not finite is no wrong argument here
        if np.isfinite(loss) and np.isfinite(g).all():
            raise
        raise FloatingPointError("the loss of a cell, or its gradient, is not finite") from None
    damping = max(result.history[-1].damping, float(np.finfo(w.dtype).tiny))
    return result.x, np.log([damping])


@dataclass(frozen=True)
class LocalFirstOrder:
    """Every cell takes steps along the gradients of its mini-batches; its moments may be averaged."""

    method: str
    rate: Callable[[int], float]
    momentum: float
    batch_size: int
    steps: int
    moments: tuple[str, ...]
    seed: int
    size: int

    @property
    def handed(self) -> int:
        """The moments of an update are as long as the parameters."""
        return len(self.moments) * self.size

    def entries(self, state: RoundState) -> dict[str, float]:
        """Return nothing."""
        return {}

    def plan(self, state: RoundState, number: int) -> tuple[Run, tuple[Any, ...]]:
        """Return the run, with the learning rates of this round, halved by each rejected step."""
        first = (number - 1) * self.steps
        rates = [self.rate(t) * 0.5**state.rejections for t in range(first, first + self.steps)]
        moments = state.handed if self.moments and state.handed is not None else np.zeros(self.handed)
        memory = dict(zip(self.moments, moments.reshape(-1, self.size), strict=True))
        since = 0 if self.moments else first
        common = self.method, self.momentum, self.batch_size, self.seed
        return _run_first_order, (rates, memory, first, since, *common)


def _run_first_order(
    cell: Objective,
    w: np.ndarray,
    rates: list[float],
    moments: Mapping[str, np.ndarray],
    first: int,
    since: int,
    method: str,
    momentum: float,
    batch_size: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Take the steps of one round in one cell. Its mini-batches go on where those of the last round ended."""
    w, memory = w.copy(), {name: moment.astype(w.dtype) for name, moment in moments.items()}
    update, seed = METHODS[method](momentum), _draws(seed, cell)
    take_steps(cell, w, update, memory, rates, batch_size, seed, first=first, since=since)
    return w, np.concatenate([np.empty(0, w.dtype), *(memory[name] for name in moments)])


@dataclass(frozen=True)
class LocalFunction:
    """Every cell runs a function of the user's own."""

    optimizer: Callable[..., np.ndarray]
    iterations: int
    options: dict[str, Any]
    seed: int
    handed: ClassVar[int] = 0

    def entries(self, state: RoundState) -> dict[str, float]:
        """Return nothing, because a function hands nothing on."""
        return {}

    def plan(self, state: RoundState, number: int) -> tuple[Run, tuple[Any, ...]]:
        """Return the run, with fewer iterations after rejected steps."""
        iterations = max(1, self.iterations >> state.rejected)
        return _run_function, (self.optimizer, iterations, self.options, self.seed, number)


def _run_function(
    cell: Objective,
    w: np.ndarray,
    optimizer: Callable[..., np.ndarray],
    iterations: int,
    options: dict[str, Any],
    seed: int,
    number: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Run a user's function in one cell."""
    end = optimizer(cell, w.copy(), iterations, _draws(seed, cell, number), **options)
    if not isinstance(end, np.ndarray) or end.shape != w.shape or end.dtype.kind not in "fiu":
        name = getattr(optimizer, "__name__", "the function")
        raise ValueError(f"optimizer: expected {name} to return parameters ({w.size},), got {shown(end)}")
    return end, np.empty(0)


def _check_objective(objective: Any, w0: Any, **run: Any) -> None:
    """Check the objective and the arguments that every optimizer takes; an error names the argument."""
    check_run(objective, w0, **run)
    check_methods("objective", objective, ("average", "values_along"), "hfnb.Objective(net, data, cells=16)")
    if objective.cells is None:
        raise ValueError(
            "objective: expected one with cells, got one without: give cells=16 where it is made"
        )


def _local_optimizer(
    objective: Objective, w: np.ndarray, optimizer: Any, iterations: Any, options: Any, seed: int
) -> LocalOptimizer:
    """Return what the cells run; an argument that is wrong is found here, before the first round."""
    iterations = check_positive_int("iterations", iterations)
    if not isinstance(options, dict | None) or not all(isinstance(name, str) for name in options or {}):
        raise TypeError(
            f"options: expected a dictionary with names as its keys or None, got {shown(options)}"
        )
    options = options or {}
    if callable(optimizer):
        return LocalFunction(optimizer, iterations, options, seed)
    check_choice("optimizer", optimizer, ("hessian_free", *METHODS), " or a function")
    smallest = _Bowl(w, objective.n // cast(int, objective.cells))
    try:
        if optimizer == "hessian_free":
            return _local_hessian_free(smallest, w, iterations, DEFAULTS | options, seed)
        return _local_first_order(smallest, w, optimizer, iterations, seed, **options)
    except (TypeError, ValueError) as error:
        raise type(error)(f"options: {error}") from None


def _local_hessian_free(
    bowl: "_Bowl", w: np.ndarray, iterations: int, options: dict[str, Any], seed: int
) -> LocalHessianFree:
    """Return `hessian_free` for the cells, after an iteration on a bowl, which checks the options."""
    for name in RESERVED:
        if name in options:
            raise ValueError(f"expected options of hessian_free besides {', '.join(RESERVED)}, got {name}")
    hessian_free(bowl, w, max_iter=1, **options)
    return LocalHessianFree(iterations, options, seed)


def _local_first_order(
    bowl: "_Bowl",
    w: np.ndarray,
    method: str,
    iterations: int,
    seed: int,
    *,
    learning_rate: float | Callable[[int], float] = 0.1,
    batch_size: int | None = None,
    momentum: float = 0.9,
    batches_per_iteration: int | None = None,
    moments: str = "reset",
) -> LocalFirstOrder:
    """Return a first-order method for the cells, after its start on a bowl, which checks the options."""
    batch_size = min(64, bowl.n) if batch_size is None else batch_size
    given: dict[str, Any] = {"learning_rate": learning_rate, "batch_size": batch_size, "momentum": momentum}
    first_order(bowl, w, method=method, max_iter=0, **given)
    rate = schedule(learning_rate)
    rate(0)
    if batches_per_iteration is None:
        batches_per_iteration = bowl.n // batch_size
    batches = check_positive_int("batches_per_iteration", batches_per_iteration)
    averaged = check_choice("moments", moments, ("reset", "average")) == "average"
    names = MOMENTS[method] if averaged else ()
    return LocalFirstOrder(method, rate, momentum, batch_size, iterations * batches, names, seed, w.size)


class _Bowl:
    """½‖w − c‖² with c beside the start, and with as many samples as a cell: to check options on it."""

    def __init__(self, w: np.ndarray, n: int) -> None:
        self.c, self.n, self.counts = w - w.dtype.type(1), n, Counts()

    def value(self, w: np.ndarray, sample: Sample | None = None) -> float:
        """Return the value."""
        return 0.5 * dot(w - self.c, w - self.c)

    def value_and_gradient(self, w: np.ndarray, sample: Sample | None = None) -> tuple[float, np.ndarray]:
        """Return the value and the gradient."""
        return self.value(w), w - self.c

    def values_along(
        self, w: np.ndarray, d: np.ndarray, alphas: Any, sample: Sample | None = None
    ) -> np.ndarray:
        """Return the values at several points."""
        points = np.atleast_1d(alphas)[:, None] * np.atleast_2d(d) + w
        return np.array([self.value(point) for point in points])

    def curvature(self, w: np.ndarray, kind: Any = "hessian", sample: Sample | None = None) -> LinearOperator:
        """Return the identity."""
        return operator(np.copy, w)
