"""Whole methods on the problems of `hfnb.studies.negative_curvature`, all tuned by one rule.

Every method has the same starts, targets and limits. Hessian-free methods tune the first damping, first-order
methods the learning rate, the batch size and, with a schedule, its length; L-BFGS tunes its memory. Each is
tuned anew for every problem, start and cost, with a seed that the comparison does not use.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize

from hfnb.optimizers import first_order, hessian_free
from hfnb.studies.negative_curvature import COSTS, ENDLESS, PASSES, FactorialProblem, Spending
from hfnb.studies.tuning import Axis

METRICS = COSTS[1:]  # what methods are tuned for: first-order methods make no products
TUNING_SEED = 1000
MOST = 150  # settings that are tried for a method: three options have 26 neighbours


@dataclass(frozen=True)
class Entrant:
    """A method that is tuned for a cost, and a start.

    Attributes
    ----------
    method : str
        A name of `METHODS`.
    metric : {"passes", "reductions"}
        What its options are tuned for.
    start : {"ordinary", "near the saddle"}

    Examples
    --------
    >>> Entrant("SGD", "passes", "ordinary").method
    'SGD'
    """

    method: str
    metric: str
    start: str


Note = Callable[[float, Any], bool]  # (loss, costs) -> whether the run is to end
Minimizer = Callable[[FactorialProblem, np.ndarray, dict[str, Any], int, Note], None]


@dataclass(frozen=True)
class Method:
    """How a method runs, and what is tuned.

    Attributes
    ----------
    minimize : callable
        A function that runs it.
    fixed : dict
        Options that stay as they are.
    axes : callable
        (number of samples) -> {option: its `Axis`}.
    interpolated : bool
        Whether it notes its loss only once an epoch, so that costs between two epochs are interpolated.
    """

    minimize: Minimizer
    fixed: dict[str, Any]
    axes: Callable[[int], dict[str, Axis]]
    interpolated: bool = False


def _hessian_free(problem: FactorialProblem, w0: np.ndarray, options: dict, seed: int, note: Note) -> None:
    full = problem.objective()  # a record's loss is that of the mini-batch, where there are any

    def callback(record: Any) -> bool:
        return note(full.value(record.w), record)

    hessian_free(problem.objective(), w0, seed=seed, callback=callback, **ENDLESS, **options)


def _first_order(problem: FactorialProblem, w0: np.ndarray, options: dict, seed: int, note: Note) -> None:
    """With an option ``epochs``, the learning rate falls to zero over them by a cosine, and the run ends."""
    objective, options = problem.objective(), dict(options)
    epochs, rate = options.pop("epochs", None), options["learning_rate"]
    if epochs is not None:
        steps = epochs * (objective.n // options["batch_size"])
        options["learning_rate"] = lambda t: 0.5 * rate * (1 + np.cos(np.pi * min(t / steps, 1.0)))

    def callback(record: Any) -> bool:
        costs = {"products": 0.0, "passes": record.passes, "reductions": record.reductions}
        return note(record.loss, costs) or record.iteration == epochs

    with np.errstate(all="ignore"):  # a rate that is too large diverges
        first_order(objective, w0, seed=seed, max_iter=ENDLESS["max_iter"], callback=callback, **options)


class _Enough(Exception):
    """The run is to end."""


def _lbfgs(problem: FactorialProblem, w0: np.ndarray, options: dict, seed: int, note: Note) -> None:
    """SciPy's L-BFGS-B. Each evaluation of loss and gradient is a pass, and a reduction."""
    objective, evaluations = problem.objective(), 0

    def function(w: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal evaluations
        loss, g = objective.value_and_gradient(w)
        evaluations += 1
        costs = {"products": 0.0, "passes": float(evaluations), "reductions": float(evaluations)}
        if note(loss, costs):
            raise _Enough
        return loss, g

    limits = {"maxiter": 10**6, "maxfun": 10**7, "ftol": 0.0, "gtol": 0.0}
    with contextlib.suppress(_Enough):
        minimize(function, w0, jac=True, method="L-BFGS-B", options={**limits, **options})


def _damping(n: int) -> dict[str, Axis]:
    return {"damping": Axis(1.0, 10.0)}


def _rates(rate: float, schedule: bool, n: int) -> dict[str, Axis]:
    axes = {"learning_rate": Axis(rate, 3.0), "batch_size": Axis(64, 4, largest=n)}
    return axes | ({"epochs": Axis(64, 2)} if schedule else {})


def _first_order_methods() -> dict[str, Method]:
    found = {}
    for name, method, rate in (("SGD", "sgd", 0.1), ("momentum", "momentum", 0.03), ("Adam", "adam", 0.003)):
        for schedule in (False, True):
            axes = partial(_rates, rate, schedule)
            label = f"{name}, cosine schedule" if schedule else name
            found[label] = Method(_first_order, {"method": method}, axes, interpolated=True)
    return found


FIRST_ORDER = _first_order_methods()
METHODS: dict[str, Method] = {
    "paper": Method(_hessian_free, {"method": "paper"}, _damping),
    "Martens": Method(_hessian_free, {"method": "martens"}, _damping),
    "Martens, preconditioned": Method(
        _hessian_free, {"method": "martens", "preconditioner": "diagonal"}, _damping
    ),
    "auto": Method(_hessian_free, {"method": "auto"}, _damping),
    "auto, not tuned": Method(_hessian_free, {"method": "auto"}, lambda n: {}),
    **FIRST_ORDER,
    "L-BFGS": Method(_lbfgs, {}, lambda n: {"maxcor": Axis(10, 3)}),
}
BASELINES = (*FIRST_ORDER, "L-BFGS")


def attempt(
    problem: FactorialProblem,
    method: str,
    settings: dict[str, Any],
    start: str,
    seed: int,
    passes: float = PASSES,
    **limits: Any,
) -> dict[str, Any]:
    """Run a method until the last target, or until the passes are over.

    Parameters
    ----------
    problem : FactorialProblem
    method : str
        A name of `METHODS`.
    settings : dict
        All its options.
    start : {"ordinary", "near the saddle"}
    seed : int
        Of the start and of the mini-batches.
    passes : float
        The most passes over the data.
    **limits
        ``until`` and ``allowed`` of `hfnb.studies.negative_curvature.Spending`.

    Returns
    -------
    dict
        ``costs`` and ``spent`` as `hfnb.studies.negative_curvature.run` returns them, the least ``loss``, and
        ``cut``, whether the run ended only because it had spent what is allowed.

    Raises
    ------
    ValueError
        For an unknown method.

    Examples
    --------
    >>> from hfnb.studies.negative_curvature import deep_linear_problem
    >>> found = attempt(deep_linear_problem(), "L-BFGS", {"maxcor": 10}, "ordinary", seed=0)
    >>> found["costs"]["passes"][-1] < 200
    True
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    spending, entry = Spending(problem, passes, **limits), METHODS[method]
    entry.minimize(problem, problem.start(seed, start), settings, seed, spending.note)
    losses = [loss for loss, _ in spending.path if np.isfinite(loss)]
    told = spending.told(interpolated=entry.interpolated)
    return told | {"loss": float(min(losses, default=np.inf)), "cut": spending.cut}


def cost(run: dict[str, Any], metric: str, target: int) -> tuple[float, float]:
    """Return what tuning compares: the cost to a target, then the least loss.

    Parameters
    ----------
    run : dict
        What `attempt` returned.
    metric : {"passes", "reductions"}
    target : int
        Position in `hfnb.studies.negative_curvature.FRACTIONS`.

    Returns
    -------
    tuple of float
        The cost is infinite where the target was not reached; the least loss then decides.

    Examples
    --------
    >>> cost({"costs": {"passes": [3.0, None]}, "loss": 0.5}, "passes", 1)
    (inf, 0.5)
    """
    found = run["costs"][metric][target]
    return (np.inf, run["loss"]) if found is None else (found, 0.0)


def read(document: Mapping[str, Any]) -> dict[tuple[str, Entrant, int], Any]:
    """Return the runs at the tuned settings, from the results of ``python -m bench methods``.

    Parameters
    ----------
    document : mapping
        Such as ``tasks.published("bench/results/methods.json")``.

    Returns
    -------
    dict
        {(problem, entrant, seed): run}, as `hfnb.studies.negative_curvature.ratio` takes them.

    Examples
    --------
    >>> document = {"tuned": {'["toy", "SGD", "passes", "ordinary"]': {"settings": {}}}}
    >>> document["runs"] = {'["toy", "SGD", {}, "ordinary", 3]': "a run"}
    >>> read(document)
    {('toy', Entrant(method='SGD', metric='passes', start='ordinary'), 3): 'a run'}
    """
    by_settings: dict[str, dict[int, Any]] = {}
    for key, run in document["runs"].items():
        *where, seed = json.loads(key)
        by_settings.setdefault(json.dumps(where), {})[seed] = run
    found = {}
    for key, told in document["tuned"].items():
        problem, method, metric, start = json.loads(key)
        runs = by_settings[json.dumps([problem, method, told["settings"], start])]
        for seed, run in runs.items():
            if seed != TUNING_SEED:
                found[problem, Entrant(method, metric, start), seed] = run
    return found


def costs(
    runs: Mapping[tuple[str, Entrant, int], Any], entrant: Entrant, target: int
) -> dict[tuple[str, int], float]:
    """Return what a method spends to a target, in the cost that it is tuned for.

    Parameters
    ----------
    runs : mapping
        What `read` returned.
    entrant : Entrant
    target : int
        Position in `hfnb.studies.negative_curvature.FRACTIONS`.

    Returns
    -------
    dict
        {(problem, seed): cost}, infinite where the run did not arrive; in the order of its keys.

    Examples
    --------
    >>> sgd = Entrant("SGD", "passes", "ordinary")
    >>> costs({("toy", sgd, 3): {"costs": {"passes": [4.0, None]}}}, sgd, target=1)
    {('toy', 3): inf}
    """
    mine = {(problem, seed): run for (problem, each, seed), run in runs.items() if each == entrant}
    found = {key: mine[key]["costs"][entrant.metric][target] for key in sorted(mine)}
    return {key: np.inf if value is None else value for key, value in found.items()}
