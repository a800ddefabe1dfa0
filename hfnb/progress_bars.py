"""Progress bars of tqdm, which the environment can turn off."""

import os
from collections.abc import Iterable
from typing import Any


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return a progress bar, in a notebook or on a terminal.

    Parameters
    ----------
    iterable : iterable, optional
        What the bar goes through.
    **options
        Of ``tqdm``. No bar is shown where the variable ``TQDM_DISABLE`` of the environment is set, and not 0.

    Returns
    -------
    tqdm

    Examples
    --------
    >>> list(progress_bar("ab", disable=True))
    ['a', 'b']
    """
    from tqdm.auto import tqdm

    if os.environ.get("TQDM_DISABLE", "0") not in ("", "0"):
        options["disable"] = True  # tqdm reads this variable itself, but not in a notebook
    return tqdm(iterable, **options)
