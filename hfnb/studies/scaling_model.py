"""A model of the seconds that a run takes on any number of engines, fitted to the profiles of measured runs.

The seconds of every part of an iteration are linear in its counts, so the model is a table of costs, found by
non-negative least squares on relative residuals. With G gradients and L losses of r samples on each of N
engines, P products of s samples, M linearizations for them, and h other engines on the same host, the columns
of the parts are:

    gradient   G, G r, G r h                          loss     L, L r, L r h
    product    P, P s, P s h, M s                     serial   1, G, L, P, (G + P) h
    reduction  sums, bytes on their path              waiting  m(N) × (sums, seconds of all that is computed)

The serial part, vectors and the client, is not divided among engines; engines on one host slow it down by
the column (G + P) h. What a reduction costs here is
copying and adding; a network's latency and bandwidth, which are given, come on top. Engines whose times
scatter wait for the slowest: m(N) is the expected maximum of N standard normal variables.

`RunCost` is a simpler model, for methods whose cells work alone between two reductions
(`hfnb.objectives.cells`): it takes the counts of a whole run, and the seconds of one node.

`measure` makes the short runs on one and on several engines that the model is fitted to and tested on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import nnls
from scipy.special import ndtri

from hfnb.engines import Cluster
from hfnb.objectives import compensated_sums
from hfnb.optimizers import first_order, hessian_free
from hfnb.optimizers.history import Record
from hfnb.progress_bars import progress_bar
from hfnb.studies.tasks import Task

SHORT = 2048  # bytes of an Allreduce up to which MPICH takes recursive doubling


@dataclass(frozen=True)
class Interconnect:
    """The links between hosts.

    Attributes
    ----------
    latency : float
        α, seconds for a message.
    bandwidth : float
        Bits a second in each direction.

    Examples
    --------
    >>> round(Interconnect(latency=50e-6, bandwidth=10e9).seconds(messages=2, size=1_500_000), 6)
    0.0013
    """

    latency: float
    bandwidth: float

    def seconds(self, messages: float, size: float) -> float:
        """Return α × messages + β × size with β = 8 / bandwidth and the size in bytes."""
        return self.latency * messages + 8 * size / self.bandwidth


def allreduce(size: int, engines: int, pairs: bool = False) -> tuple[float, float]:
    """Return the messages and the bytes on the critical path of an Allreduce.

    Parameters
    ----------
    size : int
        Bytes of the vector.
    engines : int
    pairs : bool
        Whether the numbers are summed as pairs (see `hfnb.objectives.compensated_sums`), not by MPI itself.

    Returns
    -------
    (float, float)
        Messages and bytes.

    Notes
    -----
    With N engines and k = ⌊log₂ N⌋, recursive doubling takes k messages of all bytes. What is longer than
    `SHORT` and summed by MPI is scattered and gathered again: 2k messages, 2 (N − 1)/N of the bytes. Where N
    is no power of two, two messages of all bytes come on top.

    References
    ----------
    Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH" (2005), and
    the comments in MPICH's allreduce.c.

    Examples
    --------
    >>> allreduce(8, engines=16), allreduce(1_600_000, engines=16)
    ((4, 32), (8, 3000000.0))
    """
    k = engines.bit_length() - 1
    extra = 0 if engines == 2**k else 2
    if pairs or size <= SHORT:
        return k + extra, (k + extra) * size
    return 2 * k + extra, (2 * (engines - 1) / engines + extra) * size


@lru_cache
def expected_maximum(n: int) -> float:
    """Return the mean of the largest of n independent standard normal variables.

    It is the mean of Φ⁻¹(u^(1/n)) over u from 0 to 1, since the largest has the distribution Φⁿ.

    Examples
    --------
    >>> round(expected_maximum(2) * np.pi**0.5, 3)  # known: 1/√π
    1.0
    """
    u = (np.arange(100_000) + 0.5) / 100_000
    return float(ndtri(u ** (1 / n)).mean()) if n > 1 else 0.0


COUNTED = ("samples", "products", "reductions", "numbers")
LOSS = compensated_sums.nbytes(1, float)  # bytes of the sum of a loss
MOST_TRIED = 64  # points that a line search may evaluate in one reduction


@dataclass(frozen=True)
class Setting:
    """The engines that a run has.

    Attributes
    ----------
    engines : int
    colocated : int
        Other engines on the host of each.
    interconnect : Interconnect or None
        What links the hosts; None for one host.
    partitions : int or None
        Parts of the dataset, of which an engine holds whole ones; None for as many as divide evenly.
    kept : float
        The most samples of which an engine has the memory to keep linearizations between products
        (``memory`` of `hfnb.Objective`); the others are linearized again for each product.
    """

    engines: int = 1
    colocated: int = 0
    interconnect: Interconnect | None = None
    partitions: int | None = None
    kept: float = np.inf

    def local_samples(self, samples: float) -> float:
        """Return how many of ``samples`` are on the engine that holds most of them.

        Examples
        --------
        >>> [Setting(engines=16, partitions=each).local_samples(60_000) for each in (24, None)]
        [5000.0, 3750.0]
        """
        partitions = self.partitions or self.engines
        return float(np.ceil(samples * -(-partitions // self.engines) / partitions))


@dataclass(frozen=True)
class Workload:
    """The counts of an iteration, over all engines together.

    Attributes
    ----------
    gradients, products, losses : float
        Sums of each kind.
    batch : float
        Samples of a gradient or loss.
    curvature_batch_size : float
        Samples of a product.
    size : int
        Bytes of a gradient or product in an Allreduce.
    pairs : bool
        Whether gradients and products are summed as pairs.
    searches : float or None
        Reductions of losses, each of which sums those of several points; None for one reduction a loss.
    """

    gradients: float
    products: float
    losses: float
    batch: float
    curvature_batch_size: float
    size: int
    pairs: bool = False
    searches: float | None = None

    def communication_cost(self, engines: int) -> tuple[float, float, float]:
        """Return the number of sums, and the messages and bytes on their critical paths."""
        searches = self.losses if self.searches is None else self.searches
        return _paths(
            self.gradients + self.products, self.size, searches, LOSS * self.losses, engines, self.pairs
        )


def _paths(
    vectors: float, size: int, searches: float, losses: float, engines: int, pairs: bool
) -> tuple[float, float, float]:
    """Return the number of sums, and the messages and bytes on their critical paths.

    There are sums of vectors, of ``size`` bytes each, and sums of losses, of ``losses`` bytes together.
    """
    sums = [(vectors, size), (searches, round(losses / searches) if searches else 0)]
    each = [(count, *allreduce(bytes_, engines, pairs)) for count, bytes_ in sums]
    messages = sum(count * messages for count, messages, _ in each)
    return vectors + searches, messages, sum(count * path for count, _, path in each)


@dataclass(frozen=True)
class RunCost:
    """What a run spends until its target, of which the seconds on any number of nodes follow.

    Attributes
    ----------
    computed : float
        Seconds that one node needs for all evaluations; several nodes share them.
    serial : float
        Seconds for what every node does alike, such as the vectors of a Krylov solve.
    reductions : float
    bytes : float
        What each node contributes to all reductions together.
    size : int
        Bytes of a vector of parameters. As many reductions as ``bytes`` has room for are taken to be of
        vectors, the others of losses.
    parts : int or None
        Parts of the work, of which a node does whole ones: cells, or the samples of a mini-batch. Nodes
        beyond them are idle, and take no part in reductions. None for work that divides evenly.
    pairs : bool
        Whether vectors are summed as pairs, as in float64.

    Notes
    -----
    With N nodes at work, the seconds are ⌈parts/N⌉/parts × ``computed`` × (1 + scatter × m(N)) + ``serial``
    for computing, where m(N) is `expected_maximum`, and α × messages + β × bytes on the paths of the
    reductions (`allreduce`) for communication. No reduction overlaps with computing.

    Examples
    --------
    >>> cells = RunCost(computed=16.0, serial=1.0, reductions=3, bytes=3000.0, size=1000, parts=16)
    >>> [cells.compute(nodes) for nodes in (1, 10, 16, 1024)]
    [17.0, 3.0, 2.0, 2.0]
    """

    computed: float
    serial: float
    reductions: float
    bytes: float
    size: int
    parts: int | None = None
    pairs: bool = False

    def _working(self, nodes: int) -> int:
        """Return how many nodes have something to do."""
        return nodes if self.parts is None else min(nodes, self.parts)

    def compute(self, nodes: int, scatter: float = 0.0) -> float:
        """Return the seconds of computing by the slowest node.

        Parameters
        ----------
        nodes : int
        scatter : float
            Standard deviation of the nodes' speeds, relative to their mean.

        Returns
        -------
        float
        """
        working = self._working(nodes)
        parts = self.parts or working
        slowest = 1 + scatter * expected_maximum(working)
        return self.computed * -(-parts // working) / parts * slowest + self.serial

    def communication(self, nodes: int, interconnect: Interconnect) -> float:
        """Return the seconds of all reductions.

        Parameters
        ----------
        nodes : int
        interconnect : Interconnect

        Returns
        -------
        float
        """
        vectors = min(self.reductions, round(self.bytes / self.size))
        losses = max(self.bytes - vectors * self.size, 0.0)
        searches = self.reductions - vectors
        _, messages, path = _paths(vectors, self.size, searches, losses, self._working(nodes), self.pairs)
        return interconnect.seconds(messages, path)

    def seconds(self, nodes: int, interconnect: Interconnect, scatter: float = 0.0) -> float:
        """Return the seconds of the run: computing and communication.

        Parameters
        ----------
        nodes : int
        interconnect : Interconnect
        scatter : float
            As for `compute`.

        Returns
        -------
        float
        """
        return self.compute(nodes, scatter) + self.communication(nodes, interconnect)


def workloads(history: Sequence[dict], w0: np.ndarray, curvature_batch_size: int = 0) -> list[Workload]:
    """Return the workload of each record of a history, from the costs that it counted.

    Parameters
    ----------
    history : sequence of dict
    w0 : ndarray, shape (p,)
        Parameters, or any vector of their number and precision.
    curvature_batch_size : int
        Samples of a product.

    Returns
    -------
    list of Workload

    Raises
    ------
    ValueError
        If the counts are not those of so many parameters.

    Notes
    -----
    The history must be of a method without averages over cells: what cells compute is not counted by its
    kind. For such methods there is `RunCost`. The network must have more parameters than an iteration
    evaluates losses: otherwise some losses are taken for a gradient.

    Examples
    --------
    >>> from hfnb import Dataset, Objective, first_order, models
    >>> net, data = models.mlp([2, 2]), Dataset(np.eye(2), np.array([0, 1]))
    >>> history = first_order(Objective(net, data), net.init(0), batch_size=1, max_iter=1).history
    >>> workloads(history, net.init(0))[1]
    Workload(gradients=2.0, products=0.0, losses=0.0, batch=1.0, ..., size=24, pairs=False, searches=0.0)
    """
    p, pairs, found = w0.size, w0.dtype == np.float64, []
    costs = np.array([[record[key] for key in COUNTED] for record in history], dtype=int).reshape(-1, 4)
    for samples, products, reductions, numbers in np.diff(costs, axis=0, prepend=0):
        # numbers − reductions − (p − 1) P = p G + L − S, for L losses in S reductions
        gradients, together = divmod(numbers - reductions - (p - 1) * products, p)
        searches = reductions - gradients - products
        if min(gradients, searches) < 0 or together > MOST_TRIED * searches:
            raise ValueError(f"w0: expected the parameters that the history has counted, got {p} of them")
        losses = together + searches
        batch = (samples - curvature_batch_size * products) / max(gradients + losses, 1)
        sums = float(gradients), float(products), float(losses), float(batch)
        size = compensated_sums.nbytes(p, w0.dtype)
        found.append(Workload(*sums, curvature_batch_size, size, pairs, searches=float(searches)))
    return found


COMPUTED = ("gradient", "product", "loss")  # a run with cells is modelled by `RunCost`
RIDGE = 1e-5  # decides between costs that the runs do not tell apart, so that rounding does not


@dataclass(frozen=True)
class Run:
    """A measured run.

    Attributes
    ----------
    setting : Setting
    workloads : list of Workload
        Of each record.
    seconds : list of dict
        {part: seconds} of each record, means over the engines.
    """

    setting: Setting
    workloads: list[Workload]
    seconds: list[dict[str, float]]

    @classmethod
    def of(
        cls,
        history,
        w0,
        curvature_batch_size: int = 0,
        *,
        engines: int,
        partitions: int = 24,
        kept: float = np.inf,
    ) -> "Run":
        """Read a run on engines of this host from its history, without the first record: caches are cold.

        Parameters
        ----------
        history, w0, curvature_batch_size
            As for `workloads`.
        engines, partitions : int
            As for `Setting`.
        kept : float
            As for `Setting`: 0 of runs over more than 16,384 samples an engine by earlier versions of hfnb.
        """
        seconds = [_mean(record["profile"]) for record in history[1:]]
        measured = workloads(history, w0, curvature_batch_size)[1:]
        setting = Setting(engines, engines - 1, partitions=partitions, kept=kept)
        return cls(setting, measured, seconds)

    def error(self, model: "Model") -> float:
        """Return the relative error of a model in the seconds of all records together."""
        measured = sum(sum(each.values()) for each in self.seconds)
        return model.seconds(self.workloads, self.setting) / measured - 1


@dataclass(frozen=True)
class Model:
    """The costs of the parts, {part: seconds for each column of the table above}."""

    costs: dict[str, np.ndarray]

    def parts(self, workloads: Sequence[Workload], setting: Setting) -> dict[str, float]:
        """Return the seconds of each part in a setting, on the engine with the most samples."""
        return self._spend(*_demand(workloads, setting))

    def seconds(self, workloads: Sequence[Workload], setting: Setting) -> float:
        """Return the seconds that the workloads take in a setting."""
        return sum(self.parts(workloads, setting).values())

    def _spend(self, columns: dict[str, np.ndarray], scatter: float, sent: float) -> dict[str, float]:
        seconds = {part: float(self.costs[part] @ columns[part]) for part in columns}
        seconds["reduction"] += sent
        sums, computed = columns["reduction"][0], sum(seconds[part] for part in COMPUTED)
        return seconds | {"waiting": float(self.costs["waiting"] @ [scatter * sums, scatter * computed])}


def fit(runs: Sequence[Run]) -> Model:
    """Return the `Model` that fits the records of some runs best."""
    return _solve([each for run in runs for each in _observations(run)])


def bootstrap(runs: Sequence[Run], draws: int = 200, seed: int = 0) -> list[Model]:
    """Return models fitted to resampled runs, whose spread shows the uncertainty (Efron 1979).

    Parameters
    ----------
    runs : sequence of Run
    draws : int
        Number of models.
    seed : int

    Returns
    -------
    list of Model
        Each is fitted to as many runs on each number of engines as were given, drawn with replacement, and to
        records of each run, drawn likewise.
    """
    random, groups = np.random.default_rng(seed), dict[int, list]()
    for run in runs:
        groups.setdefault(run.setting.engines, []).append(_observations(run))
    models = []
    for _ in range(draws):
        drawn = [group[i] for group in groups.values() for i in random.integers(len(group), size=len(group))]
        models.append(_solve([run[i] for run in drawn for i in random.integers(len(run), size=len(run))]))
    return models


def predict(models: Sequence[Model], workloads: Sequence[Workload], setting: Setting) -> np.ndarray:
    """Return the seconds that the workloads take in a setting by each model, shape (len(models),)."""
    demand = _demand(workloads, setting)
    return np.array([sum(model._spend(*demand).values()) for model in models])


def speedup(models: Sequence[Model], workloads: Sequence[Workload], setting: Setting) -> np.ndarray:
    """Return the speed-up of the workloads in a setting over one engine that keeps all linearizations.

    Parameters
    ----------
    models : sequence of Model
        As from `bootstrap`.
    workloads : sequence of Workload
    setting : Setting

    Returns
    -------
    ndarray, shape (3,)
        The 5, 50 and 95 % quantiles over the models.
    """
    return np.percentile(
        predict(models, workloads, Setting()) / predict(models, workloads, setting), [5, 50, 95]
    )


def _mean(profile: dict) -> dict[str, float]:
    """Return the mean of a record's profile over engines; the serial part is optimizer and idle time."""
    kinds = (*COMPUTED, "reduction", "waiting", "optimizer", "idle")
    mean = {kind: float(np.mean([engine[kind] for engine in profile.values()])) for kind in kinds}
    return mean | {"serial": mean.pop("optimizer") + mean.pop("idle")}


def _columns(workload: Workload, setting: Setting) -> dict[str, Sequence[float]]:
    """Return the columns of the table above, without waiting, which depends on seconds of other parts."""
    h, r = setting.colocated, setting.local_samples(workload.batch)
    s = setting.local_samples(workload.curvature_batch_size)
    G, P, L = workload.gradients, workload.products, workload.losses
    kept = min(1.0, setting.kept / s) if s else 1.0
    M = kept * min(P, 1.0) + (1 - kept) * P
    sums, _, size = workload.communication_cost(setting.engines)
    return {
        "gradient": [G, G * r, G * r * h],
        "product": [P, P * s, P * s * h, M * s],
        "loss": [L, L * r, L * r * h],
        "serial": [1.0, G, L, P, (G + P) * h],
        "reduction": [sums, size],
    }


def _demand(workloads: Sequence[Workload], setting: Setting) -> tuple[dict[str, np.ndarray], float, float]:
    """Return the columns of all workloads together, m(N), and the seconds of their sums on the network."""
    each = [_columns(workload, setting) for workload in workloads]
    columns = {part: np.sum([one[part] for one in each], axis=0) for part in each[0]}
    paths = [workload.communication_cost(setting.engines)[1:] for workload in workloads]
    sent = sum(setting.interconnect.seconds(*path) for path in paths) if setting.interconnect else 0.0
    return columns, expected_maximum(setting.engines), sent


def _observations(run: Run) -> list[tuple[dict, dict]]:
    """Return columns and seconds of each record; waiting is explained by measured, not predicted seconds."""
    found, scatter = [], expected_maximum(run.setting.engines)
    for workload, seconds in zip(run.workloads, run.seconds, strict=True):
        columns = _columns(workload, run.setting)
        wait = columns["reduction"][0], sum(seconds[part] for part in COMPUTED)
        found.append((columns | {"waiting": [scatter * each for each in wait]}, seconds))
    return found


def _solve(observations: Sequence[tuple[dict, dict]]) -> Model:
    """Fit each part, with relative residuals so that short records count as much as long ones."""
    costs = {part: np.zeros(len(columns)) for part, columns in observations[0][0].items()}
    for part, zeros in costs.items():
        rows = [np.array(columns[part]) / seconds[part] for columns, seconds in observations if seconds[part]]
        if rows:
            scale = np.abs(rows).max(axis=0) + 1e-300  # of samples and of sums: they differ a million-fold
            A = np.vstack([rows / scale, RIDGE * np.eye(len(scale))])
            costs[part] = nnls(A, np.concatenate([np.ones(len(rows)), zeros]))[0] / scale
    return Model(costs)


# Samples of a product, and of a step of SGD, on `mnist_task`. The third of the sizes and the second of the
# batches are for testing.
SIZES = {"fast": (150, 600, 1500, 3000), "full": (2048, 8192, 24_000, 60_000)}
BATCHES = {"fast": (64, 256, 1000), "full": (64, 512, 4096)}
NODES = 16  # some runs are on the part of the data that one of so many nodes would hold
TEST = "test: "
# Adam with batches larger than lesson 07's, and the learning rates tried at each.
BASELINES = {512: (1e-3, 3e-3), 4096: (3e-3, 1e-2)}

Plan = tuple[int, Callable, dict]  # a run on one sample in so many; the optimizer; its options


def plans(mode: str) -> dict[str, Plan]:
    """Return the runs to be timed.

    Parameters
    ----------
    mode : {"fast", "full"}

    Returns
    -------
    dict
        {name: plan}: Hessian-free with few products a run, on all data and on the part that one of `NODES`
        would hold, and SGD. The names of the runs to be tested on begin with `TEST`.

    Examples
    --------
    >>> [name for name in plans("fast") if name.startswith(TEST)]
    ['test: products over 1,500', 'test: a 16th of products over 1,500', 'test: SGD, batch 256']
    """
    found: dict[str, Plan] = {}
    newton = {"max_iter": 3 if mode == "full" else 2, "tol": 0.0, "solver_options": {"max_iter": 4}}
    for size in SIZES[mode]:
        test, name = TEST if size == SIZES[mode][2] else "", f"products over {size:,}"
        found[test + name] = 1, hessian_free, newton | {"curvature_batch_size": size}
        found[f"{test}a {NODES}th of {name}"] = (
            NODES,
            hessian_free,
            newton | {"curvature_batch_size": size // NODES},
        )
    for batch in BATCHES[mode]:
        test = TEST if batch == BATCHES[mode][1] else ""
        found[f"{test}SGD, batch {batch:,}"] = 1, first_order, {"max_iter": 2, "batch_size": batch}
    return found


def measure(task: Task, clusters: dict[int, Cluster], plans: dict[str, Plan]) -> tuple[dict, dict]:
    """Run the plans on each cluster, in turns, so that a busy machine disturbs all clusters alike.

    Parameters
    ----------
    task : Task
    clusters : dict
        {number of engines: cluster}.
    plans : dict
        {name: plan}. Plans on a part of the data run on one engine only.

    Returns
    -------
    histories : dict
        {name: history}.
    settings : dict
        {name: arguments of `Run.of`}, for `read`.
    """
    histories, settings = {}, {}
    data = {share: task.train[: len(task.train) // share] for share in (1, NODES)}
    for name, (share, optimizer, options) in progress_bar(plans.items(), unit="plan"):
        for n, cluster in clusters.items():
            if n == 1 or share == 1:
                partitions, size = 24 if share == 1 else 2, options.get("curvature_batch_size", 0)
                arguments = task.net, data[share], task.start(), optimizer
                run = cluster.minimize(*arguments, partitions=partitions, progress=False, **options)
                histories[f"{name} (N = {n})"] = run.history
                setting = {"curvature_batch_size": size, "engines": n, "partitions": partitions}
                settings[f"{name} (N = {n})"] = setting
    return histories, settings


def baselines(task: Task, cluster: Cluster, target: float) -> dict[str, list[Record]]:
    """Return the histories of Adam, for each batch of `BASELINES` at the rate with the fewest epochs.

    Parameters
    ----------
    task : Task
    cluster : Cluster
    target : float
        The loss at which a run ends. Otherwise it ends after 12 epochs, or once it cannot beat the best rate
        so far.

    Returns
    -------
    dict
        {name: history} of the batches that reach the target.
    """
    found = {}
    for batch, rates in progress_bar(BASELINES.items(), unit="batch"):
        best, limit = None, 12
        for rate in rates:
            options = {"method": "adam", "batch_size": batch, "learning_rate": rate, "max_iter": limit}
            arguments = task.net, task.train, task.start(), first_order
            run = cluster.minimize(
                *arguments, callback=lambda record: record.loss <= target, progress=False, **options
            )
            if run.fun <= target:
                best, limit = run.history, run.nit - 1
        if best:
            found[f"Adam (batch {batch:,})"] = best
    return found


def read(histories: dict, settings: dict, w0: np.ndarray) -> tuple[dict[str, Run], dict[str, Run]]:
    """Return measured runs as the model takes them.

    Parameters
    ----------
    histories, settings : dict
        As `measure` returns them.
    w0 : ndarray, shape (p,)
        Initial parameters, or any vector of their number and precision.

    Returns
    -------
    fitted, tested : dict
        {name: Run}: the runs to fit a model to, and those to test it on.
    """
    runs = {name: Run.of(histories[name], w0, **setting) for name, setting in settings.items()}
    tests = {name.removeprefix(TEST): run for name, run in runs.items() if name.startswith(TEST)}
    return {name: run for name, run in runs.items() if not name.startswith(TEST)}, tests


def works_to(
    history: Sequence[Record], target: float, w0: np.ndarray, curvature_batch_size: int = 0
) -> list[Workload]:
    """Return the workloads of a history up to the first loss that is at most a target.

    Parameters
    ----------
    history : sequence of Record
    target : float
        A loss.
    w0 : ndarray, shape (p,)
        Initial parameters, or any vector of their number and precision.
    curvature_batch_size : int
        Samples of a product.

    Returns
    -------
    list of Workload

    Raises
    ------
    ValueError
        If the run does not reach the target.
    """
    end = next((i for i, record in enumerate(history) if record.loss <= target), None)
    if end is None:
        raise ValueError(f"target: expected a loss that the run reaches, got {target}")
    return workloads(history[: end + 1], w0, curvature_batch_size)
