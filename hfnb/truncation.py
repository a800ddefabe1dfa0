"""How far the solve of a sub-problem goes before its next product is better spent on another one."""

from collections.abc import Callable
from functools import partial

from hfnb.krylov import SOLVERS, find_solver

# By Martens' rule (2010, §4.4); Bi-CG-STAB, like CG, not beyond negative curvature.
MARTENS: dict[str, dict] = {name: {"progress": 5e-4, "maxiter": 100} for name in SOLVERS}
MARTENS["bicgstab"]["stop_indefinite"] = True
# By gain per product: the gradient and losses around a solve cost about 12 products.
THRIFTY: dict[str, dict] = {"cg": {"progress": 0.0, "overhead": 12.0, "maxiter": 100}}


def truncated(solver: str | Callable, rules: dict[str, dict], options: dict | None) -> Callable:
    """Return the solver of that name, or a reader's own, with its options by a table of rules and by hand.

    ValueError for an unknown name.

    >>> truncated("cg", THRIFTY, {"maxiter": 30}).keywords
    {'progress': 0.0, 'overhead': 12.0, 'maxiter': 30}
    """
    rule = rules.get(solver, MARTENS.get(solver, {})) if isinstance(solver, str) else {}
    return partial(find_solver(solver), **{**rule, **(options or {})})
