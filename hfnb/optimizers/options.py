"""The options of optimizers: methods by name, stopping rules of solves, and checks of arguments."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hfnb.krylov import SOLVERS, KrylovResult, find_solver, option_names
from hfnb.objectives.curvature import CURVATURES
from hfnb.optimizers.local_solves import AT_ONCE
from hfnb.optimizers.steps import STEPS
from hfnb.validation import (
    check_callable,
    check_choice,
    check_fraction,
    check_methods,
    check_nonnegative,
    check_nonnegative_int,
    check_positive_int,
    check_vector,
    shown,
)

# The methods of an objective that an optimizer calls.
OBJECTIVE_METHODS = ("value", "value_and_gradient", "curvature")

# The samples and the first λ of the methods that do not choose them by the problem.
FIXED: dict[str, Any] = {"batch_size": "all", "curvature_batch_size": "same", "damping": 1.0}
# name: the options of `hessian_free` that the method stands for
METHODS: dict[str, dict[str, Any]] = {
    "paper": {
        "solver": "bicgstab",
        "curvature": "hessian",
        "stopping_rule": "martens",
        "probe": False,
        "line_search_sample": "loss",
        "lengthen": True,
        **FIXED,
    },
    "martens": {
        "solver": "cg",
        "curvature": "gauss-newton",
        "stopping_rule": "martens",
        "probe": False,
        "line_search_sample": "loss",
        "lengthen": True,
        **FIXED,
    },
    "auto": {
        "solver": "cg",
        "curvature": "gauss-newton",
        "stopping_rule": "marginal-gain",
        "probe": True,
        "line_search_sample": "curvature",
        "lengthen": False,
        "batch_size": "growing",
        "curvature_batch_size": "part",
        "damping": "gradient",
    },
}
LINE_SEARCH_SAMPLES = ("loss", "curvature")
SOLVES = ("global", "local")
UNPRECONDITIONED = ("capped_cg", "saddle_free")  # solvers that take no preconditioner
# Options of the methods with local solves, where reductions are to be few and computing is shared.
LOCAL: dict[str, Any] = {
    "batch_size": "all",
    "curvature_batch_size": "same",
    "line_search_sample": "loss",
    "lengthen": True,  # a mean of local solutions is too short
    "stopping_rule": "martens",
}
LOCAL_ITERATIONS = 10  # of a local solve: with more, a cell fits what sets its samples apart from the others
# Losses in one reduction on engines, by the sample of line searches. Over all samples losses take long, but
# three are nearly always asked for: at α = 1, at α = 2, and at the iterate before. Over the curvature sample
# they are cheap.
ON_ENGINES = {"loss": 3, "curvature": 8}
SAMPLES = {"batch_size": ("all", "growing"), "curvature_batch_size": ("same", "part")}

# Martens' rule (2010, §4.4); with it Bi-CG-STAB, like CG, stops at negative curvature.
MARTENS: dict[str, dict[str, Any]] = {name: {"progress": 5e-4, "max_iter": 100} for name in SOLVERS}
MARTENS["bicgstab"]["stop_indefinite"] = True
# The marginal-gain rule: with the samples that "growing" and "part" stand for, the gradient and the losses
# around a solve cost about 12 products. A gradient costs about as much as a product over the same samples, a
# loss half as much, and an iteration has about four. In a mini-batch of 4 c samples, c of them for the
# curvature, this is (4 c + 4/2 · 4 c) / c = 12 products; with all samples, 10 c, and losses over c, it is
# (10 c + 4/2 · c) / c = 12.
MARGINAL_GAIN: dict[str, dict[str, Any]] = {"cg": {"progress": 0.0, "overhead": 12.0, "max_iter": 100}}
STOPPING_RULES = {"martens": MARTENS, "marginal-gain": MARGINAL_GAIN}


def expand(method: str, *, solves: str = "global", **given: Any) -> dict[str, Any]:
    """Return the options that a method stands for, replaced by those that are given.

    If a number of samples is given, the method's samples and first λ are `FIXED`. With local solves some
    options are those of `LOCAL`.

    Parameters
    ----------
    method : str
        A name of `METHODS`.
    solves : {"global", "local"}
        Who solves the sub-problem.
    **given
        Options; None stands for the option of the method.

    Returns
    -------
    dict
        {name: value}.

    Raises
    ------
    ValueError
        If the method is unknown.

    Examples
    --------
    >>> expand("paper", curvature="gauss-newton", probe=None)["curvature"]
    'gauss-newton'
    """
    if isinstance(given.get("curvature"), str) and given["curvature"] == "auto":  # of an earlier version
        warnings.warn('hessian_free: curvature="auto" is method="auto" now', DeprecationWarning, stacklevel=6)
        method, given["curvature"] = "auto", None
    chosen = METHODS[check_choice("method", method, METHODS)]
    if not all(isinstance(given.get(name), str | None) for name in ("batch_size", "curvature_batch_size")):
        chosen = chosen | FIXED
    if check_choice("solves", solves, SOLVES) == "local":
        chosen = chosen | LOCAL
    return chosen | {"solves": solves} | {name: value for name, value in given.items() if value is not None}


def shortened(rule: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a stopping rule with at most `LOCAL_ITERATIONS` iterations of each solver."""
    return {name: {**options, "max_iter": LOCAL_ITERATIONS} for name, options in (MARTENS | rule).items()}


def truncated(
    solver: str | Callable[..., KrylovResult],
    rules: dict[str, dict[str, Any]],
    options: dict[str, Any] | None,
) -> partial[KrylovResult]:
    """Return a solver with the options of a stopping rule, replaced by those that the user gave.

    Parameters
    ----------
    solver : str or callable
        A name of `krylov.SOLVERS`, or a user's own function.
    rules : dict
        The options of the stopping rule for each name, a value of `STOPPING_RULES`.
    options : dict, optional
        The user's ``solver_options``.

    Returns
    -------
    callable
        solve(A, b, x0, *, damping, M) -> KrylovResult.

    Raises
    ------
    ValueError
        If the name is unknown, or the solver does not take one of the options.

    Examples
    --------
    >>> truncated("cg", MARGINAL_GAIN, {"max_iter": 30}).keywords
    {'progress': 0.0, 'overhead': 12.0, 'max_iter': 30}
    """
    solve = find_solver(solver)
    options = _checked(solve, options)
    rule = rules.get(solver, MARTENS.get(solver, {})) if isinstance(solver, str) else {}
    return partial(solve, **{**rule, **options})


def _checked(solve: Callable[..., KrylovResult], options: Any) -> dict[str, Any]:
    """Return the options, {} for None, if the solver takes them. The solver checks their values itself."""
    if not isinstance(options, dict | None):
        raise TypeError(f"solver_options: expected a dictionary or None, got {shown(options)}")
    names = option_names(solve)
    for name in options or {}:
        if not isinstance(name, str) or name == "damping" or (names is not None and name not in names):
            known = ", ".join(each for each in names or () if each != "damping") or "none"
            raise ValueError(f"solver_options: expected options of the solver ({known}), got {name!r}")
    return options or {}


def check_run(
    objective: Any, w0: Any, *, max_iter: Any, tol: Any, seed: Any, callback: Any, checkpoint: Any
) -> None:
    """Check the arguments that every optimizer takes; an error names the argument."""
    check_methods("objective", objective, OBJECTIVE_METHODS, "hfnb.Objective(net, data)")
    start = np.asarray(w0) if isinstance(w0, (list, tuple)) else w0
    check_vector("w0", start, getattr(getattr(objective, "net", objective), "size", None))
    if not np.isfinite(start).all():
        raise ValueError("w0: expected a start with finite loss and entries, got NaN or infinity")
    check_nonnegative_int("max_iter", max_iter)
    check_nonnegative("tol", tol)
    check_nonnegative_int("seed", seed)
    check_callable("callback", callback, "(record) -> whether to stop", optional=True)
    if checkpoint is not None:
        check_methods("checkpoint", checkpoint, ("load", "save"), "hfnb.Checkpoint(folder)")


def default_trial_steps(objective: Any, chosen: dict[str, Any]) -> int:
    """Return how many losses are evaluated in one reduction if the user gives no number.

    Parameters
    ----------
    objective : Objective or ObjectiveLike
        What is minimized.
    chosen : dict
        The options of the run, as `expand` returns them.

    Returns
    -------
    int
        1 where a reduction costs nothing, in one process.
    """
    if chosen["solves"] == "local":
        return AT_ONCE
    on_engines = getattr(objective, "clock", None) is not None
    return ON_ENGINES.get(str(chosen["line_search_sample"]), 1) if on_engines else 1


def check_combination(objective: Any, chosen: dict[str, Any], *, step: Any, preconditioner: Any) -> None:
    """Check options that do not fit each other or the objective; an error names the argument."""
    check_positive_int("trial_steps", chosen["trial_steps"])
    if preconditioner is not None and chosen["solver"] in UNPRECONDITIONED:
        raise ValueError(f"preconditioner: expected None, because {chosen['solver']} takes none")
    local = chosen["solves"] == "local"
    if local and getattr(objective, "cells", None) is None:
        raise ValueError(
            "objective: expected one with cells for solves='local', such as Objective(net, data, cells=16), "
            "got one without"
        )
    if chosen["trial_steps"] > 1:
        check_methods("objective", objective, ("values_along",), "hfnb.Objective(net, data)")
    if not local:
        return
    for name, value in (("batch_size", "all"), ("line_search_sample", "loss")):
        if chosen[name] != value:
            raise ValueError(f"{name}: expected {value!r} with solves='local', got {chosen[name]!r}")
    if step == "subspace":
        raise ValueError(
            "step: expected 'better', 'newton' or 'curvilinear' with solves='local', got 'subspace'"
        )
    if preconditioner is not None:
        raise ValueError("preconditioner: expected None with solves='local', whose products are local")


def check_hessian_free(
    objective: Any,
    w0: Any,
    chosen: dict[str, Any],
    *,
    step: Any,
    warm_start_decay: Any,
    **run: Any,
) -> None:
    """Check the arguments of `hessian_free`, those in ``run`` by `check_run`; an error names the argument."""
    check_run(objective, w0, **run)
    find_solver(chosen["solver"])
    if not callable(chosen["curvature"]):
        check_choice("curvature", chosen["curvature"], CURVATURES, " or a function")
    check_choice("stopping_rule", chosen["stopping_rule"], STOPPING_RULES)
    check_choice("line_search_sample", chosen["line_search_sample"], LINE_SEARCH_SAMPLES)
    for name in ("probe", "lengthen"):
        if not isinstance(chosen[name], (bool, np.bool_)):
            raise TypeError(f"{name}: expected True, False or None, got {shown(chosen[name])}")
    check_choice("step", step, STEPS)
    for name, words in SAMPLES.items():
        if isinstance(chosen[name], str):
            check_choice(name, chosen[name], words, " or a number of samples")
        else:
            check_positive_int(name, chosen[name], at_most=objective.n)
    if isinstance(chosen["damping"], str):
        check_choice("damping", chosen["damping"], ("gradient",), " or a number")
    else:
        check_nonnegative("damping", chosen["damping"], finite=True)
    check_fraction("warm_start_decay", warm_start_decay)
