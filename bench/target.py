"""Time until the training loss of a network is at a target: our methods beside the best of their baselines.

Each run is a process of its own, ``python -m bench.target TASK``. First every baseline is tuned over its grid
from one start; then the best setting of each runs from other starts, one after another, start by start.
"""

import json
import os
import subprocess
import sys

import numpy as np

from bench.baselines import BASELINES, Over, Watch
from bench.report import about, save, show
from bench.rule import METHODS, images
from hfnb import models
from hfnb.engines import blas
from hfnb.threads import THREAD_VARIABLES

TARGET, BAR, SIZES = 0.1, 0.5, [784, 400, 150, 10]
FIRST_ORDER = "torch Adam"
DAMPINGS = (1.0, 0.1)  # what is tuned of ours, at the start
GRIDS: dict[str, list[dict]] = {
    **{
        f"ours, {name}": [{"method": name, "damping": damping} for damping in DAMPINGS]
        for name in list(METHODS)[:3]
    },
    "SciPy L-BFGS-B": [{"maxcor": 10}, {"maxcor": 30}],
    "SciPy Newton-CG": [{}],
    "SciPy trust-krylov": [{"initial_trust_radius": 1.0}, {"initial_trust_radius": 10.0}],
    "pytorch-minimize newton-cg": [{"cg_max_iter": 10}, {"cg_max_iter": 50}],
    "pytorch-minimize trust-krylov": [{"initial_trust_radius": 1.0}, {"initial_trust_radius": 10.0}],
    "torch L-BFGS": [{"history_size": 10}, {"history_size": 30}],
    FIRST_ORDER: [{"lr": lr, "batch": 256} for lr in (3e-4, 1e-3, 3e-3)],
}


def race(task: dict) -> dict:
    """Run one baseline here; return its seconds to the target, None if it never got there, and its loss."""
    baseline = BASELINES[task["baseline"].partition(",")[0]]
    net, data, watch = models.mlp(SIZES), images(task["images"]), Watch(TARGET, task["limit"])
    try:
        baseline(net, data, net.init(task["seed"]), watch, task["options"])
        ended = "gave up"
    except Over:
        ended = "target" if watch.reached else "time is up"
    return {**task, "seconds": watch.reached, "least loss": watch.least, "ended": ended}


def raced(task: dict, threads: int) -> dict:
    """Run one baseline in a process of its own, which is not waited for much beyond the limit."""
    variables = {**blas.environment(), **os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    command = [sys.executable, "-m", "bench.target", json.dumps(task)]
    try:
        found = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=2 * task["limit"] + 60
        )
        answer = json.loads(found.stdout.splitlines()[-1]) if found.returncode == 0 else None
        failed = found.stderr.strip().splitlines()[-1:] or ["no output"]
    except subprocess.TimeoutExpired:
        answer, failed = None, ["time is up"]
    answer = answer or {**task, "seconds": None, "least loss": None, "ended": failed[0][:80]}
    print(
        *(answer[key] for key in ("baseline", "options", "seed", "seconds", "ended")),
        file=sys.stderr,
        flush=True,
    )
    return answer


def best(runs: list[dict]) -> dict[str, dict]:
    """Return the options of each baseline that were quickest, of those that reached the target."""
    found: dict[str, dict] = {}
    for run in sorted((run for run in runs if run["seconds"]), key=lambda run: run["seconds"]):
        found.setdefault(run["baseline"], run["options"])
    return found


def table(runs: list[dict]) -> list[dict]:
    """Return a row for each baseline at its best: median and range of its seconds over the starts."""
    chosen, rows = best(runs), []
    for baseline in GRIDS:
        mine = [run for run in runs if run["baseline"] == baseline]
        at_best = [run for run in mine if run["options"] == chosen.get(baseline)]
        seconds = [run["seconds"] or np.inf for run in at_best]
        row = {"baseline": baseline, "options": json.dumps(chosen.get(baseline)), "starts": len(seconds)}
        row["seconds"] = float(np.median(seconds)) if seconds else None
        row["range"] = f"{min(seconds):.3g}–{max(seconds):.3g}" if seconds else ""
        row["loss"] = min((run["least loss"] for run in mine if run["least loss"]), default=None)
        rows.append(row)
    return sorted(rows, key=lambda row: row["seconds"] or np.inf)


def verdict(rows: list[dict]) -> list[dict]:
    """Return ours over the best second-order baseline, and over Adam."""

    def quickest(keep):
        return min(
            (row for row in rows if keep(row["baseline"]) and row["seconds"]),
            key=lambda row: row["seconds"],
            default=None,
        )

    mine = quickest(lambda baseline: baseline.startswith("ours"))
    other = quickest(lambda baseline: not baseline.startswith("ours") and baseline != FIRST_ORDER)
    adam = quickest(lambda baseline: baseline == FIRST_ORDER)
    found = []
    for peer, bar in ((other, BAR), (adam, None)):
        if mine and peer:
            ratio = mine["seconds"] / peer["seconds"]
            word = "" if bar is None else "holds" if ratio <= bar else "DOES NOT HOLD"
            found.append(
                {"ours": mine["baseline"], "÷": peer["baseline"], "at most": bar, "measured": ratio, "": word}
            )
    return found


def run(options) -> None:
    """Tune, race, show, and write results/target.json."""
    n, limit, starts = (6000, 20, 1) if options.quick else (60000, 60, 3)
    threads = max(options.threads)
    common = {"images": n, "limit": limit}
    settings = about(network="784-400-150-10, float32", target=TARGET, threads=threads, grids=GRIDS, **common)
    tasks = [
        {"baseline": baseline, "options": each, "seed": 0, **common}
        for baseline, grid in GRIDS.items()
        for each in grid
    ]
    runs = [raced(task, threads) for task in tasks]
    for seed in range(1, starts):
        for baseline, chosen in best(runs).items():
            runs.append(raced({"baseline": baseline, "options": chosen, "seed": seed, **common}, threads))
            save("target", {"about": settings, "rows": table(runs), "runs": runs})
    rows = show(table(runs))
    found = show(verdict(rows))
    save("target", {"about": settings, "rows": rows, "verdict": found, "runs": runs})


if __name__ == "__main__":
    print(json.dumps(race(json.loads(sys.argv[1]))))
