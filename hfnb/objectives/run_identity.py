"""The identity of a run, as short texts that can be compared: its network, data, start and options.

Numbers, text and containers are described by their values, arrays by their dtype, shape and SHA-256.

A function is described by its name and by the plain values (numbers, text, arrays, other functions) among its
default values and the variables of an enclosing function. Unless it belongs to one of the `LIBRARIES`, the
description also covers its code and the variables of its module that it names. It does not cover what a
function reaches in another way: lists that it fills, attributes of modules, files. The code of the same
function differs between minor versions of Python.

An object may have a method ``identity() -> dict[str, str]``, which then describes it. Any other object is
described by its class and those public attributes that are plain values, or lists or dictionaries of names
and whole numbers. If it can be called like a function, its private attributes are included.
"""

import dataclasses
import functools
import hashlib
import inspect
import numbers
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np

from hfnb.datasets.dataset import SAMPLED, checksum, is_large
from hfnb.objectives.cells import Cells

# Users do not edit the functions of these packages, so that a name is enough.
LIBRARIES = {"autograd", "hfnb", "numpy", "scipy"}

# {number of a partition: digests of its X and Y}, and a function that adds those of other processes.
Digests: TypeAlias = dict[int, tuple[str, str]]
Gather: TypeAlias = Callable[[Digests], Digests]


def digest(*parts: bytes) -> str:
    """Return the first 16 digits of the SHA-256 of the parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]


def describe(value: Any) -> str:
    """Return a description of any value, the same for equal values and short enough for a message.

    Examples
    --------
    >>> describe(2.0) == describe(np.int64(2)), describe([1, "a"]), describe(np.zeros(3))[:20]
    (True, "(1, 'a')", 'float64 (3,), SHA-25')
    """
    return _Describer().describe(value)


def of_call(
    function: Callable[..., Any], objective: Any, w0: Any, options: Mapping[str, Any]
) -> dict[str, str]:
    """Return the description {name: text} of the run ``function(objective, w0, **options)``."""
    return {
        "optimizer": _name(function),
        **of_objective(objective),
        "w0": describe(np.asarray(w0)),
        **{name: describe(value) for name, value in options.items()},
    }


def of_objective(objective: Any) -> dict[str, str]:
    """Return the description {name: text} of an objective, by its ``identity()`` or class and attributes."""
    if _describes_itself(objective):
        return {"objective": _name(type(objective)), **objective.identity()}
    return {"objective": describe(objective)}


def of_data(
    parts: Mapping[int, tuple[np.ndarray, np.ndarray]],
    n: int,
    gather: Gather = dict,
    cells: Cells | None = None,
) -> dict[str, str]:
    """Return the description of a dataset, the same on any number of engines.

    Parameters
    ----------
    parts : mapping
        {number: (X, Y)} of the strata that this process holds, at least one (`Shards.by_stratum`).
    n : int
        Number of rows of the whole dataset.
    gather : callable
        Returns a dictionary {number: digests of X and Y} with the strata of all processes, given that of
        this process.
    cells : Cells, optional
        The cells of the dataset, if it was put in their order.

    Returns
    -------
    dict of str
        {name: text}.

    Notes
    -----
    If X (or Y) has up to 1 GiB, all of it is read; otherwise some blocks of each stratum are read
    (`hfnb.datasets.fingerprint`).
    """
    digests = gather({i: (_rows("X", X, n), _rows("Y", Y, n)) for i, (X, Y) in parts.items()})
    found = (cells.identity() if cells else {}) | {"strata (of partitions)": str(len(digests))}
    for k, (name, A) in enumerate(zip(("X", "Y"), next(iter(parts.values())), strict=True)):
        content = digest(*(digests[number][k].encode() for number in sorted(digests)))
        found[f"data.{name}"] = f"{A.dtype} {(n, *A.shape[1:])}, content {content}"
    return found


def _rows(name: str, A: np.ndarray, n: int) -> str:
    """Return a digest of a stratum of a dataset of n rows; of large data only a few blocks are read."""
    few = max(2, SAMPLED * len(A) // max(n, 1))
    return digest(checksum(name, A, few if is_large(n * A[:1].nbytes) else None))


def _blocks(A: np.ndarray) -> Iterable[bytes]:
    """Yield the bytes of an array, a few rows at a time: a mapped array may be larger than memory."""
    if A.ndim == 0:
        return [A.tobytes()]
    step = max(1, 2**24 // max(A[:1].nbytes, 1))
    return (A[start : start + step].tobytes() for start in range(0, len(A), step))


def _describes_itself(value: Any) -> bool:
    """Whether an object, not a class, has a method ``identity``."""
    return not isinstance(value, type) and callable(getattr(value, "identity", None))


def _name(value: Any) -> str:
    """Return the qualified name of a function or class, or of the class of another object."""
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    return f"{getattr(value, '__module__', None) or type(value).__module__}.{name}"


class _Describer:
    """Describes one value and what it contains; a value that contains itself is not described twice."""

    def __init__(self) -> None:
        self._within: list[Any] = []
        self._functions: set[int] = set()

    def describe(self, value: Any) -> str:
        """Return the description of a value, or "(itself)" inside of the value's own description."""
        if any(value is each for each in self._within):
            return "(itself)"
        self._within.append(value)
        try:
            return self._of_value(value)
        finally:
            self._within.pop()

    def _of_value(self, value: Any) -> str:
        """Return the description of a number, text, array, container or function, or of another object."""
        if value is None or isinstance(value, (str, bytes, bool, np.bool_, slice)):
            return repr(value.item() if isinstance(value, np.bool_) else value)
        if isinstance(value, numbers.Number):
            return _number(value)
        if isinstance(value, np.ndarray):
            content = "" if value.dtype.hasobject else f", SHA-256 {digest(*_blocks(value))}"
            return f"{value.dtype} {value.shape}{content}"
        if isinstance(value, Mapping):
            return self._entries("", ((repr(key), each) for key, each in value.items()))
        if isinstance(value, (set, frozenset)):
            return f"{{{', '.join(sorted(self.describe(each) for each in value))}}}"
        if isinstance(value, (list, tuple, range)):
            return f"({', '.join(self.describe(each) for each in value)})"
        if isinstance(value, types.FunctionType):
            return self._of_function(inspect.unwrap(value))
        return self._of_object(value)

    def _of_object(self, value: Any) -> str:
        """Return the description of an object of a type that `_of_value` does not handle."""
        if isinstance(value, functools.partial):
            return self._entries("partial", zip("fak", (value.func, value.args, value.keywords), strict=True))
        if isinstance(value, types.MethodType):
            return f"{self.describe(value.__func__)} of {self.describe(value.__self__)}"
        if isinstance(value, np.dtype):
            return str(value)
        if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType, np.ufunc)):
            return _name(value)
        if _describes_itself(value):
            return self._entries(_name(type(value)), value.identity().items())
        if dataclasses.is_dataclass(value):
            fields = [each.name for each in dataclasses.fields(value) if each.repr]
            return self._entries(type(value).__qualname__, ((name, getattr(value, name)) for name in fields))
        # The settings of a solver or schedule may be private; private attributes of an objective are results.
        settings = {
            name: each
            for name, each in getattr(value, "__dict__", {}).items()
            if name[0] != "_" or callable(value)
        }
        shown = {name: each for name, each in settings.items() if _plain(each) or _fixed(each)}
        return self._entries(_name(type(value)), shown.items())

    def _entries(self, name: str, entries: Iterable[tuple[str, object]]) -> str:
        """Return the description ``name(key=value, ...)``, sorted by key."""
        ordered = sorted(entries, key=lambda entry: entry[0])
        return f"{name}({', '.join(f'{key}={self.describe(each)}' for key, each in ordered)})"

    def _of_function(self, function: Any) -> str:
        """Return a function's name with a digest of its code and of the plain values that it refers to."""
        if id(function) in self._functions or not isinstance(function, types.FunctionType):
            return _name(function)
        self._functions.add(id(function))
        refers = _referred(function)
        content = [f"{name} {self.describe(refers[name])}" for name in sorted(refers) if _plain(refers[name])]
        if not _of_library(function):
            content.append(_describe_code(function.__code__))
        return f"{_name(function)} (code {digest(*(each.encode() for each in content))})"


def _number(value: Any) -> str:
    """Return the text of a number, the same for 1, 1.0 and ``np.int64(1)``."""
    if isinstance(value, np.generic):
        value = value.item()
    return repr(int(value)) if isinstance(value, float) and value.is_integer() else repr(value)


def _plain(value: Any) -> bool:
    """Whether a value is of a kind that a run does not usually change, and so belongs to a description."""
    if isinstance(value, (tuple, frozenset)):
        return all(_plain(each) for each in value)
    frozen = getattr(getattr(value, "__dataclass_params__", None), "frozen", False)
    kinds = (str, bytes, numbers.Number, np.ndarray, np.bool_)
    return value is None or callable(value) or frozen or _describes_itself(value) or isinstance(value, kinds)


def _fixed(value: Any) -> bool:
    """Whether a list or dictionary has only names and whole numbers, such as the sizes of layers."""
    if not isinstance(value, (list, dict)) or not value:
        return False
    entries = value.values() if isinstance(value, dict) else value
    return all(isinstance(each, (str, int, np.integer)) or _fixed(each) for each in entries)


def _of_library(function: Any) -> bool:
    """Whether a function belongs to one of the `LIBRARIES`."""
    return (function.__module__ or "").split(".")[0] in LIBRARIES


def _referred(function: types.FunctionType) -> dict[str, object]:
    """Return {name: value} of what a function refers to: enclosing variables, default values, globals."""
    code, refers = function.__code__, dict[str, object]()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not yet assigned
            refers[name] = cell.cell_contents
    refers["(defaults)"] = function.__defaults__
    refers["(keywords)"] = tuple((function.__kwdefaults__ or {}).items())
    if not _of_library(function):
        names = {name for each in _codes(code) for name in each.co_names}
        for name in names & function.__globals__.keys():
            value = function.__globals__[name]
            if not callable(value) or getattr(value, "__module__", None) == function.__module__:
                refers.setdefault(name, value)
    return refers


def _codes(code: types.CodeType) -> list[types.CodeType]:
    """Return the code of a function and of the functions defined in it."""
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return [code, *(found for each in inner for found in _codes(each))]


def _describe_code(code: types.CodeType) -> str:
    """Return the byte code of a function with its names and constants."""
    constants = [
        _describe_code(each) if isinstance(each, types.CodeType) else describe(each)
        for each in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_freevars} {constants}"
