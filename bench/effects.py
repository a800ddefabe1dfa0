"""What two benchmarks of effects share: runs of variants on the same problems, and ratios of their costs.

The costs are counts, which do not depend on whether the machine is idle.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from functools import cache
from typing import Any, cast

import numpy as np

from bench.report import RESULTS, about
from bench.runs import at_once
from hfnb.studies import negative_curvature as study
from hfnb.studies.negative_curvature import AnyVariant, FactorialProblem, Key, Ratio, Variant
from hfnb.studies.stored_runs import StoredRuns

MIDDLE = 1  # position in FRACTIONS of the target of tables and figures
Questions = Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]  # {question: values ÷ values}


@cache
def problem_of(name: str) -> FactorialProblem:
    """Return a problem, which is made once in each process."""
    return study.PROBLEMS[name]()


def work(name: str, variant: Variant, seed: int) -> dict:
    """Run a variant in this process."""
    with np.errstate(all="ignore"):
        return study.run(problem_of(name), variant, seed)


def store_of(name: str, options: Any) -> StoredRuns:
    """Return the stored runs of a benchmark; those of a quick one lie in a file of their own."""
    return StoredRuns(RESULTS / f"{name}{'_quick' if options.quick else ''}.json", about, options.minutes)


def runs_of(
    keys: Iterable[Key[AnyVariant]], stored: StoredRuns, processes: int
) -> dict[Key[AnyVariant], dict]:
    """Return {key: run}: the stored runs, and those that are missing, which are made and stored.

    Raises
    ------
    TimeIsUp
        If the time of the benchmark is over before all are made.
    """
    keys = list(keys)

    def one(problem: str, variant: AnyVariant, seed: int) -> dict:
        entry = [problem, *astuple(cast(Any, variant)), seed]

        def make() -> dict:
            made = pool.submit(work, problem, variant, seed).result()
            print(*entry, made["message"], file=sys.stderr, flush=True)
            return made

        return stored.run(json.dumps(entry), make)

    with at_once(processes) as (pool, threads):
        asked = [threads.submit(one, *key) for key in keys]
        return {key: each.result() for key, each in zip(keys, asked, strict=True)}


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


def answers(
    runs: Mapping[Key[AnyVariant], dict], questions: Questions, costs: Sequence[str] = study.COSTS
) -> list[dict[str, Any]]:
    """Return the rows for each question, problem and cost at the middle target; "all" is all problems."""
    parts = study.halves(runs)
    rows = []
    for question, (first, second) in questions.items():
        for problem in (None, *sorted({key[0] for key in runs})):
            problems = None if problem is None else [problem]
            for cost in costs:
                asked = first, second, cost, MIDDLE
                found = study.ratio(runs, *asked, problems=problems)
                if not found.runs:  # a part of the runs was asked for
                    continue
                said = {study.verdict(study.ratio(part, *asked, problems=problems)) for part in parts}
                agree = said != {"cheaper", "dearer"}
                rows.append(told(question, problem or "all", cost, found, agree))
    return rows


def save_answers(rows: list[dict[str, Any]], stored: StoredRuns) -> None:
    """Store the rows beside the runs."""
    names = ("question", "problem", "cost")
    stored.add("answers", {json.dumps([row[name] for name in names]): row for row in rows})
