"""Checkers for users and tests alike: they return an error, for you to look at or to assert on.

Where a number that they compare is NaN, the error is NaN.
"""

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb.krylov.system import as_operator
from hfnb.validation import (
    FLOATS,
    check_callable,
    check_data,
    check_methods,
    check_nonnegative_int,
    check_positive,
    check_positive_int,
    check_vector,
)


def dense(A: LinearOperator) -> np.ndarray:
    """Return the matrix of an operator, a product for each column: for small p.

    >>> dense(np.diag([1.0, 2.0]))
    array([[1., 0.],
           [0., 2.]])
    """
    A = as_operator("A", A)
    # SciPy takes int8 for the type of an operator of which only its product is known.
    dtype = A.dtype if A.dtype in FLOATS else float
    return np.stack([A @ column for column in np.eye(A.shape[1], dtype=dtype)], axis=1)


def symmetry_error(A, trials: int = 3, seed: int = 0) -> float:
    """Return the largest |uᵀAv − vᵀAu| / (‖u‖‖Av‖ + ‖v‖‖Au‖) over random pairs u, v.

    >>> symmetry_error(np.array([[1.0, 2.0], [2.0, 3.0]])) < 1e-15
    True
    """
    A = as_operator("A", A)
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"A: expected a square operator, got shape {A.shape}")
    return adjoint_error(A, A, trials, seed)


def adjoint_error(A, B=None, trials: int = 3, seed: int = 0) -> float:
    """Return the largest |uᵀ(Av) − (Bu)ᵀv| / (‖u‖‖Av‖ + ‖Bu‖‖v‖) over random u, v: zero where B is Aᵀ.

    ``A`` (m, n), ``B`` (n, m): operators or matrices; without ``B``, the operator's own ``A.T``.

    >>> A = np.arange(6.0).reshape(2, 3)
    >>> adjoint_error(A, A.T) < 1e-15, adjoint_error(A, 2 * A.T) > 0.1
    (True, True)
    """
    A = as_operator("A", A)
    B = A.T if B is None else as_operator("B", B)
    if B.shape != A.shape[::-1]:
        raise ValueError(f"B: expected shape {A.shape[::-1]}, that of Aᵀ, got {B.shape}")
    random, errors = np.random.default_rng(check_nonnegative_int("seed", seed)), []
    for _ in range(check_positive_int("trials", trials)):
        u, v = random.standard_normal(A.shape[0]), random.standard_normal(A.shape[1])
        Av, Bu = A @ v, B @ u
        size = np.linalg.norm(u) * np.linalg.norm(Av) + np.linalg.norm(Bu) * np.linalg.norm(v)
        errors.append(_relative(abs(u @ Av - Bu @ v), size))
    return _worst(errors)


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
    check_callable("loss", loss, "(w, X, Y) -> mean loss")
    check_vector("w", w)
    check_data("data", data)
    check_positive_int("parts", parts)
    rows = [some for some in np.array_split(np.arange(len(data.X)), parts) if some.size]
    whole = float(loss(w, data.X, data.Y))
    mean = sum(float(loss(w, data.X[some], data.Y[some])) * len(some) for some in rows) / len(data.X)
    return float(_relative(abs(whole - mean), abs(whole)))


def gradient_error(objective, w: np.ndarray, trials: int = 3, step: float = 1e-5, seed: int = 0) -> float:
    """Return the largest relative error of gᵀv against central differences of F along random unit v.

    (F(w + hv) − F(w − hv)) / 2h, h = ``step``, is itself good to about h² + eps/h: 1e-10 in float64.
    """
    check_methods("objective", objective, ("value", "value_and_gradient"), "hfnb.Objective(net, data)")
    step = check_positive("step", step, finite=True)
    directions, errors = _directions(w, trials, seed), []
    _, g = objective.value_and_gradient(w)
    for v in directions:
        difference = (objective.value(w + step * v) - objective.value(w - step * v)) / (2 * step)
        errors.append(_relative(abs(g @ v - difference), np.linalg.norm(g)))
    return _worst(errors)


def hessian_error(objective, w: np.ndarray, trials: int = 3, step: float = 1e-5, seed: int = 0) -> float:
    """Return the largest relative error of Hv against central differences of the gradient."""
    check_methods("objective", objective, ("value_and_gradient", "curvature"), "hfnb.Objective(net, data)")
    step = check_positive("step", step, finite=True)
    directions, errors = _directions(w, trials, seed), []
    H = objective.curvature(w, "hessian")
    for v in directions:
        plus, minus = (objective.value_and_gradient(w + sign * step * v)[1] for sign in (1, -1))
        Hv = H @ v
        errors.append(_relative(np.linalg.norm(Hv - (plus - minus) / (2 * step)), np.linalg.norm(Hv)))
    return _worst(errors)


def _relative(error, size):
    """The error by the size of what it is an error of, which may be zero; NaN where either is."""
    return error / np.maximum(size, np.finfo(float).tiny)


def _worst(errors) -> float:
    """The largest error, NaN if one is: Python's max would pass it over."""
    return float(np.max(errors))


def _directions(w, trials, seed):
    check_vector("w", w)
    trials, seed = check_positive_int("trials", trials), check_nonnegative_int("seed", seed)
    V = np.random.default_rng(seed).standard_normal((trials, w.size)).astype(w.dtype)
    return V / np.linalg.norm(V, axis=1, keepdims=True)
