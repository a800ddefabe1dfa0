"""What the "Your turn" cells of the lessons are checked with: an answer beside the right one."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hfnb.validation import check_positive


def compare(what: str, yours: Any, right: ArrayLike, *, rtol: float = 1e-6, hint: str = "") -> None:
    """Print whether an answer is right, beside the right one if it is not.

    An answer that is wrong raises no error, so that a lesson can be read on without it.

    Parameters
    ----------
    what : str
        The name of what was asked for.
    yours : object
        The answer: anything, None where nothing has been written yet.
    right : array_like
        The right answer, a number or an array of numbers.
    rtol : float
        How far the answer may be off, relative to the largest number of the right one.
    hint : str
        What to look at; printed where the answer is wrong.

    Raises
    ------
    ValueError
        If rtol is not positive.

    Examples
    --------
    >>> compare("alpha", 0.5, 0.25, hint="Is it halved twice?")
    alpha: not yet. Yours is 0.5, the right one is 0.25. Is it halved twice?
    >>> compare("alpha", 0.25, 0.25)
    alpha: right, 0.25.
    """
    print(_compared(what, yours, right, rtol, hint)[1])


def grade(what: str, yours: Any, right: ArrayLike, *, rtol: float = 1e-6, hint: str = "") -> None:
    """Print that an answer is right, or raise an error: what a student edition calls in place of `compare`.

    Parameters
    ----------
    what, yours, right, rtol, hint
        As for `compare`.

    Raises
    ------
    AssertionError
        If the answer is wrong, with what `compare` would have printed.
    ValueError
        If rtol is not positive.

    Examples
    --------
    >>> grade("alpha", 0.25, 0.25)
    alpha: right, 0.25.
    """
    right_answer, told = _compared(what, yours, right, rtol, hint)
    if not right_answer:
        raise AssertionError(told)
    print(told)


def _compared(what: str, yours: Any, right: ArrayLike, rtol: float, hint: str) -> tuple[bool, str]:
    """Return whether an answer is right, and the line that says so."""
    rtol, expected = check_positive("rtol", rtol), np.asarray(right, dtype=float)
    try:
        found = np.asarray(yours, dtype=float)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if found.shape == expected.shape:
        allowed = rtol * np.max(np.abs(expected), initial=0.0)
        if np.all(np.abs(found - expected) <= allowed):
            return True, f"{what}: right, {_shown(expected)}."
        told = _shown(found) if np.all(np.isfinite(found)) else repr(yours)
    else:
        told = repr(yours) if found.ndim == 0 else f"an array of shape {found.shape}"
    line = f"{what}: not yet. Yours is {told}, the right one is {_shown(expected)}. {hint}"
    return False, line.rstrip()


def _shown(values: np.ndarray) -> str:
    """Return numbers to six digits; of many, the first and the last ones."""
    return np.array2string(values, formatter={"float_kind": "{:.6g}".format}, threshold=10, edgeitems=3)
