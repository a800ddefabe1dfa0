"""Larger batches: what each method spends until the loss over all samples is at a target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from hfnb.optimizers import first_order, hessian_free
from hfnb.optimizers.history import Record
from hfnb.studies import tuning
from hfnb.studies.tasks import Task
from hfnb.studies.tuning import HALF_DECADE, Axis

COSTS = ("iterations", "passes", "reductions")
CURVATURE_PART = 4  # the curvature of a Hessian-free step has this part of its batch


@dataclass(frozen=True)
class Method:
    """An optimizer with the option that is tuned at every batch size.

    Attributes
    ----------
    optimizer : callable
        `hfnb.hessian_free` or `hfnb.first_order`.
    option : str
        What is tuned.
    axis : Axis
        Its grid.
    fixed : dict
        The other options, apart from the batch.
    """

    optimizer: Callable
    option: str
    axis: Axis
    fixed: dict[str, Any] = field(default_factory=dict)

    def options(self, task: Task, batch: int) -> dict[str, Any]:
        """Return the options at a batch size, without the one that is tuned.

        Parameters
        ----------
        task : Task
        batch : int
            Samples of a step. All samples are taken as they are, not drawn.

        Returns
        -------
        dict
            The curvature of a Hessian-free method has a quarter of the samples.
        """
        if self.optimizer is first_order:
            return {**self.fixed, "batch_size": batch}
        drawn = {"batch_size": batch} if batch < len(task.train) else {}
        return {**self.fixed, "curvature_batch_size": max(batch // CURVATURE_PART, 1), **drawn}


METHODS = {
    "paper": Method(hessian_free, "damping", Axis(1.0, 10.0), {"method": "paper"}),
    "Martens": Method(hessian_free, "damping", Axis(1.0, 10.0), {"method": "martens"}),
    "auto": Method(hessian_free, "damping", Axis(1.0, 10.0), {"method": "auto"}),
    "SGD": Method(first_order, "learning_rate", Axis(0.32, HALF_DECADE), {"method": "sgd"}),
    "momentum": Method(first_order, "learning_rate", Axis(0.1, HALF_DECADE), {"method": "momentum"}),
    "Adam": Method(first_order, "learning_rate", Axis(0.0032, HALF_DECADE), {"method": "adam"}),
}


def costs_to(
    task: Task,
    optimizer: Callable,
    target: float,
    limit: float,
    seed: int = 0,
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
        return loss <= target or not np.isfinite(loss) or record.passes >= limit

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


def cost(
    task: Task,
    method: str,
    batch: int,
    value: float,
    target: float,
    limit: float,
    seed: int = 0,
) -> dict[str, float]:
    """Return what a method spends with a value of the option that is tuned.

    Parameters
    ----------
    task : Task
    method : str
        A name of `METHODS`.
    batch : int
        Samples of a step.
    value : float
        A learning rate, or the first damping.
    target : float
        A loss.
    limit : float
        Passes over the data after which the run ends.
    seed : int
        Of the start and of the mini-batches.

    Returns
    -------
    dict
        As of `costs_to`.

    Raises
    ------
    ValueError
        For an unknown method, a target or a limit that is not positive.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    chosen = METHODS[method]
    options = {**chosen.options(task, batch), chosen.option: value}
    return costs_to(task, chosen.optimizer, target, limit, seed, **options)


def tuned(task: Task, method: str, batch: int, target: float, limit: float, seed: int = 0) -> Record:
    """Return the costs of a method at the learning rate or first damping that takes the fewest passes.

    Parameters
    ----------
    task : Task
    method : str
        A name of `METHODS`.
    batch : int
        Samples of a step.
    target : float
        A loss.
    limit : float
        Passes over the data after which a run ends.
    seed : int
        Of the starts and of the mini-batches.

    Returns
    -------
    Record
        The `COSTS`, ``batch``, the best ``value``, whether it lies ``inside`` the grid, between two that are
        no better, and ``tried``, a list of (value, passes) with infinity for what was given up.

    Raises
    ------
    ValueError
        As for `cost`.

    Notes
    -----
    From the first value of the grid on, the search goes in both directions until a value is no better than
    the best one (`hfnb.studies.tuning.tuned`). A value is given up when it has spent more than the best one.

    Examples
    --------
    >>> from hfnb import Dataset, models
    >>> data = Dataset(np.eye(4), np.array([0, 1, 0, 1]))
    >>> task = Task("four points", models.mlp([4, 2]), data, data, np.float64)
    >>> tuned(task, "Adam", 4, 0.1, limit=1000).passes < 1
    True
    """
    best, tried = Record(dict.fromkeys(COSTS, np.inf)), list[tuple[float, float]]()

    def attempt(options: dict[str, Any]) -> float:
        (value,) = options.values()
        found = cost(task, method, batch, value, target, min(limit, best.passes), seed)
        tried.append((value, found["passes"]))
        if found["passes"] < best.passes:
            best.update(found)
        return found["passes"]

    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    chosen = METHODS[method]
    found = tuning.tuned({}, {chosen.option: chosen.axis}, attempt)
    return Record(
        best, batch=batch, value=found.settings[chosen.option], inside=found.inside, tried=sorted(tried)
    )


def growth(passes: dict[int, Sequence[float]], small: int, large: int) -> np.ndarray:
    """Return the passes at a large batch ÷ those at a small one, for each seed.

    Parameters
    ----------
    passes : dict
        {batch: passes to the target, one for each seed}.
    small, large : int
        Two of the batches.

    Returns
    -------
    ndarray
        Infinity where only the large batch did not arrive, 0 where only the small one did not, NaN where
        neither did.

    Examples
    --------
    >>> growth({64: [2.0, 4.0], 640: [3.0, np.inf]}, 64, 640)
    array([1.5, inf])
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(passes[large], float) / np.asarray(passes[small], float)


def read(document: dict[str, Any]) -> dict[str, dict[str, dict[int, list[float]]]]:
    """Return what all methods spent at each batch size, from the results of ``python -m bench batches``.

    Parameters
    ----------
    document : dict
        Such as ``tasks.published("bench/results/batches.json")``.

    Returns
    -------
    dict
        {cost: {method: {batch: what each seed spent, infinite if it did not arrive}}}.

    Examples
    --------
    >>> runs = [dict.fromkeys(COSTS, 3.0), dict.fromkeys(COSTS)]
    >>> read({"tuned": {"a key": {"method": "SGD", "batch": 64, "runs": runs}}})["passes"]
    {'SGD': {64: [3.0, inf]}}
    """
    found: dict[str, dict[str, dict[int, list[float]]]] = {cost: {} for cost in COSTS}
    for entry in sorted(document["tuned"].values(), key=lambda entry: entry["batch"]):
        for name, methods in found.items():
            spent = [np.inf if run[name] is None else run[name] for run in entry["runs"]]
            methods.setdefault(entry["method"], {})[entry["batch"]] = spent
    return found
