"""The Lanczos process with full reorthogonalization."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh_tridiagonal

from hfnb.krylov.system import ROUNDING, System
from hfnb.krylov.vectors import coefficients, combine, norm
from hfnb.validation import check_finite, check_positive_int, check_vector


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
