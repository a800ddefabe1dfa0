"""Krylov solvers: they know only an operator and a right-hand side.

A solver of your own has the same parts, and goes wherever ours do:

>>> import numpy as np
>>> def steepest_descent(A, b, x0=None, *, damping=0.0, **stops):
...     system = System(A, b, x0, damping=damping)
...     monitor, (x, r), Ar = Monitor(system, **stops), system.start(), np.empty_like(b)
...     while (reason := monitor.stop(x, r)) is None:
...         alpha = dot(r, r) / system.product(r, out=Ar)
...         axpy(x, alpha, r)
...         axpy(r, -alpha, Ar)
...     return monitor.result(x, reason)
>>> steepest_descent(np.diag([1.0, 3.0]), np.ones(2)).status
'converged: the residual is within the tolerance'
"""

from collections.abc import Callable
from functools import partial, wraps

import numpy as np

from hfnb.krylov._bicgstab import bicgstab
from hfnb.krylov._capped_cg import capped_cg
from hfnb.krylov._cg import cg
from hfnb.krylov._lanczos import LanczosResult, Tridiagonal, lanczos, lanczos_process, random_start
from hfnb.krylov._minres import minres
from hfnb.krylov._saddle_free import saddle_free
from hfnb.krylov._steihaug import steihaug
from hfnb.krylov.stopping import Monitor
from hfnb.krylov.preconditioners import LBFGS, diagonal
from hfnb.krylov.system import KrylovResult, NonFiniteProduct, System
from hfnb.krylov.vectors import axpy, dot, norm
from hfnb.validation import check_choice, shown

__all__ = [
    "LBFGS",
    "SOLVERS",
    "KrylovResult",
    "LanczosResult",
    "Monitor",
    "NonFiniteProduct",
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
    "random_start",
    "saddle_free",
    "steihaug",
]

newton_mr = partial(minres, stop_indefinite=True)

# name: solve(A, b, x0=None, *, damping, rtol, atol, progress, maxiter, M, callback, check) -> KrylovResult
SOLVERS: dict[str, Callable[..., KrylovResult]] = {
    "cg": cg,
    "steihaug": steihaug,
    "bicgstab": bicgstab,
    "minres": minres,
    "newton_mr": newton_mr,
    "capped_cg": capped_cg,
    "saddle_free": saddle_free,
}


def find_solver(solver: str | Callable[..., KrylovResult]) -> Callable[..., KrylovResult]:
    """Return the solver of that name, or a function of the same form, whose results are checked.

    Raises ValueError, listing what exists, for an unknown name. The function returned raises TypeError where
    ``solver`` returns anything but a `KrylovResult`, ValueError where its vectors are not finite, or not of
    the size and precision of b.

    >>> find_solver("cg") is cg
    True
    """
    if callable(solver):
        return _checked(solver)
    return SOLVERS[check_choice("solver", solver, SOLVERS, " or a function")]


def _checked(solver: Callable[..., KrylovResult]) -> Callable[..., KrylovResult]:
    @wraps(solver)
    def solve(A, b, x0=None, **options):
        result = solver(A, b, x0, **options)
        if not isinstance(result, KrylovResult):
            raise TypeError(
                f"solver: expected a KrylovResult, as Monitor(...).result makes, got {type(result).__name__}"
            )
        _check_result(result, b)
        return result

    return solve


def _check_result(result: KrylovResult, b: np.ndarray) -> None:
    """Refuse a result whose vectors cannot be steps: one pass over each of them, a solve."""
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
        raise ValueError("solver: expected a result with models, and with direction and curvature or neither")
