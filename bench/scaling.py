"""Strong scaling: one Hessian-free iteration on 60,000 images by one engine, by two, and by two threads.

With local solves the same is measured for one and two engines, which hold 16 cells.

The ways take turns, so that a busy or a warm machine disturbs all alike; what is compared are the ratios
within a round. All runs are engine-driven, over MPI, but for the one that is called client-driven.
"""

import sys
from contextlib import ExitStack

import numpy as np

from bench.report import about, save, show
from hfnb import hessian_free
from hfnb.engines import Cluster
from hfnb.objectives import profiler
from hfnb.studies import tasks

WAYS = {"1 engine × 1 thread": (1, 1), "1 engine × 2 threads": (1, 2), "2 engines × 1 thread": (2, 1)}
SHARED, CLIENT = "2 engines × 1 thread", "client-driven, 2 engines × 1 thread"
LOCAL = {f"local solves, {way}": way for way in ("1 engine × 1 thread", SHARED)}
OPTIONS: dict = {"max_iter": 1, "curvature_batch_size": 8192, "tol": 0.0}
LOCAL_OPTIONS: dict = {"max_iter": 1, "tol": 0.0, "method": "auto", "solves": "local"}
AT_LEAST, AT_MOST = 1.85, 0.02  # times as fast as one engine; share of the time in reductions
AT_LEAST_LOCAL = 1.9


def iterate(cluster: Cluster, task, way: str) -> dict:
    """Run one iteration; return its seconds, its products, and where the seconds of each engine went."""
    w0 = task.start()
    if way == CLIENT:
        result = hessian_free(cluster.objective(task.net, task.train), w0, **OPTIONS)
    else:
        options = LOCAL_OPTIONS if way in LOCAL else OPTIONS
        result = cluster.minimize(task.net, task.train, w0, progress=False, **options)
    before, after = result.history
    return {
        "seconds": after.seconds - before.seconds,
        "products": after.products,
        "losses": after.reductions - before.reductions - after.products - 1,
        "bytes": after.bytes - before.bytes,
        "profile": {str(engine): parts for engine, parts in after.profile.items()},
    }


def shares(runs: list[dict]) -> dict[str, float]:
    """Return {kind: its share of all engines' time}, the median over runs."""
    found = []
    for run in runs:
        engines = run["profile"].values()
        whole = sum(sum(parts.values()) for parts in engines)
        found.append([sum(parts[kind] for parts in engines) / whole for kind in profiler.KINDS])
    return dict(zip(profiler.KINDS, np.round(np.median(found, axis=0), 4).tolist(), strict=True))


def ratios(runs: dict, slow: str, fast: str = SHARED) -> list[float]:
    """Return the quartiles, over rounds, of how many times as fast as ``slow`` two engines are."""
    each = [one["seconds"] / two["seconds"] for one, two in zip(runs[slow], runs[fast], strict=True)]
    return np.round(np.percentile(each, [25, 50, 75]), 3).tolist()


def line(way: str, each: list[dict]) -> dict:
    """Return a row of the table: median seconds, and per cent of them by kind."""
    low, middle, high = np.percentile([run["seconds"] for run in each], [25, 50, 75])
    percent = {kind: f"{100 * share:.1f}%" for kind, share in shares(each).items()}
    return {"way": way, "seconds": f"{middle:.3f} ({low:.3f}–{high:.3f})", **percent}


def run(options) -> None:
    """Measure, show, and write results/scaling.json."""
    task, rounds = tasks.mnist_task("full"), 2 if options.quick else 11
    runs: dict[str, list[dict]] = {way: [] for way in (*WAYS, CLIENT, *LOCAL)}
    with ExitStack() as stack:
        clusters = {
            way: stack.enter_context(Cluster(n, engines="mpi", threads=threads))
            for way, (n, threads) in WAYS.items()
        }
        assert all(cluster.has_mpi for cluster in clusters.values()), "MPI is not installed"
        for index in range(rounds + 1):
            for way in runs:
                found = iterate(clusters[LOCAL.get(way, SHARED if way == CLIENT else way)], task, way)
                if index:  # the first round sends the data
                    runs[way].append(found)
            if index:
                save("scaling", document(runs))
            print(f"round {index} of {rounds}", file=sys.stderr, flush=True)
    show(line(way, each) for way, each in runs.items())
    show(verdicts(runs))
    if len({run["products"] for way, each in runs.items() if way not in LOCAL for run in each}) > 1:
        print("Not all made as many products: rounding in float32 decided on an iteration of the solver.")


def document(runs: dict) -> dict:
    """Return what is written: all that was measured, shares and ratios."""
    return {
        "about": about(task="784-400-150-10, 60,000 images, float32", **OPTIONS),
        "speedup": {way: ratios(runs, way) for way in (*WAYS, CLIENT) if way != SHARED},
        "speedup of local solves": ratios(runs, *LOCAL),
        "shares": {way: shares(each) for way, each in runs.items()},
        "runs": runs,
    }


def verdicts(runs: dict):
    """Yield what is asked beside what was measured."""
    low, speedup, high = ratios(runs, "1 engine × 1 thread")
    least, local, most = ratios(runs, *LOCAL)
    share = shares(runs[SHARED])["reduction"]
    for asked, bar, measured, holds, spread in (
        ("2 engines ÷ 1 engine", f"≥ {AT_LEAST}", speedup, speedup >= AT_LEAST, f"{low}–{high}"),
        ("with local solves", f"≥ {AT_LEAST_LOCAL}", local, local >= AT_LEAST_LOCAL, f"{least}–{most}"),
        ("share of reductions", f"≤ {AT_MOST}", share, share <= AT_MOST, ""),
    ):
        word = "holds" if holds else "DOES NOT HOLD"
        yield {"asked": asked, "bar": bar, "measured": measured, "quartiles": spread, "": word}
