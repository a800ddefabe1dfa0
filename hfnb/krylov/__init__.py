"""Krylov solvers, which need only an operator and a right-hand side.

A solver of your own is made of the same parts, and `hessian_free(objective, w0, solver=...)` accepts it:

>>> import numpy as np
>>> def steepest_descent(A, b, x0=None, *, damping=0.0, **stopping):
...     system = System(A, b, x0, damping=damping)
...     monitor = Monitor(system, Stopping(**stopping))
...     (x, r), Ar = system.start(), np.empty_like(b)
...     while (reason := monitor.stop(x, r)) is None:
...         alpha = dot(r, r) / system.product(r, out=Ar)
...         axpy(x, alpha, r)
...         axpy(r, -alpha, Ar)
...     return monitor.result(x, reason)
>>> steepest_descent(np.diag([1.0, 3.0]), np.ones(2), progress=0.0).status
'converged: the residual is within the tolerance'

``**stopping`` takes the fields of `Stopping`. Options of your own are named in the signature, as ``radius``
is in that of `cg`. `hessian_free` checks the names in its ``solver_options`` before it computes anything.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np

from hfnb.krylov._bicgstab import bicgstab
from hfnb.krylov._cg import capped_cg, cg
from hfnb.krylov._lanczos import (
    LanczosResult,
    Tridiagonal,
    lanczos,
    lanczos_process,
    random_start,
    saddle_free,
)
from hfnb.krylov._minres import minres
from hfnb.krylov.preconditioners import LBFGS, diagonal
from hfnb.krylov.stopping import KrylovResult, Monitor, Status, Stopping, option_names
from hfnb.krylov.system import NonFiniteProduct, Operator, System
from hfnb.krylov.vectors import axpy, dot, norm
from hfnb.validation import check_choice, shown

__all__ = [
    "LBFGS",
    "SOLVERS",
    "KrylovResult",
    "LanczosResult",
    "Monitor",
    "NonFiniteProduct",
    "Status",
    "Stopping",
    "System",
    "Tridiagonal",
    "axpy",
    "bicgstab",
    "capped_cg",
    "cg",
    "diagonal",
    "dot",
    "find_solver",
    "lanczos",
    "lanczos_process",
    "minres",
    "newton_mr",
    "norm",
    "option_names",
    "random_start",
    "saddle_free",
]

newton_mr = partial(minres, stop_indefinite=True)
newton_mr.__doc__ = "MINRES that stops at the first residual of non-positive curvature: see `minres`."

# name: solve(A, b, x0=None, *, damping, M, check, **stopping) -> KrylovResult
SOLVERS: dict[str, Callable[..., KrylovResult]] = {
    "cg": cg,
    "bicgstab": bicgstab,
    "minres": minres,
    "newton_mr": newton_mr,
    "capped_cg": capped_cg,
    "saddle_free": saddle_free,
}


def find_solver(solver: str | Callable[..., KrylovResult]) -> Callable[..., KrylovResult]:
    """Return the solver of a name, or a user's own solver with its results checked.

    Parameters
    ----------
    solver : str or callable
        A name of `SOLVERS`, or a function ``solver(A, b, x0=None, *, damping, ...)``.

    Returns
    -------
    callable
        The solver. A user's function is wrapped: a call raises TypeError if the function returns anything but
        a `KrylovResult`, and ValueError if a vector of the result is not finite, or if its size or precision
        differs from that of b.

    Raises
    ------
    TypeError, ValueError
        If ``solver`` is neither; the message lists the names.

    Examples
    --------
    >>> find_solver("cg") is cg
    True
    """
    if callable(solver):
        return _checked(solver)
    return SOLVERS[check_choice("solver", solver, SOLVERS, " or a function")]


def _checked(solver: Callable[..., KrylovResult]) -> Callable[..., KrylovResult]:
    """Return a user's solver with its results checked."""

    @wraps(solver)
    def solve(A: Operator, b: np.ndarray, x0: np.ndarray | None = None, **options: Any) -> KrylovResult:
        result = solver(A, b, x0, **options)
        if not isinstance(result, KrylovResult):
            raise TypeError(
                f"solver: expected a KrylovResult, as Monitor(...).result makes, got {type(result).__name__}"
            )
        _check_result(result, b)
        return result

    return solve


def _check_result(result: KrylovResult, b: np.ndarray) -> None:
    """Raise ValueError unless vectors are finite and like b, and models, direction and curvature agree."""
    found = {"x": result.x, "best": result.best}
    found |= {f"iterates[{i}]": each[1] for i, each in enumerate(result.iterates)}
    if result.direction is not None:
        found["direction"] = result.direction
    for name, vector in found.items():
        if getattr(vector, "shape", None) != b.shape or getattr(vector, "dtype", None) != b.dtype:
            raise ValueError(
                f"solver: expected a result whose {name} is like b, shape {b.shape}, dtype {b.dtype}, "
                f"got {shown(vector)}"
            )
        if not np.isfinite(dot(vector, vector)) and not np.isfinite(vector).all():
            raise ValueError(f"solver: expected a result that is finite, got NaN or infinity in its {name}")
    if not result.models or (result.direction is None) != (result.curvature is None):
        raise ValueError(
            "solver: expected a result with models, and with either both direction and curvature or neither"
        )
