"""Time until the training loss of a network is at a target: our methods beside the best of their baselines.

Each run is a process of its own, ``python -m bench.target TASK``. First every baseline is tuned from one
start: its options move on geometric grids until the quickest values lie inside of what was tried. Then the
best setting of each runs from other starts, one after another, start by start. Ours comes first, without any
option.
"""

import json
import os
import subprocess
import sys

import numpy as np

from bench.baselines import BASELINES, Over, Watch
from bench.report import about, save, show
from bench.rule import images
from hfnb import models
from hfnb.engines import blas
from hfnb.studies.tuning import Axis, tuned
from hfnb.threads import THREAD_VARIABLES

TARGET, SIZES = 0.1, [784, 400, 150, 10]
IMAGES, ACTIVATIONS = (6000, 60000), ("tanh", "sigmoid", "relu")
OURS, FIRST_ORDER = "ours, auto without options", "torch Adam"
BAR, BAR_FIRST_ORDER = 0.5, 4.0

DAMPING = {"damping": Axis(0.1, 10.0)}
MEMORY = Axis(10, 3)
# baseline: options that stay as they are, and options to tune
SETTINGS: dict[str, tuple[dict, dict[str, Axis]]] = {
    OURS: ({"method": "auto"}, {}),
    "ours, auto, all images": ({"method": "auto", "batch_size": "all"}, {}),
    "ours, auto, all images, damping tuned": ({"method": "auto", "curvature_batch_size": 30}, DAMPING),
    "ours, GN-CG": ({"method": "martens", "curvature_batch_size": 30}, DAMPING),
    "ours, Bi-CG-STAB": ({"method": "paper", "curvature_batch_size": 30}, DAMPING),
    "SciPy L-BFGS-B": ({}, {"maxcor": MEMORY}),
    "SciPy Newton-CG": ({}, {}),
    "SciPy trust-krylov": ({}, {"initial_trust_radius": Axis(1.0, 10.0)}),
    "pytorch-minimize newton-cg": ({}, {"cg_max_iter": Axis(20, 3)}),
    "pytorch-minimize trust-krylov": ({}, {"initial_trust_radius": Axis(1.0, 10.0)}),
    "torch L-BFGS": ({}, {"history_size": MEMORY}),
    FIRST_ORDER: ({}, {"lr": Axis(1e-3, 3.0), "batch": Axis(256, 2)}),
}


def race(task: dict) -> dict:
    """Run one baseline here; return its seconds to the target, None if it never got there, and its loss."""
    baseline = BASELINES[task["baseline"].partition(",")[0]]
    net, data = models.mlp(SIZES, task["activation"]), images(task["images"])
    watch = Watch(TARGET, task["limit"])
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


def table(runs: list[dict], chosen: dict[str, dict]) -> list[dict]:
    """Return a row for each baseline with its chosen options: median and range of seconds over the starts."""
    rows = []
    for baseline, options in chosen.items():
        mine = [run for run in runs if (run["baseline"], run["options"]) == (baseline, options)]
        seconds = [run["seconds"] or np.inf for run in mine]
        rows.append(
            {
                "images": mine[0]["images"],
                "activation": mine[0]["activation"],
                "baseline": baseline,
                "options": json.dumps(options),
                "starts": len(seconds),
                "seconds": float(np.median(seconds)),
                "range": f"{min(seconds):.3g}–{max(seconds):.3g}",
                "loss": min((run["least loss"] for run in mine if run["least loss"]), default=None),
            }
        )
    return sorted(rows, key=lambda row: row["seconds"])


def verdict(rows: list[dict], limit: float) -> list[dict]:
    """Return ours without options over the best second-order baseline, and over Adam.

    A baseline that is not at the target within the limit counts with the limit: the ratio is at most that.
    """
    mine = next(row for row in rows if row["baseline"] == OURS)
    others = [row for row in rows if not row["baseline"].startswith("ours")]
    second = next((row for row in others if row["baseline"] != FIRST_ORDER), None)
    adam = next((row for row in others if row["baseline"] == FIRST_ORDER), None)
    return [
        {
            "images": mine["images"],
            "activation": mine["activation"],
            "÷": peer["baseline"] + ("" if peer["seconds"] < np.inf else f" (not there in {limit:g} s)"),
            "at most": bar,
            "measured": mine["seconds"] / min(peer["seconds"], limit),
            "": "holds" if mine["seconds"] <= bar * min(peer["seconds"], limit) else "DOES NOT HOLD",
        }
        for peer, bar in ((second, BAR), (adam, BAR_FIRST_ORDER))
        if peer is not None
    ]


def compared(common: dict, baselines: list[str], starts: int, threads: int) -> tuple[list[dict], list[dict]]:
    """Tune each baseline from the first start, run it from the others; return the rows and all runs."""
    runs: list[dict] = []

    def attempt(baseline: str, options: dict, seed: int = 0) -> float:
        run = raced({"baseline": baseline, "options": options, "seed": seed, **common}, threads)
        runs.append(run)
        return run["seconds"] or np.inf

    chosen = {
        baseline: tuned(*SETTINGS[baseline], lambda options, name=baseline: attempt(name, options)).settings
        for baseline in baselines
    }
    for seed in range(1, starts):
        for baseline, options in chosen.items():
            attempt(baseline, options, seed)
    return table(runs, chosen), runs


def run(options) -> None:
    """Tune, race, show, and write results/target.json."""
    limit, starts = (20, 1) if options.quick else (60, 3)
    sizes = options.images or (IMAGES[:1] if options.quick else IMAGES)
    activations = options.activations or (ACTIVATIONS[:1] if options.quick else ACTIVATIONS)
    threads, baselines = max(options.threads), options.methods or list(SETTINGS)
    if OURS not in baselines or not set(baselines) <= set(SETTINGS):
        raise SystemExit(f"--methods: expected {OURS!r} and others of {list(SETTINGS)}, got {baselines}")
    settings = about(network="784-400-150-10, float32", target=TARGET, threads=threads, limit=limit)
    rows, found, runs = [], [], []
    for n in sizes:
        for activation in activations:
            common = {"images": n, "activation": activation, "limit": limit}
            new, ran = compared(common, baselines, starts, threads)
            rows, found, runs = rows + show(new), found + show(verdict(new, limit)), runs + ran
            save("target", {"about": settings, "rows": rows, "verdict": found, "runs": runs})


if __name__ == "__main__":
    print(json.dumps(race(json.loads(sys.argv[1]))))
