"""Symmetric linear systems, one class for each difficulty that a Krylov solver can meet."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hfnb.validation import check_choice, check_nonnegative_int, check_positive_int


def _singular(n: int) -> np.ndarray:
    """Return n eigenvalues, a fifth of which are zero and the others from 1 to 100."""
    return np.concatenate([np.zeros(n - 4 * n // 5), np.logspace(0, 2, 4 * n // 5)])


# By class: the eigenvalues of an (n, n) matrix.
SPECTRA: dict[str, Callable[[int], np.ndarray]] = {
    "positive definite": lambda n: np.logspace(0, 3, n),
    "indefinite": lambda n: np.concatenate([-np.logspace(0, 1.5, n // 4), np.logspace(0, 2, n - n // 4)]),
    "singular consistent": _singular,
    "singular inconsistent": _singular,
    "nearly singular": lambda n: np.concatenate([[1e-10], np.logspace(0, 2, n - 1)]),
    "breakdown": lambda n: np.concatenate([-np.logspace(0, 1, n // 2), np.logspace(0, 1, n - n // 2)]),
}


class LinearSystem(NamedTuple):
    """A linear system A x = b.

    Attributes
    ----------
    A : ndarray, shape (n, n)
        A symmetric matrix in float64.
    b : ndarray, shape (n,)
        The right-hand side.
    """

    A: np.ndarray
    b: np.ndarray


def linear_system(kind: str, n: int = 50, seed: int = 0) -> LinearSystem:
    """Return a random system of a given kind.

    Parameters
    ----------
    kind : str
        A name in ``SPECTRA``: "positive definite", "indefinite", "singular consistent", "singular
        inconsistent", "nearly singular" or "breakdown".
    n : int
        Size, at least 4; even for "breakdown".
    seed : int
        At least 0; a seed always gives the same system.

    Returns
    -------
    LinearSystem
        A with random eigenvectors, and b.

    Raises
    ------
    ValueError, TypeError
        If an argument has another form.

    Notes
    -----
    The right-hand side is random, and b = A x for a random x where the system is "singular consistent". A
    "breakdown" matrix is [[0, B], [B, 0]] with B diagonal, and the second half of b is zero. Then bᵀAb = 0,
    by which CG and BiCGSTAB would divide in their first iteration.

    Examples
    --------
    >>> A, b = linear_system("breakdown", n=4)
    >>> float(b @ A @ b)
    0.0
    """
    spectrum = SPECTRA[check_choice("kind", kind, SPECTRA)]
    if check_positive_int("n", n) < 4 or (kind == "breakdown" and n % 2):
        raise ValueError(f"n: expected at least 4, and an even number for a breakdown, got {n}")
    random, eigenvalues = np.random.default_rng(check_nonnegative_int("seed", seed)), spectrum(n)
    b = random.standard_normal(n)
    if kind == "breakdown":
        b[n // 2 :] = 0
        B = np.diag(eigenvalues[n // 2 :])
        return LinearSystem(np.block([[0 * B, B], [B, 0 * B]]), b)
    Q, _ = np.linalg.qr(random.standard_normal((n, n)))
    A = (Q * eigenvalues) @ Q.T
    A = (A + A.T) / 2
    return LinearSystem(A, A @ b if kind == "singular consistent" else b)
