"""Training beside other programs: eight iterations of `hessian_free`, alone and beside 1 to 4 that compute.

Every run is a process of its own, as a user of pip starts it: with no variable of BLAS threads set, and then
with a thread for each core requested.
"""

import json
import os
import subprocess
import sys
import time

import numpy as np

from bench.report import about, save, show
from hfnb.threads import THREAD_VARIABLES

BAR = 1.3  # times the seconds that the share of the cores explains
LIMIT = 150  # seconds after which a run is given up
SPIN = "x = 1\nwhile True: x = (x * 3 + 1) % 1000003"
RUN = """
import time, hfnb
from bench.rule import images
net, data = hfnb.models.mlp([784, 60, 10]), images(6000)
objective, w0 = hfnb.Objective(net, data), net.init(0)
objective.value_and_gradient(w0)
start = time.perf_counter()
result = hfnb.hessian_free(objective, w0, method="auto", max_iter=8, tol=0.0)
print(time.perf_counter() - start, result.history[-1].products)
"""


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def trained(threads: int | None) -> float | None:
    """Return the seconds of a run with so many threads requested, None: none; None if it is given up."""
    variables = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    if threads:
        variables |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    try:
        done = subprocess.run(
            [sys.executable, "-c", RUN],
            env=variables,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return None
    return float(done.stdout.split()[0])


def beside(others: int, threads: int | None) -> float | None:
    """Return the seconds of a run while so many other processes compute."""
    busy = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(others)]
    try:
        time.sleep(0.5)
        return trained(threads)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run(options) -> None:
    """Measure, show, and write results/busy.json."""
    rounds, most = (1, 2) if options.quick else (3, 4)
    seconds: dict[tuple, list[float]] = {}
    for _ in range(rounds):
        for others in range(most + 1):
            for threads in (None, cores()):
                found = beside(others, threads)
                seconds.setdefault((others, threads), []).append(np.inf if found is None else found)
                print(json.dumps([others, threads, found]), file=sys.stderr, flush=True)
    alone = float(np.median(seconds[0, None]))
    rows = []
    for others in range(most + 1):
        share = min(1.0, cores() / (1 + others))
        one, all_cores = (float(np.median(seconds[others, threads])) for threads in (None, cores()))
        rows.append(
            {
                "others": others,
                "seconds": one,
                "÷ alone": one / alone,
                "share of a core": share,
                "÷ explained": one * share / alone,
                f"at most {BAR}": "holds" if one * share / alone <= BAR else "DOES NOT HOLD",
                f"seconds, {cores()} threads requested": all_cores
                if np.isfinite(all_cores)
                else f"> {LIMIT}",
            }
        )
    save(
        "busy",
        {"about": about(network="784-60-10, float32, 6,000 images", rounds=rounds), "rows": show(rows)},
    )
