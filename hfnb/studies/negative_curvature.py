"""What steps along negative curvature are worth: all combinations of solver, matrix, stopping rule and step.

Each combination runs from an ordinary start and from one near a saddle. The certificate of saddles is
switched off, so that what a run finds, its solver has found. What is compared are the costs to reach three
losses: curvature products, passes over the data, and reductions over engines.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from scipy.stats import norm, t

from hfnb import models
from hfnb.datasets import Dataset
from hfnb.objectives import Objective
from hfnb.optimizers import hessian_free
from hfnb.studies.larger_batches import crossing
from hfnb.studies.speech_recognition import timit_task
from hfnb.studies.tasks import pooled_mnist

FACTORS: dict[str, tuple[str, ...]] = {
    "solver": ("cg", "bicgstab", "minres"),
    "curvature": ("hessian", "gauss-newton"),
    "rule": ("martens", "marginal-gain", "tolerance"),
    "step": ("better", "newton"),  # with and without steps along negative curvature
    "start": ("ordinary", "near the saddle"),
}
# What the rules stand for. "tolerance" solves until the residual is a thousandth of the gradient.
RULES: dict[str, dict[str, Any]] = {
    "martens": {"stopping_rule": "martens"},
    "marginal-gain": {"stopping_rule": "marginal-gain"},
    "tolerance": {
        "stopping_rule": "martens",
        "solver_options": {"progress": 0.0, "rtol": 1e-3, "max_iter": 250},
    },
}
LEFT_OUT = {
    "marginal-gain with bicgstab or minres": "the rule is one of CG; with others it stands for Martens' rule",
    "better with gauss-newton": "the Gauss–Newton matrix has no negative curvature, so that both steps agree",
}
COSTS = ("products", "passes", "reductions")
FRACTIONS = (0.5, 0.2, 0.05)  # of the way down from the saddle's loss that is left at the targets
PASSES = 1500.0  # over the data, after which a run ends
SEEDS_NEEDED = 5  # for a verdict
SHRUNK = 0.1  # factor of the weights of an ordinary start, which leads near the saddle at zero


class Variant(Protocol):
    """How a run is made: a frozen dataclass whose fields are factors.

    Attributes
    ----------
    start : {"ordinary", "near the saddle"}
    options : dict
        Those of `hfnb.hessian_free`.
    """

    @property
    def start(self) -> str: ...

    @property
    def options(self) -> dict[str, Any]: ...


AnyVariant = TypeVar("AnyVariant")  # a frozen dataclass whose fields are factors
ENDLESS: dict[str, Any] = {"tol": 0.0, "max_iter": 10**6}  # a run ends by its callback


@dataclass(frozen=True)
class Combination:
    """A value of each factor.

    Attributes
    ----------
    solver : {"cg", "bicgstab", "minres"}
    curvature : {"hessian", "gauss-newton"}
    rule : {"martens", "marginal-gain", "tolerance"}
        When a solve stops.
    step : {"better", "newton"}
        With steps along negative curvature, or without.
    start : {"ordinary", "near the saddle"}

    Examples
    --------
    >>> Combination("cg", "hessian", "martens", "newton", "ordinary").options["step"]
    'newton'
    """

    solver: str
    curvature: str
    rule: str
    step: str
    start: str

    @property
    def meaningful(self) -> bool:
        """Whether it differs from all others (see ``LEFT_OUT``)."""
        ruled = self.rule != "marginal-gain" or self.solver == "cg"
        return ruled and (self.step != "better" or self.curvature == "hessian")

    @property
    def options(self) -> dict[str, Any]:
        """The options of `hfnb.hessian_free`."""
        chosen = {"solver": self.solver, "curvature": self.curvature, "step": self.step}
        return {**ENDLESS, "damping": "gradient", **chosen, **RULES[self.rule]}


def combinations() -> list[Combination]:
    """Return all combinations that have a meaning.

    Returns
    -------
    list of Combination

    Examples
    --------
    >>> len(combinations())
    42
    """
    found = (Combination(*values) for values in product(*FACTORS.values()))
    return [each for each in found if each.meaningful]


@dataclass(frozen=True)
class FactorialProblem:
    """A problem with a saddle: an objective, starts, and the losses between which its targets lie.

    Attributes
    ----------
    objective : callable
        () -> the objective, with costs of zero.
    start : callable
        ``start(seed, where)`` with "ordinary" or "near the saddle".
    saddle, least : float
        The loss at the saddle, and the least one or a bound below it.
    """

    objective: Callable[[], Objective]
    start: Callable[[int, str], np.ndarray]
    saddle: float
    least: float

    def target(self, fraction: float) -> float:
        """Return the loss at which a fraction of the way down from the saddle is left.

        Parameters
        ----------
        fraction : float
            From 0 to 1.

        Returns
        -------
        float
        """
        return self.least + fraction * (self.saddle - self.least)


def network_problem(
    net: models.Network, data: Dataset, least: float = 0.0, shrunk: float = SHRUNK
) -> FactorialProblem:
    """Return the training of a network, whose saddle has zero weights.

    Parameters
    ----------
    net : Network
    data : Dataset
        Of float64.
    least : float
        The least loss, or a bound below it.
    shrunk : float
        Near the saddle, a start has this multiple of the usual weights.

    Returns
    -------
    FactorialProblem

    Examples
    --------
    >>> problem = network_problem(models.mlp([2, 3, 2]), Dataset(np.eye(2), np.array([0, 1])))
    >>> round(problem.target(1.0), 3)  # two classes of equal probability: log 2
    0.693
    """

    def start(seed: int, where: str) -> np.ndarray:
        return (1.0 if where == "ordinary" else shrunk) * net.init(seed, dtype=np.float64)

    saddle = Objective(net, data).value(np.zeros(net.size))
    return FactorialProblem(lambda: Objective(net, data), start, float(saddle), least)


def deep_linear_problem(widths: Sequence[int] = (8, 6, 6, 8)) -> FactorialProblem:
    """Return a linear network whose least loss is known; at zero weights it has a saddle.

    Parameters
    ----------
    widths : sequence of int
        Numbers of inputs, of the units of each hidden layer, and of outputs, equal to that of inputs.

    Returns
    -------
    FactorialProblem
        The network approximates a matrix with singular values from 2 to 0.5 by one whose rank is at most the
        width of its narrowest layer.

    References
    ----------
    C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", Psychometrika 1, 1936.

    Examples
    --------
    >>> problem = deep_linear_problem((3, 1, 3))
    >>> problem.least == 0.5 * (1.25**2 + 0.5**2)
    True
    """
    random, n = np.random.default_rng(0), widths[0]
    s = np.linspace(2.0, 0.5, n)
    U, V = (np.linalg.qr(random.standard_normal((n, n)))[0] for _ in range(2))
    samples = random.standard_normal((8 * n, n))
    X = np.sqrt(len(samples)) * np.linalg.qr(samples - samples.mean(axis=0))[0]  # whitened
    net = models.Network(tuple(widths), ("linear",) * (len(widths) - 1), "squared_error")
    return network_problem(net, Dataset(X, X @ (U * s) @ V.T), 0.5 * float(np.sum(s[min(widths) :] ** 2)))


def _mnist(activation: str) -> FactorialProblem:
    return network_problem(models.mlp([196, 32, 16, 10], activation), pooled_mnist(1000, side=14))


def _eight_layers() -> FactorialProblem:
    # With a tenth of the weights, the curvature of so many layers would be lost in rounding.
    net = models.mlp([49, *[12] * 7, 10], "sigmoid")
    return network_problem(net, pooled_mnist(500, side=7), shrunk=0.5)


def _speech() -> FactorialProblem:
    train = timit_task("fast", corpus="synthetic").train
    return network_problem(models.mlp([train.X.shape[1], 24, 24, 144]), train[::4])


def _autoencoder() -> FactorialProblem:
    X = pooled_mnist(500, side=14).X
    return network_problem(models.autoencoder([196, 32, 6]), Dataset(X, X))


PROBLEMS: dict[str, Callable[[], FactorialProblem]] = {
    "MNIST, tanh": lambda: _mnist("tanh"),
    "MNIST, sigmoid": lambda: _mnist("sigmoid"),
    "MNIST, ReLU": lambda: _mnist("relu"),
    "deep linear": deep_linear_problem,
    "8 layers, sigmoid": _eight_layers,
    "speech": _speech,
    "autoencoder": _autoencoder,
}


def run(problem: FactorialProblem, variant: Variant, seed: int, passes: float = PASSES) -> dict[str, Any]:
    """Run a variant until the last target, or until the passes are over.

    Parameters
    ----------
    problem : FactorialProblem
    variant : Variant
        A `Combination`, or another dataclass with a start and options.
    seed : int
        Of the start.
    passes : float
        The most passes over the data.

    Returns
    -------
    dict
        ``costs``: {cost: what was spent at each target, None where it was not reached}; ``spent``: {cost:
        that of the whole run}; ``loss``: the last one; ``iterations``; ``negative``: the number of steps that
        used negative curvature; ``message``: why it ended.

    Examples
    --------
    >>> combination = Combination("cg", "hessian", "martens", "better", "near the saddle")
    >>> found = run(deep_linear_problem(), combination, seed=0)
    >>> found["negative"] > 0, None in found["costs"]["products"]
    (True, False)
    """
    spending = Spending(problem, passes)
    start = problem.start(seed, variant.start)
    result = hessian_free(
        problem.objective(),
        start,
        seed=seed,
        callback=lambda record: spending.note(record.loss, record),
        **variant.options,
    )
    return spending.told() | {
        "loss": float(result.fun),
        "iterations": int(result.nit),
        "negative": sum("negative" in record.direction for record in result.history),
        "message": result.message,
    }


class Spending:
    """What a run has spent when its loss first is at each target.

    Parameters
    ----------
    problem : FactorialProblem
    passes : float
        The most passes over the data.
    until : int
        Position of the target at which the run ends.
    allowed : dict
        {cost: the most that may be spent}, besides the passes.

    Attributes
    ----------
    path : list of (float, tuple)
        The loss and the `COSTS` at each point that was noted.
    cut : bool
        Whether the run was ended by what is allowed, and would have gone on otherwise.

    Examples
    --------
    >>> spending = Spending(deep_linear_problem(), passes=10.0)
    >>> spending.note(1e-9, {"products": 2, "passes": 5.0, "reductions": 3})
    True
    >>> spending.told()["costs"]["passes"]
    [5.0, 5.0, 5.0]
    """

    def __init__(
        self,
        problem: FactorialProblem,
        passes: float = PASSES,
        *,
        until: int = -1,
        allowed: Mapping[str, float] | None = None,
    ):
        self.path: list[tuple[float, tuple[float, ...]]] = []
        self._targets = [problem.target(fraction) for fraction in FRACTIONS]
        self._end = self._targets[until]
        self._passes, self._allowed, self.cut = passes, dict(allowed or {}), False

    def note(self, loss: float, costs: Mapping[str, Any]) -> bool:
        """Note a loss and what was spent until then.

        Parameters
        ----------
        loss : float
        costs : mapping
            With the entries `COSTS`.

        Returns
        -------
        bool
            Whether the run is to end: it is at its target, has spent what it may, or has diverged.
        """
        self.path.append((loss, tuple(float(costs[cost]) for cost in COSTS)))
        ended = not self._end < loss < np.inf or costs["passes"] >= self._passes
        self.cut = not ended and any(costs[cost] >= most for cost, most in self._allowed.items())
        return ended or self.cut

    def told(self, *, interpolated: bool = False) -> dict[str, Any]:
        """Return what was spent.

        Parameters
        ----------
        interpolated : bool
            Whether costs between two points are linear in the logarithm of the loss (see
            `hfnb.studies.larger_batches.crossing`), for a run whose loss is seldom measured.

        Returns
        -------
        dict
            ``costs``: {cost: what was spent at each target, None where it was not reached}; ``spent``: {cost:
            that of the whole run}.
        """
        found: list[Any] = []
        for target in self._targets:
            reached = next((costs for loss, costs in self.path if loss <= target), None)
            if reached is not None and interpolated:
                reached = tuple(map(float, crossing(self.path, target)))
            found.append(reached or (None,) * len(COSTS))
        return {
            "costs": {cost: list(each) for cost, each in zip(COSTS, zip(*found, strict=True), strict=True)},
            "spent": dict(zip(COSTS, self.path[-1][1], strict=True)),
        }


class Ratio(NamedTuple):
    """A ratio of costs: geometric mean, and a bootstrap interval of 95 %.

    Attributes
    ----------
    ratio, low, high : float
        NaN if no pair can be compared.
    pairs : int
        Pairs of runs of which at least one reached the target. If the other one did not, what it had spent
        counts, which is less than it needs.
    first, second : int
        Runs of each side that reached the target.
    runs : int
        Runs of each side.
    seeds : int
        Different seeds among the pairs.

    Examples
    --------
    >>> print(Ratio(0.5, 0.4, 0.6, 10, 10, 10, 10, 10))
    0.50 (0.40–0.60)
    """

    ratio: float
    low: float
    high: float
    pairs: int
    first: int
    second: int
    runs: int
    seeds: int

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.low:.2f}–{self.high:.2f})" if self.pairs else "nobody arrives"


Key = tuple[str, AnyVariant, int]  # problem, variant, seed


def ratio(
    runs: Mapping[Key[AnyVariant], Mapping[str, Any]],
    first: Mapping[str, str],
    second: Mapping[str, str],
    cost: str,
    target: int,
    *,
    problems: Collection[str] | None = None,
    resamples: int = 2000,
) -> Ratio:
    """Return the cost with some values of factors ÷ that with others, all other factors and seeds equal.

    Parameters
    ----------
    runs : mapping
        {(problem, variant, seed): what `run` returned}.
    first, second : mapping
        {factor: value} above and below the division sign. A factor that only ``first`` names has this value
        on both sides.
    cost : {"products", "passes", "reductions"}
    target : int
        Position in ``FRACTIONS``.
    problems : collection of str, optional
        Which of them the mean is over; by default all.
    resamples : int
        Of the bootstrap, which draws seeds: those of one seed stay together.

    Returns
    -------
    Ratio

    Examples
    --------
    >>> a, b = (Combination("cg", "hessian", "martens", step, "ordinary") for step in FACTORS["step"])
    >>> spent = {each: {"costs": {"passes": [cost]}, "spent": {}} for each, cost in ((a, 10.0), (b, 40.0))}
    >>> runs = {("toy", each, seed): found for each, found in spent.items() for seed in range(3)}
    >>> ratio(runs, {"step": "better"}, {"step": "newton"}, "passes", 0)[:3]
    (0.25, 0.25, 0.25)
    """
    logs: dict[int, list[float]] = {}
    reached, count = [0, 0], 0
    for (name, variant, seed), run in runs.items():
        chosen = all(getattr(variant, factor) == value for factor, value in first.items())
        if not chosen or (problems is not None and name not in problems):
            continue
        peer = runs.get((name, replace(cast(Any, variant), **second), seed))
        if peer is None:
            continue
        pair, count = (run, peer), count + 1
        found = [each["costs"][cost][target] for each in pair]
        reached = [sum_ + (each is not None) for sum_, each in zip(reached, found, strict=True)]
        if found != [None, None]:
            spent = [
                each["spent"][cost] if own is None else own for own, each in zip(found, pair, strict=True)
            ]
            logs.setdefault(seed, []).append(float(np.log(spent[0]) - np.log(spent[1])))
    middle, low, high = interval(logs, resamples)
    return Ratio(middle, low, high, sum(map(len, logs.values())), reached[0], reached[1], count, len(logs))


def interval(logs: Mapping[int, Sequence[float]], resamples: int = 2000) -> tuple[float, float, float]:
    """Return a geometric mean, and the ends of a bootstrap interval of 95 %.

    Parameters
    ----------
    logs : mapping
        {seed: logarithms}, which may be infinite. Those of one seed stay together, since they are not
        independent.
    resamples : int
        How often as many seeds are drawn anew, with replacement.

    Returns
    -------
    tuple of float
        Mean, lower and upper end; NaN without any logarithm.

    References
    ----------
    T. Hesterberg, "What teachers should know about the bootstrap", The American Statistician 69 (2015), for
    intervals from few seeds.

    Examples
    --------
    >>> interval({seed: [0.0] for seed in range(5)})
    (1.0, 1.0, 1.0)
    """
    if not logs:
        return np.nan, np.nan, np.nan
    sums = np.array([[sum(each), len(each)] for each in logs.values()])
    drawn = np.random.default_rng(0).integers(0, len(sums), (resamples, len(sums)))
    totals = sums[drawn].sum(axis=1)
    # With few seeds a percentile interval is too narrow; Hesterberg's expanded percentiles make up for it.
    seeds = len(sums)
    tail = norm.cdf(np.sqrt(seeds / (seeds - 1)) * t.ppf(0.025, seeds - 1)) if seeds > 1 else 0.0
    # Without interpolation, so that logarithms may be infinite.
    means = np.quantile(totals[:, 0] / totals[:, 1], [tail, 1 - tail], method="inverted_cdf")
    low, high = np.exp(means)
    return float(np.exp(sums[:, 0].sum() / sums[:, 1].sum())), float(low), float(high)


def read(document: Mapping[str, Any]) -> dict[Key[Combination], dict[str, Any]]:
    """Return the runs of all combinations, from the results of ``python -m bench factorial``.

    Parameters
    ----------
    document : mapping
        Such as ``tasks.published("bench/results/factorial.json")``.

    Returns
    -------
    dict
        {(problem, combination, seed): run}, as `ratio` takes them.

    Examples
    --------
    >>> document = {"runs": {'["toy", "cg", "hessian", "martens", "newton", "ordinary", 3]': {}}}
    >>> [(problem, each.solver, each.start, seed) for problem, each, seed in read(document)]
    [('toy', 'cg', 'ordinary', 3)]
    """
    found = {}
    for key, run in document["runs"].items():
        problem, *factors, seed = json.loads(key)
        found[problem, Combination(*factors), seed] = run
    return found


def verdict(found: Ratio) -> str:
    """Return what an interval says of the first value: "cheaper", "dearer" or "undecided".

    Parameters
    ----------
    found : Ratio
        With fewer than `SEEDS_NEEDED` seeds it is undecided.

    Returns
    -------
    str

    Examples
    --------
    >>> verdict(Ratio(0.5, 0.4, 0.6, 10, 10, 10, 10, 10)), verdict(Ratio(0.9, 0.7, 1.1, 10, 10, 10, 10, 10))
    ('cheaper', 'undecided')
    """
    if found.seeds < SEEDS_NEEDED:
        return "undecided"
    return "cheaper" if found.high < 1 else "dearer" if found.low > 1 else "undecided"


def halves(
    runs: Mapping[Key[AnyVariant], Mapping[str, Any]],
) -> tuple[dict[Key[AnyVariant], Mapping[str, Any]], ...]:
    """Return the runs of the first half of the seeds, and those of the second half.

    A verdict stands on firm ground if neither half contradicts the other.

    Parameters
    ----------
    runs : mapping
        As for `ratio`.

    Returns
    -------
    tuple of two dict

    Examples
    --------
    >>> combination = combinations()[0]
    >>> [len(half) for half in halves({("toy", combination, seed): {} for seed in range(10)})]
    [5, 5]
    """
    seeds = sorted({seed for _, _, seed in runs})
    parts = set(seeds[: len(seeds) // 2]), set(seeds[len(seeds) // 2 :])
    return tuple({key: run for key, run in runs.items() if key[2] in part} for part in parts)
