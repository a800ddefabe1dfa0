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

from .bicgstab import bicgstab
from .capped_cg import capped_cg
from .cg import cg
from .lanczos import LanczosResult, lanczos, random_start
from .minres import minres
from .monitor import Monitor, whole
from .precondition import LBFGS, diagonal
from .result import KrylovResult, NonFiniteProduct
from .saddle_free import saddle_free
from .steihaug import steihaug
from .system import System
from .tridiagonal import Tridiagonal, lanczos_process
from .vectors import axpy, combine, dot, norm

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
    "combine",
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
    "whole",
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

    Raises ValueError, listing what exists, for an unknown name; the function returned raises TypeError where
    ``solver`` returns anything but a `KrylovResult`.

    >>> find_solver("cg") is cg
    True
    """
    if callable(solver):
        return _checked(solver)
    if solver not in SOLVERS:
        raise ValueError(f"solver: expected one of {', '.join(SOLVERS)} or a function, got {solver!r}")
    return SOLVERS[solver]


def _checked(solver: Callable[..., KrylovResult]) -> Callable[..., KrylovResult]:
    @wraps(solver)
    def solve(A, b, x0=None, **options):
        result = solver(A, b, x0, **options)
        if not isinstance(result, KrylovResult):
            raise TypeError(
                f"solver: expected a KrylovResult, as Monitor(...).result makes, got {type(result).__name__}"
            )
        return result

    return solve
