"""The two operations that every Krylov loop is made of, on long float32 vectors without temporaries."""

import numpy as np
from scipy.linalg.blas import daxpy, saxpy

BLOCK = 128


def dot(x: np.ndarray, y: np.ndarray) -> float:
    """Return xᵀy; float32 vectors are multiplied in blocks of 128, whose sums are added in float64.

    So the error is at most 128 · 2⁻²⁴ |x|ᵀ|y| < 8e-6 |x|ᵀ|y| whatever the length (in practice 1e-9
    |x|ᵀ|y|).

    >>> dot(np.full(10**6, 0.1, np.float32), np.ones(10**6, np.float32))
    100000.0
    """
    head = x.size - x.size % BLOCK
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the value
        if x.dtype == np.float64 == y.dtype:
            return float(x @ y)
        blocks = np.matmul(x[:head].reshape(-1, 1, BLOCK), y[:head].reshape(-1, BLOCK, 1))
        value = float(blocks.sum(dtype=np.float64)) + float(x[head:] @ y[head:])
    if 1e-30 < abs(value) < np.inf:
        return value
    # Squares of float32 numbers beyond 1e19 overflow and below 1e-19 vanish; in float64 they do neither.
    return float(np.einsum("i,i->", x, y, dtype=np.float64))


def norm(x: np.ndarray) -> float:
    """Return ‖x‖₂, summed as ``dot`` does."""
    return float(np.sqrt(dot(x, x)))


def axpy(y: np.ndarray, a: float, x: np.ndarray) -> None:
    """Add a·x to the contiguous vector y in place: one pass over memory and no temporary (BLAS axpy)."""
    (daxpy if y.dtype == np.float64 else saxpy)(x, y, a=a)
