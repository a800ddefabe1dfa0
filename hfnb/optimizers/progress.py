"""A progress bar for optimizers, and a message after an interrupted run."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import update_wrapper, wraps
from types import TracebackType
from typing import Any, TypeVar, cast

from scipy.optimize import OptimizeResult

from hfnb.optimizers.history import Record
from hfnb.validation import asks_to_stop, check_callable, check_extra, check_nonnegative_int

log = logging.getLogger(__name__)

Optimizer = TypeVar("Optimizer", bound=Callable[..., OptimizeResult])


class Progress:
    """A progress bar that shows the loss, for the option ``callback`` of an optimizer.

    Parameters
    ----------
    total : int
        Number of iterations of the run.
    callback : callable, optional
        Called with each record as well; any true value that it returns stops the run.
    **options
        Options of ``tqdm``.

    Examples
    --------
    >>> bar = Progress(3, disable=True)
    >>> bar(Record(iteration=1, loss=0.5))
    False
    """

    def __init__(self, total: int, callback: Callable[[Record], Any] | None = None, **options: Any) -> None:
        check_extra("hfnb.Progress", "notebooks", "tqdm")
        from tqdm.auto import tqdm

        self.callback = check_callable("callback", callback, "(record) -> whether to stop", optional=True)
        self._bar = tqdm(total=check_nonnegative_int("total", total), **options)

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
