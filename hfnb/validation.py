"""Checks of arguments and of the answers of callbacks: each returns the value or raises one clear error.

``TypeError`` is raised for an object of a wrong kind (a string, a bool or None for a number), ``ValueError``
for one of the right kind with a wrong value. Counts are integers of Python or NumPy: 2.0 and True are none.
"""

import functools
import importlib.util
import operator
import warnings
from collections.abc import Callable, Iterable
from numbers import Real

import numpy as np
from scipy.sparse import issparse

FLOATS = (np.float32, np.float64)


def check_positive_int(name: str, value, at_most: int | None = None) -> int:
    """Return an integer of at least 1 and, where it is given, ``at_most`` so much.

    >>> check_positive_int("batch_size", np.int64(32))
    32
    """
    return _integer(name, value, 1, at_most)


def check_nonnegative_int(name: str, value) -> int:
    """Return an integer of at least 0: a seed, an index or a limit that may be 0."""
    return _integer(name, value, 0, None)


def check_finite(name: str, value) -> float:
    """Return a finite real number."""
    return _number(name, value, "a finite number", np.isfinite)


def check_nonnegative(name: str, value, finite: bool = False) -> float:
    """Return a real number >= 0, NaN excluded; infinity too where it has to be ``finite``."""
    expected = "a finite number >= 0" if finite else "a number >= 0"
    return _number(name, value, expected, lambda x: 0 <= x < np.inf if finite else x >= 0)


def check_positive(name: str, value, finite: bool = False, at_most: float = np.inf) -> float:
    """Return a real number in (0, ``at_most``], NaN excluded; infinity too where it has to be ``finite``."""
    expected = "a finite number > 0" if finite else "a number > 0"
    if at_most < np.inf:
        expected += f" and at most {at_most:g}"
    return _number(name, value, expected, lambda x: 0 < x <= at_most and not (finite and x == np.inf))


def check_probability(name: str, value) -> float:
    """Return a real number strictly between 0 and 1."""
    return _number(name, value, "a probability between 0 and 1", lambda x: 0 < x < 1)


def check_fraction(name: str, value, below_one: bool = False) -> float:
    """Return a real number from 0 to 1; 1 excluded where it has to be ``below_one``."""
    if below_one:
        return _number(name, value, "a number >= 0 and < 1", lambda x: 0 <= x < 1)
    return _number(name, value, "a number from 0 to 1", lambda x: 0 <= x <= 1)


def check_choice(name: str, value, choices: Iterable[str], otherwise: str = "") -> str:
    """Return one of the names in ``choices``; ``otherwise`` ends the list in the message (" or …")."""
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return value
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{name}: expected one of {', '.join(choices)}{otherwise}, got {shown(value)}")


def check_callable(name: str, value, form: str, optional: bool = False):
    """Return a function, of which ``form`` shows the call; None as well where it is ``optional``."""
    if callable(value) or (optional and value is None):
        return value
    raise TypeError(f"{name}: expected a function {form}{' or None' * optional}, got {shown(value)}")


def check_methods(name: str, value, methods: Iterable[str], example: str) -> None:
    """Refuse what does not have these methods, such as a class instead of an object of it."""
    if isinstance(value, type) or not all(callable(getattr(value, method, None)) for method in methods):
        raise TypeError(
            f"{name}: expected {example} or what has its {', '.join(methods)}, got {shown(value)}"
        )


def check_sequence(name: str, values) -> tuple:
    """Return a tuple of what can be iterated over, and is no string."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: expected a sequence, got {shown(values)}")
    return tuple(values)


def check_plain_array(name: str, value) -> None:
    """Refuse sparse, masked and matrix objects, whose arithmetic is not that of an array."""
    if issparse(value):
        raise TypeError(
            f"{name}: expected a dense array, got {type(value).__name__}; convert with {name}.toarray()"
        )
    if isinstance(value, (np.ma.MaskedArray, np.matrix)):
        raise TypeError(f"{name}: expected a plain array, got {type(value).__name__}, whose rules differ")


def check_vector(name: str, value, size: int | None = None) -> np.ndarray:
    """Return an array (size,), or (p,) of any size p > 0, of float32 or float64; its entries are not read."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    right_shape = shape == (size,) if size is not None else shape is not None and len(shape) == 1 and shape[0]
    if right_shape and dtype in FLOATS and not isinstance(value, np.ma.MaskedArray) and not issparse(value):
        return value
    error = ValueError if isinstance(value, (np.ndarray, list, tuple)) else TypeError
    expected = f"({'p' if size is None else size},)"
    raise error(f"{name}: expected an array {expected} of float32 or float64, got {shown(value)}")


def check_data(name: str, data) -> None:
    """Refuse what has no inputs X and targets Y, arrays with a row for each of one or more samples."""
    X, Y = getattr(data, "X", None), getattr(data, "Y", None)
    if not (isinstance(X, np.ndarray) and isinstance(Y, np.ndarray)):
        raise TypeError(f"{name}: expected a Dataset, hfnb.Dataset(X, Y), got {type(data).__name__}")
    if not 0 < len(X) == len(Y):
        raise ValueError(f"{name}: expected at least one sample, and X and Y of it, got {len(X)}, {len(Y)}")


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


def renamed(**names: str) -> Callable[[Callable], Callable]:
    """Return a decorator by which a function takes options by their earlier names, too: ``old="new"``.

    An earlier name gives a DeprecationWarning that says the new one; TypeError where both are given.

    >>> renamed(resume="checkpoint")(lambda checkpoint=None: checkpoint)(checkpoint=3)
    3
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*arguments, **options):
            for old in names.keys() & options.keys():
                if names[old] in options:
                    raise TypeError(f"{old}: is called {names[old]} now, and that is given, too")
                text = f"{function.__name__}: the option {old} is called {names[old]} now"
                warnings.warn(text, DeprecationWarning, stacklevel=2)
                options[names[old]] = options.pop(old)
            return function(*arguments, **options)

        return call

    return decorate


def check_extra(user: str, extra: str, *modules: str) -> None:
    """Refuse to go on, in one line, where a module that comes with an optional extra is not installed.

    Parameters
    ----------
    user : str
        The part of hfnb that needs the modules, as users write it.
    extra : str
        The extra of hfnb with which pip installs them.
    *modules : str
        Names as they are imported.

    Raises
    ------
    ImportError
        For the first module that is missing: it names the part, the package and the extra.

    Examples
    --------
    >>> check_extra("hfnb.Cluster", "engines", "no_such_module")
    Traceback (most recent call last):
    ImportError: hfnb.Cluster needs no-such-module: pip install "hfnb[engines]"
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            package = module.lower().replace("_", "-")
            raise ImportError(f'{user} needs {package}: pip install "hfnb[{extra}]"')


def shown(value) -> str:
    """Return a value as messages show it: arrays by shape and dtype, anything else cut off if it is long."""
    if isinstance(value, np.ndarray) and value.ndim:
        kind = "a masked array, " if isinstance(value, np.ma.MaskedArray) else ""
        return f"{kind}shape {value.shape}, dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 80 else f"{type(value).__name__} {text[:60]}…"


def _integer(name: str, value, least: int, most: int | None) -> int:
    expected = f"a whole number of at least {least}" + ("" if most is None else f" and at most {most}")
    if isinstance(value, (bool, np.bool_, np.ndarray)):
        raise TypeError(f"{name}: expected {expected}, got {shown(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        error = ValueError if isinstance(value, Real) else TypeError
        raise error(f"{name}: expected {expected}, got {shown(value)}") from None
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name}: expected {expected}, got {number}")
    return number


def _number(name: str, value, expected: str, holds: Callable[[float], bool]) -> float:
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected {expected}, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError as error:  # an integer beyond the largest float
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}") from error
    if not holds(number):
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}")
    return number
