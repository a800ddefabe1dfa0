"""What a problem is: a seeded objective, a seeded start, and the error of an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfnb.objectives import Objective

# Options of objectives in autograd: one record for all rows, because each record takes time of its own.
ONE_RECORD: dict[str, Any] = {"partitions": 1, "chunk": 4096}


@dataclass(frozen=True)
class PrecisionProblem:
    """A fit whose error is known: least squares in float64, with an answer to compare with.

    Attributes
    ----------
    name : str
        What tables and figures call it.
    objective : callable
        ``objective(seed)``: the training objective, with points or samples drawn from the seed. Where the
        data is a fixed set, it is the same for each seed.
    start : callable
        ``start(seed)``: random parameters to start from, (p,), in float64.
    error : callable
        ``error(w)``: the error of parameters w, which is 0 for a perfect answer. It does not depend on the
        seed of the objective.
    shapes : tuple of tuple of int
        The shapes of the weights and biases that the parameters hold, in their order, for methods that
        treat each matrix as a whole.
    goal : float, optional
        The error at which the problem counts as solved; None if there is no such error.
    symbol_error : callable, optional
        ``symbol_error(w)``: the fraction of test symbols that are wrong; None if answers are not symbols.
    batch_size : int, optional
        Number of samples in the mini-batches of first-order methods; None where all points belong together.
    curvature_batch_size : int, optional
        Number of samples for curvature products and line searches of `hfnb.hessian_free`; None for all.

    Examples
    --------
    >>> from hfnb import levenberg_marquardt
    >>> from hfnb.studies import precision_problems
    >>> problem = precision_problems.oscillation(hidden=(10,), points=100)
    >>> result = levenberg_marquardt(problem.objective(0), problem.start(0), max_iter=20)
    >>> problem.error(result.x) < problem.error(problem.start(0))
    True
    """

    name: str
    objective: Callable[[int], Objective]
    start: Callable[[int], np.ndarray]
    error: Callable[[np.ndarray], float]
    shapes: tuple[tuple[int, ...], ...]
    goal: float | None = None
    symbol_error: Callable[[np.ndarray], float] | None = None
    batch_size: int | None = None
    curvature_batch_size: int | None = None


def relative_error(found: np.ndarray, answer: np.ndarray) -> float:
    """Return ‖found − answer‖ / ‖answer‖, in the Euclidean norm over all entries.

    Parameters
    ----------
    found : ndarray
        Values to judge.
    answer : ndarray
        The right values, of the same shape and not all zero.

    Returns
    -------
    float
        The relative error.

    Raises
    ------
    ValueError
        If the shapes differ, so that subtracting would pair all entries with all entries.

    Examples
    --------
    >>> relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
    0.1
    """
    if np.shape(found) != np.shape(answer):
        raise ValueError(f"found: expected shape {np.shape(answer)} of the answer, got {np.shape(found)}")
    return float(np.linalg.norm(found - answer) / np.linalg.norm(answer))
