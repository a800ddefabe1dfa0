"""The arguments of optimizers, checked before anything is computed."""

import numpy as np

from hfnb.krylov import find_solver
from hfnb.objectives.curvature import CURVATURES
from hfnb.optimizers.presets import LINE_SEARCH_SAMPLES, STOPPING_RULES
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

METHODS = ("value", "value_and_gradient", "curvature")  # what an optimizer calls of an objective


def check_run(objective, w0, *, max_iter, tol, seed, callback, checkpoint) -> None:
    """Check what every optimizer takes; an error names the argument."""
    check_methods("objective", objective, METHODS, "hfnb.Objective(net, data)")
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


def check_hessian_free(
    objective, w0, chosen, step, batch_size, curvature_batch_size, damping, warm_start_decay, **run
) -> None:
    """Check the arguments of `hessian_free`, those in ``run`` by `check_run`; an error names the argument."""
    check_run(objective, w0, **run)
    find_solver(chosen["solver"])
    if not callable(chosen["curvature"]):
        check_choice("curvature", chosen["curvature"], CURVATURES, " or a function")
    check_choice("stopping_rule", chosen["stopping_rule"], STOPPING_RULES)
    check_choice("line_search_sample", chosen["line_search_sample"], LINE_SEARCH_SAMPLES)
    if not isinstance(chosen["probe"], (bool, np.bool_)):
        raise TypeError(f"probe: expected True, False or None, got {shown(chosen['probe'])}")
    check_choice("step", step, STEPS)
    for name, size in (("batch_size", batch_size), ("curvature_batch_size", curvature_batch_size)):
        if size is not None:
            check_positive_int(name, size, at_most=objective.n)
    check_nonnegative("damping", damping, finite=True)
    check_fraction("warm_start_decay", warm_start_decay)
