"""A progress bar for optimizers, and a message after an interrupt."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import update_wrapper, wraps

from hfnb.optimizers.history import Record
from hfnb.validation import asks_to_stop, check_callable, check_extra, check_nonnegative_int

log = logging.getLogger(__name__)


class Progress:
    """A progress bar that shows the loss: give it to an optimizer as ``callback``.

    Parameters
    ----------
    total : int
        Number of iterations of the whole run.
    callback : callable, optional
        Called with each record as well; any true value that it returns stops the run.
    **options
        Those of ``tqdm``.

    Examples
    --------
    >>> bar = Progress(3, disable=True)
    >>> bar(Record(iteration=1, loss=0.5))
    False
    """

    def __init__(self, total: int, callback: Callable | None = None, **options):
        check_extra("hfnb.Progress", "notebooks", "tqdm")
        from tqdm.auto import tqdm

        self.callback = check_callable("callback", callback, "(record) -> whether to stop", optional=True)
        self._bar = tqdm(total=check_nonnegative_int("total", total), **options)

    def __call__(self, record: Record) -> bool:
        self._bar.update(record.iteration - self._bar.n)
        self._bar.set_postfix_str(f"loss {record.loss:.4g}")
        stop = self.callback is not None and asks_to_stop(self.callback, record)
        if stop or self._bar.n >= self._bar.total:
            self.close()
        return stop

    def close(self, complete: bool = True) -> None:
        """End the bar; calling it again does nothing.

        Parameters
        ----------
        complete : bool
            Whether the run ended by itself, perhaps before ``total`` iterations; the bar is then shown as
            full. After an error or an interrupt, a notebook shows the bar in red.
        """
        if complete and not self._bar.disable and self._bar.n:
            self._bar.total = self._bar.n
            if hasattr(self._bar, "container"):  # the widget of a notebook has a length of its own
                self._bar.container.children[1].max = self._bar.n
            self._bar.refresh()
        self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, *_) -> None:
        self.close(complete=kind is None)


def watched(optimizer: Callable) -> Callable:
    """Return an optimizer that closes its progress bar, and says how far an interrupted run came.

    Parameters
    ----------
    optimizer : callable
        ``optimizer(objective, w0, *, callback=None, **options)``.

    Returns
    -------
    callable
        The optimizer. A `Progress` that is its callback is closed however the run ends, also where the
        optimizer returns without calling it. After a KeyboardInterrupt one line says how far the run came.
    """

    @wraps(optimizer)
    def run(objective, w0, *, callback=None, **options):
        reached = None

        def follow(record):
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

    return run


def report_interrupt(iteration: int | None) -> None:
    """Log after which iteration a run was interrupted; None: no iteration is known."""
    after = "" if iteration is None else f" after iteration {iteration}"
    log.warning("stopped%s by an interrupt; run the cell again", after)
