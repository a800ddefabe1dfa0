"""The smallest eigenvalue from a random start."""

from dataclasses import dataclass

import numpy as np

from hfnb.krylov.system import System, as_operator, check_right_hand_side
from hfnb.krylov.tridiagonal import lanczos_process
from hfnb.krylov.vectors import combine, norm
from hfnb.validation import check_nonnegative, check_nonnegative_int, check_positive_int


@dataclass
class LanczosResult:
    """The smallest Ritz pair of A after ``products`` products.

    ``eigenvalue`` is dᵀAd ≥ λmin of the unit vector ``direction`` d; ``residual_norm`` is ‖Ad −
    eigenvalue d‖, within which lies an eigenvalue of A; ``largest`` is the largest Ritz value; ``seed``
    drew the start.
    """

    eigenvalue: float
    direction: np.ndarray
    residual_norm: float
    largest: float
    products: int
    seed: int | None
    status: str
    success: bool


def lanczos(A, start=None, *, seed=None, tol=1e-3, maxiter=100, check=False) -> LanczosResult:
    """Return the smallest Ritz pair of a symmetric A by the Lanczos process with full reorthogonalization.

    The start is random, drawn with ``seed`` or with a fresh one that the result records: a fixed start
    can be orthogonal to the only way down. Or it is given, such as the last direction found. It stops
    where the residual bound β|sₖ| ≤ tol × the largest |Ritz value|, where the Krylov space is exhausted,
    or after ``maxiter`` products; the basis of as many vectors is kept until then. Errors as ``cg``.

    Source: Parlett, The Symmetric Eigenvalue Problem (1980), ch. 13.

    >>> result = lanczos(np.diag([1.0, 2.0, -3.0]), seed=0)
    >>> result.eigenvalue, result.products, result.success
    (-3.0, 3, True)
    """
    tol, maxiter = check_nonnegative("tol", tol), check_positive_int("maxiter", maxiter)
    start, seed = random_start(A, seed) if start is None else (check_right_hand_side("start", start), None)
    system = System(A, start, check=check)
    if not 0 < system.b_norm < np.inf:
        raise ValueError(f"start: expected a vector with a norm in (0, ∞), got {system.b_norm}")
    status, success = "maxiter products done", False
    for lanczos in lanczos_process(system, system.b, maxiter):
        ritz, S = lanczos.ritz()
        residual_norm = lanczos.betas[-1] * abs(S[-1, 0])
        if residual_norm <= tol * np.abs(ritz).max():
            status, success = "converged: the residual is within the tolerance", True
            break
    direction = combine(S[:, 0], lanczos.V)
    direction /= norm(direction)
    return LanczosResult(
        float(ritz[0]),
        direction,
        float(residual_norm),
        float(ritz[-1]),
        system.products,
        seed,
        status,
        success,
    )


def random_start(A, seed: int | None = None) -> tuple[np.ndarray, int]:
    """Return a vector of A's size and precision whose direction is uniformly random, and its seed."""
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    check_nonnegative_int("seed", seed)
    operator = as_operator("A", A)
    dtype = np.float32 if operator.dtype == np.float32 else np.float64
    return np.random.default_rng(seed).standard_normal(operator.shape[1]).astype(dtype), seed
