"""What an optimizer records of each iteration, and what it returns."""

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
from hfnb.validation import asks_to_stop


class Status(StrEnum):
    """Why a run ended: ``result.status``. ``result.message`` says the same with numbers.

    >>> print(Status.MAX_ITER)
    the largest number of iterations was made
    """

    MINIMUM = "the gradient vanishes, and a certificate says that the point is a minimum"
    UNDECIDED = "the gradient vanishes, and a certificate cannot say whether the point is a minimum"
    NO_PROGRESS = "no step lowered the loss"
    MAX_ITER = "the largest number of iterations was made"
    CALLBACK = "the callback asked to stop"
    SMALL_GRADIENT = "the gradient norm is within the tolerance"
    DIVERGED = "the loss is not finite"


class Record(dict):
    """What one iteration found: a dictionary whose entries are attributes, too.

    Attributes
    ----------
    iteration : int
        Number of the iteration; 0 is the start.
    loss : float
        F(w), over all samples or the iteration's mini-batch, after the iteration.
    gradient_norm : float
        ‖∇F(w)‖ on the same samples.
    damping : float
        λ for the next iteration (`hessian_free`).
    direction : str
        Along what the step went: "newton", "negative curvature", "curvilinear", "subspace", two of them, or
        "none" after a rejected step (`hessian_free`).
    alpha, step_norm : float
        Step length α, and the norm of the whole step; 0 after a rejected step (`hessian_free`).
    curvature : float or None
        The most negative curvature dᵀBd of a unit vector d that the solver or the certificate met, None if it
        met none (`hessian_free`).
    krylov_iterations : int
        Iterations of the solver (`hessian_free`).
    krylov_status : str
        Why the solve ended, what the certificate found, or what was not finite (`hessian_free`).
    samples, passes : int, float
        Samples seen in losses, gradients and products since the start of the run, and the same divided by n.
    products, reductions : int
        Curvature products, and reductions over engines, since the start of the run.
    numbers, bytes : int
        How many numbers and bytes these reductions summed (`hfnb.objectives.costs.Counts`).
    seconds : float
        Time since the start of the run, without that of callbacks.
    profile : dict
        Where engines compute: where the seconds of this iteration went (`hfnb.objectives.profiler`).
    w : ndarray, shape (p,)
        The parameters: an attribute, only while a callback sees the record.

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
    """Keeps the history of a run: adds the costs so far to each `Record`, and shows it to the callback.

    Parameters
    ----------
    objective : Objective or ObjectiveLike
        What the optimizer minimizes; its ``counts`` are the costs.
    callback : callable or None
        ``callback(record)``; any true value that it returns asks the run to stop.
    history : list of Record, optional
        That of the run that is continued.

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
    >>> recorder.result(problem.start, Status.MAX_ITER, "no iteration was asked for").nit
    0
    """

    def __init__(
        self, objective: ObjectiveLike, callback: Callable | None, history: list | None = None
    ) -> None:
        self.objective, self.callback, self.history = objective, callback, list(history or [])
        self._clock = getattr(objective, "clock", None) or Clock()
        self._clock.take()
        last = self.history[-1] if self.history else dict.fromkeys((*self._costs(), "seconds"), 0)
        self._spent = {key: last[key] - value for key, value in self._costs().items()}
        self._start = time.perf_counter() - last["seconds"]

    def _costs(self) -> dict[str, int]:
        return {key: getattr(self.objective.counts, key) for key in COSTS}

    def add(self, w: np.ndarray, **values: Any) -> bool:
        """Append a record, and show it to the callback.

        Parameters
        ----------
        w : ndarray, shape (p,)
            The parameters, which the callback finds as ``record.w``.
        **values
            What the optimizer has to say: ``iteration`` and ``loss`` at least.

        Returns
        -------
        bool
            Whether the callback asks to stop.
        """
        costs = {key: value + self._spent[key] for key, value in self._costs().items()}
        passes, seconds = costs["samples"] / self.objective.n, time.perf_counter() - self._start
        record = Record(**values, **costs, passes=passes, seconds=seconds, **self._clock.entries())
        self.history.append(record)
        if self.callback is None:
            return False
        # An attribute, not an entry: the history keeps no parameters. A copy, which the callback may keep.
        record.w = w.copy()
        with self.uncounted():
            stop = asks_to_stop(self.callback, record)
        del record.w
        return stop

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Leave the time and evaluations inside out of the costs: they measure the run."""
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
            Why the run ended; a minimum and a small gradient are a success.
        message : str
            The same, with numbers.

        Returns
        -------
        OptimizeResult
            ``x``, ``status``, ``success``, ``message``, ``history``, and ``fun`` and ``nit`` of the end.
        """
        last, success = self.history[-1], status in (Status.MINIMUM, Status.SMALL_GRADIENT)
        found = {"status": status, "success": success, "message": message, "history": self.history}
        return OptimizeResult(x=w, fun=last.loss, nit=last.iteration, **found)
