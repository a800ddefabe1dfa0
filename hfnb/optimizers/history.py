"""The record of each iteration of an optimizer, and the result of a run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.objectives.costs import COSTS
from hfnb.objectives.profiler import Clock
from hfnb.objectives.protocols import ObjectiveLike
from hfnb.validation import asks_to_stop, shown


class Status(StrEnum):
    """Why a run ended: ``result.status``. ``result.message`` says the same with numbers.

    Examples
    --------
    >>> print(Status.MAX_ITER)
    the maximum number of iterations was reached
    """

    MINIMUM = "the point is a minimum by a certificate, and the loss cannot be lowered further"
    UNDECIDED = "the gradient vanishes, and a certificate cannot say whether the point is a minimum"
    NO_PROGRESS = "no step lowered the loss"
    MAX_ITER = "the maximum number of iterations was reached"
    CALLBACK = "the callback asked to stop"
    SMALL_GRADIENT = "the gradient norm is within the tolerance"
    DIVERGED = "the loss is not finite"


class Record(dict[str, Any]):
    """The record of one iteration: a dictionary whose entries are also attributes.

    Attributes
    ----------
    iteration : int
        Number of the iteration; 0 is the start.
    loss : float
        F(w) after the iteration, over all samples or the mini-batch of the iteration.
    gradient_norm : float
        ‖∇F(w)‖ on the same samples.
    damping : float
        λ for the next iteration (`hessian_free`).
    direction : str
        The direction of the step: "newton", "negative curvature", "curvilinear", "subspace", a sum of two, as
        in "newton and negative curvature", or "none" after a rejected step (`hessian_free`).
    alpha, step_norm : float
        Step length α, and the norm of the step; 0 after a rejected step (`hessian_free`).
    curvature : float or None
        The most negative curvature dᵀBd of a unit vector d that the solver or the certificate found, None if
        there was none (`hessian_free`).
    krylov_iterations : int
        Iterations of the solver (`hessian_free`).
    krylov_status : str
        Why the solve ended, the reason of the certificate, or what was not finite (`hessian_free`).
    samples : int
        Samples in all losses, gradients and products since the start of the run.
    passes : float
        Passes over the data, ``samples`` / n.
    products, reductions : int
        Curvature products, and reductions over engines, since the start of the run.
    numbers, bytes : int
        Numbers that these reductions summed, and bytes that each engine contributed
        (`hfnb.objectives.costs.Counts`).
    seconds : float
        Time since the start of the run, without that of callbacks.
    profile : dict
        Where the seconds of this iteration went, engine by engine (`hfnb.objectives.profiler`); only in runs
        on engines.
    w : ndarray, shape (p,)
        The parameters; an attribute that exists only during the call of a callback.

    Examples
    --------
    >>> Record(iteration=3, loss=0.5).loss
    0.5
    """

    w: Any

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"record has no {name!r}; it has {', '.join(self)}") from None


class Recorder:
    """Keeps the history of a run: adds the costs so far to each `Record`, and calls the callback with it.

    Parameters
    ----------
    objective : Objective or ObjectiveLike
        What the optimizer minimizes; its ``counts`` are the costs.
    callback : callable or None
        ``callback(record)``; any true value that it returns asks the run to stop.
    history : list of Record, optional
        The history of the run that is continued.

    Attributes
    ----------
    history : list of Record
        A record for each call of `add`.

    Examples
    --------
    >>> from hfnb.problems import rosenbrock
    >>> problem = rosenbrock()
    >>> recorder = Recorder(problem, callback=None)
    >>> recorder.add(problem.start, iteration=0, loss=problem.value(problem.start))
    False
    >>> recorder.result(problem.start, Status.MAX_ITER, "max_iter = 0 reached").nit
    0
    """

    def __init__(
        self,
        objective: ObjectiveLike,
        callback: Callable[[Record], Any] | None,
        history: list[Record] | None = None,
    ) -> None:
        self.objective, self.callback, self.history = objective, callback, list(history or [])
        self._clock = getattr(objective, "clock", None) or Clock()
        self._clock.take()
        last = self.history[-1] if self.history else dict.fromkeys((*self._costs(), "seconds"), 0)
        self._spent = {key: last[key] - value for key, value in self._costs().items()}
        self._start = time.perf_counter() - last["seconds"]

    def _costs(self) -> dict[str, int]:
        """Return the counts of the objective by name."""
        return {key: getattr(self.objective.counts, key) for key in COSTS}

    def add(self, w: np.ndarray, *, iteration: int, loss: float, **values: Any) -> bool:
        """Append a record, and call the callback with it.

        Parameters
        ----------
        w : ndarray, shape (p,)
            The parameters, which the callback reads as ``record.w``.
        iteration : int
            Number of the iteration.
        loss : float
            F(w).
        **values
            Further entries of the record.

        Returns
        -------
        bool
            Whether the callback asks to stop.
        """
        costs = {key: value + self._spent[key] for key, value in self._costs().items()}
        passes, seconds = costs["samples"] / self.objective.n, time.perf_counter() - self._start
        record = Record(
            iteration=iteration,
            loss=loss,
            **values,
            **costs,
            passes=passes,
            seconds=seconds,
            **self._clock.entries(),
        )
        self.history.append(record)
        if self.callback is None:
            return False
        # An attribute, because the history keeps no parameters; a copy, because the callback may keep it.
        record.w = w.copy()
        with self.uncounted():
            stop = asks_to_stop(self.callback, record)
        del record.w
        return stop

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Return a context whose time and evaluations are not counted as costs of the run."""
        before, costs = time.perf_counter(), self._costs()
        with self._clock.stopped():
            yield
        self._start += time.perf_counter() - before
        self._spent = {key: self._spent[key] - value + costs[key] for key, value in self._costs().items()}

    def result(self, w: np.ndarray, status: Status, message: str) -> OptimizeResult:
        """Return the result of the run.

        Parameters
        ----------
        w : ndarray, shape (p,)
            The parameters at the end.
        status : Status
            Why the run ended; MINIMUM and SMALL_GRADIENT are a success.
        message : str
            The same, with numbers.

        Returns
        -------
        OptimizeResult
            ``x``, ``status``, ``success``, ``message``, ``history``, and the last loss and iteration as
            ``fun`` and ``nit``.
        """
        if not isinstance(status, Status):
            raise TypeError(f"status: expected a member of hfnb.Status, got {shown(status)}")
        if not self.history:
            raise ValueError("history: expected at least one record, by Recorder.add, got none")
        last, success = self.history[-1], status in (Status.MINIMUM, Status.SMALL_GRADIENT)
        found = {"status": status, "success": success, "message": message, "history": self.history}
        return OptimizeResult(x=w, fun=last.loss, nit=last.iteration, **found)


def check_result(result: Any) -> OptimizeResult:
    """Return what an optimizer returned; TypeError if it is not a result with parameters."""
    if isinstance(result, OptimizeResult) and "x" in result:
        return result
    raise TypeError(f"optimizer: expected one that returns an OptimizeResult with x, got {shown(result)}")
