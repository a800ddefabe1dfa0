"""What a run is, in a few words that can be compared: its network, data, start and options.

Numbers, text and containers are described by their values, arrays by their kind, shape and SHA-256. A
function is described by its name and by what it refers to, as far as that is plain (numbers, text, arrays,
other functions): default values, variables of an enclosing function. Unless it belongs to one of the
`LIBRARIES`, its code counts, too, and the variables of its module that it names. What a function reaches in
another way is not seen: lists that it fills, attributes of modules, files. The code of the same function
differs between minor versions of Python.

An object says itself what it is by a method ``identity() -> dict[str, str]``. Of any other one the class and
the attributes count that are plain, or lists or dictionaries of names and whole numbers: the public ones, and
of an object that is called like a function the private ones as well.
"""

import dataclasses
import functools
import hashlib
import inspect
import numbers
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import numpy as np

from hfnb.datasets.dataset import SAMPLED, checksum, is_large

# Functions of these change with a new version, not by the user's hand: their names are enough.
LIBRARIES = {"autograd", "hfnb", "numpy", "scipy"}


def digest(*parts: bytes) -> str:
    """Return the first 16 digits of the SHA-256 of the parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]


def describe(value) -> str:
    """Return a description of any value: equal for what is the same, and short enough for a message.

    >>> describe(2.0) == describe(np.int64(2)), describe([1, "a"]), describe(np.zeros(3))[:20]
    (True, "(1, 'a')", 'float64 (3,), SHA-25')
    """
    return _Describer().describe(value)


def of_call(function: Callable, objective, w0, options: Mapping) -> dict[str, str]:
    """Return the description, by name, of the run ``function(objective, w0, **options)``."""
    return {
        "optimizer": _name(function),
        **of_objective(objective),
        "w0": describe(np.asarray(w0)),
        **{name: describe(value) for name, value in options.items()},
    }


def of_objective(objective) -> dict[str, str]:
    """Return the description, by name, of an objective: its ``identity()``, or its class and attributes."""
    if _says_itself(objective):
        return {"objective": _name(type(objective)), **objective.identity()}
    return {"objective": describe(objective)}


def of_data(
    parts: Mapping[int, tuple[np.ndarray, np.ndarray]], n: int, gather: Callable[[dict], dict] = dict
) -> dict[str, str]:
    """Return the description, by name, of a dataset of n rows in partitions {number: (X, Y)}.

    ``parts`` are those held here, one at least; ``gather`` adds the digests of what others hold, so that the
    description is the same on any number of engines. Up to 1 GiB every number counts; of larger inputs or
    targets, which may be mapped from a file, some blocks of each partition (`hfnb.datasets.fingerprint`).
    """
    digests = gather({i: (_rows("X", X, n), _rows("Y", Y, n)) for i, (X, Y) in parts.items()})
    found = {"partitions": str(len(digests))}
    for k, (name, A) in enumerate(zip(("X", "Y"), next(iter(parts.values())), strict=True)):
        content = digest(*(digests[number][k].encode() for number in sorted(digests)))
        found[f"data.{name}"] = f"{A.dtype} {(n, *A.shape[1:])}, content {content}"
    return found


def _rows(name: str, A: np.ndarray, n: int) -> str:
    """Return a digest of a partition's rows, of n rows in all; of large data a few blocks are read."""
    few = max(2, SAMPLED * len(A) // max(n, 1))
    return digest(checksum(name, A, few if is_large(n * A[:1].nbytes) else None))


def _blocks(A: np.ndarray) -> Iterable[bytes]:
    """The bytes of an array, a few rows at a time: a mapped one may be larger than memory."""
    if A.ndim == 0:
        return [A.tobytes()]
    step = max(1, 2**24 // max(A[:1].nbytes, 1))
    return (A[start : start + step].tobytes() for start in range(0, len(A), step))


def _says_itself(value) -> bool:
    return not isinstance(value, type) and callable(getattr(value, "identity", None))


def _name(value) -> str:
    name = getattr(value, "__qualname__", None) or type(value).__qualname__
    return f"{getattr(value, '__module__', None) or type(value).__module__}.{name}"


class _Describer:
    """Describes one value: what it contains, by a name where that is being described already."""

    def __init__(self):
        self._within: list = []
        self._functions: set[int] = set()

    def describe(self, value) -> str:
        if any(value is each for each in self._within):
            return "(itself)"
        self._within.append(value)
        try:
            return self._of_value(value)
        finally:
            self._within.pop()

    def _of_value(self, value) -> str:
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

    def _of_object(self, value) -> str:
        if isinstance(value, functools.partial):
            return self._entries("partial", zip("fak", (value.func, value.args, value.keywords), strict=True))
        if isinstance(value, types.MethodType):
            return f"{self.describe(value.__func__)} of {self.describe(value.__self__)}"
        if isinstance(value, np.dtype):
            return str(value)
        if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType, np.ufunc)):
            return _name(value)
        if _says_itself(value):
            return self._entries(_name(type(value)), value.identity().items())
        if dataclasses.is_dataclass(value):
            fields = [each.name for each in dataclasses.fields(value) if each.repr]
            return self._entries(type(value).__qualname__, ((name, getattr(value, name)) for name in fields))
        # A solver or schedule keeps its settings where it likes; an objective keeps results in private.
        settings = {
            name: each
            for name, each in getattr(value, "__dict__", {}).items()
            if name[0] != "_" or callable(value)
        }
        shown = {name: each for name, each in settings.items() if _plain(each) or _fixed(each)}
        return self._entries(_name(type(value)), shown.items())

    def _entries(self, name: str, entries: Iterable[tuple[str, object]]) -> str:
        ordered = sorted(entries, key=lambda entry: entry[0])
        return f"{name}({', '.join(f'{key}={self.describe(each)}' for key, each in ordered)})"

    def _of_function(self, function) -> str:
        """Return a function's name with a digest of its code and of what that refers to."""
        if id(function) in self._functions or not isinstance(function, types.FunctionType):
            return _name(function)
        self._functions.add(id(function))
        refers = _referred(function)
        content = [f"{name} {self.describe(refers[name])}" for name in sorted(refers) if _plain(refers[name])]
        if not _of_library(function):
            content.append(_describe_code(function.__code__))
        return f"{_name(function)} (code {digest(*(each.encode() for each in content))})"


def _number(value) -> str:
    """Return a number's text, the same for 1, 1.0 and NumPy's ones."""
    if isinstance(value, np.generic):
        value = value.item()
    return repr(int(value)) if isinstance(value, float) and value.is_integer() else repr(value)


def _plain(value) -> bool:
    """Whether a value that a function or an object refers to is not one that a run usually changes."""
    if isinstance(value, (tuple, frozenset)):
        return all(_plain(each) for each in value)
    frozen = getattr(getattr(value, "__dataclass_params__", None), "frozen", False)
    kinds = (str, bytes, numbers.Number, np.ndarray, np.bool_)
    return value is None or callable(value) or frozen or _says_itself(value) or isinstance(value, kinds)


def _fixed(value) -> bool:
    """Whether a list or dictionary is of names and counts, sizes of layers say, not one that a run fills."""
    if not isinstance(value, (list, dict)) or not value:
        return False
    entries = value.values() if isinstance(value, dict) else value
    return all(isinstance(each, (str, int, np.integer)) or _fixed(each) for each in entries)


def _of_library(function) -> bool:
    return (function.__module__ or "").split(".")[0] in LIBRARIES


def _referred(function: types.FunctionType) -> dict[str, object]:
    """Return by name what the code of a function refers to: variables around it, default values, globals."""
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
    """The code of a function and of those defined in it."""
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return [code, *(found for each in inner for found in _codes(each))]


def _describe_code(code: types.CodeType) -> str:
    constants = [
        _describe_code(each) if isinstance(each, types.CodeType) else describe(each)
        for each in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {code.co_freevars} {constants}"
