"""Cells: random, fixed parts of the data, each of which can work alone between two reductions.

An objective with cells has them as its partitions, whatever the number of engines. `hfnb.Objective.average`
lets a task run in every cell and returns the mean of the results: one reduction for as much work as the task
does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfnb.validation import check_nonnegative_int, check_positive_int, shown

CELLS = 16  # what `hfnb.Cluster.minimize` uses for an optimizer that needs cells
COUNTED = 2  # numbers at the end of what a cell returns: the samples that it has seen, see `packed`
_UNIT = 4096


@dataclass(frozen=True)
class Cells:
    """The cells of a dataset: its contiguous partitions, once it is in random order.

    Parameters
    ----------
    number : int
        How many there are.
    seed : int or None
        Seed of the order. None keeps the order of the data: if that is sorted, cells differ from each other.

    Examples
    --------
    >>> cells = Cells.of(6, partitions=None, number=2, seed=0)
    >>> sorted(order(6, cells.seed).tolist()), cells.identity()
    ([0, 1, 2, 3, 4, 5], {'cells': '2 with cell_seed 0'})
    """

    number: int
    seed: int | None

    @classmethod
    def of(cls, n: int, partitions: int | None, number: int | None, seed: int | None) -> "Cells | None":
        """Return the cells that a user asks for; None for none.

        Parameters
        ----------
        n : int
            Number of samples.
        partitions : int, optional
            Number of partitions, which must be None with cells.
        number : int, optional
            Number of cells; None for none.
        seed : int or None
            Seed of the order of the samples; None for the order of the data.

        Returns
        -------
        Cells or None
            The cells.

        Raises
        ------
        ValueError, TypeError
            If both numbers are given, there are more cells than samples, or an argument is of another kind.
        """
        seed = None if seed is None else check_nonnegative_int("cell_seed", seed)
        if number is None:
            return None
        number = check_positive_int("cells", number, at_most=n)
        if partitions is not None:
            raise ValueError(
                f"partitions: expected None with cells={number}, which are the partitions, got {partitions}"
            )
        return cls(number, seed)

    def identity(self) -> dict[str, str]:
        """Return {"cells": a description}, by which a checkpoint recognizes a run with the same cells.

        Returns
        -------
        dict of str
            One entry.
        """
        return {"cells": f"{self.number} with cell_seed {self.seed}"}


def order(n: int, seed: int | None) -> np.ndarray | None:
    """Return the random order in which contiguous partitions of a dataset are random parts of it.

    Parameters
    ----------
    n : int
        Number of samples.
    seed : int or None
        Seed of the order.

    Returns
    -------
    ndarray of int, shape (n,), or None
        The row of the dataset at each place; None without a seed, for the order of the data.
    """
    return None if seed is None else np.random.default_rng(seed).permutation(n)


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
        The count in units of 4,096, and the rest: in float32 the sums over up to 4,096 cells are exact up to
        6 · 10¹⁰ samples.

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
