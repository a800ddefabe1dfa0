"""Operations on the long vectors of solvers and optimizers, with the same result on any number of threads.

They use one BLAS thread, for three reasons. Waking threads costs more than a pass over memory. NumPy's and
SciPy's BLAS each have their own threads, which compete for the processors. OpenBLAS rounds a float64 dot
product of more than 10,000 numbers (hence xᵀx in ``numpy.linalg.norm``), and a combination of vectors,
differently for each number of threads.
"""

import math

import numpy as np
from scipy.linalg import get_blas_funcs

from hfnb import threads
from hfnb.validation import shown

BLOCK = 512  # length of the blocks of a dot product whose sums are in the precision of the vectors
# Numbers that are added at a time where BLAS has several threads: for up to 10,000 OpenBLAS uses only one. A
# multiple of the length of its vector registers gives each number the same rounding as in one call for all.
PIECE = 9984

_AXPY = {dtype: get_blas_funcs("axpy", dtype=dtype) for dtype in map(np.dtype, (np.float32, np.float64))}


def dot(x: np.ndarray, y: np.ndarray) -> float:
    """Return xᵀy: blocks of 512 in the precision of the vectors, their sums added in float64.

    Parameters
    ----------
    x, y : ndarray (n,)
        float32 or float64.

    Returns
    -------
    float
        The dot product.

    Raises
    ------
    ValueError
        If x and y are not one-dimensional arrays of float32 or float64 of the same size.

    Notes
    -----
    The error in float32 is at most 512 · 2⁻²⁴ |x|ᵀ|y| < 3.1e-5 |x|ᵀ|y| for vectors of any length; it is
    typically about 1e-9 |x|ᵀ|y|.

    Examples
    --------
    >>> dot(np.full(10**6, 0.1, np.float32), np.ones(10**6, np.float32))
    100000.0
    """
    _check_pair(x, y)
    head = x.size - x.size % BLOCK
    with np.errstate(over="ignore", invalid="ignore"):
        blocks = np.vecdot(x[:head].reshape(-1, BLOCK), y[:head].reshape(-1, BLOCK))
        value = float(np.add.reduce(blocks, dtype=np.float64)) + float(x[head:] @ y[head:])
    if 1e-30 < abs(value) < np.inf or x.dtype == np.float64:
        return value
    # Squares of float32 numbers beyond 1e19 overflow and below 1e-19 vanish; in float64 they do neither.
    return float(np.einsum("i,i->", x, y, dtype=np.float64))


def norm(x: np.ndarray) -> float:
    """Return ‖x‖₂, summed as `dot` does.

    Parameters
    ----------
    x : ndarray (n,)
        float32 or float64.

    Returns
    -------
    float
        The Euclidean norm.

    Examples
    --------
    >>> norm(np.array([3.0, 4.0]))
    5.0
    """
    return math.sqrt(dot(x, x))


def coefficients(V: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return V x, the products of x with the rows of V.

    Parameters
    ----------
    V : ndarray (k, n)
        A matrix.
    x : ndarray (n,)
        A vector.

    Returns
    -------
    ndarray (k,)
        V x.

    Examples
    --------
    >>> coefficients(np.eye(2, 3), np.array([1.0, 2.0, 3.0]))
    array([1., 2.])
    """
    with threads.limited(1):
        return V @ x


def combine(c: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Return cᵀV, the sum of the rows of V times the numbers c.

    Parameters
    ----------
    c : ndarray (k,)
        The factors.
    V : ndarray (k, n)
        A matrix.

    Returns
    -------
    ndarray (n,)
        cᵀV, in the precision of V.

    Examples
    --------
    >>> combine(np.array([2.0, 3.0]), np.eye(2))
    array([2., 3.])
    """
    with threads.limited(1):
        return c.astype(V.dtype, copy=False) @ V


def axpy(y: np.ndarray, a: float, x: np.ndarray) -> None:
    """Add a·x to y in place.

    Parameters
    ----------
    y : ndarray (n,)
        float32 or float64.
    a : float
        The factor, which is rounded to the precision of y.
    x : ndarray (n,)
        float32 or float64.

    Raises
    ------
    ValueError
        If x and y are not one-dimensional arrays of float32 or float64 of the same size, or y is read-only.

    Examples
    --------
    >>> y = np.array([1.0, 2.0])
    >>> axpy(y, 0.5, np.array([2.0, 4.0]))
    >>> y
    array([2., 4.])
    """
    _check_pair(x, y)
    if not y.flags.writeable:
        raise ValueError("y: expected an array that can be written to, got one that is read-only")
    add = _AXPY.get(y.dtype)
    if add is None or x.dtype != y.dtype or not (_plain(x) and _plain(y)):
        y += y.dtype.type(a) * x
        return
    piece = max(y.size, 1) if threads.blas_is_sequential() else PIECE
    for start in range(0, y.size, piece):
        add(x, y, min(piece, y.size - start), a, start, 1, start, 1)


def _plain(x: np.ndarray) -> bool:
    """Whether BLAS can use the memory of x as it is; SciPy would otherwise add to a copy of it."""
    return x.flags.c_contiguous and x.flags.aligned


def _check_pair(x: np.ndarray, y: np.ndarray) -> None:
    """Raise ValueError for vectors of different sizes, which NumPy may broadcast; this takes 0.2 µs."""
    try:
        alike = x.shape == y.shape and x.ndim == 1 and x.dtype.char in "fd" and y.dtype.char in "fd"
        if alike and not (isinstance(x, np.ma.MaskedArray) or isinstance(y, np.ma.MaskedArray)):
            return
    except AttributeError:
        pass
    raise ValueError(
        f"x, y: expected two vectors of float32 or float64 of one size, got {shown(x)} and {shown(y)}"
    )
