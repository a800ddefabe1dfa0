"""A model of the seconds that a run takes on any number of engines, fitted to the profiles of measured runs.

Every part of an iteration is linear in what it asks for, so the model is a table of costs, found by least
squares that are not negative, on relative residuals. With G gradients and L losses of r samples on each of N
engines, P products of s samples, M linearizations for them, and h other engines on the same host:

    gradient   G, G r, G r h                          loss     L, L r, L r h
    product    P, P s, P s h, M s                     serial   1, G, L, P, (G + P) h
    reduction  sums, bytes on their path              waiting  m(N) × (sums, seconds of all that is computed)

The serial part, vectors and the client, is the same on any number of engines. What a reduction costs here is
copying and adding; a network's latency and bandwidth, which are given, come on top. Engines whose times
scatter wait for the slowest: m(N) is the expected maximum of N standard normal variables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from hfnb.objectives.evaluator import KEPT
from hfnb.studies.collectives import expected_maximum
from hfnb.studies.workload import Setting, Workload, workloads

COMPUTED = ("gradient", "product", "loss")
RIDGE = 1e-5  # where runs do not tell two costs apart, rounding shall not choose


@dataclass(frozen=True)
class Run:
    """A measured run: where it ran, and the workload and seconds of each record, means over engines."""

    setting: Setting
    workloads: list[Workload]
    seconds: list[dict[str, float]]

    @classmethod
    def of(cls, history, w0, curvature_batch_size: int = 0, *, engines: int, partitions: int = 24) -> "Run":
        """Read a run on ``engines`` of this host from its history, without the first record: caches are cold.

        ``w0`` and ``curvature_batch_size`` are those of `workloads`.
        """
        seconds = [_mean(record["profile"]) for record in history[1:]]
        measured = workloads(history, w0, curvature_batch_size)[1:]
        return cls(Setting(engines, engines - 1, partitions=partitions), measured, seconds)

    def error(self, model: "Model") -> float:
        """Return by how much a model misses the seconds of all records together, relative to them."""
        measured = sum(sum(each.values()) for each in self.seconds)
        return model.seconds(self.workloads, self.setting) / measured - 1


@dataclass(frozen=True)
class Model:
    """What each part costs, {part: seconds for each column of the table above}."""

    costs: dict[str, np.ndarray]

    def parts(self, workloads: Sequence[Workload], setting: Setting) -> dict[str, float]:
        """Return the seconds, by part, that the workloads take there on the engine with the most samples."""
        return self._spend(*_demand(workloads, setting))

    def seconds(self, workloads: Sequence[Workload], setting: Setting) -> float:
        """Return the seconds that the workloads take there."""
        return sum(self.parts(workloads, setting).values())

    def _spend(self, columns: dict[str, np.ndarray], scatter: float, sent: float) -> dict[str, float]:
        seconds = {part: float(self.costs[part] @ columns[part]) for part in columns}
        seconds["reduction"] += sent
        sums, computed = columns["reduction"][0], sum(seconds[part] for part in COMPUTED)
        return seconds | {"waiting": float(self.costs["waiting"] @ [scatter * sums, scatter * computed])}


def fit(runs: Sequence[Run]) -> Model:
    """Return the model that fits the records of some runs best."""
    return _solve([each for run in runs for each in _observations(run)])


def bootstrap(runs: Sequence[Run], draws: int = 200, seed: int = 0) -> list[Model]:
    """Return models fitted to runs, and records of them, drawn anew with replacement (Efron 1979).

    Of runs with as many engines as many are drawn as there are, so that every model has seen all numbers.
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
    """Return the seconds that the workloads take there by each model."""
    demand = _demand(workloads, setting)
    return np.array([sum(model._spend(*demand).values()) for model in models])


def speedup(models: Sequence[Model], workloads: Sequence[Workload], setting: Setting) -> np.ndarray:
    """Return the speed-up over one engine of the workloads there: 5, 50 and 95 % quantiles of the models.

    That engine has memory for its linearization, however many samples there are: it is no easy baseline.
    """
    alone = Setting(kept=np.inf)
    return np.percentile(predict(models, workloads, alone) / predict(models, workloads, setting), [5, 50, 95])


def _mean(profile: dict) -> dict[str, float]:
    """A record's profile, its mean over engines; the optimizer's time and idleness are the serial part."""
    kinds = (*COMPUTED, "reduction", "waiting", "optimizer", "idle")
    mean = {kind: float(np.mean([engine[kind] for engine in profile.values()])) for kind in kinds}
    return mean | {"serial": mean.pop("optimizer") + mean.pop("idle")}


def _columns(workload: Workload, setting: Setting) -> dict[str, Sequence[float]]:
    """The table above, but for the waiting, which depends on the seconds of other parts."""
    h, r, s = (
        setting.colocated,
        setting.local_samples(workload.batch),
        setting.local_samples(workload.curvature_batch_size),
    )
    G, P, L = workload.gradients, workload.products, workload.losses
    M = P if s > (setting.kept or KEPT) else min(P, 1.0)
    sums, _, size = workload.communication_cost(setting.engines)
    return {
        "gradient": [G, G * r, G * r * h],
        "product": [P, P * s, P * s * h, M * s],
        "loss": [L, L * r, L * r * h],
        "serial": [1.0, G, L, P, (G + P) * h],
        "reduction": [sums, size],
    }


def _demand(workloads: Sequence[Workload], setting: Setting) -> tuple[dict[str, np.ndarray], float, float]:
    """The columns of all workloads together, m(N), and the seconds that their sums spend on the network."""
    each = [_columns(workload, setting) for workload in workloads]
    columns = {part: np.sum([one[part] for one in each], axis=0) for part in each[0]}
    paths = [workload.communication_cost(setting.engines)[1:] for workload in workloads]
    sent = sum(setting.interconnect.seconds(*path) for path in paths) if setting.interconnect else 0.0
    return columns, expected_maximum(setting.engines), sent


def _observations(run: Run) -> list[tuple[dict, dict]]:
    """The columns and the seconds of each record; engines wait for what was computed, not predicted."""
    found, scatter = [], expected_maximum(run.setting.engines)
    for workload, seconds in zip(run.workloads, run.seconds, strict=True):
        columns = _columns(workload, run.setting)
        wait = columns["reduction"][0], sum(seconds[part] for part in COMPUTED)
        found.append((columns | {"waiting": [scatter * each for each in wait]}, seconds))
    return found


def _solve(observations: Sequence[tuple[dict, dict]]) -> Model:
    """Fit each part: residuals relative, so that short records count as much as long ones."""
    costs = {part: np.zeros(len(columns)) for part, columns in observations[0][0].items()}
    for part, zeros in costs.items():
        rows = [np.array(columns[part]) / seconds[part] for columns, seconds in observations if seconds[part]]
        if rows:
            scale = np.abs(rows).max(axis=0) + 1e-300  # of samples and of sums: they differ a million-fold
            A = np.vstack([rows / scale, RIDGE * np.eye(len(scale))])
            costs[part] = nnls(A, np.concatenate([np.ones(len(rows)), zeros]))[0] / scale
    return Model(costs)
