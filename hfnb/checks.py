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
    A, random, worst = aslinearoperator(A), np.random.default_rng(seed), 0.0
    for _ in range(trials):
        u, v = random.standard_normal((2, A.shape[0]))
        Au, Av = A @ u, A @ v
        size = np.linalg.norm(u) * np.linalg.norm(Av) + np.linalg.norm(v) * np.linalg.norm(Au)
        worst = max(worst, abs(u @ Av - v @ Au) / max(size, np.finfo(float).tiny))
    return float(worst)


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
