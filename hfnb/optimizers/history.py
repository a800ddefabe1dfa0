"""What an optimizer writes down at each iteration, and what it hands back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from scipy.optimize import OptimizeResult

from hfnb.objectives.costs import COSTS
from hfnb.objectives.profiler import Clock
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

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"record has no {name!r}; it has {', '.join(self)}") from None


class Recorder:
    """Keeps the history of a run: adds the costs so far to each `Record`, and shows it to the callback."""

    def __init__(self, objective, callback: Callable | None, history: list | None = None):
        self.objective, self.callback, self.history = objective, callback, list(history or [])
        self._clock = getattr(objective, "clock", None) or Clock()
        self._clock.take()
        last = self.history[-1] if self.history else dict.fromkeys((*self._costs(), "seconds"), 0)
        self._spent = {key: last[key] - value for key, value in self._costs().items()}
        self._start = time.perf_counter() - last["seconds"]

    def _costs(self):
        return {key: getattr(self.objective.counts, key) for key in COSTS}

    def add(self, w, **values) -> bool:
        """Append a record; return True where the callback, which finds w as ``record.w``, asks to stop."""
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

    def result(self, w, status: Status, message: str) -> OptimizeResult:
        """Return the run's result; ``fun`` and ``nit`` are those of the last record."""
        last, success = self.history[-1], status in (Status.MINIMUM, Status.SMALL_GRADIENT)
        found = {"status": status, "success": success, "message": message, "history": self.history}
        return OptimizeResult(x=w, fun=last.loss, nit=last.iteration, **found)
