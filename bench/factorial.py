"""What negative curvature is worth: every combination of solver, matrix, stopping rule, step and start.

The runs of `hfnb.studies.negative_curvature` are written to results/factorial.json one by one, seed after
seed, so that an interrupted benchmark goes on where it was. Their costs are counts, which do not depend on
whether the machine is idle.
"""

from typing import Any

import matplotlib.pyplot as plt

from bench.effects import MIDDLE, answers, runs_of, save_answers, store_of
from bench.report import RESULTS, show
from bench.runs import chosen
from hfnb import plots
from hfnb.studies import negative_curvature as study
from hfnb.studies.negative_curvature import FACTORS, Combination, Key
from hfnb.studies.stored_runs import TimeIsUp

SEEDS, QUICK_SEEDS = 10, 2
QUICK_PROBLEMS = ["MNIST, tanh", "deep linear"]
EXPLORED, IGNORED = {"step": "better"}, {"step": "newton"}
GAUSS_NEWTON = {"curvature": "gauss-newton", "step": "newton"}
LINES = {  # of the figure: what is divided by conjugate gradients with the Gauss–Newton matrix
    "Hessian, negative curvature explored": {"curvature": "hessian", **EXPLORED},
    "Hessian, negative curvature ignored": {"curvature": "hessian", **IGNORED},
    "Gauss–Newton": GAUSS_NEWTON,
}
BASE = {"solver": "cg", **GAUSS_NEWTON}  # what they are divided by
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


def draw(runs: dict[Key[Combination], dict]) -> plt.Figure:
    """Return the interaction of solver, matrix and step, for each start: products ÷ those of CG, G."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for ax, start in zip(axes, FACTORS["start"], strict=True):
        found: dict[str, dict[str, tuple[float, ...]]] = {label: {} for label in LINES}
        for label, values in LINES.items():
            for solver, name in NAMES.items():
                above = {"solver": solver, "start": start, "rule": "martens", **values}
                found[label][name] = study.ratio(runs, above, BASE, "products", MIDDLE)[:3]
        plots.intervals(found, ax).set_title(f"{start} start" if start == "ordinary" else f"start {start}")
    axes[0].set_ylabel("products ÷ those of CG, Gauss–Newton")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def run(options: Any) -> None:
    """Make the runs that are missing, show the answers, and write results/factorial.json and .png."""
    problems = chosen(
        options.problems or (QUICK_PROBLEMS if options.quick else None), study.PROBLEMS, "--problems"
    )
    seeds = range(QUICK_SEEDS if options.quick else options.seeds or SEEDS)
    stored = store_of("factorial", options)
    keys = [(name, each, seed) for seed in seeds for name in problems for each in study.combinations()]
    try:
        runs = runs_of(keys, stored, options.processes)
    except TimeIsUp as error:  # answers from a part of the seeds would be taken for results
        print(f"factorial: {error}")
        return
    for left_out, why in study.LEFT_OUT.items():
        print(f"left out: {left_out}: {why}")
    rows = answers(runs, questions())
    show(row for row in rows if row["problem"] == "all")
    save_answers(rows, stored)
    draw(runs).savefig(RESULTS / f"factorial{'_quick' if options.quick else ''}.png", dpi=120)
