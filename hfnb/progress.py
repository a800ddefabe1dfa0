"""Watch a run: a progress bar, which is a callback of the optimizers."""

from collections.abc import Callable

from tqdm.auto import tqdm

from hfnb.history import Record
from hfnb.validation import check_callable, check_nonnegative_int


class Progress:
    """A progress bar of ``total`` iterations that shows the loss, and hands each record on to ``callback``.

    >>> bar = Progress(3, disable=True)
    >>> bar(Record(iteration=1, loss=0.5))
    False
    """

    def __init__(self, total: int, callback: Callable | None = None, **options):
        self.callback = check_callable("callback", callback, "(record) -> whether to stop", optional=True)
        self._bar = tqdm(total=check_nonnegative_int("total", total), **options)

    def __call__(self, record: Record) -> bool:
        self._bar.update(record.iteration - self._bar.n)
        self._bar.set_postfix_str(f"loss {record.loss:.4g}")
        stop = bool(self.callback(record)) if self.callback else False
        if stop or self._bar.n >= self._bar.total:
            self.close()
        return stop

    def close(self) -> None:
        """Leave the bar as it stands; for runs that end before ``total``."""
        self._bar.close()
