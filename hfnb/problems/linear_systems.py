"""Symmetric linear systems of each class that tries a Krylov solver."""

from typing import NamedTuple

import numpy as np

from hfnb.validation import check_choice, check_nonnegative_int, check_positive_int


def _singular(n):
    return np.concatenate([np.zeros(n - 4 * n // 5), np.logspace(0, 2, 4 * n // 5)])


# class: eigenvalues of an (n, n) matrix; b random unless said
SPECTRA = {
    "positive definite": lambda n: np.logspace(0, 3, n),
    "indefinite": lambda n: np.concatenate([-np.logspace(0, 1.5, n // 4), np.logspace(0, 2, n - n // 4)]),
    "singular consistent": _singular,
    "singular inconsistent": _singular,
    "nearly singular": lambda n: np.concatenate([[1e-10], np.logspace(0, 2, n - 1)]),
    "breakdown": lambda n: np.concatenate([-np.logspace(0, 1, n // 2), np.logspace(0, 1, n - n // 2)]),
}


class LinearSystem(NamedTuple):
    """A x = b with a dense symmetric A (n, n) in float64."""

    A: np.ndarray
    b: np.ndarray


def linear_system(kind: str, n: int = 50, seed: int = 0) -> LinearSystem:
    """Return a system of the class ``kind`` of ``SPECTRA``; ValueError lists them for another one.

    The eigenvectors are random. b = A x is in the range of a "singular consistent" A. A "breakdown" matrix is
    [[0, B], [B, 0]] with B diagonal, b zero in its second half (n even): there bᵀAb = 0, so that CG and
    Bi-CG-STAB would divide by zero at once.

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
