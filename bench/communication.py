"""The race in reductions: what every method spends until the loss of a network is at a target.

`hfnb.studies.communication` has the methods and the rule by which they are tuned. Here are the tasks, and the
file of results: every run is written to results/communication.json when it ends, so that an interrupted
benchmark goes on where it was. Reductions do not depend on time, so that two runs share the machine, each
with one thread. From the counts, `hfnb.studies.scaling_model` predicts the time on any number of nodes.
"""

import json
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import replace
from functools import cache, partial

import numpy as np
from threadpoolctl import threadpool_limits

from bench import nodes
from bench.report import RESULTS, about, show
from bench.rule import DEEP, NEAR, images
from bench.runs import at_once
from hfnb import datasets, models
from hfnb.datasets import Dataset
from hfnb.objectives.cells import CELLS
from hfnb.studies import communication, speech_recognition
from hfnb.studies.communication import Method, Price, Race
from hfnb.studies.scaling_model import Interconnect
from hfnb.studies.stored_runs import StoredRuns, TimeIsUp

SIZES = [784, 400, 150, 10]
STARTS = 3
FIRST_ORDER = tuple(f"synchronous {name}" for name in ("SGD", "momentum", "Adam"))
PRICES = {  # what tuning minimizes
    "reductions": lambda race: Price(),
    "time": lambda race: Price.seconds(race, 16, Interconnect(50e-6, 10e9)),  # on 16 nodes
}


def cells(quick: bool) -> int:
    """Return the number of cells: few, where there are few images."""
    return 4 if quick else CELLS


def mnist(quick: bool, **options) -> Race:
    """Return the classifier of 60,000 images to a loss of 0.1, or a small one of 3,000 images to 0.3."""
    train, test = (images(3000), images(3000)) if quick else datasets.mnist()
    sizes, target = ([784, 30, 10], 0.3) if quick else (SIZES, 0.1)
    given = {"name": "MNIST", "target": target, "cells": cells(quick), **options}
    return Race(net=models.mlp(sizes), train=train, test=test, **given)


def sorted_mnist(quick: bool) -> Race:
    """Return the classifier whose cells hold a few digits each, because the images are sorted by label."""
    race = mnist(quick, name="MNIST, cells sorted by label", target=0.4 if quick else 0.2, cell_seed=None)
    return replace(race, train=race.train[np.argsort(race.train.Y, kind="stable")])


def timit(quick: bool) -> Race:
    """Return the acoustic model of TIMIT, or of synthetic speech where its sample is not found."""
    task = speech_recognition.timit_task("fast" if quick else "full", "synthetic" if quick else None)
    target = 2.5 if quick else 1.5
    return Race(
        name=task.name,
        net=task.net,
        train=task.train,
        test=task.test,
        dtype=task.dtype,
        target=target,
        cells=cells(quick),
    )


def autoencoder(quick: bool) -> Race:
    """Return the deep autoencoder of 6,000 images, or a shallow one of 1,500."""
    sizes, n, target = ((784, 100, 30), 1500, 20.0) if quick else (DEEP, 6000, 15.0)
    data = Dataset(images(n).X, images(n).X, name=f"{n:,} images of MNIST")
    net = models.autoencoder(sizes, weight_decay=1e-5)
    return Race(name="autoencoder", net=net, train=data, test=data, target=target, cells=cells(quick))


def small_mnist(quick: bool) -> Race:
    """Return the classifier that runs on emulated hosts: 6,000 images, a loss of 0.2."""
    data = images(1500 if quick else 6000)
    net = models.mlp([784, 30, 10] if quick else [784, 100, 50, 10])
    target = 0.5 if quick else 0.2
    return Race(name="MNIST on hosts", net=net, train=data, test=data, target=target, cells=cells(quick))


TASKS: dict[str, Callable[[bool], Race]] = {
    "mnist": mnist,
    "near": partial(mnist, name="MNIST, near the saddle", scale=NEAR, patience=150.0),
    "sorted": sorted_mnist,
    "timit": timit,
    "autoencoder": autoencoder,
    "hosts": small_mnist,
}
HOSTS_TASK = "hosts"


@cache
def race_of(task: str, quick: bool) -> Race:
    """Return a task, which is made once in each process; "mnist/64" has 64 cells."""
    name, _, number = task.partition("/")
    found = TASKS[name](quick)
    return replace(found, name=f"{found.name}, {number} cells", cells=int(number)) if number else found


def methods_of(race: Race) -> dict[str, Method]:
    """Return the methods, with the grids for a task."""
    return communication.methods(len(race.train), race.cells)


def work(
    task: str, quick: bool, method: Method, settings: dict, seed: int, price: Price, allowed: float
) -> dict:
    """Run a method in this process, which holds one task at a time."""
    return communication.attempt(race_of(task, quick), method, settings, seed, price, allowed)


def chain(
    stored: StoredRuns, pool: Executor, task: str, quick: bool, metric: str, name: str, method: Method
) -> dict:
    """Tune a method for a metric, run it from all starts, each in another process, and store the result."""
    race = race_of(task, quick)
    price = PRICES[metric](race)

    def run(settings: dict, seed: int, allowed: float) -> dict:
        def make() -> dict:
            made = pool.submit(work, task, quick, method, settings, seed, price, allowed).result()
            told = (made[each] for each in ("ended", "reductions", "passes", "loss"))
            print(task, name, settings, seed, *told, file=sys.stderr, flush=True)
            return made

        key = race.key(method, settings, seed)
        return stored.run(key, make, lambda run: communication.known(run, price, allowed))

    found = communication.tune(method, run, range(1 if quick else STARTS), price)
    told = {"race": race.name, "fingerprint": race.fingerprint(), "metric": metric, "method": name}
    stored.add("tuned", {json.dumps([*told.values()]): told | found})
    return told | found


def row(found: dict) -> dict:
    """Return a row of the table: medians and ranges over the starts."""
    cells = {"task": found["race"], "method": found["method"]}
    for name in ("reductions", "rounds", "passes"):
        middle, low, high = communication.summary(found["runs"], name)
        cells[name] = f"{middle:.4g} ({low:.4g}–{high:.4g})"
    middle, _, _ = communication.summary(found["runs"], "bytes")
    reached = sum(run["reached"] for run in found["runs"])
    cells |= {"MB": middle / 1e6, "reached": f"{reached} of {len(found['runs'])}"}
    return cells | {
        "inside": "yes" if found["inside"] else "NO",
        "tried": found["tried"],
        "settings": json.dumps(found["settings"]),
    }


def chosen(options) -> tuple[list[str], list[str]]:
    """Return the tasks and the methods that the command line asks for."""
    tasks = options.tasks or [task for task in TASKS if task != HOSTS_TASK]
    for name, slash, number in (task.partition("/") for task in tasks):
        if name not in TASKS or (slash and not number.isdecimal()):
            known = f"{', '.join(TASKS)}, perhaps with a number of cells as in mnist/64"
            raise SystemExit(f"--tasks: expected names of {known}, got {name}{slash}{number}")
    names = list(communication.methods(60_000))
    methods = [name for name in names if not options.methods or name in options.methods]
    if options.methods and len(methods) < len(set(options.methods)):
        raise SystemExit(f"--methods: expected names of {', '.join(names)}, got {options.methods}")
    return tasks, methods


def median_price(found: dict, price: Price) -> float:
    """Return the median price of a method over the starts."""
    return float(np.median([communication.cost(run, price)[0] for run in found["runs"]]))


def race(stored: StoredRuns, task: str, methods: list[str], options) -> list[dict]:
    """Tune and run methods on a task; return what was found, the cheapest methods first."""
    entries = methods_of(race_of(task, options.quick))
    with at_once(options.processes) as (pool, threads):
        ask = partial(chain, stored, pool, task, options.quick, options.metric)
        asked = [threads.submit(ask, name, entries[name]) for name in methods]
        found = [each.result() for each in asked]
    price = PRICES[options.metric](race_of(task, options.quick))
    found.sort(key=partial(median_price, price=price))
    show(map(row, found))
    return found


def verdicts(found: Iterable[dict]) -> list[dict]:
    """Return the reductions of every method over those of the best synchronous first-order one."""
    rows, by_race = [], dict[str, dict[str, float]]()
    for each in found:
        middle, _, _ = communication.summary(each["runs"], "reductions")
        by_race.setdefault(each["race"], {})[each["method"]] = middle
    for name, reductions in by_race.items():
        rivals = {method: reductions[method] for method in FIRST_ORDER if method in reductions}
        best = min(rivals, key=lambda method: rivals[method], default=None)
        if best is not None and np.isfinite(rivals[best]):
            others = {method: each / rivals[best] for method, each in reductions.items()}
            others = {method: each for method, each in others.items() if method not in rivals}
            rows += [
                {"task": name, "method": method, "÷": best, "ratio": each} for method, each in others.items()
            ]
    return rows


def timing(stored: StoredRuns, race: Race, found: dict) -> dict[str, float]:
    """Return the seconds of a method on one core, measured unless they are stored."""
    method, settings = methods_of(race)[found["method"]], found["settings"]
    with threadpool_limits(1):
        measure = partial(communication.timed, race, method, settings)
        return stored.run(race.key(method, settings, 0), measure, name="timings")


def run(options) -> None:
    """Tune, race, show, and write results/communication.json; predict the time on nodes, or measure it."""
    if options.metric not in PRICES:
        raise SystemExit(f"--metric: expected one of {', '.join(PRICES)}, got {options.metric}")
    (names, methods), quick = chosen(options), options.quick
    path = RESULTS / f"communication{'_quick' if quick else ''}.json"
    stored, entries = StoredRuns(path, about, options.minutes), []
    try:
        for task in [HOSTS_TASK] if options.hosts else names:
            found = race(stored, task, methods, options)
            show(verdicts(found))
            if task.partition("/")[0] == names[0].partition("/")[0]:
                entries += [(race_of(task, quick), each) for each in found]
        if options.hosts:
            rows = nodes.measure(HOSTS_TASK, found, quick)
            stored.add("hosts", {json.dumps([*row.values()][:3]): row for row in rows})
        elif options.time:
            timed = [nodes.Entry(*entry, timing(stored, *entry)) for entry in entries]
            stored.add("predicted", {names[0]: nodes.predict(timed, draw_figure=not quick)})
    except TimeIsUp as error:
        print(f"communication: {error}")
