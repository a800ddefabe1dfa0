"""Products to a target: method="auto" beside Martens' and the paper's methods, at saddles and elsewhere.

A ratio is that of one start: what the first method spent over what the second did, until the loss was at the
target. Where only one got there within `LIMIT` products: infinite, or what the second had spent by its end.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from bench.report import about, load, save, show
from hfnb import datasets, models
from hfnb.datasets import Dataset
from hfnb.objectives import Objective
from hfnb.optimizers import hessian_free
from hfnb.studies.speech_dataset import timit

LIMIT = 2500  # products a run may spend
DEEP = (784, 1000, 500, 250, 30)
NEAR = 0.02  # by which a start is scaled toward the saddle at zero
# Every method has the same expanding line search, damping, warm start and samples.
METHODS: dict[str, dict] = {
    "auto": {"method": "auto"},
    "GN-CG": {"solver": "cg", "curvature": "gauss-newton"},
    "Bi-CG-STAB": {"solver": "bicgstab", "curvature": "hessian"},
    # One half of the rule: solves that end when they no longer pay, without probes.
    "GN-CG, marginal gain": {"method": "martens", "stopping_rule": "marginal-gain"},
}


@dataclass(frozen=True)
class Problem:
    """A network and its data, the samples of curvature, targets for the loss, and the scale of its starts."""

    name: str
    make: Callable
    targets: tuple[float, ...]
    scale: float = 1.0
    init: str = "glorot"
    seeds: int = 5


@cache
def images(n: int) -> Dataset:
    """Return n images of MNIST, evenly spaced."""
    train, _ = datasets.mnist()
    return train[:: len(train) // n]


def classifier(activation: str):
    return models.mlp([784, 100, 50, 10], activation, weight_decay=2e-5), images(6000), 1200


def deep_sigmoid():
    return models.mlp([784, *[50] * 7, 10], "sigmoid", weight_decay=2e-5), images(3000), 600


def autoencoder(sizes: tuple[int, ...], n: int):
    data = images(n)
    return models.autoencoder(sizes, weight_decay=1e-5), Dataset(data.X, data.X, name=data.name), n // 5


def deep_linear():
    """A linear teacher of 20 outputs that matter less and less."""
    random = np.random.default_rng(7)
    X = random.standard_normal((2000, 40)).astype(np.float32)
    T = random.standard_normal((40, 20)) * np.linspace(1, 0.05, 20) * 2 / np.sqrt(40)
    net = replace(models.mlp([40, 30, 30, 30, 20], loss="squared_error"), activations=("linear",) * 4)
    return net, Dataset(X, (X @ T).astype(np.float32), name="linear teacher"), 500


def speech():
    """TIMIT's real sample where it is, else synthetic speech: every tenth frame to 144 states of phones."""
    train, _ = timit(phones=48, states=3)
    data = Dataset(train.X[::10], train.Y[::10], name=train.name)
    return models.mlp([train.dim, 128, 128, train.classes], weight_decay=1e-3), data, len(data) // 5


def problems() -> list[Problem]:
    """Return the problems, each from ordinary starts and, where one is known, from near a saddle."""
    ordinary = [
        *(
            Problem(f"MNIST, {name}", partial(classifier, name), (0.3, 0.1, 0.05))
            for name in ("tanh", "sigmoid", "relu")
        ),
        Problem("autoencoder 784-100-30", partial(autoencoder, (784, 100, 30), 1500), (20.0, 12.0, 8.0)),
        Problem("deep linear", deep_linear, (1.0, 0.1, 0.01)),
        Problem("speech", speech, (3.0, 2.0, 1.5)),
    ]
    near = [replace(problem, name=f"{problem.name}, near", scale=NEAR) for problem in ordinary]
    deep = [Problem("8 sigmoid layers", deep_sigmoid, (2.0, 1.0, 0.5), init="sparse")]
    deep += [replace(deep[0], name="8 sigmoid layers, near", scale=0.5)]
    large = Problem("deep autoencoder", partial(autoencoder, DEEP, 1500), (22.0, 15.0, 10.0), seeds=1)
    return [*ordinary, *near, *deep, large]


def attempt(problem: Problem, method: str, seed: int) -> dict:
    """Run a method from a start: what it had spent when the loss reached each target, None where never."""
    net, data, curvature_batch_size = problem.make()
    w0 = net.init(seed, problem.init) * np.float32(problem.scale)
    result = hessian_free(
        Objective(net, data),
        w0,
        curvature_batch_size=curvature_batch_size,
        seed=seed,
        max_iter=LIMIT,
        callback=lambda record: record.loss <= problem.targets[-1] or record.products >= LIMIT,
        **METHODS[method],
    )
    reached = [
        next((record for record in result.history if record.loss <= target), None)
        for target in problem.targets
    ]
    found = {
        cost: [None if record is None else round(float(record[cost]), 1) for record in reached]
        for cost in ("products", "passes", "reductions", "seconds")
    }
    end = result.history[-1]
    looks = sum("negative curvature" in record.direction for record in result.history)
    ended = {"spent": end.products, "passes spent": end.passes, "loss": end.loss, "looks taken": looks}
    return {
        "problem": problem.name,
        "near": problem.scale < 1,
        "method": method,
        "seed": seed,
        **found,
        **ended,
    }


def spent(run: dict, target: int, cost: str = "products") -> float:
    """Return what a run spent until a target, or at all where it did not get there."""
    total = {"products": "spent", "passes": "passes spent"}[cost]
    return run[cost][target] if run[cost][target] is not None else run[total]


def ratios(
    runs: list[dict], first: str, second: str, target: int = -1, cost: str = "products"
) -> list[float]:
    """Return first ÷ second for each start that either brought to the target, inf where the first did not."""
    by_start = {(run["method"], run["problem"], run["seed"]): run for run in runs}
    found = []
    for (method, *start), mine in by_start.items():
        theirs = by_start.get((second, *start))
        if method != first or theirs is None:
            continue
        if mine[cost][target] is not None:
            found.append(spent(mine, target, cost) / spent(theirs, target, cost))
        elif theirs[cost][target] is not None:
            found.append(np.inf)
    return found


def summary(values: list[float]) -> str:
    """Return the median and range of ratios."""
    return f"{np.median(values):.2f} ({min(values):.2f}–{max(values):.2f})" if values else "nobody got there"


def table(runs: list[dict]) -> list[dict]:
    """Return a row for each problem, and two for all: the ratios of ``auto`` at the last target."""
    groups: dict[str, list[dict]] = {}
    for run in runs:
        groups.setdefault(run["problem"], []).append(run)
    groups["all near saddles"] = [run for run in runs if run["near"]]
    groups["all ordinary"] = [run for run in runs if not run["near"]]
    rows = []
    for name, group in groups.items():
        row = {"problem": name}
        for other in list(METHODS)[1:]:
            row[f"÷ {other}"] = summary(ratios(group, "auto", other))
        row["÷ GN-CG, passes"] = summary(ratios(group, "auto", "GN-CG", cost="passes"))
        row["÷ GN-CG, first target"] = summary(ratios(group, "auto", "GN-CG", target=0))
        rows.append(row)
    return rows


def run(options) -> None:
    """Print and save the table; results of problems and methods that are not asked for now are kept."""
    tasks = [
        (problem, method, seed)
        for problem in problems()
        if not options.problems or problem.name in options.problems
        for seed in range(1 if options.quick else problem.seeds)
        for method in options.methods or METHODS
    ]
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit locks of BLAS threads
    with ProcessPoolExecutor(mp_context=fresh, initializer=threadpool_limits, initargs=(1,)) as pool:
        runs = list(tqdm(pool.map(attempt, *zip(*tasks, strict=True)), total=len(tasks)))
    new = {(run["problem"], run["method"]) for run in runs}
    old = load("rule") or {"runs": [], "about": {}}
    runs += [each for each in old["runs"] if (each["problem"], each["method"]) not in new]
    corpus = speech()[1].name if any("speech" in name for name, _ in new) else old["about"].get("speech")
    document = {"about": about(limit=LIMIT, near=NEAR, speech=corpus)}
    save("rule", document | {"table": show(table(runs)), "runs": runs})
