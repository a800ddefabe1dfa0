"""When to use which method: a table of stored measurements, each with the command that repeats it."""

from collections.abc import Callable

import numpy as np

from hfnb.studies.precision_problems.recurrent import SOLVED
from hfnb.studies.tasks import published

# Our methods: their names in the benchmark, and in the table.
NAMES = {
    "ours, Jacobian": "`levenberg_marquardt`",
    "ours, auto": "`hessian_free`",
    "ours, products": "`hessian_free`",
}


def table() -> str:
    """Return the table in Markdown, with numbers from the folder ``bench/results`` of this checkout.

    Returns
    -------
    str
        A row for each kind of problem: what to use, what was measured, the command.

    Raises
    ------
    FileNotFoundError
        If a file of results is not there.

    Examples
    --------
    >>> table().splitlines()[0]
    '| you have | use | measured | command |'
    """
    lines = ["| you have | use | measured | command |", "| --- | --- | --- | --- |"]
    for have, use, measure, command in ROWS:
        lines.append(f"| {have} | {use} | {measure()} | `python -m bench {command}` |")
    return "\n".join(lines)


def _precision(problem: str) -> Callable[[], str]:
    """Return a function that tells the errors of this package and of the best rival: medians and ranges."""

    def measure() -> str:
        rows = published("bench/results/precision.json")["tuned"].values()
        errors = {row["method"]: row["errors"] for row in rows if row["problem"] == problem}
        seconds = next(row["seconds"] for row in rows if row["problem"] == problem)
        # Where the Jacobian does not fit in memory, its error is infinite, or it was not tried.
        mine = next(name for name in NAMES if np.isfinite(np.median(errors.get(name, np.inf))))
        rival = min((name for name in errors if name not in NAMES), key=lambda name: np.median(errors[name]))
        both = f"{NAMES[mine]} {_spread(errors[mine])}, best other method ({rival}) {_spread(errors[rival])}"
        return f"error after {seconds:g} s: {both}"

    return measure


def _spread(errors: list[float]) -> str:
    """Return the median of errors, and in brackets the smallest and the largest one."""
    return f"{np.median(errors):.1e} [{min(errors):.0e}, {max(errors):.0e}]"


def _solved(problem: str) -> Callable[[], str]:
    """Return a function that tells how many starts each method solved, for those that were tried on all."""

    def measure() -> str:
        rows = published("bench/results/precision.json")["tuned"].values()
        rows = [row for row in rows if row["problem"] == problem]
        most = max(len(row["errors"]) for row in rows)
        counts = {
            NAMES.get(
                row["method"], row["method"]
            ): f"{sum(error <= SOLVED for error in row['errors'])} of {most}"
            for row in sorted(rows, key=lambda row: np.median(row["errors"]))
            if len(row["errors"]) == most
        }
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        return f"starts solved in {rows[0]['seconds']:g} s (test loss ≤ {SOLVED:g}): {told}"

    return measure


def _reductions() -> str:
    """Return the median reductions to a loss of 0.1 on MNIST."""
    rows = published("bench/results/communication.json")["tuned"].values()
    counts = {
        row["method"]: np.median([run["reductions"] for run in row["runs"]])
        for row in rows
        if row["race"] == "MNIST"
    }
    methods = {
        "`local_steps` with SGD": "local SGD",
        "the same with Hessian-free": "local Hessian-free",
        '`hessian_free(solves="local")`': "local solves",
        "Adam": "synchronous Adam",
    }
    return "reductions to a loss of 0.1: " + ", ".join(
        f"{name} {counts[row]:g}" for name, row in methods.items()
    )


def _saddles() -> str:
    """Return from how many strict saddles a start on the saddle itself escapes."""
    rows = published("bench/results/saddles.json")["rows"]
    escaped = {row["method"]: row["escaped"] for row in rows if row["distance"] == 0}
    return f"saddles escaped from: {escaped['hfnb, cg']}; SciPy's trust-ncg {escaped['SciPy trust-ncg']}"


def _seconds() -> str:
    """Return the median seconds to a loss of 0.1 on 6,000 images of MNIST, tanh."""
    rows = published("bench/results/target.json")["rows"]
    seconds = {
        row["baseline"]: row["seconds"]
        for row in rows
        if (row["images"], row["activation"]) == (6000, "tanh")
    }
    shown = {"Adam": "torch Adam", "`auto`": "ours, auto without options", "L-BFGS": "torch L-BFGS"}
    return "seconds to a loss of 0.1: " + ", ".join(
        f"{name} {seconds[row]:.1f}" for name, row in shown.items()
    )


# What a reader has, what to use, a function that tells the measurement, and the arguments of its benchmark.
ROWS: tuple[tuple[str, str, Callable[[], str], str], ...] = (
    (
        "a differential equation",
        "`levenberg_marquardt`",
        _precision("poisson"),
        "precision --problems poisson",
    ),
    (
        "a differential equation on which training often fails",
        "`levenberg_marquardt`",
        _precision("convection"),
        "precision --problems convection",
    ),
    (
        "a function that oscillates, known at points",
        "`fit`, which calls `levenberg_marquardt`",
        _precision("oscillation"),
        "precision --problems oscillation",
    ),
    (
        "an unknown coefficient of a differential equation, noisy data",
        "SOAP; `levenberg_marquardt` is close",
        _precision("unknown coefficient"),
        "precision --problems 'unknown coefficient'",
    ),
    (
        "a recurrent network that must remember 50 steps",
        '`hessian_free` with `method="martens"`',
        _solved("adding, 50 steps"),
        "precision --seeds 10 --problems 'adding, 50 steps'",
    ),
    ("machines on a slow network", "`local_steps`", _reductions, "communication --tasks mnist"),
    ("a start on a saddle", "`hessian_free`", _saddles, "saddles"),
    ("a classifier, an ordinary loss", "Adam", _seconds, "target --images 6000"),
)
