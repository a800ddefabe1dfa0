"""Inputs for every kind of argument, and what must become of them: the machinery of test_fuzz.py.

An input is WRONG (one error that names the argument), FINE (a result that an independent check confirms), or
EITHER (one or the other). Whatever else happens is a finding: another exception, a message that does not name
the argument, a wrong number, a run that does not end.
"""

import re
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

import numpy as np
from scipy import sparse

WRONG, FINE, EITHER = "wrong", "fine", "either"
ERRORS = (TypeError, ValueError, IndexError, FloatingPointError)  # NonFiniteProduct is one of the last
SECONDS = 5.0  # no input here computes for longer than a fraction of this
nan, inf = float("nan"), float("inf")


def identity(x, *others):
    """A function where none is expected."""
    return x


def wrong(*values):
    return [(WRONG, value) for value in values]


def fine(*values):
    return [(FINE, value) for value in values]


def either(*values):
    return [(EITHER, value) for value in values]


def relabelled(table, kind, holds):
    """The table with another label for arrays of which ``holds`` is true."""
    return [(kind if isinstance(v, np.ndarray) and holds(v) else label, v) for label, v in table]


def without(table, holds):
    """The table without the values of which ``holds`` is true."""
    return [(label, v) for label, v in table if not holds(v)]


NO_NUMBER = wrong("3", b"3", "", [3], (3,), {3}, {}, np.array([3]), 3 + 0j, object(), identity, Decimal(3))
NO_NUMBER += wrong(True, False, np.bool_(True), np.complex128(1))


def counts(good, *, zero=False, optional=False, largest=None):
    """A positive integer; ``zero``: or 0, ``optional``: or None, ``largest``: but no more than this."""
    table = NO_NUMBER + wrong(-1, -(10**9), 2.7, 2.0, 0.5, nan, inf, -inf, np.float64(3.0), np.float32(2.5))
    table += wrong(Fraction(1, 2), np.int8(-3))
    table += fine(good, np.int64(good), np.int32(good), np.int16(good))
    table += fine(0) if zero else wrong(0)
    table += fine(None) if optional else wrong(None)
    return table + (wrong(largest + 1, 10**18) if largest else [])


def seeds(optional=False):
    return counts(3, zero=True, optional=optional) + fine(2**31, 2**40)


def numbers(good, *, low=0.0, high=inf, closed=True, optional=False):
    """A real number from ``low`` to ``high``: a negative one and NaN are wrong."""
    table = NO_NUMBER + wrong(nan, np.float64(nan), -inf)
    table += wrong(low - 1.0, -1e300) if low > -inf else fine(-good)
    table += fine(good, np.float32(good), np.float64(good), Fraction(good))
    table += wrong(high + 1.0, inf, 10**400) if high < inf else []
    table += [] if closed else wrong(low)
    return table + (fine(None) if optional else wrong(None))


def finite(good, **options):
    return numbers(good, **options) + wrong(inf)


def choices(*names, optional=False, function=False):
    table = wrong("unknown", "", names[0].upper(), names[0] + " ", b"x", 3, 1.5, [names[0]], {}, object())
    table += fine(*names) + ([] if function else wrong(identity))
    return table + (fine(None) if optional else wrong(None))


def functions(*good, optional=False):
    table = wrong(3, "f", "", [], {}, 1.5, object(), np.ones(2), True) + fine(*good)
    return table + (fine(None) if optional else wrong(None))


def spread(v):
    """The same vector with gaps in memory."""
    return np.repeat(v, 3)[::3]


def backwards(v):
    """The same vector, stored from its end."""
    return v[::-1].copy()[::-1]


def locked(v):
    v = v.copy()
    v.flags.writeable = False
    return v


def vectors(v, *, lists=WRONG, not_finite=WRONG, optional=False, single=True, sized=True):
    """A vector like v of float64; ``lists`` of floats and what is ``not_finite`` have labels."""
    table = wrong("abc", "", 3, 1.5, 1j, np.array(1.0), object(), identity, {}, True, [], np.array([]))
    table += wrong(np.stack([v, v]), v[None], v.astype(complex) + 1j, v.astype(object), v.astype(str))
    table += wrong(v > 0, v.astype(np.float16), np.ma.masked_array(v, v > v.mean()), ["a"] * len(v))
    table += wrong(sparse.csr_matrix(v[None]), np.matrix(v), [list(v), list(v)], [1j] * len(v))
    table += fine(v, spread(v), backwards(v), locked(v)) + (fine(v.astype(np.float32)) if single else [])
    table += [(WRONG if sized else EITHER, value) for value in (v[:-1], np.append(v, 1.0), np.append(v, v))]
    table += [
        (lists, list(v)),
        (lists, tuple(v)),
        *either(v.astype(">f8"), v[:, None], np.rint(v).astype(int)),
    ]
    for bad in (nan, inf, -inf):
        table.append((not_finite, np.where(np.arange(len(v)) == 1, bad, v)))
    return table + (fine(None) if optional else wrong(None))


def matrices(A, *, lists=EITHER, not_finite=WRONG, sparse_too=WRONG):
    """A matrix like A of float64."""
    table = wrong(None, "abc", 3, 1.5, 1j, np.array(1.0), object(), identity, {}, A[:, 0], A[None], [], True)
    table += wrong(A + 1j, A.astype(object), A.astype(str), np.ma.masked_array(A, A > 0), A[:, :-1])
    table += wrong(np.hstack([A, A]), np.empty((0, A.shape[1])), [list(A[0]), [1.0]], A * 1j)
    table += fine(A, np.asfortranarray(A), locked(A), A[::-1].copy()[::-1], np.repeat(A, 2, axis=0)[::2])
    table += fine(np.repeat(A, 2, axis=1)[:, ::2], A.T.copy().T) + either(A.astype(">f8"), np.matrix(A))
    table += [(lists, A.tolist()), (sparse_too, sparse.csr_matrix(A)), (sparse_too, sparse.coo_array(A))]
    for bad in (nan, inf, -inf):
        B = A.copy()
        B[1, 1] = bad
        table.append((not_finite, B))
    return table


@dataclass
class Target:
    """A callable, valid arguments for it, the inputs to try in place of each, and an independent check.

    ``check(result, arguments)`` asserts; ``aliases`` are other words by which a message may name an argument.
    """

    call: Callable
    base: Callable[[], dict]
    table: dict[str, list]
    check: Callable
    aliases: dict[str, str] = field(default_factory=dict)

    @property
    def size(self):
        return sum(len(inputs) for inputs in self.table.values())

    def findings(self):
        """What becomes of the inputs that should not: a line for each."""
        found = []
        for name, inputs in self.table.items():
            for expected, value in inputs:
                said = self._finding(name, expected, value)
                if said:
                    found.append(f"{name} = {_short(value)} ({expected}): {said}")
        return found

    def _finding(self, name, expected, value):
        arguments = {**self.base(), name: value}
        start = time.perf_counter()
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(), interrupted_after(SECONDS):
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                result = self.call(**arguments)
                error = None
        except ERRORS as caught:
            error = caught
        except Exception as caught:
            return f"{type(caught).__name__}: {caught}"
        if (seconds := time.perf_counter() - start) > SECONDS:
            return f"took {seconds:.1f} s"
        if error is not None:
            words = self.aliases.get(name, name)
            if not re.search(rf"\b({words})\b", str(error)):
                return f"{type(error).__name__} that does not name it: {error}"
            return None if expected != FINE else f"refused: {error}"
        if expected == WRONG:
            return f"accepted: {_short(result)}"
        try:
            with np.errstate(all="ignore"):
                self.check(result, arguments)
        except Exception as caught:
            return f"wrong result {_short(result)}: {type(caught).__name__} {caught}"
        return None


class TookTooLong(Exception):
    pass


@contextmanager
def interrupted_after(seconds):
    """Raise where the block takes longer, on systems that have such a signal."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number, frame):
        raise TookTooLong(f"interrupted after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _short(value):
    kind = f"{type(value).__name__} {value.shape} {value.dtype} " if hasattr(value, "shape") else ""
    return (kind + " ".join(repr(value).split()))[:110]
