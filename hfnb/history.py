"""What an optimizer writes down at each iteration, and what it hands back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from scipy.optimize import OptimizeResult

from hfnb.callbacks import asks_to_stop
from hfnb.profiler import Clock

COSTS = ("samples", "products", "reductions", "numbers", "bytes")


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


@dataclass
class Counts:
    """What an objective has spent: evaluations, the samples they saw, and what it takes to sum over engines.

    After L losses, G gradients and P products with p parameters, whoever drives and on any number of engines,

        reductions = L + G + P,  numbers = L + (p + 1) G + p P,  bytes = 16 L + b ((p + 1) G + p P),

    where b = 16 in float64, whose sums travel with their remainders (`hfnb.reduction`), and 4 in float32; a
    loss, which rides along with its gradient, is itself in float64. These are the bytes that one engine
    contributes: its buffer of an Allreduce, or its replies to a client that drives. That one also sends it w
    or v each time, p numbers of 8 or 4 bytes, and w with the first product at a point. In one process these
    are what would travel. Left out: a flag after a sum that is not finite, by which engines learn whether one
    of them failed; sums made anew for an engine that was lost; what is asked while the record is made.
    """

    losses: int = 0
    gradients: int = 0
    products: int = 0
    samples: int = 0
    reductions: int = 0
    numbers: int = 0
    bytes: int = 0

    def add(self, what: str, samples: int, numbers: int = 0, bytes: int = 0) -> None:
        """Count one evaluation of "losses", "gradients" or "products" and its reduction."""
        setattr(self, what, getattr(self, what) + 1)
        self.samples += samples
        self.reductions += 1
        self.numbers += numbers
        self.bytes += bytes


class Recorder:
    """Keeps the history of a run: adds the costs spent so far to each record and shows it to the callback.

    A record has ``iteration``, ``loss``, what the optimizer adds, and, cumulative since the start of the run:
    ``samples`` (seen in losses, gradients and products), ``passes`` (the same over n), ``products``,
    ``reductions``, ``numbers`` (how many those summed), ``bytes`` and ``seconds`` (callbacks not counted).
    Where engines compute, ``profile`` says where this iteration's seconds went (`hfnb.profiler`).
    """

    def __init__(self, objective, callback: Callable | None, history: list | None = None):
        self.objective, self.callback, self.history = objective, callback, list(history or [])
        self._clock = getattr(getattr(objective, "sums", None), "clock", None) or Clock()
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
