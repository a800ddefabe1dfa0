"""Methods by name, each a set of options of `hessian_free`, and the rules by which a solve is stopped."""

import warnings
from collections.abc import Callable
from functools import partial

from hfnb.krylov import SOLVERS, find_solver, option_names
from hfnb.validation import check_choice, shown

# name: the options of `hessian_free` that the method stands for
METHODS: dict[str, dict] = {
    "paper": {
        "solver": "bicgstab",
        "curvature": "hessian",
        "stopping_rule": "martens",
        "probe": False,
        "line_search_sample": "loss",
    },
    "martens": {
        "solver": "cg",
        "curvature": "gauss-newton",
        "stopping_rule": "martens",
        "probe": False,
        "line_search_sample": "loss",
    },
    "auto": {
        "solver": "cg",
        "curvature": "gauss-newton",
        "stopping_rule": "marginal-gain",
        "probe": True,
        "line_search_sample": "curvature",
    },
}
LINE_SEARCH_SAMPLES = ("loss", "curvature")

# Martens' rule (2010, §4.4); Bi-CG-STAB, like CG, does not go on beyond negative curvature.
MARTENS: dict[str, dict] = {name: {"progress": 5e-4, "max_iter": 100} for name in SOLVERS}
MARTENS["bicgstab"]["stop_indefinite"] = True
# The marginal-gain rule: the gradient and the losses around a solve cost about 12 products.
MARGINAL_GAIN: dict[str, dict] = {"cg": {"progress": 0.0, "overhead": 12.0, "max_iter": 100}}
STOPPING_RULES = {"martens": MARTENS, "marginal-gain": MARGINAL_GAIN}


def expand(method: str, **given) -> dict:
    """Return the options that a method stands for, with those that are given, not None, in their place.

    >>> expand("paper", curvature="gauss-newton", probe=None)["curvature"]
    'gauss-newton'
    """
    if isinstance(given.get("curvature"), str) and given["curvature"] == "auto":  # in an earlier version
        warnings.warn('hessian_free: curvature="auto" is method="auto" now', DeprecationWarning, stacklevel=6)
        method, given["curvature"] = "auto", None
    chosen = METHODS[check_choice("method", method, METHODS)]
    return chosen | {name: value for name, value in given.items() if value is not None}


def truncated(solver: str | Callable, rules: dict[str, dict], options: dict | None) -> Callable:
    """Return the solver of that name, or a user's own, with its options by a table of rules and by hand.

    ValueError for an unknown name, and for options that the solver does not take.

    >>> truncated("cg", MARGINAL_GAIN, {"max_iter": 30}).keywords
    {'progress': 0.0, 'overhead': 12.0, 'max_iter': 30}
    """
    solve, options = find_solver(solver), _checked(find_solver(solver), options)
    rule = rules.get(solver, MARTENS.get(solver, {})) if isinstance(solver, str) else {}
    return partial(solve, **{**rule, **options})


def _checked(solve: Callable, options) -> dict:
    """Return the options, {} for None, if the solver takes them; their values it checks itself."""
    if not isinstance(options, dict | None):
        raise TypeError(f"solver_options: expected a dictionary or None, got {shown(options)}")
    names = option_names(solve)
    for name in options or {}:
        if not isinstance(name, str) or name == "damping" or (names is not None and name not in names):
            known = ", ".join(each for each in names or () if each != "damping") or "none"
            raise ValueError(f"solver_options: expected the solver's ({known}), got {name!r}")
    return options or {}
