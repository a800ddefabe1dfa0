"""Cells: random, fixed parts of the data, each of which can work alone between two reductions.

An objective with cells has them as its partitions, whatever the number of engines. `hfnb.Objective.average`
lets a task run in every cell and returns the mean of the results: one reduction for as much work as the task
does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from hfnb.datasets import Dataset
from hfnb.validation import check_nonnegative_int, check_positive_int, shown

CELLS = 16  # what `hfnb.Cluster.minimize` uses for an optimizer that needs cells
COUNTED = 2  # numbers at the end of what a cell returns: the samples that it has seen, see `packed`
_UNIT = 4096


def in_cells(
    data: Dataset, partitions: int | None, cells: int | None, seed: int | None = 0
) -> tuple[Dataset, int | None]:
    """Return the data in random order, so that its contiguous partitions are random parts: the cells.

    Parameters
    ----------
    data : Dataset
        The samples; with cells, those of mapped files are copied into memory.
    partitions : int, optional
        Number of partitions if there are no cells.
    cells : int, optional
        Number of cells; None for none, and then the data keeps its order.
    seed : int or None
        Seed of the order. None keeps the order of the data: if that is sorted, cells differ from each other.

    Returns
    -------
    data : Dataset
        The same samples.
    partitions : int or None
        The number of cells, or of partitions if there are no cells.

    Raises
    ------
    ValueError
        If both numbers are given, or there are more cells than samples.

    Examples
    --------
    >>> data = Dataset(np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 1, 1]))
    >>> dealt, partitions = in_cells(data, None, cells=2)
    >>> sorted(dealt.X.ravel().tolist()), partitions
    ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 2)
    """
    if cells is None:
        return data, partitions
    if partitions is not None:
        raise ValueError("partitions: expected None with cells, which are the partitions, got both")
    check_positive_int("cells", cells, at_most=len(data))
    if seed is None:
        return data, cells
    order = np.random.default_rng(check_nonnegative_int("cell_seed", seed)).permutation(len(data))
    return data[order], cells


def packed(samples: int, dtype: np.dtype) -> np.ndarray:
    """Return a number of samples as two numbers, whose sums over cells are exact even in float32.

    Parameters
    ----------
    samples : int
        Number of samples, at least 0.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    ndarray, shape (2,)
        The count in units of 4,096, and the rest: in float32 the sums are exact up to 6 · 10¹⁰ samples.

    Examples
    --------
    >>> unpacked(packed(5000, np.dtype(np.float32)) + packed(16_777_217, np.dtype(np.float32)))
    16782217
    """
    return np.array(divmod(samples, _UNIT), dtype)


def unpacked(counts: np.ndarray) -> int:
    """Return the number of samples from a sum of what `packed` returns.

    Parameters
    ----------
    counts : ndarray, shape (2,)
        The sum over cells.

    Returns
    -------
    int
        Number of samples.
    """
    return round(float(counts[0])) * _UNIT + round(float(counts[1]))


def checked(result: Any, size: int, w: np.ndarray, task: Callable[..., Any]) -> np.ndarray:
    """Return what a task returned, if it is a vector of the right length in the precision of w.

    Parameters
    ----------
    result : array_like, shape (size,)
        What the task returned.
    size : int
        The expected length.
    w : ndarray, shape (p,)
        Parameters.
    task : callable
        The task, which the error names.

    Returns
    -------
    ndarray, shape (size,)
        The vector.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    vector = np.asarray(result)
    if vector.shape != (size,) or vector.dtype.kind not in "fiub":
        name = getattr(task, "__name__", "task")
        raise ValueError(f"task: expected {name} to return {size} real numbers, got {shown(result)}")
    return vector.astype(w.dtype, copy=False)
