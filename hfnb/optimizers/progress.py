"""Watch a run: a progress bar, which is a callback of the optimizers, and a word after an interrupt."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import update_wrapper, wraps

from hfnb.optimizers.history import Record
from hfnb.validation import asks_to_stop, check_callable, check_extra, check_nonnegative_int


class Progress:
    """A progress bar of ``total`` iterations that shows the loss, and hands each record on to ``callback``.

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

        A run that ends before ``total`` by intention is ``complete``: what it did is shown as all there was.
        A notebook shows a bar in red whose run was not, because of an error or an interrupt.
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
    """Return the optimizer, a function (objective, w0, *, callback, ...), as one that a user can watch.

    A `Progress` that is its callback ends with the run, however the run ends, also where the optimizer finds
    that it is done and calls nobody. After a KeyboardInterrupt one line says how far the run came.
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
                print(interrupted(reached))
                raise

    return run


def interrupted(iteration: int | None) -> str:
    """Say after which iteration a run was interrupted; None: no iteration is known."""
    after = "" if iteration is None else f" after iteration {iteration}"
    return f"stopped{after} by an interrupt; run the cell again"
