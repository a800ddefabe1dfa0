"""How far the solve of a sub-problem goes before its next product is better spent on another one."""

from collections.abc import Callable
from functools import partial
from inspect import Parameter, signature

from hfnb.krylov import SOLVERS, find_solver
from hfnb.validation import shown

# By Martens' rule (2010, §4.4); Bi-CG-STAB, like CG, not beyond negative curvature.
MARTENS: dict[str, dict] = {name: {"progress": 5e-4, "maxiter": 100} for name in SOLVERS}
MARTENS["bicgstab"]["stop_indefinite"] = True
# By gain per product: the gradient and losses around a solve cost about 12 products.
MARGINAL_GAIN: dict[str, dict] = {"cg": {"progress": 0.0, "overhead": 12.0, "maxiter": 100}}


def truncated(solver: str | Callable, rules: dict[str, dict], options: dict | None) -> Callable:
    """Return the solver of that name, or a reader's own, with its options by a table of rules and by hand.

    ValueError for an unknown name, and for options that the solver does not take.

    >>> truncated("cg", MARGINAL_GAIN, {"maxiter": 30}).keywords
    {'progress': 0.0, 'overhead': 12.0, 'maxiter': 30}
    """
    solve, options = find_solver(solver), _checked(find_solver(solver), options)
    rule = rules.get(solver, MARTENS.get(solver, {})) if isinstance(solver, str) else {}
    return partial(solve, **{**rule, **options})


def _checked(solve: Callable, options) -> dict:
    """Return the options, {} for None, if the solver takes them; their values it checks itself."""
    if not isinstance(options, dict | None):
        raise TypeError(f"solver_options: expected a dictionary or None, got {shown(options)}")
    parameters = signature(solve).parameters.values()
    names = [each.name for each in parameters if each.kind is Parameter.KEYWORD_ONLY]
    free = any(each.kind is Parameter.VAR_KEYWORD for each in parameters)
    for name in options or {}:
        if not isinstance(name, str) or name == "damping" or not (free or name in names):
            known = ", ".join(each for each in names if each != "damping") or "none"
            raise ValueError(f"solver_options: expected the solver's ({known}), got {name!r}")
    return options or {}
