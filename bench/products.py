"""Gradients and curvature products: ours, the peers', and the matrix products that each of them needs.

Every way has a process of its own; they take turns, so that a busy or a warm machine disturbs all alike.
"""

import itertools
import json
import os
import subprocess
import sys
import time

import numpy as np

from bench import figure
from bench.peers import NETWORKS, PRODUCTS
from bench.report import about, load, save, show
from bench.worker import WAYS
from hfnb.engines import blas
from hfnb.objectives.evaluator import CHUNK
from hfnb.threads import THREAD_VARIABLES

BOUNDS = ("GEMM", "GEMM, chunks")
# what is asked: (what, measured against, the most that the ratio may be from which batch on)
BARS: dict[str, dict[str, tuple]] = {
    "float32": {
        "Hessian product ÷ GEMM bound": ("hessian", "GEMM", {512: 1.3, 2048: 1.15, 20000: 1.2}),
        "Gauss–Newton product ÷ GEMM bound": ("gauss-newton", "GEMM", {512: 1.3}),
        "Hessian product ÷ JAX linearize": ("hessian", "JAX", {512: 1.0}),
        "Hessian product ÷ PyTorch double backward": ("hessian", "PyTorch", {512: 0.6}),
        "Hessian product ÷ curvlinops": ("hessian", "curvlinops", {512: 0.5}),
        "gradient ÷ JAX jit(grad)": ("gradient", "JAX", {512: 1.1}),
    },
    "float64": {"Hessian product ÷ GEMM bound": ("hessian", "GEMM", {2048: 1.25})},
}


class Worker:
    """A way in its own process, held to some threads."""

    def __init__(self, way: str, threads: int):
        variables = {**blas.environment(), **os.environ}
        for name in THREAD_VARIABLES:
            variables[name] = str(threads)
        command, pipe = [sys.executable, "-m", "bench.worker", way], subprocess.PIPE
        self.process = subprocess.Popen(command, env=variables, stdin=pipe, stdout=pipe, text=True)

    def ask(self, **request) -> dict:
        """Send a request and wait for the answer."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline() or '{"error": "the process has died"}')

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def started(ways, threads: int) -> dict[str, Worker]:
    """Start a worker for each way on the first ``threads`` cores: all libraries count the cores they have."""
    if not hasattr(os, "sched_setaffinity"):
        return {way: Worker(way, threads) for way in ways}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:threads])
    workers = {way: Worker(way, threads) for way in ways}
    os.sched_setaffinity(0, cores)
    return workers


def measure(workers, case: dict, rounds: int, seconds: float, priority: int) -> tuple[dict, dict]:
    """Return {way: [seconds, one a round]} and {way: why it has none}; AssertionError if products differ."""
    answers = {way: worker.ask(prepare=case) for way, worker in workers.items()}
    errors = {way: answer["error"] for way, answer in answers.items() if "error" in answer}
    right = answers["hfnb"]["fingerprint"]
    for way, answer in answers.items():
        if answer.get("fingerprint"):
            apart = np.max(np.abs(np.subtract(answer["fingerprint"], right))) / right[-1]
            assert apart < 1e-4, f"{way} differs from hfnb by {apart:.1e} in {case}"
    times: dict[str, list[float]] = {way: [] for way in workers if way not in errors}
    for _ in range(rounds):
        for way in times:
            time.sleep(0.03)  # threads of the last one that still spin go to sleep
            times[way].append(workers[way].ask(time=seconds, priority=priority)["seconds"])
    return times, errors


def row_of(case: dict, threads: int, times: dict) -> dict:
    """Return medians and quartiles in ms, and the median over rounds of ours ÷ each."""
    times = dict(times)
    times["GEMM"] = np.min([times.pop(way) for way in BOUNDS if way in times], axis=0).tolist()
    ms = {way: np.percentile(each, [25, 50, 75]) * 1e3 for way, each in times.items()}
    ratios = {way: np.percentile(np.divide(times["hfnb"], each), [25, 50, 75]) for way, each in times.items()}
    return {
        **case,
        "threads": threads,
        "load": round(os.getloadavg()[0], 1),
        "ms": {way: np.round(each, 3).tolist() for way, each in ms.items()},
        "hfnb ÷": {way: np.round(each, 3).tolist() for way, each in ratios.items()},
    }


def line(row: dict) -> dict:
    """Return a row of the table: ms of each, and ours ÷ each in brackets."""
    cells = {key: row[key] for key in ("network", "what", "batch", "threads")}
    for way in [way for way in WAYS if way not in BOUNDS[1:]]:
        ms, ratio = row["ms"].get(way), row["hfnb ÷"].get(way)
        cells[way] = None if ms is None else f"{ms[1]:.3g}" + ("" if way == "hfnb" else f" ({ratio[1]:.2f})")
    return cells


def verdicts(rows, threads, dtype):
    """Yield what is asked of the first network beside what was measured."""
    for name, (what, peer, bars) in BARS[dtype].items():
        for batch, bar in bars.items():
            upto = min((other for other in bars if other > batch), default=10**9)
            found = [
                (row["hfnb ÷"][peer], row["batch"])
                for row in rows
                if (row["network"], row["what"], row["threads"]) == (next(iter(NETWORKS)), what, threads)
                and row["dtype"] == dtype
                and batch <= row["batch"] < upto
                and peer in row["hfnb ÷"]
            ]
            for ratio, at in sorted(found, key=lambda each: each[1]):
                holds = "holds" if ratio[1] <= bar else "DOES NOT HOLD"
                yield {
                    "asked": name,
                    "batch": at,
                    "threads": threads,
                    "at most": bar,
                    "measured": ratio[1],
                    "quartiles": f"{ratio[0]:.2f}–{ratio[2]:.2f}",
                    "": holds,
                }


def run(options) -> None:
    """Measure what the options ask for; results of earlier runs stay where they are not measured anew."""
    quick = options.quick
    networks = options.networks or list(NETWORKS)[: 1 if quick else None]
    if unknown := set(networks) - set(NETWORKS):
        sys.exit(f"networks: expected some of {', '.join(NETWORKS)}, got {', '.join(sorted(unknown))}")
    batches = options.batches or ([512, 2048, 8192] if quick else [512, 2048, 8192, 20000, 60000])
    ways = [way for way in WAYS if not options.ways or way in {"hfnb", *BOUNDS, *options.ways}]
    earlier = load("products") or {"rows": []}
    kept = {key(row): row for row in earlier["rows"]}
    settings = about(priority=options.priority)
    for threads in options.threads:
        workers, fresh = started(ways, threads), []
        try:
            for network, what, batch in itertools.product(networks, options.what or PRODUCTS, batches):
                if batch > 8192 and network != next(iter(NETWORKS)):
                    continue
                case = {"network": network, "batch": batch, "what": what, "dtype": options.dtype}
                active = {way: each for way, each in workers.items() if way != BOUNDS[1] or batch > CHUNK}
                rounds, seconds = (7, 0.1) if quick else (15, 0.2)
                times, errors = measure(active, case, rounds, seconds, options.priority)
                fresh.append(row_of(case, threads, times))
                kept[key(fresh[-1])] = fresh[-1]
                save("products", {"about": settings, "rows": list(kept.values())})
                progress = f"{len(fresh)}: {network}, {what}, batch {batch}, {threads} threads"
                print(progress, *errors.values(), sep="; ", file=sys.stderr, flush=True)
        finally:
            for worker in workers.values():
                worker.close()
        show(line(row) for row in fresh)
        show(verdicts(fresh, threads, options.dtype))
    figure.main()


def key(row: dict) -> tuple:
    return row["network"], row["what"], row["batch"], row["threads"], row["dtype"]
