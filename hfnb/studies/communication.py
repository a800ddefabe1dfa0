"""A race in reductions: what each method spends, in sums over engines, until the loss is at a target.

Between two reductions an engine computes alone. On many nodes, or over a slow network, the number of
reductions decides how long a run takes (`hfnb.studies.scaling_model`). Each method is `tuned` from the first
start by one rule, on geometric grids, until its best setting lies inside its grid, and then runs from further
starts. A run ends at the target, at the limits of its `Race`, which are the same for all methods, or where it
costs more than the best setting so far.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from hfnb import optimizers
from hfnb.objectives import Evaluator, Objective, compensated_sums
from hfnb.objectives.cells import CELLS
from hfnb.objectives.evaluator import LocalEvaluator
from hfnb.objectives.profiler import Clock
from hfnb.optimizers.history import Record
from hfnb.studies.larger_batches import crossing, hopeless
from hfnb.studies.scaling_model import Interconnect, RunCost, allreduce
from hfnb.studies.tasks import Task
from hfnb.studies.tuning import Axis, tuned

SHARED = 1000  # samples that every engine holds for a preconditioner
POINTS = 60  # of the losses of a run that are kept for figures
SPENT = ("reductions", "passes", "bytes", "rounds")
TRIED = 60  # settings of a method that are tried at most


@dataclass(frozen=True, kw_only=True)
class Race(Task):
    """A `Task` with a target, limits, and a start, for runs in one process over cells.

    Attributes
    ----------
    target : float
        The loss over all samples at which a run ends.
    most_reductions, most_passes : float
        What a run of any method may spend at most.
    patience : float
        Passes after which a run also ends where it is `hopeless`: more than its plateaus may take.
    scale : float
        Factor of the start: a small one starts near the saddle at zero.
    init : str
        How the network's parameters are drawn (``Network.init``).
    cells : int
        Number of cells of the data.
    cell_seed : int or None
        Seed of the cells; None if the data keeps its order, so that sorted data makes unequal cells.
    """

    target: float
    most_reductions: float = 3000.0
    most_passes: float = 300.0
    patience: float = 40.0
    scale: float = 1.0
    init: str = "glorot"
    cells: int = CELLS
    cell_seed: int | None = 0

    def objective(self) -> Objective:
        """Return the training objective in one process, with cells."""
        return Objective(self.net, self.train, cells=self.cells, cell_seed=self.cell_seed)

    def start(self, seed: int = 0) -> np.ndarray:
        """Return the initial parameters from which every method starts.

        Parameters
        ----------
        seed : int

        Returns
        -------
        ndarray, shape (p,)
        """
        return self.net.init(seed, self.init, dtype=self.dtype) * self.dtype(self.scale)

    def fingerprint(self) -> str:
        """Return a short text that differs if a number or name differs on which a result depends.

        Returns
        -------
        str

        Notes
        -----
        Of the data only the number of samples is included: another content needs another ``name``.
        """
        facts = [self.name, str(self.net), len(self.train), np.dtype(self.dtype).name, self.target]
        facts += [self.scale, self.init, self.cells, self.cell_seed]
        facts += [self.most_reductions, self.most_passes, self.patience]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]

    def key(self, method: "Method", settings: Mapping[str, Any], seed: int) -> str:
        """Return what a run of a method depends on, as text.

        Parameters
        ----------
        method : Method
        settings : dict
            All of its options.
        seed : int

        Returns
        -------
        str
        """
        return json.dumps([self.name, self.fingerprint(), method.optimizer, dict(settings), seed])


@dataclass(frozen=True)
class Method:
    """An optimizer with its options.

    Attributes
    ----------
    optimizer : str
        Its name in `hfnb.optimizers`.
    fixed : dict
        Options that stay as they are. "options.batch_size" is the entry "batch_size" of the dictionary
        "options", and so on.
    axes : dict
        {option: `Axis`} of the options to tune; {} if the method is not tuned.
    """

    optimizer: str
    fixed: dict[str, Any]
    axes: dict[str, Axis] = field(default_factory=dict)


@dataclass(frozen=True)
class Price:
    """What a reduction and a pass over the data cost, in one unit: what tuning minimizes.

    Attributes
    ----------
    reductions, passes : float
        The price of one of each. Passes decide between settings of equal price.

    Examples
    --------
    >>> Price(reductions=1.0, passes=0.5).of({"reductions": 10, "passes": 4.0})
    12.0
    """

    reductions: float = 1.0
    passes: float = 0.0

    @classmethod
    def seconds(cls, race: Race, nodes: int, interconnect: Interconnect, speed: float = 1.5e11) -> "Price":
        """Return the price in seconds on some nodes: of a sum of gradients, and of a pass of gradients.

        Parameters
        ----------
        race : Race
        nodes : int
            At most as many as there are cells.
        interconnect : Interconnect
        speed : float
            Operations that a node makes in a second. A gradient takes six for each parameter and sample.

        Returns
        -------
        Price
        """
        w = race.start()
        computing = 6 * w.size * len(race.train) / speed / nodes
        return cls(interconnect.seconds(*allreduce(w.nbytes, nodes)), computing)

    def of(self, spent: Mapping[str, float]) -> float:
        """Return the price of what was spent.

        Parameters
        ----------
        spent : dict
            With entries ``reductions`` and ``passes``.

        Returns
        -------
        float
        """
        return self.reductions * spent["reductions"] + self.passes * spent["passes"]


def methods(samples: int, cells: int = CELLS) -> dict[str, Method]:
    """Return the methods of the race, with the grids on which they are tuned.

    Parameters
    ----------
    samples : int
        Number of samples of the data: large batches begin at a quarter of them.
    cells : int
        Number of cells.

    Returns
    -------
    dict
        {name: `Method`}. "Synchronous" methods reduce once a step. The methods that are not tuned have no
        axes. "Local" first-order methods take ``iterations`` steps a round, on mini-batches of 64 samples.

    Examples
    --------
    >>> methods(60_000)["synchronous Adam"].axes["batch_size"].first
    16384
    """
    large = Axis(_power(samples / 4), 2, samples)
    found = {
        f"synchronous {name}": Method(
            "first_order", {"method": method}, {"learning_rate": Axis(rate, 3.0), "batch_size": large}
        )
        for name, method, rate in (("SGD", "sgd", 0.3), ("momentum", "momentum", 0.1), ("Adam", "adam", 1e-2))
    }
    one, whole = {"method": "auto", "trial_steps": 1}, {"method": "auto", "trial_steps": 8}
    every = whole | {"batch_size": "all"}
    curvature = Axis(_power(samples / 8), 2, samples)
    second = {"damping": Axis(1.0, 10.0), "curvature_batch_size": curvature}
    local = {"method": "auto", "solves": "local"}
    found |= {
        "global solves, one trial step a reduction": Method("hessian_free", one),
        "global solves": Method("hessian_free", whole),
        "global solves, all samples": Method("hessian_free", every),
        "global solves, shared samples": Method("hessian_free", every | {"shared_samples": SHARED}),
        "global solves, tuned": Method("hessian_free", whole, second),
        "global solves, no negative curvature": Method("hessian_free", whole | {"probe": False}),
        "local solves": Method("hessian_free", local),
        "local solves, tuned": Method("hessian_free", local, second),
        "local solves, no negative curvature": Method("hessian_free", local | {"probe": False}),
        "local solves, Hessian": Method("hessian_free", local | {"curvature": "hessian"}),
    }
    return found | _with_local_steps(samples // cells)


def arguments(race: Race, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an optimizer: options, of which the shared samples become a preconditioner.

    Parameters
    ----------
    race : Race
    settings : dict
        All options of a run, as `nested` takes them; ``shared_samples`` is the number of samples that every
        engine holds (`hfnb.optimizers.SharedSamples`).

    Returns
    -------
    dict
    """
    options = nested(settings)
    if (count := options.pop("shared_samples", None)) is not None:
        rows = np.sort(np.random.default_rng(0).permutation(len(race.train))[:count])
        data = race.train[rows]
        options["preconditioner"] = optimizers.SharedSamples(race.net, data)
    return options


def _with_local_steps(share: int) -> dict[str, Method]:
    """Return the methods whose cells, of so many samples, run some iterations alone."""
    newton = {"inner": "hessian_free", "outer": "search"}
    axes = {
        "iterations": Axis(4, 2),
        "options.damping": Axis(1.0, 10.0),
        "options.curvature_batch_size": Axis(_power(share / 8), 2, share),
    }
    found = {
        "local Hessian-free": Method("local_steps", newton | {"iterations": 6}),
        "local Hessian-free, tuned": Method("local_steps", newton, axes),
    }
    steps: dict[str, Any] = {"options.batch_size": min(64, share), "options.batches_per_iteration": 1}
    for name, method, rate in (("SGD", "sgd", 0.3), ("momentum", "momentum", 0.03), ("Adam", "adam", 1e-3)):
        axes = {"iterations": Axis(64, 2), "options.learning_rate": Axis(rate, 3.0)}
        for words, outer in (("", "mean"), (", search", "search"), (", outer Nesterov", "nesterov")):
            fixed = {"inner": method, "outer": outer, **steps}
            more = {"outer_learning_rate": Axis(0.7, 2.0)} if outer == "nesterov" else {}
            found[f"local {name}{words}"] = Method("local_steps", fixed, axes | more)
        if method != "sgd":
            fixed = {"inner": method, "outer": "mean", **steps, "options.moments": "average"}
            found[f"local {name}, averaged moments"] = Method("local_steps", fixed, axes)
    return found


def _power(number: float) -> int:
    """Return the power of two that is nearest by its exponent, at least 1."""
    return 2 ** max(round(np.log2(number)), 0)


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return options whose dotted names are entries of dictionaries.

    Parameters
    ----------
    settings : dict
        {name, perhaps with one dot: value}.

    Returns
    -------
    dict

    Examples
    --------
    >>> nested({"outer": "mean", "options.learning_rate": 0.1})
    {'outer': 'mean', 'options': {'learning_rate': 0.1}}
    """
    found: dict[str, Any] = {}
    for name, value in settings.items():
        outer, _, inner = name.partition(".")
        if inner:
            found.setdefault(outer, {})[inner] = value
        else:
            found[name] = value
    return found


class Watch:
    """The callback of a run: measures the loss over all samples after each iteration, which costs nothing.

    Parameters
    ----------
    race : Race
    optimizer : str
        Its name; the records of "first_order" already hold the loss over all samples.
    price : Price
    allowed : float
        The run ends once its price is above this.

    Attributes
    ----------
    path : list of (float, tuple)
        The loss at each record, and what was spent until then: `SPENT` and the seconds.
    ended : str
        Why the run was asked to end; "" before.
    """

    def __init__(self, race: Race, optimizer: str, price: Price, allowed: float = np.inf):
        self.race, self.price, self.allowed, self.ended = race, price, allowed, ""
        self.path: list[tuple[float, tuple[float, ...]]] = []
        self._measured = optimizer == "first_order"
        self._full = None if self._measured else Objective(race.net, race.train)

    def __call__(self, record: Record) -> bool:
        """Note a record, and return whether the run is to end."""
        race = self.race
        loss = record.loss if self._full is None else self._full.value(record.w)
        rounds = record.reductions if self._measured else record.iteration
        spent = (record.reductions, record.passes, record.bytes, rounds, record.seconds)
        self.path.append((loss, spent))
        steps = [(costs[0], loss) for loss, costs in self.path]
        within = record.reductions <= race.most_reductions and record.passes <= race.most_passes
        if loss <= race.target:
            self.ended = "target" if within else "limit"
        elif not np.isfinite(loss):
            self.ended = "diverged"
        elif self.price.of(record) > self.allowed:
            self.ended = "costs more than the best"
        elif record.reductions >= race.most_reductions or record.passes >= race.most_passes:
            self.ended = "limit"
        elif record.passes > race.patience and hopeless(steps, race.target, self._most(record)):
            self.ended = "hopeless"
        return bool(self.ended)

    def _most(self, record: Record) -> float:
        """Return the reductions at which a run that goes on at its pace meets the first of its limits."""
        per_pass = record.reductions / max(record.passes, 1e-12)
        return min(self.race.most_reductions, per_pass * self.race.most_passes)

    def spent(self) -> dict[str, Any]:
        """Return what the run spent until the target, or altogether if it did not get there.

        Returns
        -------
        dict
            `SPENT` and ``seconds``, ``reached``, ``ended`` and the least ``loss``.

        Notes
        -----
        A first-order method is measured once an epoch; what it spends is then interpolated in the logarithm
        of the loss, and a step that is begun counts. The others count whole iterations.
        """
        reached = self.ended == "target"
        costs = np.array(self.path[-1][1], dtype=float)
        if reached and self._measured:
            costs = crossing([(loss, spent) for loss, spent in self.path], self.race.target)
            costs[0] = costs[3] = np.ceil(round(costs[0], 6))
        found = dict(zip((*SPENT, "seconds"), costs.tolist(), strict=True))
        losses = [loss for loss, _ in self.path if np.isfinite(loss)]
        found |= {name: round(found[name]) for name in ("reductions", "bytes", "rounds")}
        return found | {"reached": reached, "ended": self.ended, "loss": min(losses, default=np.inf)}

    def curve(self) -> list[list[float]]:
        """Return [reductions, loss] at about `POINTS` records, evenly spaced, with the last one."""
        every = -(-len(self.path) // POINTS)
        kept = self.path[::-1][::every][::-1]
        return [[costs[0], float(f"{loss:.4g}")] for loss, costs in kept]


def attempt(
    race: Race,
    method: Method,
    settings: Mapping[str, Any],
    seed: int = 0,
    price: Price = Price(),
    allowed: float = np.inf,
) -> dict[str, Any]:
    """Run a method until the target, and return what it spent.

    Parameters
    ----------
    race : Race
    method : Method
    settings : dict
        All of its options.
    seed : int
        Of the start and of the optimizer.
    price : Price
    allowed : float
        The run ends once its price is above this.

    Returns
    -------
    dict
        What `Watch.spent` returns, and the ``curve`` of the loss.

    Examples
    --------
    >>> from hfnb import Dataset, models
    >>> data = Dataset(np.eye(2), np.array([0, 1]))
    >>> race = Race("two points", models.mlp([2, 2]), data, data, np.float64, target=0.1, cells=2)
    >>> sgd = Method("first_order", {"method": "sgd", "batch_size": 2, "learning_rate": 1.0})
    >>> attempt(race, sgd, sgd.fixed)["reached"]
    True
    """
    watch = Watch(race, method.optimizer, price, allowed)
    optimizer = getattr(optimizers, method.optimizer)
    with np.errstate(over="ignore", invalid="ignore"):  # a rate that is too large diverges
        result = optimizer(
            race.objective(),
            race.start(seed),
            seed=seed,
            callback=watch,
            max_iter=10**6,
            **arguments(race, settings),
        )
    watch.ended = watch.ended or str(result.message)
    return watch.spent() | {"curve": watch.curve()}


class _Timed:
    """An evaluator with a clock that notes the seconds of every evaluation, in one process."""

    def __init__(self, evaluator: LocalEvaluator):
        self._evaluator, self.clock = evaluator, Clock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evaluator, name)

    def _call(self, what: str, call: Callable, *arguments: Any) -> np.ndarray:
        """Return what a call returns, and note its seconds."""
        start = time.perf_counter()
        found = call(*arguments)
        self.clock.lap(what, {0: (time.perf_counter() - start, 0.0)})
        return found

    def loss(self, *arguments: Any) -> np.ndarray:
        return self._call("loss", self._evaluator.loss, *arguments)

    def losses_along(self, *arguments: Any) -> np.ndarray:
        return self._call("loss", self._evaluator.losses_along, *arguments)

    def gradient(self, *arguments: Any) -> np.ndarray:
        return self._call("gradient", self._evaluator.gradient, *arguments)

    def average(self, *arguments: Any) -> np.ndarray:
        return self._call("cells", self._evaluator.average, *arguments)

    def linearize(self, *arguments: Any) -> Callable[[np.ndarray], np.ndarray]:
        product = self._evaluator.linearize(*arguments)
        return lambda v: self._call("product", product, v)


def timed(
    race: Race, method: Method, settings: Mapping[str, Any], iterations: int = 10**6, seed: int = 0
) -> dict[str, float]:
    """Time a run of a method in one process, which should have a core to itself.

    Parameters
    ----------
    race : Race
        The run ends at its target or limits.
    method : Method
    settings : dict
        All of its options.
    iterations : int
        The most iterations that are timed. The first one, when caches are cold, is not timed.
    seed : int
        Of the start and of the optimizer.

    Returns
    -------
    dict
        ``computed``, the seconds in evaluations, which nodes share; ``serial``, the rest; ``passes``,
        ``reductions`` and ``bytes`` of the same iterations.
    """
    evaluator = _Timed(cast(LocalEvaluator, race.objective().evaluator))
    watch, laps, before = Watch(race, method.optimizer, Price()), list[float](), dict[str, float]()

    def note(record: Record) -> bool:
        laps.extend(seconds for _, engines in evaluator.clock.laps for seconds, _ in engines.values())
        evaluator.clock.laps.clear()
        if record.iteration == 1:
            laps.clear()
            before.update(record)
        return watch(record) and record.iteration > 1

    optimizer = getattr(optimizers, method.optimizer)
    result = optimizer(
        Objective.from_evaluator(race.net, cast(Evaluator, evaluator)),
        race.start(seed),
        seed=seed,
        callback=note,
        max_iter=iterations + 1,
        **arguments(race, settings),
    )
    after, computed = result.history[-1], sum(laps)
    found = {name: float(after[name] - before[name]) for name in ("passes", "reductions", "bytes")}
    return found | {"computed": computed, "serial": after.seconds - before["seconds"] - computed}


def run_cost(
    race: Race,
    method: Method,
    settings: Mapping[str, Any],
    run: Mapping[str, Any],
    timing: Mapping[str, float],
) -> RunCost:
    """Return what a run costs on nodes: its counts, times the seconds of a pass and between reductions.

    Parameters
    ----------
    race : Race
    method : Method
    settings : dict
        All options of the run.
    run : dict
        As `attempt` returns it.
    timing : dict
        As `timed` returns it, of the same method.

    Returns
    -------
    RunCost
        Its parts are the cells of a method whose cells work alone, and the samples of a mini-batch of a
        synchronous method. Global solves divide evenly.
    """
    parts: int | None = race.cells
    if method.optimizer == "first_order":
        parts = settings["batch_size"]
    elif method.optimizer == "hessian_free" and settings.get("solves") != "local":
        parts = None
    w = race.start()
    return RunCost(
        computed=run["passes"] * timing["computed"] / timing["passes"],
        serial=run["reductions"] * timing["serial"] / timing["reductions"],
        reductions=run["reductions"],
        bytes=run["bytes"],
        size=compensated_sums.nbytes(w.size, w.dtype),
        parts=parts,
        pairs=w.dtype == np.float64,
    )


def cost(run: Mapping[str, Any], price: Price) -> tuple[float, float]:
    """Return what tuning compares: price and passes, or, of runs that did not arrive, the least loss.

    Parameters
    ----------
    run : dict
        As `attempt` returns it.
    price : Price

    Returns
    -------
    (float, float)

    Examples
    --------
    >>> failed = {"reached": False, "reductions": 3, "passes": 1.0, "loss": 0.5}
    >>> cost(failed, Price()), cost(failed | {"reached": True}, Price())
    ((inf, 0.5), (3.0, 1.0))
    """
    return (price.of(run), run["passes"]) if run["reached"] else (np.inf, run["loss"])


def known(run: Mapping[str, Any] | None, price: Price, allowed: float) -> bool:
    """Say whether a stored run answers what a new one would: it need not be repeated.

    Parameters
    ----------
    run : dict or None
        As `attempt` returned it, perhaps under another price or allowance.
    price : Price
    allowed : float
        What a new run might spend.

    Returns
    -------
    bool
        False for a run that was ended early and might arrive within ``allowed``.

    Examples
    --------
    >>> early = {"ended": "costs more than the best", "reductions": 9, "passes": 2.0}
    >>> known(early, Price(), allowed=8), known(early, Price(), allowed=20)
    (True, False)
    """
    if run is None:
        return False
    return run["ended"] != "costs more than the best" or price.of(run) > allowed


def tune(
    method: Method,
    run: Callable[[dict, int, float], dict],
    seeds: Sequence[int],
    price: Price = Price(),
) -> dict[str, Any]:
    """Tune a method from the first start, and run its best setting from all.

    Parameters
    ----------
    method : Method
    run : callable
        (settings, seed, allowed) -> what `attempt` returns.
    seeds : sequence of int
        Of the starts.
    price : Price
        What is minimized.

    Returns
    -------
    dict
        ``settings``; ``inside``, whether the best setting lies inside its grid; ``tried``, the number of
        settings; ``runs``, one from each start.
    """
    least = np.inf

    def costs(settings: dict) -> tuple[float, float]:
        nonlocal least
        found = cost(run(settings, seeds[0], least), price)
        least = min(least, found[0])
        return found

    best = tuned(method.fixed, method.axes, costs, most=TRIED, diagonals=True)
    runs = [run(best.settings, seed, np.inf) for seed in seeds]
    return {"settings": best.settings, "inside": best.inside, "tried": best.tried, "runs": runs}


def summary(runs: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float, float]:
    """Return the median and the range of a cost over the starts; infinity for a run that did not arrive.

    Parameters
    ----------
    runs : sequence of dict
        As `attempt` returns them.
    name : str
        An entry such as "reductions".

    Returns
    -------
    (float, float, float)
        Median, least, most.

    Examples
    --------
    >>> summary([{"reached": True, "passes": 3.0}, {"reached": False, "passes": 1.0}], "passes")
    (inf, 3.0, inf)
    """
    values = sorted(float(run[name]) if run["reached"] else np.inf for run in runs)
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    middle = low if low == high else (low + high) / 2
    return middle, values[0], values[-1]
