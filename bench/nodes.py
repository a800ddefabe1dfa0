"""Seconds to the target on several nodes: predicted from the runs of `bench.communication`, and on hosts.

The prediction takes what every run spent, and the seconds of one core, which are measured when nothing else
runs. The hosts are network namespaces of this machine (tools/hosts.py), with links of known bandwidth: there
the ranking is observed. They share two cores, so that only what the network takes is that of real hosts.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from bench.report import RESULTS, show
from hfnb import models, plots
from hfnb.engines import Cluster
from hfnb.studies import communication, scaling_model, tasks
from hfnb.studies.communication import Method, Price, Race, arguments
from hfnb.studies.scaling_model import Interconnect, RunCost
from hfnb.threads import THREAD_VARIABLES

ROOT = Path(__file__).parents[1]
NODES = [2**k for k in range(11)]
NETWORKS = {f"{gigabits} Gbit/s, 50 µs": Interconnect(50e-6, gigabits * 1e9) for gigabits in (1, 10, 100)}
MIDDLE = "10 Gbit/s, 50 µs"
SPEEDUPS = {16: 14.5, 32: 28.0}  # nodes and cells: how many times as fast an iteration shall be
HOSTS, RATES = (2, 4), ("100mbit", "1gbit")
LIMIT = 900  # seconds for all methods on one set of hosts
ITERATIONS = 3  # of local solves, timed for their speed-up
LOCAL = "local solves"
LINES = 7  # of a figure, that can be told apart


def scatter() -> float:
    """Return the standard deviation of the nodes' speeds that lesson 11 measured, relative to their mean."""
    stored, about = tasks.load("11_measure_scaling_full.json")
    w0 = models.mlp([784, 400, 150, 10]).init(0)
    fitted, _ = scaling_model.read(stored, about["settings"], w0)
    return float(scaling_model.fit(list(fitted.values())).costs["waiting"][1])


@dataclass(frozen=True)
class Entry:
    """A method in the race: its task, what `bench.communication` found, and the seconds of one core."""

    race: Race
    found: dict
    timing: dict

    @property
    def arrives(self) -> bool:
        """Whether the method reached the target from every start."""
        return all(run["reached"] for run in self.found["runs"])

    def costs(self) -> list[RunCost]:
        """Return what the run from each start costs on nodes."""
        method = communication.methods(len(self.race.train), self.race.cells)[self.found["method"]]
        cost = partial(communication.run_cost, self.race, method, self.found["settings"])
        return [cost(run, self.timing) for run in self.found["runs"]]


def times(costs: list[RunCost], nodes: int, network: Interconnect, spread: float) -> list[float]:
    """Return median, least and most seconds over the starts."""
    each = [cost.seconds(nodes, network, spread) for cost in costs]
    return [float(np.median(each)), min(each), max(each)]


def fastest(costs: dict[str, list[RunCost]], spread: float) -> list[dict]:
    """Return a row for each network and number of nodes: who is first, and who would be next."""
    rows = []
    for name, network in NETWORKS.items():
        for nodes in NODES[::2]:
            order = sorted((times(each, nodes, network, spread), method) for method, each in costs.items())
            row = {"network": name, "nodes": nodes}
            for place, ((middle, low, high), method) in zip(("first", "second"), order, strict=False):
                row |= {place: method, f"{place}, seconds": f"{middle:.3g} ({low:.3g}–{high:.3g})"}
            rows.append(row)
    return rows


def limits(costs: dict[str, list[RunCost]], spread: float) -> list[dict]:
    """Return a row for each method and number of nodes: computing and communication apart."""
    rows = []
    for name, network in NETWORKS.items():
        for nodes in (1, 16, 1024):
            for method, each in costs.items():
                parts = {
                    "computing": [cost.compute(nodes, spread) for cost in each],
                    "communication": [cost.communication(nodes, network) for cost in each],
                }
                seconds = {part: float(np.median(values)) for part, values in parts.items()}
                limit = max(seconds, key=lambda part: seconds[part])
                rows.append({"network": name, "nodes": nodes, "method": method, **seconds, "limit": limit})
    return rows


def speedups(race: Race, method: Method, spread: float, iterations: int) -> list[dict]:
    """Return how many times as fast an iteration of local solves is on as many nodes as there are cells."""
    rows = []
    for cells, bar in SPEEDUPS.items():
        here = replace(race, cells=cells)
        timing = communication.timed(here, method, method.fixed, iterations)
        cost = communication.run_cost(here, method, method.fixed, timing, timing)
        network = NETWORKS[MIDDLE]
        ratio = cost.seconds(1, network) / cost.seconds(cells, network, spread)
        row = {"nodes": cells, "cells": cells, "speed-up": ratio, "at least": bar}
        rows.append(row | {"": "holds" if ratio >= bar else "DOES NOT HOLD"})
    return rows


def draw(entries: dict[str, Entry], spread: float) -> plt.Figure:
    """Return the figure: losses over reductions from the first start, and seconds over nodes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.8), layout="constrained")
    curves = {
        name: [{"reductions": spent, "loss": loss} for spent, loss in entry.found["runs"][0]["curve"]]
        for name, entry in entries.items()
    }
    plots.curves(curves, "reductions", "loss", left, log=True)
    counts = {
        name: communication.summary(entry.found["runs"], "reductions")[0] for name, entry in entries.items()
    }
    fewest = min(counts, key=lambda name: counts[name])
    left.set_title(f"{fewest} needs the fewest reductions", fontsize=10)
    network = NETWORKS[MIDDLE]
    intervals = {
        name: [times(entry.costs(), nodes, network, spread) for nodes in NODES]
        for name, entry in entries.items()
    }
    plots.bands(NODES, intervals, right).set(
        xlabel=f"nodes, {MIDDLE}", ylabel="predicted seconds to the target"
    )
    first = {min(intervals, key=lambda name: intervals[name][k][0]) for k in range(len(NODES))}
    right.set_title(f"predicted first: {' or '.join(sorted(first))}", fontsize=10)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return figure


def predict(found: list[Entry], draw_figure: bool) -> dict[str, list[dict]]:
    """Show the predictions for the methods that arrive from every start; return the tables."""
    entries, cells = {}, found[0].race.cells
    for entry in filter(lambda entry: entry.arrives, found):
        words = "" if entry.race.cells == cells else f", {entry.race.cells} cells"
        entries[entry.found["method"] + words] = entry
    costs, spread = {name: entry.costs() for name, entry in entries.items()}, scatter()
    tables = {"first": show(fastest(costs, spread)), "limits": show(limits(costs, spread))}
    if LOCAL in entries:
        race = entries[LOCAL].race
        method = communication.methods(len(race.train), race.cells)[LOCAL]
        tables["speed-up"] = show(speedups(race, method, spread, ITERATIONS))
    if draw_figure:
        some = dict(list(entries.items())[:LINES])
        draw(some, spread).savefig(RESULTS / "communication.png", dpi=120)
    return tables


# On emulated hosts


def on_head(job: dict) -> list[dict]:
    """Run the methods of a job on a cluster of this job's hosts; return the seconds of each."""
    from bench.communication import race_of

    race, rows = race_of(job["task"], job["quick"]), []
    hosts = dict.fromkeys(os.environ["HOSTS"].split(), 1)
    with Cluster(engines="mpi", hosts=hosts, deadline=60) as cluster:
        for entry in job["methods"]:
            for seed in range(job["starts"]):
                rows.append(entry | {"seed": seed} | run_on(cluster, race, entry, seed))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def run_on(cluster: Cluster, race: Race, entry: dict, seed: int) -> dict:
    """Run a method on a cluster until the target; return its seconds and what it spent."""
    watch = communication.Watch(race, entry["optimizer"], Price())
    optimizer = f"hfnb.optimizers:{entry['optimizer']}"
    settings = arguments(race, entry["settings"]) | {"cells": race.cells, "cell_seed": race.cell_seed}
    cluster.minimize(
        race.net,
        race.train,
        race.start(seed),
        optimizer,
        seed=seed,
        callback=watch,
        progress=False,
        max_iter=10**6,
        **settings,
    )
    return {name: each for name, each in watch.spent().items() if name != "rounds"}


def on_hosts(job: dict, hosts: int, rate: str) -> list[dict]:
    """Return what `on_head` returns on so many emulated hosts with links of a bandwidth."""
    with tempfile.TemporaryDirectory() as folder:
        settings = dict.fromkeys(THREAD_VARIABLES, "1") | {"IPYTHONDIR": folder, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(ROOT / "tools" / "hosts.py"), "-n", str(hosts), "--rate", rate, "--"]
        command += ["env", *(f"{name}={value}" for name, value in settings.items())]
        command += ["timeout", str(LIMIT), sys.executable, "-m", "bench.nodes", json.dumps(job)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, timeout=LIMIT + 120)
    if done.returncode:
        raise SystemExit(f"communication: the runs on {hosts} hosts at {rate} failed")
    return json.loads(done.stdout.splitlines()[-1])


def lacking() -> str | None:
    """Say what this machine lacks for hosts of its own, or None."""
    probe = [sys.executable, str(ROOT / "tools" / "hosts.py"), "-n", "1", "--", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=120)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


def measure(task: str, found: list[dict], quick: bool) -> list[dict]:
    """Run the methods that reached the target on emulated hosts; return a row for each, the fastest first."""
    if lacks := lacking():
        print(f"communication --hosts: not measured: {lacks}")
        return []
    reached = [each for each in found if all(run["reached"] for run in each["runs"])]
    methods = communication.methods(60_000)
    entries = [
        {
            "method": each["method"],
            "optimizer": methods[each["method"]].optimizer,
            "settings": each["settings"],
        }
        for each in reached
    ]
    job = {"task": task, "quick": quick, "methods": entries, "starts": 1 if quick else 3}
    rows = []
    for hosts in HOSTS[:1] if quick else HOSTS:
        for rate in RATES:
            runs = on_hosts(job, hosts, rate)
            table = []
            for entry in entries:
                mine = [run for run in runs if run["method"] == entry["method"]]
                middle, low, high = communication.summary(mine, "seconds")
                seconds = {"seconds": middle, "range": f"{low:.3g}–{high:.3g}"}
                spent = {"reductions": communication.summary(mine, "reductions")[0]}
                table.append({"hosts": hosts, "rate": rate, "method": entry["method"], **seconds, **spent})
            rows += show(sorted(table, key=lambda row: row["seconds"]))
    return rows


if __name__ == "__main__":
    print(json.dumps(on_head(json.loads(sys.argv[1]))))
