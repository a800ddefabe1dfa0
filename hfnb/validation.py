"""Checks of arguments and of the answers of callbacks; a check that fails raises one clear error.

The first argument ``name`` is what the message calls the value: "name: expected ..., got ...". An object of a
wrong kind (a string, a bool or None for a number) raises ``TypeError``, one of the right kind with a wrong
value ``ValueError``. Counts are integers of Python or NumPy; 2.0 and True are refused.
"""

import functools
import importlib.util
import operator
import warnings
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, TypeVar, cast

import numpy as np
from scipy.sparse import issparse

FLOATS = (np.float32, np.float64)

Function = TypeVar("Function", bound=Callable[..., Any])


def check_positive_int(name: str, value: Any, at_most: int | None = None) -> int:
    """Return an integer from 1 to ``at_most``; None is no upper limit.

    Examples
    --------
    >>> check_positive_int("batch_size", np.int64(32))
    32
    """
    return _integer(name, value, 1, at_most)


def check_nonnegative_int(name: str, value: Any) -> int:
    """Return an integer of at least 0, such as a seed or an index."""
    return _integer(name, value, 0, None)


def check_bool(name: str, value: Any) -> bool:
    """Return True or False, of Python or NumPy."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name}: expected True or False, got {shown(value)}")


def check_finite(name: str, value: Any) -> float:
    """Return a finite real number."""
    return _number(name, value, "a finite number", np.isfinite)


def check_nonnegative(name: str, value: Any, finite: bool = False) -> float:
    """Return a real number >= 0 that is not NaN and, if ``finite``, not infinite."""
    expected = "a finite number >= 0" if finite else "a number >= 0"
    return _number(name, value, expected, lambda x: 0 <= x < np.inf if finite else x >= 0)


def check_positive(name: str, value: Any, finite: bool = False, at_most: float = np.inf) -> float:
    """Return a real number > 0 and <= ``at_most`` that is not NaN and, if ``finite``, not infinite."""
    expected = "a finite number > 0" if finite else "a number > 0"
    if at_most < np.inf:
        expected += f" and at most {at_most:g}"
    return _number(name, value, expected, lambda x: 0 < x <= at_most and not (finite and x == np.inf))


def check_probability(name: str, value: Any) -> float:
    """Return a real number strictly between 0 and 1."""
    return _number(name, value, "a probability between 0 and 1", lambda x: 0 < x < 1)


def check_fraction(name: str, value: Any, below_one: bool = False) -> float:
    """Return a real number from 0 to 1 or, if ``below_one``, from 0 to below 1."""
    if below_one:
        return _number(name, value, "a number >= 0 and < 1", lambda x: 0 <= x < 1)
    return _number(name, value, "a number from 0 to 1", lambda x: 0 <= x <= 1)


def check_choice(name: str, value: Any, choices: Iterable[str], otherwise: str = "") -> str:
    """Return one of several names.

    Parameters
    ----------
    name : str
        What the message calls the value.
    value : object
        What was given.
    choices : iterable of str
        The names that exist, which the message lists.
    otherwise : str
        Text after that list, such as " or a function".

    Returns
    -------
    str
        The value.
    """
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return value
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{name}: expected one of {', '.join(choices)}{otherwise}, got {shown(value)}")


def check_callable(name: str, value: Any, form: str, optional: bool = False) -> Any:
    """Return a function or, if ``optional``, None; ``form`` shows in the message how it is called."""
    if callable(value) or (optional and value is None):
        return value
    raise TypeError(f"{name}: expected a function {form}{' or None' * optional}, got {shown(value)}")


def check_methods(name: str, value: Any, methods: Iterable[str], example: str) -> None:
    """Raise an error unless the value is an object, not a class, with all of these methods.

    Parameters
    ----------
    name : str
        What the message calls the value.
    value : object
        What was given.
    methods : iterable of str
        Names of methods.
    example : str
        An object that has them, for the message, such as "hfnb.Objective(net, data)".
    """
    if isinstance(value, type) or not all(callable(getattr(value, method, None)) for method in methods):
        raise TypeError(
            f"{name}: expected {example} or what has its {', '.join(methods)}, got {shown(value)}"
        )


def check_sequence(name: str, values: Any) -> tuple[Any, ...]:
    """Return an iterable, other than a string, as a tuple."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: expected a sequence, got {shown(values)}")
    return tuple(values)


def check_plain_array(name: str, value: Any) -> None:
    """Raise an error for sparse, masked and matrix objects, whose arithmetic is not that of an array."""
    if issparse(value):
        raise TypeError(
            f"{name}: expected a dense array, got {type(value).__name__}; convert with {name}.toarray()"
        )
    if isinstance(value, (np.ma.MaskedArray, np.matrix)):
        raise TypeError(f"{name}: expected a plain array, got {type(value).__name__}, whose rules differ")


def check_real(name: str, value: Any) -> np.ndarray:
    """Return an array of real numbers, or raise an error that names the argument."""
    check_plain_array(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of several lengths
        raise ValueError(f"{name}: expected rows of one length, got {shown(value)}") from error
    if array.dtype.kind not in "fiub":  # the imaginary part would be dropped
        raise TypeError(f"{name}: expected real numbers, got {shown(value)}")
    return array


def check_vector(name: str, value: Any, size: int | None = None) -> np.ndarray:
    """Return a vector of float32 or float64 with ``size`` entries or, if that is None, with at least one.

    The entries are not looked at: they may be NaN.
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    right_shape = shape == (size,) if size is not None else shape is not None and len(shape) == 1 and shape[0]
    if right_shape and dtype in FLOATS and not isinstance(value, np.ma.MaskedArray) and not issparse(value):
        return value
    error = ValueError if isinstance(value, (np.ndarray, list, tuple)) else TypeError
    expected = f"({'p' if size is None else size},)"
    raise error(f"{name}: expected an array {expected} of float32 or float64, got {shown(value)}")


def check_data(name: str, data: Any) -> None:
    """Raise an error unless there are arrays ``data.X`` and ``data.Y`` with a row for each sample."""
    X, Y = getattr(data, "X", None), getattr(data, "Y", None)
    if not (isinstance(X, np.ndarray) and isinstance(Y, np.ndarray)):
        raise TypeError(f"{name}: expected a Dataset, hfnb.Dataset(X, Y), got {type(data).__name__}")
    if not 0 < len(X) == len(Y):
        raise ValueError(
            f"{name}: expected X and Y with the same number of rows, at least one, got {len(X)} and {len(Y)}"
        )


def asks_to_stop(callback: Callable[..., Any], *arguments: Any) -> bool:
    """Call a callback and return whether it asks to stop the run.

    Parameters
    ----------
    callback : callable
        It stops the run by returning any true value, such as a NumPy bool or an array of one number, or by
        raising ``StopIteration``. None and false values continue it.
    *arguments : object
        What it is called with.

    Returns
    -------
    bool
        Whether to stop.

    Raises
    ------
    ValueError
        If the answer has no truth value, such as an array of several numbers.

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


def renamed(**names: str) -> Callable[[Function], Function]:
    """Return a decorator that lets a function accept options by their earlier names.

    Parameters
    ----------
    **names : str
        ``old="new"`` for each option. A call with the earlier name gives a DeprecationWarning that says the
        new one; a call with both raises TypeError.

    Returns
    -------
    callable
        The decorator.

    Examples
    --------
    >>> renamed(resume="checkpoint")(lambda checkpoint=None: checkpoint)(checkpoint=3)
    3
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            for old in names.keys() & options.keys():
                if names[old] in options:
                    raise TypeError(
                        f"{old}: is called {names[old]} now, and both were given; give {names[old]} only"
                    )
                text = f"{function.__name__}: the option {old} is called {names[old]} now"
                warnings.warn(text, DeprecationWarning, stacklevel=2)
                options[names[old]] = options.pop(old)
            return function(*arguments, **options)

        return cast(Function, call)

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


def shown(value: Any) -> str:
    """Return a value as messages show it: an array by shape and dtype, long text cut off."""
    if isinstance(value, np.ndarray) and value.ndim:
        kind = "a masked array, " if isinstance(value, np.ma.MaskedArray) else ""
        return f"{kind}shape {value.shape}, dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 80 else f"{type(value).__name__} {text[:60]}…"


def _integer(name: str, value: Any, least: int, most: int | None) -> int:
    """Return an integer from ``least`` to ``most``; None is no upper limit."""
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


def _number(name: str, value: Any, expected: str, holds: Callable[[float], bool]) -> float:
    """Return a real number for which ``holds`` is true; ``expected`` describes such numbers."""
    if not isinstance(value, Real) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected {expected}, got {shown(value)}")
    try:
        number = float(value)
    except OverflowError as error:  # an integer beyond the largest float
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}") from error
    if not holds(number):
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}")
    return number
