"""A run from one iteration to the next: its state, the record of each, a progress bar, and the result."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import update_wrapper, wraps
from types import TracebackType
from typing import Any, TypeVar, cast

import numpy as np
from scipy.optimize import OptimizeResult

from hfnb.krylov import norm
from hfnb.objectives.costs import COSTS
from hfnb.objectives.profiler import Clock
from hfnb.objectives.protocols import ObjectiveLike
from hfnb.objectives.sampling import Draws
from hfnb.progress_bars import progress_bar
from hfnb.validation import asks_to_stop, check_callable, check_extra, check_nonnegative_int, shown

log = logging.getLogger(__name__)

Optimizer = TypeVar("Optimizer", bound=Callable[..., OptimizeResult])


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
    batch_size : int
        Number of these samples (`hessian_free`).
    damping : float
        λ for the next iteration (`hessian_free`, `levenberg_marquardt`).
    direction : str
        The direction of the step: "newton", "negative curvature", "curvilinear", "subspace", a sum of two, as
        in "newton and negative curvature", or "none" after a rejected step (`hessian_free`,
        `levenberg_marquardt`).
    alpha, step_norm : float
        Step length α, and the norm of the step; 0 after a rejected step (`hessian_free`,
        `levenberg_marquardt`).
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


class Progress:
    """A progress bar that shows the loss, for the option ``callback`` of an optimizer.

    Parameters
    ----------
    total : int
        Number of iterations of the run.
    callback : callable, optional
        Called with each record as well; any true value that it returns stops the run.
    **options
        Options of `progress_bar`.

    Examples
    --------
    >>> bar = Progress(3, disable=True)
    >>> bar(Record(iteration=1, loss=0.5))
    False
    """

    def __init__(self, total: int, callback: Callable[[Record], Any] | None = None, **options: Any) -> None:
        check_extra("hfnb.Progress", "notebooks", "tqdm")
        self.callback = check_callable("callback", callback, "(record) -> whether to stop", optional=True)
        self._bar = progress_bar(total=check_nonnegative_int("total", total), **options)

    def __call__(self, record: Record) -> bool:
        """Show a record, and return whether the callback asks to stop."""
        self._bar.update(record.iteration - self._bar.n)
        self._bar.set_postfix_str(f"loss {record.loss:.4g}")
        stop = self.callback is not None and asks_to_stop(self.callback, record)
        if stop or self._bar.n >= self._bar.total:
            self.close()
        return stop

    def close(self, complete: bool = True) -> None:
        """Close the bar; closing it again does nothing.

        Parameters
        ----------
        complete : bool
            Whether the run ended by itself, perhaps before ``total`` iterations; the bar is then shown as
            full. Otherwise, after an error or an interrupt, a notebook shows the bar in red.
        """
        if complete and not self._bar.disable and self._bar.n:
            self._bar.total = self._bar.n
            if hasattr(self._bar, "container"):  # the widget of a notebook keeps its own total
                self._bar.container.children[1].max = self._bar.n
            self._bar.refresh()
        self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(complete=kind is None)


def watched(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer that closes its progress bar, and logs after which iteration it was interrupted.

    Parameters
    ----------
    optimizer : callable
        ``optimizer(objective, w0, *, callback=None, **options)``.

    Returns
    -------
    callable
        The optimizer. If its callback is a `Progress`, that is closed however the run ends, even if the
        optimizer never called it. After a KeyboardInterrupt, one line names the last complete iteration.
    """

    @wraps(optimizer)
    def run(objective: Any, w0: Any, *, callback: Any = None, **options: Any) -> OptimizeResult:
        reached = None

        def follow(record: Record) -> Any:
            nonlocal reached
            reached = record.iteration
            return callback(record)

        with callback if isinstance(callback, Progress) else nullcontext():
            try:
                seen = update_wrapper(follow, callback, updated=()) if callable(callback) else callback
                return optimizer(objective, w0, callback=seen, **options)
            except KeyboardInterrupt:
                report_interrupt(reached)
                raise

    return cast(Optimizer, run)


def report_interrupt(iteration: int | None) -> None:
    """Log after which iteration a run was interrupted, or only that it was if the iteration is None."""
    after = "" if iteration is None else f" after iteration {iteration}"
    log.warning("stopped%s by an interrupt; run the cell again", after)


ALL_SAMPLES = Draws(seed=0, batch_size="all", curvature_batch_size="same", n=1)


@dataclass(frozen=True)
class State:
    """What one iteration of `hessian_free` passes on to the next, and a checkpoint saves.

    Attributes
    ----------
    w, g : ndarray, shape (p,)
        Parameters and gradient.
    loss : float
        The loss at w.
    damping : float
        λ.
    solution : ndarray, shape (p,), optional
        The last solution of the sub-problem, from which the next solve starts; None after a rejected step.
    iteration : int
        Number of iterations so far.
    rejected : int
        Number of steps in a row that were rejected; 0 after an accepted step.
    plateau : bool
        Whether the last iteration hardly lowered the loss.
    next_probe, interval : int
        The iteration of the next probe for negative curvature, and the number of iterations between probes.
    steepest : float
        The largest gradient norm so far, with which later ones are compared.
    trusted : float
        λ after the last accepted step.
    trouble : str
        What was not finite, if that is why the last step was rejected.
    memory : dict, optional
        Data that a preconditioner keeps between iterations (`hfnb.optimizers.preconditioning`).
    samples : Draws, optional
        Which samples the next iteration uses; `hessian_free` always sets it.
    """

    w: np.ndarray
    g: np.ndarray
    loss: float
    damping: float
    solution: np.ndarray | None = None
    iteration: int = 0
    rejected: int = 0
    plateau: bool = True
    next_probe: int = 1  # the first step may be too short only because the first λ is too large
    interval: int = 1
    steepest: float = 0.0
    trusted: float = 0.0
    trouble: str = ""
    memory: dict[str, Any] | None = None
    samples: Draws = ALL_SAMPLES

    def __post_init__(self) -> None:
        object.__setattr__(self, "steepest", max(self.steepest, self.gradient_norm))
        object.__setattr__(self, "trusted", self.trusted or self.damping)

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> "State":
        """Return the state that a checkpoint holds; ValueError if another version of hfnb wrote it."""
        if saved.keys() != {field.name for field in fields(cls)}:
            raise ValueError("checkpoint: expected one of this version of hfnb, got one of another version")
        return cls(**saved | {"samples": Draws(**saved["samples"])})

    def saved(self) -> dict[str, Any]:
        """Return this state as a dictionary of arrays, numbers and text, for a checkpoint."""
        return vars(self) | {"samples": vars(self.samples)}

    @property
    def gradient_norm(self) -> float:
        """‖g‖."""
        return norm(self.g)

    @property
    def probe_is_due(self) -> bool:
        """Whether to look for negative curvature now: on a plateau, not soon after a probe in vain."""
        return self.plateau and self.iteration >= self.next_probe

    def with_damping(self, damping: float) -> "State":
        """Return this state with another λ; ``trusted`` becomes λ unless the last step was rejected."""
        return replace(self, damping=damping, trusted=self.trusted if self.rejected else damping)
