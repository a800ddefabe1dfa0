"""When to use which method: a table of stored measurements, each with the command that repeats it."""

from collections.abc import Callable

import numpy as np

from hfnb.studies.tasks import published

NAMES = {"ours, Jacobian": "`levenberg_marquardt`", "ours, products": "`hessian_free`"}  # of the benchmark


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
    """Return a function that tells the median errors of this package and of the best rival."""

    def measure() -> str:
        rows = published("bench/results/precision.json")["tuned"].values()
        errors = {row["method"]: np.median(row["errors"]) for row in rows if row["problem"] == problem}
        seconds = next(row["seconds"] for row in rows if row["problem"] == problem)
        # Where the Jacobian does not fit in memory, its error is infinite.
        mine = next(name for name in NAMES if np.isfinite(errors[name]))
        rival = min((name for name in errors if "ours" not in name), key=lambda name: errors[name])
        found = f"error after {seconds:g} s: {NAMES[mine]} {errors[mine]:.0e}"
        return f"{found}; best of the others, {rival}, {errors[rival]:.0e}"

    return measure


def _reductions() -> str:
    """Return the median reductions to a loss of 0.1 on MNIST."""
    rows = published("bench/results/communication.json")["tuned"].values()
    counts = {
        row["method"]: np.median([run["reductions"] for run in row["runs"]])
        for row in rows
        if row["race"] == "MNIST"
    }
    methods = "local SGD", "local Hessian-free", "local solves", "synchronous Adam"
    return "reductions: " + ", ".join(f"{name} {counts[name]:g}" for name in methods)


def _saddles() -> str:
    """Return how many strict saddles are left from a start on the saddle itself."""
    rows = published("bench/results/saddles.json")["rows"]
    escaped = {row["method"]: row["escaped"] for row in rows if row["distance"] == 0}
    return f"saddles escaped: {escaped['hfnb, cg']}; SciPy's trust-ncg {escaped['SciPy trust-ncg']}"


def _seconds() -> str:
    """Return the median seconds to a loss of 0.1 on 6,000 images of MNIST, tanh."""
    rows = published("bench/results/target.json")["rows"]
    seconds = {
        row["baseline"]: row["seconds"]
        for row in rows
        if (row["images"], row["activation"]) == (6000, "tanh")
    }
    shown = {"Adam": "torch Adam", "`auto`": "ours, auto without options", "L-BFGS": "torch L-BFGS"}
    return "seconds: " + ", ".join(f"{name} {seconds[row]:.1f}" for name, row in shown.items())


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
        "SOAP",
        _precision("unknown coefficient"),
        "precision --problems 'unknown coefficient'",
    ),
    (
        "least squares with a linear model",
        "SciPy's `least_squares`",
        _precision("breast cancer"),
        "precision --problems 'breast cancer'",
    ),
    ("machines on a slow network", "`local_steps`", _reductions, "communication --tasks mnist"),
    ("a start on a saddle", "`hessian_free`", _saddles, "saddles"),
    ("a classifier, an ordinary loss", "Adam", _seconds, "target --images 6000"),
)
