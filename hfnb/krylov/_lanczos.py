"""The Lanczos process with full reorthogonalization, and the smallest eigenvalue from a random start."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

from hfnb.krylov.system import ROUNDING, System, as_operator, check_right_hand_side
from hfnb.krylov.vectors import coefficients, combine, norm
from hfnb.validation import (
    check_finite,
    check_nonnegative,
    check_nonnegative_int,
    check_positive_int,
    check_vector,
)


@dataclass
class Tridiagonal:
    """Orthonormal rows ``V`` and T = V A Vᵀ, which has ``alphas`` on and ``betas`` beside its diagonal.

    The last beta is the norm of what A leads out of the subspace, A Vᵀ = Vᵀ T + β v eᵀ.
    """

    V: np.ndarray
    alphas: list[float]
    betas: list[float]

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the eigenvalues of T, ascending, and its eigenvectors as columns."""
        return eigh_tridiagonal(self.alphas, self.betas[:-1])

    def failure(self, bound: float) -> float:
        """Return an upper bound on the probability that λmin < ``bound`` in spite of this T.

        The probability is over starts v drawn uniformly from the sphere. With u the eigenvector of λmin
        and p the monic polynomial of the Ritz values θᵢ, |uᵀv| Π(θᵢ − λmin) = |uᵀp(A)v| ≤ ‖p(A)v‖ = Πβⱼ,
        and |uᵀv| ≤ a has probability at most a√(2n/π): so λmin < bound has at most √(2n/π) Π βⱼ/(θᵢ −
        bound), whatever the number of steps after which one looks.

        Source: van Dorsselaer, Hochstenbach & van der Vorst, "Computing probabilistic bounds for extreme
        eigenvalues of symmetric matrices with the Lanczos method", SIAM J. Matrix Anal. Appl. 22 (2000).
        """
        bound = check_finite("bound", bound)
        ritz, _ = self.ritz()
        if ritz[0] <= bound:
            return 1.0
        with np.errstate(divide="ignore"):
            logs = np.log(self.betas) - np.log(ritz - bound)
        return float(min(1.0, np.exp(logs.sum()) * np.sqrt(2 * self.V.shape[1] / np.pi)))


def lanczos_process(system: System, start: np.ndarray, steps: int) -> Iterator[Tridiagonal]:
    """Yield T after each product of A + damping I, until ``steps`` or an invariant subspace is reached.

    Orthogonalizing twice keeps V orthonormal to rounding (Parlett, The Symmetric Eigenvalue Problem, §6.9).
    """
    check_vector("start", start, system.b.size)
    if not 0 < norm(start) < np.inf:
        raise ValueError(f"start: expected a vector with a norm in (0, ∞), got {norm(start)}")
    steps = min(check_positive_int("steps", steps), start.size)
    V, w = np.empty((steps, start.size), start.dtype), np.empty_like(start)
    alphas: list[float] = []
    betas: list[float] = []
    np.multiply(start, 1 / norm(start), out=V[0])
    for k in range(1, steps + 1):
        alphas.append(system.product(V[k - 1], out=w))
        for _ in range(2):
            w -= combine(coefficients(V[:k], w), V[:k])
        betas.append(norm(w))
        yield Tridiagonal(V[:k], alphas, betas)
        if k == steps or betas[-1] <= ROUNDING * float(np.finfo(w.dtype).eps) * system.norm:
            return
        np.multiply(w, 1 / betas[-1], out=V[k])


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
