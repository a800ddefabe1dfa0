"""What negative curvature is worth: every combination of solver, matrix, stopping rule, step and start.

The runs of `hfnb.studies.negative_curvature` are written to results/factorial.json one by one, seed after
seed, so that an interrupted benchmark goes on where it was. Their costs are counts, which do not depend on
whether the machine is idle.
"""

import json
import sys
from dataclasses import astuple
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from bench.report import RESULTS, about, show
from bench.runs import at_once, chosen
from hfnb import plots
from hfnb.studies import negative_curvature as study
from hfnb.studies.negative_curvature import FACTORS, Combination, FactorialProblem, Key, Ratio
from hfnb.studies.stored_runs import StoredRuns, TimeIsUp

SEEDS, QUICK_SEEDS = 10, 2
QUICK_PROBLEMS = ["MNIST, tanh", "deep linear"]
MIDDLE = 1  # position in FRACTIONS of the target of the tables and the figure
EXPLORED, IGNORED = {"step": "better"}, {"step": "newton"}
GAUSS_NEWTON = {"curvature": "gauss-newton", "step": "newton"}
LINES = {  # of the figure: what is divided by conjugate gradients with the Gauss–Newton matrix
    "Hessian, negative curvature explored": {"curvature": "hessian", **EXPLORED},
    "Hessian, negative curvature ignored": {"curvature": "hessian", **IGNORED},
    "Gauss–Newton": GAUSS_NEWTON,
}
NAMES = {"cg": "CG", "bicgstab": "Bi-CG-STAB", "minres": "MINRES"}


def questions() -> dict[str, tuple[dict, dict]]:
    """Return {question: (values above, values below the division sign)}."""
    found = {}
    for solver, start in ((s, b) for s in FACTORS["solver"] for b in FACTORS["start"]):
        where = {"solver": solver, "start": start}
        found[f"step explored ÷ ignored, {NAMES[solver]}, {start}"] = ({**where, **EXPLORED}, IGNORED)
    for start in FACTORS["start"]:
        where = {"start": start, "curvature": "hessian"}
        found[f"Hessian explored ÷ Gauss–Newton, {start}"] = ({**where, **EXPLORED}, GAUSS_NEWTON)
        found[f"Hessian ignored ÷ Gauss–Newton, {start}"] = ({**where, **IGNORED}, GAUSS_NEWTON)
    for solver in ("bicgstab", "minres"):
        for curvature in FACTORS["curvature"]:
            name = f"{NAMES[solver]} ÷ CG, {curvature}"
            found[name] = ({"solver": solver, "curvature": curvature}, {"solver": "cg"})
    for rule in ("marginal-gain", "tolerance"):
        found[f"rule {rule} ÷ Martens', CG"] = ({"rule": rule, "solver": "cg"}, {"rule": "martens"})
    # The paper's method beside Martens', as they are.
    paper = {"solver": "bicgstab", "curvature": "hessian", "rule": "martens", "step": "better"}
    martens = {"solver": "cg", **GAUSS_NEWTON}
    for start in FACTORS["start"]:
        found[f"paper's method ÷ Martens', {start}"] = ({**paper, "start": start}, martens)
    return found


@cache
def problem_of(name: str) -> FactorialProblem:
    """Return a problem, which is made once in each process."""
    return study.PROBLEMS[name]()


def work(name: str, combination: Combination, seed: int) -> dict:
    """Run a combination in this process."""
    with np.errstate(all="ignore"):
        return study.run(problem_of(name), combination, seed)


def told(question: str, problem: str, cost: str, found: Ratio, agree: bool) -> dict[str, Any]:
    """Return a row of the table."""
    return {
        "question": question,
        "problem": problem,
        "cost": cost,
        "ratio": found.ratio,
        "interval": f"{found.low:.2f}–{found.high:.2f}",
        "verdict": study.verdict(found),
        "halves": "agree" if agree else "CONTRADICT",
        "reached": f"{found.first} and {found.second} of {found.runs}",
    }


def answers(runs: dict[Key, dict]) -> list[dict[str, Any]]:
    """Return the rows for each question, cost and problem at the middle target; "all" is all problems."""
    parts = study.halves(runs)
    rows = []
    for question, (first, second) in questions().items():
        for problem in (None, *sorted({key[0] for key in runs})):
            for cost in study.COSTS:
                asked = first, second, cost, MIDDLE
                found = study.ratio(runs, *asked, problem=problem)
                said = {study.verdict(study.ratio(part, *asked, problem=problem)) for part in parts}
                agree = said != {"cheaper", "dearer"}
                rows.append(told(question, problem or "all", cost, found, agree))
    return rows


def draw(runs: dict[Key, dict]) -> plt.Figure:
    """Return the interaction of solver, matrix and step, for each start: products ÷ those of CG, G."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    base = {"solver": "cg", **GAUSS_NEWTON}
    for ax, start in zip(axes, FACTORS["start"], strict=True):
        for index, (label, values) in enumerate(LINES.items()):
            found = [
                study.ratio(
                    runs,
                    {"solver": solver, "start": start, "rule": "martens", **values},
                    base,
                    "products",
                    MIDDLE,
                )
                for solver in NAMES
            ]
            middle = np.array([each.ratio for each in found])
            below, above = middle - [each.low for each in found], [each.high for each in found] - middle
            x = np.arange(len(NAMES)) + 0.08 * (index - 1)
            ax.errorbar(x, middle, [below, above], label=label, capsize=3, **plots.look(index))
        ax.set_xticks(range(len(NAMES)), NAMES.values())
        ax.axhline(1, color="0.6", linewidth=0.8, zorder=0)
        ax.set(yscale="log", title=f"{start} start" if start == "ordinary" else f"start {start}")
    axes[0].set_ylabel("products ÷ those of CG, Gauss–Newton")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def run(options: Any) -> None:
    """Make the runs that are missing, show the answers, and write results/factorial.json and .png."""
    problems = chosen(
        options.problems or (QUICK_PROBLEMS if options.quick else None), study.PROBLEMS, "--problems"
    )
    seeds = range(QUICK_SEEDS if options.quick else options.seeds or SEEDS)
    name = f"factorial{'_quick' if options.quick else ''}"
    stored = StoredRuns(RESULTS / f"{name}.json", about, options.minutes)

    def one(problem: str, combination: Combination, seed: int) -> dict:
        def make() -> dict:
            made = pool.submit(work, problem, combination, seed).result()
            print(problem, *astuple(combination), seed, made["message"], file=sys.stderr, flush=True)
            return made

        return stored.run(json.dumps([problem, *astuple(combination), seed]), make)

    keys = [(name, each, seed) for seed in seeds for name in problems for each in study.combinations()]
    try:
        with at_once(options.processes) as (pool, threads):
            asked = [threads.submit(one, *key) for key in keys]
            runs = {key: each.result() for key, each in zip(keys, asked, strict=True)}
    except TimeIsUp as error:  # answers from a part of the seeds would be taken for results
        print(f"factorial: {error}")
        return
    for left_out, why in study.LEFT_OUT.items():
        print(f"left out: {left_out}: {why}")
    rows = answers(runs)
    show(row for row in rows if row["problem"] == "all")
    stored.add(
        "answers", {json.dumps([row[k] for k in ("question", "problem", "cost")]): row for row in rows}
    )
    draw(runs).savefig(RESULTS / f"{name}.png", dpi=120)
