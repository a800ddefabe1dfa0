"""When a Krylov solve stops, and what it returns: options, tests of each iterate, statuses, the result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from inspect import Parameter, signature
from typing import Any

import numpy as np

from hfnb.krylov.system import ROUNDING, System
from hfnb.krylov.vectors import dot, norm
from hfnb.validation import (
    asks_to_stop,
    check_bool,
    check_callable,
    check_nonnegative,
    check_positive,
    check_positive_int,
)


class Status(StrEnum):
    """Why a Krylov solver stopped; the value of each member is a sentence for the reader.

    A member is a string: it prints as its sentence, equals it and has the methods of `str`.

    Examples
    --------
    >>> Status.CALLBACK
    'stopped by the callback'
    >>> Status("stopped by the callback") is Status.CALLBACK
    True
    """

    # A stopping test was met.
    CONVERGED = "converged: the residual is within the tolerance"
    CONVERGED_TO_ROUNDING = "converged: the residual is as small as rounding allows"
    SUBSPACE_CONVERGED = "converged: what is left out of the Krylov space is within the tolerance"
    SUBSPACE_EXHAUSTED = "converged: the Krylov space is exhausted"
    LEAST_SQUARES = "least squares: A maps the residual to zero within the tolerance"
    LITTLE_PROGRESS = "truncated: the model gained too little over the last iterations"
    LITTLE_GAIN = "truncated: the last iteration gained less than the mean one"
    ZERO_RIGHT_HAND_SIDE = "the right-hand side is zero: x = 0"
    BOUNDARY = "boundary: a longer step leads out of the trust region"
    BOUNDARY_BY_CURVATURE = "boundary: non-positive curvature leads out of the trust region"
    # A direction of negative curvature, of A or of A + damping I, ended the solve.
    NON_POSITIVE_CURVATURE = "non-positive curvature: the model has no minimum along the last direction"
    RESIDUAL_CURVATURE = "non-positive curvature: along the residual the model has no minimum"
    INDEFINITE = "negative curvature: the model has no minimum"
    DIRECTION_CURVATURE = "negative curvature: at most -damping/2 along the last direction"
    STEP_CURVATURE = "negative curvature: at most -damping/2 along the step from x0"
    SLOW_RESIDUAL = "negative curvature: the residual falls too slowly for positive curvature"
    # The solve ended early.
    MAX_ITER = "max_iter iterations done"
    MAX_PRODUCTS = "max_iter products done"
    CALLBACK = "stopped by the callback"
    # The solve cannot go on.
    BREAKDOWN = "breakdown: A maps the residual to zero, so that no step reduces it"
    STAGNATED = "stagnated: the true residual is above the tolerance"
    DIVERGED = "diverged: x grew until rounding leaves no digit of the residual"
    OVERFLOW = "out of range: the squares of the right-hand side overflow; scale the system"
    UNDERFLOW = "out of range: the squares of the right-hand side vanish; scale the system"

    def __repr__(self) -> str:
        """Return the sentence in quotes, as a string is shown."""
        return repr(self.value)


@dataclass
class KrylovResult:
    """The result of a Krylov solver of (A + damping I) x = b.

    Attributes
    ----------
    x : ndarray (n,)
        The solution if the residual test was met, otherwise ``best``.
    status : Status or str
        Why the solver stopped; a solver of your own may give any sentence.
    success : bool
        Whether a stopping test was met.
    iterations : int
        Iterates after x0.
    products : int
        How often A was applied.
    residual_norms, models : list of float
        ‖b − (A + damping I)x‖ and q(x) = ½xᵀ(A + damping I)x − bᵀx of each iterate, x0 first.
    best : ndarray (n,)
        The iterate of least q.
    direction : ndarray (n,) or None
        The unit vector d of most negative curvature of the undamped A among the vectors of the solve; None
        if no curvature was negative by more than rounding.
    curvature : float or None
        dᵀAd, its Rayleigh quotient.
    iterates : list of (int, ndarray (n,))
        Iterates for backtracking, each with its number: several of them including the last one, or only the
        best one.
    norm : float
        The largest ‖Av‖/‖v‖ of the solve, a lower bound of ‖A‖; 0 if unknown.
    """

    x: np.ndarray
    status: str
    success: bool
    iterations: int
    products: int
    residual_norms: list[float]
    models: list[float]
    best: np.ndarray
    direction: np.ndarray | None = None
    curvature: float | None = None
    iterates: list[tuple[int, np.ndarray]] = field(default_factory=list)
    norm: float = 0.0

    @property
    def model(self) -> float:
        """The least value of the quadratic model among the iterates, q(best)."""
        return min(self.models)


@dataclass(frozen=True)
class Stopping:
    """When a solve of (A + damping I) x = b stops.

    Every solver takes these fields as keyword options, except that ``overhead`` and ``stop_indefinite`` are
    options only of solvers whose signatures name them.

    Parameters
    ----------
    rtol, atol : float
        Stop when ‖r‖ ≤ max(rtol ‖b‖, atol), r = b − (A + damping I)x.
    progress : float
        Martens' ε. With k = max(10, i/10), stop at iteration i if q < 0 and the decrease of q in the last k
        iterations is less than kε|q|, where q(x) = ½xᵀ(A + damping I)x − bᵀx. The rule takes the least q so
        far, because not every solver lowers q in every iteration. 0 turns the rule off.
    overhead : float or None
        Stop when iteration i lowered q by less than −q/(i + overhead). That is the mean gain of an iteration
        if the work around the solve costs as much as ``overhead`` iterations. None turns the rule off.
    max_iter : int or None
        The largest number of iterations; None means the solver's own limit, 10 n for most solvers.
    stop_indefinite : bool
        Stop once a vector has shown that A + damping I is not positive definite: q then has no minimum.
    callback : callable or None
        ``callback(x)`` sees each iterate after x0; any true value that it returns stops the solve.

    Raises
    ------
    TypeError, ValueError
        For a value of another kind or out of range; the message names the field.

    References
    ----------
    Martens, "Deep learning via Hessian-free optimization" (2010), §4.4, for ``progress``; Charnov, "Optimal
    foraging, the marginal value theorem", Theor. Popul. Biol. 9 (1976), for ``overhead``.

    Examples
    --------
    >>> Stopping(rtol=1e-8, max_iter=50).progress
    0.0005
    """

    rtol: float = 1e-5
    atol: float = 0.0
    progress: float = 5e-4
    overhead: float | None = None
    max_iter: int | None = None
    stop_indefinite: bool = False
    callback: Callable[[np.ndarray], Any] | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {"stop_indefinite": check_bool("stop_indefinite", self.stop_indefinite)}
        for name in ("rtol", "atol", "progress"):
            checked[name] = check_nonnegative(name, getattr(self, name))
        if self.overhead is not None:
            checked["overhead"] = check_positive("overhead", self.overhead)
        if self.max_iter is not None:
            checked["max_iter"] = check_positive_int("max_iter", self.max_iter)
        check_callable("callback", self.callback, "(x) -> bool", optional=True)
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen

    @classmethod
    def from_options(
        cls, solver: Callable[..., KrylovResult], options: Mapping[str, Any], **own: Any
    ) -> "Stopping":
        """Return the stopping options of one call of a solver.

        Parameters
        ----------
        solver : callable
            The solver. If an option is unknown, the message lists those of the solver.
        options : mapping
            The keyword arguments ``**stopping`` of the call.
        **own
            ``overhead`` and ``stop_indefinite``, if the solver names them in its signature.

        Returns
        -------
        Stopping
            The options, with defaults for those that were not given.

        Raises
        ------
        TypeError
            If ``options`` has a name that is not an option of the solver.

        Examples
        --------
        >>> from hfnb.krylov import cg
        >>> Stopping.from_options(cg, {"tol": 1e-3})
        Traceback (most recent call last):
        TypeError: tol: expected one of the options of cg (damping, ..., callback), got an unknown name
        """
        for name in options:
            if name not in SHARED:
                known = ", ".join(option_names(solver) or SHARED)
                raise TypeError(
                    f"{name}: expected one of the options of {solver.__name__} ({known}), got an unknown name"
                )
        return cls(**options, **own)


# The stopping options that every solver takes.
SHARED = [each.name for each in fields(Stopping) if each.name not in ("overhead", "stop_indefinite")]


def option_names(solver: Callable[..., Any]) -> list[str] | None:
    """Return the names of the options that a solver takes, None if it takes any name.

    Parameters
    ----------
    solver : callable
        ``solver(A, b, x0=None, *, damping=0.0, ..., **stopping)``. ``**stopping`` stands for the fields of
        `Stopping` that every solver takes, and a parameter ``**`` of any other name means that the
        solver takes options of any name.

    Returns
    -------
    list of str or None
        The names, in the order of the signature; None if it takes any name.

    Examples
    --------
    >>> option_names(lambda A, b, x0=None, *, damping, depth=1, **stopping: ...)
    ['damping', 'depth', 'rtol', 'atol', 'progress', 'max_iter', 'callback']
    """
    names: list[str] = []
    for each in signature(solver).parameters.values():
        if each.kind is Parameter.KEYWORD_ONLY:
            names.append(each.name)
        elif each.kind is Parameter.VAR_KEYWORD:
            if each.name != "stopping":
                return None
            names += SHARED
    return names


# Iterations between two computations of ‖x‖, which the estimate of rounding needs, unless q shows that x has
# grown, and between two copies of the iterate of a solver that lowers q in every iteration.
INTERVAL = 4


class Monitor:
    """Records the iterates of one solve, keeps the best of them and decides when the solve ends.

    Parameters
    ----------
    system : System
        The system that is solved.
    stopping : Stopping
        The tests to apply.
    keep : bool
        Whether to keep iterates 1, 2, 3, ..., ⌈1.3ʲ⌉, ... for backtracking, and not only the best one.
    restarts : bool
        Whether the solver can go on from a residual that the monitor has replaced (see Notes).
    descends : bool
        Whether each step of the solver lowers q, until the solver calls `may_rise`. The last iterate is then
        the best. A copy of it is made only in every fourth iteration, in case x diverges.
    default_max_iter : int, optional
        The largest number of iterations if ``stopping`` has none; 10 n by default.

    Attributes
    ----------
    tolerance : float
        The ‖r‖ to reach, max(rtol ‖b‖, atol); a solver may change it.
    max_iter, iteration : int
        The largest number of iterations, and the number so far.
    models, residual_norms : list of float
        q and ‖r‖ of each iterate.
    best : ndarray (n,)
        The iterate of least q.
    replaced : bool
        Whether the last call of `stop` has replaced the residual.
    solved, success : bool
        Whether the last iterate met the residual test, and whether it met any test. A solver with a
        test of its own sets success, and solved as well if the result is the last iterate, not the best.

    Notes
    -----
    q(x) = ½xᵀ(A + damping I)x − bᵀx = −½xᵀ(b + r) is computed from the residual r, without a product, unless
    the solver knows how much its step has changed q.

    A residual that is updated and not recomputed deviates from b − (A + damping I)x by rounding errors of
    about eps(‖A‖‖x‖ + ‖r‖) an iteration. If r meets the tolerance, but the sum of these errors exceeds it,
    the monitor recomputes the residual by one more product, writes it over r and sets ``replaced``.

    Examples
    --------
    >>> monitor = Monitor(System(np.eye(2), np.array([3.0, 4.0])), Stopping(rtol=0.1))
    >>> monitor.tolerance, monitor.max_iter
    (0.5, 20)
    """

    def __init__(
        self,
        system: System,
        stopping: Stopping,
        *,
        keep: bool = False,
        restarts: bool = True,
        descends: bool = False,
        default_max_iter: int | None = None,
    ) -> None:
        self.system, self.stopping, self.keep, self.restarts = system, stopping, keep, restarts
        self.max_iter = stopping.max_iter or default_max_iter or 10 * system.b.size
        small = system.b_norm < np.inf
        self.tolerance = max(stopping.rtol * system.b_norm, stopping.atol) if small else 0.0
        self.models: list[float] = []
        self.residual_norms: list[float] = []
        self.iterates: list[tuple[int, np.ndarray]] = []
        self.descends, self.best = descends, np.empty_like(system.b)
        self._copy, self._copied = self.best, 0
        self.solved = self.success = False
        self.replaced = False
        self._least: list[float] = []
        self._next_kept, self._x_norm, self._drift, self._attained = 1.0, 0.0, 0.0, False

    @property
    def iteration(self) -> int:
        """The number of iterates after x0."""
        return len(self.models) - 1

    def stop(
        self,
        x: np.ndarray,
        r: np.ndarray,
        *,
        q: float | None = None,
        r_norm: float | None = None,
    ) -> Status | None:
        """Record an iterate and say whether to stop there.

        Parameters
        ----------
        x, r : ndarray (n,)
            The iterate and its residual, which may be overwritten by a recomputed one.
        q, r_norm : float, optional
            q(x) and ‖r‖, if the solver knows them; this saves two dot products and one.

        Returns
        -------
        Status or None
            The reason to stop, None to go on.
        """
        r_norm, self.replaced = norm(r) if r_norm is None else r_norm, False
        q = self._model(x, r) if q is None else q
        grown = 2 * abs(q) > self._x_norm * (self.system.b_norm + r_norm)  # since 2|q| ≤ ‖x‖ ‖b + r‖
        if grown or len(self.models) % INTERVAL == 0 or r_norm <= self.tolerance:
            self._x_norm = norm(x)
        rounding = self.system.eps * (self.system.norm * self._x_norm + r_norm)
        self._drift += rounding
        if self.models and r_norm <= self.tolerance < self._drift:
            self.system.residual(x, out=r)
            r_norm, self._drift, self.replaced = norm(r), rounding, True
            self._attained, q = r_norm <= ROUNDING * rounding, self._model(x, r)
        if self.models and not rounding < max(self.system.b_norm, self.residual_norms[0]):
            self._go_back()
            return Status.DIVERGED
        return self.record(x, q, r_norm)

    def _model(self, x: np.ndarray, r: np.ndarray) -> float:
        """Return q(x) = −½xᵀ(b + r)."""
        return -0.5 * (dot(x, self.system.b) + dot(x, r))

    def record(self, x: np.ndarray, q: float, r_norm: float) -> Status | None:
        """Record an iterate whose q and ‖r‖ the solver knows, and say whether to stop there.

        Parameters
        ----------
        x : ndarray (n,)
            The iterate.
        q, r_norm : float
            q(x) and the norm of the residual.

        Returns
        -------
        Status or None
            The reason to stop, None to go on.
        """
        self.models.append(q)
        self.residual_norms.append(r_norm)
        if self.descends and self.iteration % INTERVAL:
            self.best = x
        elif self.descends or not self._least or q < self._least[-1]:
            self._copy_best(x)
        self._least.append(min(q, self._least[-1]) if self._least else q)
        if self.keep and self.iteration >= self._next_kept:
            self._keep(x)
        stopped = False
        if self.iteration > 0 and self.stopping.callback is not None:
            stopped = asks_to_stop(self.stopping.callback, x)
        return self._reason(r_norm, stopped)

    def may_rise(self, x: np.ndarray) -> None:
        """Note, before a solver that ``descends`` changes x, that q may rise from now on.

        Parameters
        ----------
        x : ndarray (n,)
            The last iterate.
        """
        if self.descends:
            self._copy_best(x)
            self.descends = False

    def _copy_best(self, x: np.ndarray) -> None:
        """Keep a copy of x, the iterate of least q."""
        np.copyto(self._copy, x)
        self.best, self._copied = self._copy, self.iteration

    def _go_back(self) -> None:
        """Forget the iterates after the last copy: rounding may have left no digit of their residuals."""
        if self.best is not self._copy:
            self.best, kept = self._copy, self._copied + 1
            for records in (self.models, self.residual_norms, self._least):
                del records[kept:]
            self.iterates = [each for each in self.iterates if each[0] < kept]

    def _reason(self, r_norm: float, stopped: bool) -> Status | None:
        """Apply the tests in turn to the iterate that was recorded last."""
        self.solved = r_norm <= self.tolerance or self._attained
        progress, overhead = self.stopping.progress, self.stopping.overhead
        little_progress = progress > 0 and self._makes_little_progress(progress)
        little_gain = overhead is not None and self._gains_little(overhead)
        self.success = self.solved or little_progress or little_gain
        if not 0 < self.system.b_norm < np.inf:
            return self._without_norm()
        if self.solved:
            return Status.CONVERGED_TO_ROUNDING if self._attained else Status.CONVERGED
        if self.replaced and not self.restarts:
            return Status.STAGNATED
        if little_progress:
            return Status.LITTLE_PROGRESS
        if little_gain:
            return Status.LITTLE_GAIN
        if self.stopping.stop_indefinite and self.system.indefinite:
            return Status.INDEFINITE
        if stopped:
            return Status.CALLBACK
        return Status.MAX_ITER if self.iteration >= self.max_iter else None

    def _without_norm(self) -> Status:
        """Return why the solve cannot begin: ‖b‖ is 0, or the squares of b overflow or underflow."""
        if not np.any(self.system.b):
            return Status.ZERO_RIGHT_HAND_SIDE
        self.solved = self.success = False
        return Status.OVERFLOW if self.system.b_norm else Status.UNDERFLOW

    def _makes_little_progress(self, progress: float) -> bool:
        """Whether Martens' rule ends the solve."""
        k = max(10, self.iteration // 10)
        if self.iteration <= k or self._least[-1] >= 0:
            return False
        return self._least[-1] - self._least[-1 - k] > k * progress * self._least[-1]

    def _gains_little(self, overhead: float) -> bool:
        """Whether the last iteration lowered q by less than the mean iteration, the overhead counted."""
        i, least = self.iteration, self._least
        return i > 1 and least[-1] < 0 and least[-2] - least[-1] < -least[-1] / (i + overhead)

    def _keep(self, x: np.ndarray) -> None:
        """Keep iterates ⌈1.3ʲ⌉ for backtracking (Martens 2010, §4.6): equally many for each doubling."""
        self.iterates.append((self.iteration, x.copy()))
        while np.ceil(self._next_kept) <= self.iteration:
            self._next_kept *= 1.3

    def result(self, x: np.ndarray, status: str) -> KrylovResult:
        """Return the result of the solve.

        Parameters
        ----------
        x : ndarray (n,)
            The last iterate.
        status : Status or str
            Why the solve ended.

        Returns
        -------
        KrylovResult
            ``x`` is the last iterate if it met the residual test, otherwise the best one.
        """
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
