"""Larger batches: what each method spends until the loss over all samples is at a target."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from hfnb.optimizers import first_order, hessian_free
from hfnb.optimizers.history import Record
from hfnb.studies.tasks import AUTO, Task

RATES: dict[str, tuple[float, ...]] = {
    "sgd": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "momentum": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "adam": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
}  # the grids over which every baseline is tuned, at every batch
COSTS = ("iterations", "passes", "reductions")
HESSIAN_FREE = next(iter(AUTO))


def costs_to(
    task: Task,
    optimizer: Callable,
    target: float,
    limit: float,
    seed: int = 0,
    patience: float = np.inf,
    **options: Any,
) -> dict:
    """Return what an optimizer spends until the loss over all samples is at a target.

    Parameters
    ----------
    task : Task
    optimizer : callable
        `hfnb.hessian_free` or `hfnb.first_order`.
    target : float
        A loss.
    limit : float
        Passes over the data after which the run ends.
    seed : int
    patience : float
        Passes after which the run also ends where it is `hopeless`.
    **options
        Of the optimizer. The ``batch_size`` of a first-order method is all samples unless it is given.

    Returns
    -------
    dict
        {name: cost} for the names in `COSTS`; infinity if the run does not get there.

    Raises
    ------
    ValueError
        Unless target and limit are positive.

    Notes
    -----
    The loss is measured after every epoch of a first-order method, and whenever the passes of another method
    have grown by 5 %; measuring costs nothing. Between the two measurements around the target, costs are
    interpolated (see `crossing`).

    Examples
    --------
    >>> import numpy as np
    >>> from hfnb import Dataset, models
    >>> data = Dataset(np.eye(2), np.array([0, 1]))
    >>> task = Task("two points", models.mlp([2, 2]), data, data, np.float64)
    >>> costs_to(task, first_order, 0.1, limit=100, batch_size=2, learning_rate=1.0)["passes"] < 20
    True
    """
    for name, value in (("target", target), ("limit", limit)):
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value!r}")
    path: list[tuple[float, tuple[float, ...]]] = []
    full, steps = task.objective(), 1
    if optimizer is first_order:  # whose iteration is an epoch
        steps = len(task.train) // options.setdefault("batch_size", len(task.train))

    def watch(record):
        if path and optimizer is not first_order and record.passes < min(1.05 * path[-1][1][1], limit):
            return False
        loss = (
            record.loss if optimizer is first_order else full.value(record.w)
        )  # record.loss of hessian_free is that of the mini-batch
        path.append((loss, (steps * record.iteration, record.passes, record.reductions)))
        if loss <= target or not np.isfinite(loss) or record.passes >= limit:
            return True
        return record.passes >= patience and hopeless(
            [(costs[1], loss) for loss, costs in path], target, limit
        )

    with np.errstate(over="ignore", invalid="ignore"):  # a rate that is too large diverges
        optimizer(task.objective(), task.start(seed), seed=seed, callback=watch, max_iter=10**6, **options)
    costs = crossing(path, target).tolist()
    return dict(zip(COSTS, costs if costs[1] <= limit else [np.inf] * 3, strict=True))


def hopeless(path: Sequence[tuple[float, float]], target: float, limit: float) -> bool:
    """Say whether a run will hardly reach a target within a limit.

    Parameters
    ----------
    path : sequence of (float, float)
        Passes and loss of the run so far.
    target : float
        A loss.
    limit : float
        Passes over the data.

    Returns
    -------
    bool
        True if, from now on, the logarithm of the least loss would have to fall more than twice as fast as
        it has over the second half of the passes so far. Past a first plateau, losses fall ever more slowly.

    Examples
    --------
    >>> hopeless([(10.0, 2.0), (20.0, 1.9)], target=0.1, limit=100)
    True
    """
    passes, least = path[-1][0], min(loss for _, loss in path)
    early = [loss for spent, loss in path if spent <= passes / 2]
    if len(early) in (0, len(path)):
        return False
    fall = np.log(min(early) / least) / (passes / 2)
    return bool(np.log(least) - 2 * fall * (limit - passes) > np.log(target))


def crossing(path: Sequence[tuple[float, Sequence[float]]], target: float) -> np.ndarray:
    """Return the costs at which a run first is at a target.

    Parameters
    ----------
    path : sequence of (float, sequence of float)
        Loss and costs at each measurement.
    target : float
        A loss.

    Returns
    -------
    ndarray
        Between two points, costs are linear in the logarithm of the loss. Infinity if the loss is never ≤
        the target.

    Raises
    ------
    ValueError
        For an empty path.

    Examples
    --------
    >>> crossing([(1.0, [0.0]), (0.01, [4.0])], 0.1)
    array([2.])
    """
    if not path:
        raise ValueError("path: expected at least one (loss, costs), got none")
    if path[0][0] <= target:
        return np.array(path[0][1], dtype=float)
    for (above, before), (below, after) in pairwise(path):
        if below <= target:
            below = max(below, np.finfo(float).tiny)  # a loss may be 0
            share = np.log(above / target) / np.log(above / below)
            return np.asarray(before) + share * (np.asarray(after) - np.asarray(before))
    return np.full(len(path[0][1]), np.inf)


def tuned(
    task: Task,
    method: str,
    batch: int,
    target: float,
    limit: float,
    seed: int = 0,
    rates: Sequence[float] | None = None,
    first: float | None = None,
) -> Record:
    """Return the costs of a first-order method at the learning rate that takes the fewest passes.

    Parameters
    ----------
    task : Task
    method : {"sgd", "momentum", "adam"}
    batch : int
        Samples of a mini-batch.
    target : float
        A loss.
    limit : float
        Passes over the data after which a run ends.
    seed : int
    rates : sequence of float, optional
        The grid of learning rates; by default `RATES`.
    first : float, optional
        The rate that is tried first; by default the middle of the grid.

    Returns
    -------
    Record
        The `COSTS`, ``batch``, the best ``rate`` (None if no rate gets there), and ``tried``, a list of
        [rate, passes] with infinity for a rate that was given up.

    Raises
    ------
    ValueError
        For an unknown method, or a first rate that is not on the grid.

    Notes
    -----
    From the first rate on, the grid is searched in both directions until a rate is no better than the best
    one. A rate is given up when it has spent more than the best one or, past a fifth of the limit, is
    `hopeless`.
    """
    if method not in RATES:
        raise ValueError(f"method: expected one of {', '.join(RATES)}, got {method!r}")
    grid = sorted(rates or RATES[method])
    if first is not None and first not in grid:
        raise ValueError(f"first: expected a rate of the grid, {grid}, got {first!r}")
    middle = (len(grid) - 1) // 2 if first is None else grid.index(first)
    best = Record(dict.fromkeys(COSTS, np.inf), batch=batch, rate=None)
    tried = []
    for way in (grid[middle:], grid[:middle][::-1]):
        for rate in way:
            options: dict[str, Any] = {"method": method, "batch_size": batch, "learning_rate": rate}
            found = costs_to(task, first_order, target, min(limit, best.passes), seed, limit / 5, **options)
            tried.append([rate, found["passes"]])
            if found["passes"] < best.passes:
                best.update(found, rate=rate)
            elif np.isfinite(best.passes):
                break
    return Record(best, tried=sorted(tried))


def sweep(
    task: Task,
    batches: Iterable[int],
    target: float,
    limit: float,
    seed: int = 0,
    methods: Iterable[str] = (HESSIAN_FREE, *RATES),
    callback: Callable | None = None,
) -> dict[str, list[Record]]:
    """Return the costs of several methods at each of several batch sizes.

    Parameters
    ----------
    task : Task
    batches : iterable of int
    target : float
        A loss.
    limit : float
        Passes over the data after which a run ends.
    seed : int
    methods : iterable of str
        `HESSIAN_FREE`, with the options of `hessian_free_options`, and first-order methods. Their rates are
        `tuned` at each batch; the search begins at the best rate of the batch before.
    callback : callable, optional
        Called as ``callback(method, record)`` after each result.

    Returns
    -------
    dict
        {method: list of Record, one for each batch}.

    Raises
    ------
    ValueError
        For an unknown method.

    Examples
    --------
    >>> import numpy as np
    >>> from hfnb import Dataset, models
    >>> data = Dataset(np.eye(4), np.array([0, 1, 0, 1]))
    >>> task = Task("four points", models.mlp([4, 2]), data, data, np.float64)
    >>> [record.batch for record in sweep(task, [1, 4], 0.1, limit=100)["adam"]]
    [1, 4]
    """
    found: dict[str, list[Record]] = {method: [] for method in methods}
    for batch in batches:
        for method, records in found.items():
            if method == HESSIAN_FREE:
                costs = costs_to(task, hessian_free, target, limit, seed, **hessian_free_options(task, batch))
                records.append(Record(costs, batch=batch))
            else:
                first = records[-1].rate if records else None
                records.append(tuned(task, method, batch, target, limit, seed, first=first))
            if callback:
                callback(method, records[-1])
    return found


def hessian_free_options(task: Task, batch: int) -> dict[str, Any]:
    """Return the options of ``method="auto"`` at a batch size.

    Parameters
    ----------
    task : Task
    batch : int
        Samples of a step. All samples are taken as they are, not drawn.

    Returns
    -------
    dict
        The curvature has a quarter of the samples.
    """
    batch_options = {"batch_size": batch} if batch < len(task.train) else {}
    return {**AUTO[HESSIAN_FREE], "curvature_batch_size": max(batch // 4, 1), **batch_options}


def largest_efficient(records: Iterable[dict], factor: float = 1.25) -> int:
    """Return the largest batch size that takes hardly more passes than the best one.

    Parameters
    ----------
    records : iterable of dict
        With entries ``batch`` and ``passes``.
    factor : float
        The most passes that are allowed, as a multiple of the fewest.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If no batch reached the target.

    Examples
    --------
    >>> rows = [(64, 4.0), (128, 4.5), (256, 6.0)]
    >>> largest_efficient([{"batch": batch, "passes": passes} for batch, passes in rows])
    128
    """
    passes = {record["batch"]: record["passes"] for record in records}
    least = min(passes.values(), default=np.inf)
    if not np.isfinite(least):
        raise ValueError(f"records: expected a batch that reached the target, got none among {list(passes)}")
    return max(batch for batch, spent in passes.items() if spent <= factor * least)
