"""What our choices change in the paper's method: each alternative ÷ the method as we built it.

The choices are those of `hfnb.studies.fidelity`, the problems those of the factorial. The runs are written to
results/fidelity.json one by one, seed after seed, so that an interrupted benchmark goes on where it was.
"""

from typing import Any

from bench.effects import answers, runs_of, save_answers, store_of
from bench.report import show
from bench.runs import chosen
from hfnb.studies import negative_curvature as study
from hfnb.studies.fidelity import AS_CHOSEN, CHOICES, FIXED, readings
from hfnb.studies.stored_runs import TimeIsUp

SEEDS, QUICK_SEEDS = 10, 2
QUICK_PROBLEMS = ["MNIST, tanh", "deep linear"]


def questions() -> dict[str, tuple[dict[str, str], dict[str, str]]]:
    """Return {choice and start: (the alternative, what was chosen)}."""
    return {
        f"{choice}, {start}": ({"choice": choice, "start": start}, {"choice": AS_CHOSEN})
        for start in study.FACTORS["start"]
        for choice in CHOICES
    }


def run(options: Any) -> None:
    """Make the runs that are missing, show the answers, and write results/fidelity.json."""
    show({"fixed by the abstracts": part, "as": value} for part, value in FIXED.items())
    show(
        {"choice": name, "part": each.part, "chosen": each.chosen, "alternative": each.other}
        for name, each in CHOICES.items()
    )
    problems = chosen(
        options.problems or (QUICK_PROBLEMS if options.quick else None), study.PROBLEMS, "--problems"
    )
    seeds = range(QUICK_SEEDS if options.quick else options.seeds or SEEDS)
    stored = store_of("fidelity", options)
    keys = [(name, each, seed) for seed in seeds for name in problems for each in readings()]
    try:
        runs = runs_of(keys, stored, options.processes)
    except TimeIsUp as error:  # answers from a part of the seeds would be taken for results
        print(f"fidelity: {error}")
        return
    rows = answers(runs, questions())
    show(row for row in rows if row["problem"] == "all")
    save_answers(rows, stored)
