"""Larger batches: passes and reductions of every method to a target, at each batch size, from several starts.

The network is that of lesson 10, trained on all of MNIST. Every method is tuned for passes at each batch with
a seed of its own (`hfnb.studies.larger_batches`), then it runs with five others. Every run is written to
results/batches.json when it ends, so that an interrupted benchmark goes on where it was.
"""

import json
import sys
from concurrent.futures import Executor
from functools import cache
from typing import Any

import numpy as np

from bench.effects import store_of
from bench.report import show
from bench.runs import at_once, chosen
from hfnb import datasets, models
from hfnb.studies import larger_batches as study
from hfnb.studies.larger_batches import METHODS
from hfnb.studies.stored_runs import StoredRuns, TimeIsUp
from hfnb.studies.tasks import Task, mnist_task
from hfnb.studies.tuning import tuned

SIZES = (200, 600, 2000, 6000, 20_000, 60_000)
QUICK_SIZES = (60, 600)
TARGET, LIMIT = 0.1, 100.0  # a loss, and passes over the data
SEEDS, QUICK_SEEDS, TUNING_SEED = 5, 1, 1000


@cache
def task_of(quick: bool) -> Task:
    """Return the task, which is made once in each process."""
    if quick:
        return mnist_task("fast")
    return Task("MNIST", models.mlp([784, 50, 30, 10], weight_decay=2e-5), *datasets.mnist())


def work(quick: bool, method: str, batch: int, value: float, seed: int, limit: float) -> dict:
    """Run a method in this process."""
    with np.errstate(all="ignore"):
        return study.cost(task_of(quick), method, batch, value, TARGET, limit, seed)


def chain(stored: StoredRuns, pool: Executor, quick: bool, method: str, batch: int, seeds: range) -> dict:
    """Tune a method at a batch, run it with all seeds, and return the result, which is stored."""
    option = METHODS[method].option

    def passes(value: float, seed: int, limit: float) -> float:
        """Return the passes of a run, which is given up at the limit; None is infinity in the file."""
        entry = [method, batch, value, seed]

        def make() -> dict:
            costs = pool.submit(work, quick, *entry, limit).result()
            print(*entry, costs, file=sys.stderr, flush=True)
            return {name: None if np.isinf(cost) else cost for name, cost in costs.items()} | {"limit": limit}

        found = stored.run(
            json.dumps(entry), make, lambda run: run["passes"] is not None or run["limit"] >= limit
        )
        return np.inf if found["passes"] is None else found["passes"]

    best = LIMIT

    def attempt(options: dict[str, Any]) -> float:
        nonlocal best
        found = passes(options[option], TUNING_SEED, best)
        best = min(best, found)
        return found

    found = tuned({}, {option: METHODS[method].axis}, attempt)
    value = found.settings[option]
    told = {"method": method, "batch": batch, "option": option, "value": value}
    told |= {"inside": found.inside, "tried": found.tried, "runs": []}
    for seed in seeds:
        passes(value, seed, LIMIT)
        run = stored.table("runs")[json.dumps([method, batch, value, seed])]
        told["runs"].append({name: run[name] for name in study.COSTS})
    stored.add("tuned", {json.dumps([method, batch]): told})
    return told


def row(told: dict) -> dict:
    """Return a row of the table: medians over the seeds."""
    cells = {name: told[name] for name in ("method", "batch", "value")}
    cells["inside"] = "yes" if told["inside"] else "NO"
    for cost in ("passes", "reductions"):
        found = [np.inf if run[cost] is None else run[cost] for run in told["runs"]]
        cells[cost] = f"{np.median(found):.4g} ({min(found):.4g}–{max(found):.4g})"
    return cells


def run(options: Any) -> None:
    """Make the runs that are missing, show them, and write results/batches.json."""
    methods = chosen(options.methods, METHODS, "--methods")
    sizes = options.batches or (QUICK_SIZES if options.quick else SIZES)
    seeds = range(QUICK_SEEDS if options.quick else options.seeds or SEEDS)
    stored = store_of("batches", options)
    with at_once(options.processes) as (pool, threads):
        asked = [
            threads.submit(chain, stored, pool, options.quick, method, batch, seeds)
            for batch in sizes
            for method in methods
        ]
        try:
            show(row(each.result()) for each in asked)
        except TimeIsUp as error:
            print(f"batches: {error}")
