"""What the cells of `local_steps` run: the optimizers, their arguments for a round, and what they hand on.

Nothing stays in a cell: the functions that run there are of this module, and all that they need comes as
arguments, so that a cell may move to another engine between two rounds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb.krylov import dot, norm
from hfnb.objectives import Objective
from hfnb.objectives.costs import Counts
from hfnb.objectives.curvature import operator
from hfnb.objectives.sampling import Sample
from hfnb.optimizers._first_order import METHODS, MOMENTS, Memory, first_order, schedule, take_steps
from hfnb.optimizers._hessian_free import hessian_free
from hfnb.validation import check_choice, check_positive_int, shown

# What `hessian_free` uses in a cell unless the user's options say otherwise.
DEFAULTS: dict[str, Any] = {
    "method": "auto",
    "batch_size": "all",  # growing mini-batches would begin anew in every round
    "curvature_batch_size": "part",
    "tol": 0.0,  # a certificate for the samples of one cell says nothing about all of them
}
# Options of `hessian_free` that a round sets itself, and one that needs an objective with cells.
RESERVED = ("max_iter", "seed", "callback", "checkpoint", "solves")
FIRST_ORDER_OPTIONS = {"learning_rate", "batch_size", "momentum", "batches_per_iteration", "moments"}

RAISE = 4.0  # the factor of λ after a rejected step

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
    radius : float
        The largest norm of a cell's step; infinite until a search finds that cells go too far.
    halvings : int
        How often the number of iterations is halved, for the same reason.
    """

    w: np.ndarray
    loss: float | None = None
    handed: np.ndarray | None = None
    memory: Memory = field(default_factory=dict)
    rejected: int = 0
    rejections: int = 0
    radius: float = np.inf
    halvings: int = 0

    def after(self, alpha: float, length: float) -> "RoundState":
        """Return the state after a search: cells go less far if the best length is below ½ of the mean step.

        Parameters
        ----------
        alpha : float
            The best length; 0 if the step was rejected.
        length : float
            The norm of the mean step.

        Returns
        -------
        RoundState
            The state. The radius follows a rule of trust regions. It shrinks to a quarter or, if that is
            more, by the factor α if α < ½, and grows by the factor α, or 2 if that is more, if α ≥ 1.
        """
        rejected, rejections = (0, self.rejections) if alpha else (self.rejected + 1, self.rejections + 1)
        radius, halvings = self.radius, self.halvings
        if alpha < 0.5:
            radius = max(alpha, 0.25) * (radius if np.isfinite(radius) else length)
            halvings += 1
        elif alpha >= 1:
            radius, halvings = max(alpha, 2.0) * radius, max(halvings - 1, 0)
        return replace(self, rejected=rejected, rejections=rejections, radius=radius, halvings=halvings)


class LocalOptimizer:
    """What the cells run in each round.

    Attributes
    ----------
    handed : int
        How many numbers a cell hands on besides its step.
    """

    @property
    def handed(self) -> int:
        """How many numbers a cell hands on besides its step; none by default."""
        return 0

    def entries(self, state: RoundState) -> dict[str, float]:
        """Return entries {name: value} for the record of a round; none by default."""
        return {}

    def plan(self, state: RoundState, number: int) -> tuple[Run, tuple[Any, ...]]:
        """Return what every cell runs in a round.

        Parameters
        ----------
        state : RoundState
            The state before the round.
        number : int
            Number of the round, from 1.

        Returns
        -------
        run : callable
            (cell, w, *arguments) -> the parameters at the end, and the numbers that the cell hands on.
        arguments : tuple
            The arguments besides cell and w, the same for all cells.
        """
        raise NotImplementedError


def local_optimizer(
    objective: Objective, w: np.ndarray, optimizer: Any, iterations: Any, options: Any, seed: int
) -> LocalOptimizer:
    """Return what the cells run; an argument or option that is wrong raises an error that names it.

    Parameters
    ----------
    objective : Objective
        The objective, which has cells.
    w : ndarray, shape (p,)
        The start.
    optimizer, iterations, options, seed : object
        As for `local_steps`.

    Returns
    -------
    LocalOptimizer
        The optimizer.
    """
    iterations = check_positive_int("iterations", iterations)
    if not isinstance(options, dict | None) or not all(isinstance(name, str) for name in options or {}):
        raise TypeError(f"options: expected a dictionary {{name: value}} or None, got {shown(options)}")
    options = options or {}
    if callable(optimizer):
        return LocalFunction(optimizer, iterations, options, seed)
    check_choice("inner", optimizer, ("hessian_free", *METHODS), " or a function")
    names = RESERVED if optimizer == "hessian_free" else options.keys() - FIRST_ORDER_OPTIONS
    for name in options.keys() & names:
        raise ValueError(f"options: expected options of {optimizer} that a cell takes, got {name!r}")
    smallest = _Quadratic(w, objective.n // cast(int, objective.cells))
    try:
        if optimizer == "hessian_free":
            return _local_hessian_free(smallest, w, iterations, DEFAULTS | options, seed)
        return _local_first_order(smallest, w, optimizer, iterations, seed, **options)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"options: {error}") from None


def in_cell(run: Run, size: int, cell: Objective, w: np.ndarray, *arguments: Any) -> np.ndarray:
    """Return a cell's step, what it hands on, and 1; if its result is not finite, only zeros.

    Parameters
    ----------
    run : callable
        What the cell runs.
    size : int
        Length of the vector.
    cell : Objective
        The objective over the samples of the cell.
    w : ndarray, shape (p,)
        Parameters.
    *arguments : object
        Further arguments of ``run``.

    Returns
    -------
    ndarray, shape (size,)
        The vector, in the precision of w. The mean of the last entry over all cells is the fraction of the
        samples whose cells have a result.
    """
    try:
        end, handed = run(cell, w, *arguments)
    except (ArithmeticError, np.linalg.LinAlgError):
        return np.zeros(size, w.dtype)
    vector = np.concatenate([end - w, handed, [1]]).astype(w.dtype)
    return vector if np.isfinite(vector).all() else np.zeros(size, w.dtype)


def _within(radius: float, w: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the end of a step from w, shortened to at most this radius."""
    length = norm(end - w)
    return w + w.dtype.type(radius / length) * (end - w) if length > radius else end


def _draws(seed: int, cell: Objective, number: int = 0) -> int:
    """Return the seed of the draws of one cell, in one round."""
    return int(np.random.SeedSequence([seed, cell.number, number]).generate_state(1)[0])


@dataclass(frozen=True)
class LocalHessianFree(LocalOptimizer):
    """Every cell runs `hessian_free` and hands on log λ."""

    iterations: int
    options: dict[str, Any]
    seed: int

    @property
    def handed(self) -> int:
        """One number, log λ."""
        return 1

    def entries(self, state: RoundState) -> dict[str, float]:
        """Return λ for the next round, once the cells have handed one on."""
        if state.handed is None:
            return {}
        if self.options.get("damping") == 0:  # which no rule changes, and which has no logarithm
            return {"damping": 0.0}
        return {"damping": float(np.exp(state.handed[0])) * (RAISE if state.rejected else 1.0)}

    def plan(self, state: RoundState, number: int) -> tuple[Run, tuple[Any, ...]]:
        """Return the run; after cells went too far, with fewer iterations, shorter steps, and a larger λ."""
        iterations = max(1, self.iterations >> state.halvings)
        options = self.options | self.entries(state)
        return _run_hessian_free, (iterations, options, self.seed, number, state.radius)


def _run_hessian_free(
    cell: Objective,
    w: np.ndarray,
    iterations: int,
    options: dict[str, Any],
    seed: int,
    number: int,
    radius: float,
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
    return _within(radius, w, result.x), np.log([damping])


@dataclass(frozen=True)
class LocalFirstOrder(LocalOptimizer):
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
        """The moments that are averaged, each as long as the parameters."""
        return len(self.moments) * self.size

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
class LocalFunction(LocalOptimizer):
    """Every cell runs a function of the user's own."""

    optimizer: Callable[..., np.ndarray]
    iterations: int
    options: dict[str, Any]
    seed: int

    def plan(self, state: RoundState, number: int) -> tuple[Run, tuple[Any, ...]]:
        """Return the run; after cells went too far, with fewer iterations and shorter steps."""
        iterations = max(1, self.iterations >> state.halvings)
        return _run_function, (self.optimizer, iterations, self.options, self.seed, number, state.radius)


def _run_function(
    cell: Objective,
    w: np.ndarray,
    optimizer: Callable[..., np.ndarray],
    iterations: int,
    options: dict[str, Any],
    seed: int,
    number: int,
    radius: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Run a user's function in one cell."""
    end = optimizer(cell, w.copy(), iterations, _draws(seed, cell, number), **options)
    if not isinstance(end, np.ndarray) or end.shape != w.shape or end.dtype.kind not in "fiu":
        name = getattr(optimizer, "__name__", "the function")
        raise ValueError(f"inner: expected {name} to return parameters ({w.size},), got {shown(end)}")
    return _within(radius, w, end), np.empty(0)


def _local_hessian_free(
    quadratic: "_Quadratic", w: np.ndarray, iterations: int, options: dict[str, Any], seed: int
) -> LocalHessianFree:
    """Return `hessian_free` for the cells; an iteration on `_Quadratic` checks the options."""
    hessian_free(quadratic, w, max_iter=1, **options)
    return LocalHessianFree(iterations, options, seed)


def _local_first_order(
    quadratic: "_Quadratic",
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
    """Return a first-order method for the cells; its start on `_Quadratic` checks the options."""
    batch_size = min(64, quadratic.n) if batch_size is None else batch_size
    given: dict[str, Any] = {"learning_rate": learning_rate, "batch_size": batch_size, "momentum": momentum}
    first_order(quadratic, w, method=method, max_iter=0, **given)
    rate = schedule(learning_rate)
    rate(0)
    if batches_per_iteration is None:
        batches_per_iteration = quadratic.n // batch_size
    batches = check_positive_int("batches_per_iteration", batches_per_iteration)
    averaged = check_choice("moments", moments, ("reset", "average")) == "average"
    names = MOMENTS[method] if averaged else ()
    return LocalFirstOrder(method, rate, momentum, batch_size, iterations * batches, names, seed, w.size)


class _Quadratic:
    """½‖w − c‖² with c ≠ w0, and with as many samples as a cell has: options are checked on it."""

    def __init__(self, w: np.ndarray, n: int) -> None:
        self.c, self.n, self.cells, self.counts = w - w.dtype.type(1), n, None, Counts()

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
