"""Krylov solvers: they know only an operator and a right-hand side."""

from collections.abc import Callable

from .bicgstab import bicgstab
from .cg import cg
from .result import KrylovResult, NonFiniteProduct
from .vectors import axpy, dot, norm

__all__ = [
    "SOLVERS",
    "KrylovResult",
    "NonFiniteProduct",
    "axpy",
    "bicgstab",
    "cg",
    "dot",
    "find_solver",
    "norm",
]

# name: solve(A, b, x0=None, *, damping, rtol, atol, progress, maxiter, M, callback, check) -> KrylovResult
SOLVERS: dict[str, Callable[..., KrylovResult]] = {"cg": cg, "bicgstab": bicgstab}


def find_solver(solver: str | Callable[..., KrylovResult]) -> Callable[..., KrylovResult]:
    """Return the solver of that name, or ``solver`` itself if it is a function of the same form.

    Raises ValueError, listing what exists, for an unknown name.

    >>> find_solver("cg") is cg
    True
    """
    if callable(solver):
        return solver
    if solver not in SOLVERS:
        raise ValueError(f"solver: expected one of {', '.join(SOLVERS)} or a function, got {solver!r}")
    return SOLVERS[solver]
