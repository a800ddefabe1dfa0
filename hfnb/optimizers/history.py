"""What an optimizer writes down at each iteration, and what it hands back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from scipy.optimize import OptimizeResult

from hfnb.objectives.costs import COSTS
from hfnb.objectives.profiler import Clock
from hfnb.validation import asks_to_stop


class Record(dict):
    """What one iteration found: a dictionary whose entries are attributes, too.

    >>> Record(iteration=3, loss=0.5).loss
    0.5
    """

    w: Any  # the parameters, while a callback sees the record

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"record has no {name!r}; it has {', '.join(self)}") from None


class Recorder:
    """Keeps the history of a run: adds the costs spent so far to each record and shows it to the callback.

    A record has ``iteration``, ``loss``, what the optimizer adds, and, cumulative since the start of the run:
    ``samples`` (seen in losses, gradients and products), ``passes`` (the same over n), ``products``,
    ``reductions``, ``numbers`` (how many those summed), ``bytes`` and ``seconds`` (callbacks not counted).
    Where engines compute, ``profile`` says where this iteration's seconds went (`hfnb.objectives.profiler`).
    """

    def __init__(self, objective, callback: Callable | None, history: list | None = None):
        self.objective, self.callback, self.history = objective, callback, list(history or [])
        self._clock = getattr(getattr(objective, "evaluator", None), "clock", None) or Clock()
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

    def result(self, w, success: bool, message: str) -> OptimizeResult:
        """Return the run's result; ``fun`` and ``nit`` are those of the last record."""
        last = self.history[-1]
        return OptimizeResult(
            x=w, fun=last.loss, success=success, message=message, nit=last.iteration, history=self.history
        )
