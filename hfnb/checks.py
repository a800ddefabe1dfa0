"""Checkers for readers and tests alike: they return an error, for you to look at or to assert on."""

import numpy as np
from scipy.sparse.linalg import LinearOperator, aslinearoperator


def dense(A: LinearOperator) -> np.ndarray:
    """Return the (p, p) matrix of an operator, a product for each column: for small p.

    >>> dense(aslinearoperator(np.diag([1.0, 2.0])))
    array([[1., 0.],
           [0., 2.]])
    """
    return np.stack([A @ column for column in np.eye(A.shape[1], dtype=A.dtype)], axis=1)


def symmetry_error(A, trials: int = 3, seed: int = 0) -> float:
    """Return the largest |uᵀAv − vᵀAu| / (‖u‖‖Av‖ + ‖v‖‖Au‖) over random pairs u, v.

    >>> symmetry_error(np.array([[1.0, 2.0], [2.0, 3.0]])) < 1e-15
    True
    """
    return adjoint_error(A, A, trials, seed)


def adjoint_error(A, B=None, trials: int = 3, seed: int = 0) -> float:
    """Return the largest |uᵀ(Av) − (Bu)ᵀv| / (‖u‖‖Av‖ + ‖Bu‖‖v‖) over random u, v: zero where B is Aᵀ.

    ``A`` (m, n), ``B`` (n, m): operators or matrices; without ``B``, the operator's own ``A.T``.

    >>> A = np.arange(6.0).reshape(2, 3)
    >>> adjoint_error(A, A.T) < 1e-15, adjoint_error(A, 2 * A.T) > 0.1
    (True, True)
    """
    A = aslinearoperator(A)
    B, random, worst = A.T if B is None else aslinearoperator(B), np.random.default_rng(seed), 0.0
    for _ in range(trials):
        u, v = random.standard_normal(A.shape[0]), random.standard_normal(A.shape[1])
        Av, Bu = A @ v, B @ u
        size = np.linalg.norm(u) * np.linalg.norm(Av) + np.linalg.norm(Bu) * np.linalg.norm(v)
        worst = max(worst, abs(u @ Av - Bu @ v) / max(size, np.finfo(float).tiny))
    return float(worst)


def mean_error(loss, w: np.ndarray, data, parts: int = 3) -> float:
    """Return |L − Σ (nᵢ/n) Lᵢ| / |L|, L the loss(w, X, Y) of all rows, Lᵢ of the nᵢ rows of a part.

    Zero up to rounding for a mean over rows, which is what an objective adds up; not for a sum.

    >>> from hfnb.datasets import Dataset
    >>> data = Dataset(np.eye(4), np.arange(4))
    >>> mean_error(lambda w, X, Y: np.mean(X @ w), np.ones(4), data) < 1e-15
    True
    >>> mean_error(lambda w, X, Y: np.sum(X @ w), np.ones(4), data) > 0.1
    True
    """
    rows = [some for some in np.array_split(np.arange(len(data)), parts) if some.size]
    whole = float(loss(w, data.X, data.Y))
    mean = sum(float(loss(w, data.X[some], data.Y[some])) * len(some) for some in rows) / len(data)
    return abs(whole - mean) / max(abs(whole), np.finfo(float).tiny)


def gradient_error(objective, w: np.ndarray, trials: int = 3, step: float = 1e-5, seed: int = 0) -> float:
    """Return the largest relative error of gᵀv against central differences of F along random unit v.

    (F(w + hv) − F(w − hv)) / 2h, h = ``step``, is itself good to about h² + eps/h: 1e-10 in float64.
    """
    _, g = objective.value_and_gradient(w)
    return max(
        abs(g @ v - (objective.value(w + step * v) - objective.value(w - step * v)) / (2 * step))
        / np.linalg.norm(g)
        for v in _directions(w, trials, seed)
    )


def hessian_error(objective, w: np.ndarray, trials: int = 3, step: float = 1e-5, seed: int = 0) -> float:
    """Return the largest relative error of Hv against central differences of the gradient."""
    H, worst = objective.curvature(w, "hessian"), 0.0
    for v in _directions(w, trials, seed):
        plus, minus = (objective.value_and_gradient(w + sign * step * v)[1] for sign in (1, -1))
        Hv = H @ v
        error = np.linalg.norm(Hv - (plus - minus) / (2 * step))
        worst = max(worst, float(error / np.linalg.norm(Hv)))
    return worst


def _directions(w, trials, seed):
    V = np.random.default_rng(seed).standard_normal((trials, w.size)).astype(w.dtype)
    return V / np.linalg.norm(V, axis=1, keepdims=True)
