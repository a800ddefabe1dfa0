"""Whole methods to a target, all tuned by one rule: Hessian-free methods beside first-order ones and L-BFGS.

The methods are those of `hfnb.studies.method_comparison`, the problems those of the factorial. A method is
tuned for each problem, start and cost with a seed of its own, then it runs with ten others. Every run is
written to results/methods.json when it ends, so that an interrupted benchmark goes on where it was.
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import product
from typing import Any

import numpy as np

from bench.effects import MIDDLE, answers, problem_of, save_answers, store_of
from bench.report import show
from bench.runs import at_once, chosen
from hfnb.studies import method_comparison as study
from hfnb.studies.method_comparison import BASELINES, METHODS, METRICS, Entrant
from hfnb.studies.negative_curvature import FACTORS, PROBLEMS
from hfnb.studies.stored_runs import StoredRuns, TimeIsUp
from hfnb.studies.tuning import tuned

SEEDS, QUICK_SEEDS = 10, 2
QUICK_PROBLEMS, QUICK_METHODS = ["deep linear"], ["paper", "SGD", "L-BFGS"]
OURS = [name for name in METHODS if name not in BASELINES]


def work(problem: str, method: str, settings: dict, start: str, seed: int, limits: dict) -> dict:
    """Run a method in this process."""
    with np.errstate(all="ignore"):
        return study.attempt(problem_of(problem), method, settings, start, seed, **limits)


def chain(stored: StoredRuns, pool: Executor, problem: str, entrant: Entrant, seeds: range) -> None:
    """Tune a method and run it with all seeds; settings and runs are stored.

    A run of the tuning ends at the target that tuning is for, or when it costs more than the best one.
    """
    method, metric, best = METHODS[entrant.method], entrant.metric, np.inf

    def run(settings: dict, seed: int, valid: Callable[[dict], bool] = bool, **limits: Any) -> dict:
        entry = [problem, entrant.method, settings, entrant.start, seed]

        def make() -> dict:
            made = pool.submit(work, *entry, limits).result()
            print(*entry, made["costs"]["passes"], made["loss"], file=sys.stderr, flush=True)
            return made

        return stored.run(json.dumps(entry), make, valid)

    def cost(settings: dict) -> tuple[float, float]:
        nonlocal best

        def known(run: dict) -> bool:
            return not run["cut"] or run["spent"][metric] >= best

        allowed = {metric: best} if np.isfinite(best) else {}
        found = study.cost(
            run(settings, study.TUNING_SEED, known, until=MIDDLE, allowed=allowed), metric, MIDDLE
        )
        best = min(best, found[0])
        return found

    axes = method.axes(problem_of(problem).objective().n)
    found = tuned(method.fixed, axes, cost, most=study.MOST, diagonals=True)
    told = {"settings": found.settings, "inside": found.inside, "tried": found.tried}
    stored.add("tuned", {json.dumps([problem, entrant.method, metric, entrant.start]): told})
    for seed in seeds:
        run(found.settings, seed)


def questions(metric: str) -> dict[str, tuple[dict, dict]]:
    """Return {question: (values above, values below the division sign)} for methods tuned for a cost."""
    found = {}
    for start in FACTORS["start"]:
        for method in OURS:
            for other in (*BASELINES, "Martens"):
                if other != method:
                    above = {"method": method, "metric": metric, "start": start}
                    found[f"{method} ÷ {other}, {start}"] = (above, {"method": other})
    for method in METHODS:
        above = {"method": method, "metric": metric, "start": "near the saddle"}
        found[f"{method}, near the saddle ÷ ordinary"] = (above, {"start": "ordinary"})
    return found


def run(options: Any) -> None:
    """Make the runs that are missing, show the answers of all, and write results/methods.json."""
    problems = chosen(options.problems or (QUICK_PROBLEMS if options.quick else None), PROBLEMS, "--problems")
    methods = chosen(options.methods or (QUICK_METHODS if options.quick else None), METHODS, "--methods")
    seeds = range(QUICK_SEEDS if options.quick else options.seeds or SEEDS)
    stored = store_of("methods", options)

    def both(problem: str, method: str, start: str) -> None:
        """Make the runs for each metric; one after the other, since most runs of the tuning are shared."""
        for metric in METRICS:
            chain(stored, pool, problem, Entrant(method, metric, start), seeds)

    with at_once(options.processes) as (pool, threads):
        asked = [threads.submit(both, *key) for key in product(problems, methods, FACTORS["start"])]
        try:
            for each in asked:
                each.result()
        except TimeIsUp as error:
            print(f"methods: {error}")
            return
    runs = study.read({name: stored.table(name) for name in ("runs", "tuned")})
    rows = [row for metric in METRICS for row in answers(runs, questions(metric), (metric,))]
    show(row for row in rows if row["problem"] == "all")
    save_answers(rows, stored)
