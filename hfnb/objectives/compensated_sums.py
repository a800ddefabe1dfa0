"""Totals: sums of many parts that hardly ever depend on how the parts are grouped.

Rounding makes (a + b) + c differ from a + (b + c), and Krylov iterations amplify small differences: on MNIST,
with plain sums, the parameters after ten iterations on two engines and on one differ by 1e-2. A float64 total
therefore has a second row with the rounding errors of its sums, which doubles the number of digits (Knuth,
TAOCP 2, §4.2.2; Dekker 1971). It is rounded once, at the end; the grouping changes it by about eps² before
that, which this rounding nearly always removes. A float32 total is a plain sum.
"""

import numpy as np
from numpy.typing import DTypeLike

# How many numbers are added at a time. With fewer, threads wait for each other at Python's lock; with more,
# the temporary arrays do not fit into the cache.
BLOCK = 65536


def zeros(size: int, dtype: DTypeLike) -> np.ndarray:
    """Return a total of zeros.

    Parameters
    ----------
    size : int
        Number of sums.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    ndarray, shape (2, size) in float64, (size,) in float32
        The sums and, in float64, their rounding errors.

    Examples
    --------
    >>> total = zeros(1, float)
    >>> for part in (1e16, 1.0, -1e16):
    ...     add(total, np.array([part]))
    >>> value(total)
    array([1.])
    """
    return np.zeros((2, size) if np.dtype(dtype) == np.float64 else size, dtype)


def empty(size: int, dtype: DTypeLike) -> np.ndarray:
    """Return a total whose sums are to be stored in `rounded`; the rounding errors are zero.

    Parameters
    ----------
    size : int
        Number of sums.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    ndarray, shape (2, size) in float64, (size,) in float32
        The sums, any numbers, and, in float64, their rounding errors.
    """
    total = np.empty((2, size) if np.dtype(dtype) == np.float64 else size, dtype)
    if total.ndim == 2:
        total[1] = 0
    return total


def rounded(total: np.ndarray) -> np.ndarray:
    """Return the sums of a total without their rounding errors, as a view.

    Parameters
    ----------
    total : ndarray, shape (2, size) or (size,)
        The total.

    Returns
    -------
    ndarray, shape (size,)
        The sums.
    """
    return total if total.ndim == 1 else total[0]


def nbytes(size: int, dtype: DTypeLike) -> int:
    """Return the size of a total in bytes.

    Parameters
    ----------
    size : int
        Number of sums.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    int
        16 bytes for each number in float64, because of its rounding error, and 4 in float32.
    """
    return size * (2 if np.dtype(dtype) == np.float64 else 1) * np.dtype(dtype).itemsize


def add(total: np.ndarray, part: np.ndarray) -> None:
    """Add a part to a total in place, by Knuth's two-sum, in blocks that stay in the cache.

    Parameters
    ----------
    total : ndarray, shape (2, size) or (size,)
        The total.
    part : ndarray, shape (size,)
        What is added.
    """
    if total.ndim == 1:
        total += part
        return
    scratch = np.empty((3, min(part.size, BLOCK)))
    for start in range(0, part.size, BLOCK):
        high, low = total[:, start : start + BLOCK]
        new = part[start : start + BLOCK]
        rounded, added, kept = scratch[:, : new.size]
        np.add(high, new, out=rounded)
        np.subtract(rounded, high, out=added)  # the amount of new that rounded contains
        np.subtract(rounded, added, out=kept)  # the amount of high that rounded contains
        high -= kept
        np.subtract(new, added, out=added)
        high += added  # the rounding error of the sum
        low += high
        high[:] = rounded


def merge(total: np.ndarray, other: np.ndarray) -> None:
    """Add another total, or a part, to a total in place; merge(a, b) and merge(b, a) give the same total.

    Parameters
    ----------
    total : ndarray, shape (2, size) or (size,)
        The total.
    other : ndarray, shape (2, size) or (size,)
        What is added.
    """
    if other.ndim == 1:
        add(total, other)
        return
    total[1] += other[1]
    add(total, other[0])


def value(total: np.ndarray) -> np.ndarray:
    """Return the sums of a total, rounded once.

    Parameters
    ----------
    total : ndarray, shape (2, size) or (size,)
        The total.

    Returns
    -------
    ndarray, shape (size,)
        The sums; in float32 the total itself.
    """
    return total if total.ndim == 1 else total[0] + total[1]
