"""What a callback may answer: the one rule for every callback of the package."""

from collections.abc import Callable


def asks_to_stop(callback: Callable, *arguments) -> bool:
    """Call ``callback(*arguments)`` and return whether it asks to stop.

    Any true value stops, a NumPy bool or an array of one number too, and so does ``StopIteration``; None and
    false values go on.

    Raises
    ------
    ValueError
        Where the answer has no truth value: an array of several numbers, say.

    Examples
    --------
    >>> import numpy as np
    >>> asks_to_stop(lambda loss: np.float64(loss) < 0.1, 0.05), asks_to_stop(lambda loss: None, 0.05)
    (True, False)
    """
    try:
        answer = callback(*arguments)
    except StopIteration:
        return True
    if answer is None or isinstance(answer, bool):
        return bool(answer)
    shape = getattr(answer, "shape", ())
    try:
        if shape == () or getattr(answer, "size", 1) == 1:
            return bool(answer)
    except (TypeError, ValueError):
        pass
    found = f"an array of shape {shape}" if shape else repr(answer)[:80]
    raise ValueError(f"callback: expected None or one truth value, true to stop the run, got {found}")
