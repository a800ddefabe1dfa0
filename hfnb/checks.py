"""Are derivatives and operators right? Checks that return an error, to look at or to assert on.

For a correct operator the error is near zero: it is rounding, and the error of finite differences where they
are used. It is NaN if a number that is compared is NaN.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb.datasets.dataset import Dataset
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

__all__ = [
    "adjoint_error",
    "dense",
    "gauss_newton_error",
    "gradient_error",
    "hessian_error",
    "mean_error",
    "symmetry_error",
]

Operator: TypeAlias = LinearOperator | np.ndarray


class Differentiable(Protocol):
    """What `gradient_error` and `hessian_error` use of an objective."""

    def value(self, w: np.ndarray, /) -> float:
        """Return F(w)."""

    def value_and_gradient(self, w: np.ndarray, /) -> tuple[float, np.ndarray]:
        """Return F(w) and ∇F(w)."""

    def curvature(self, w: np.ndarray, kind: str, /) -> LinearOperator:
        """Return the curvature at w as an operator."""


def dense(A: Operator) -> np.ndarray:
    """Return the matrix of an operator, which takes a product for each column.

    Parameters
    ----------
    A : LinearOperator or ndarray, shape (m, n)
        The operator.

    Returns
    -------
    ndarray, shape (m, n)
        Its matrix.

    Examples
    --------
    >>> dense(np.diag([1.0, 2.0]))
    array([[1., 0.],
           [0., 2.]])
    """
    A = as_operator("A", A)
    # SciPy gives an operator that is defined only by its product the dtype int8.
    dtype = A.dtype if A.dtype in FLOATS else float
    return np.stack([A @ column for column in np.eye(A.shape[1], dtype=dtype)], axis=1)


def symmetry_error(A: Operator, trials: int = 3, seed: int = 0) -> float:
    """Return the largest |uᵀAv − vᵀAu| / (‖u‖‖Av‖ + ‖v‖‖Au‖) over random pairs u, v.

    Parameters
    ----------
    A : LinearOperator or ndarray, shape (n, n)
        The operator.
    trials : int
        Number of pairs, at least 1.
    seed : int
        At least 0; a seed always gives the same pairs.

    Returns
    -------
    float
        The error: zero up to rounding if A is symmetric.

    Raises
    ------
    ValueError
        If the operator is not square.

    Examples
    --------
    >>> symmetry_error(np.array([[1.0, 2.0], [2.0, 3.0]])) < 1e-15
    True
    """
    A = as_operator("A", A)
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"A: expected a square operator, got shape {A.shape}")
    return adjoint_error(A, A, trials, seed)


def adjoint_error(A: Operator, B: Operator | None = None, trials: int = 3, seed: int = 0) -> float:
    """Return the largest |uᵀ(Av) − (Bu)ᵀv| / (‖u‖‖Av‖ + ‖Bu‖‖v‖) over random pairs u, v.

    Parameters
    ----------
    A : LinearOperator or ndarray, shape (m, n)
        The operator.
    B : LinearOperator or ndarray, shape (n, m), optional
        What is to be its transpose; by default the operator's own ``A.T``.
    trials : int
        Number of pairs, at least 1.
    seed : int
        At least 0; a seed always gives the same pairs.

    Returns
    -------
    float
        The error: zero up to rounding if B is Aᵀ.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
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
    return _largest(errors)


def mean_error(
    loss: Callable[[np.ndarray, np.ndarray, np.ndarray], float],
    w: np.ndarray,
    data: Dataset,
    parts: int = 3,
) -> float:
    """Return how much a loss differs from the mean of its values on parts of the data.

    An objective combines the losses of parts of the data, weighted by their numbers of rows. That is correct
    only for a loss that is a mean over rows.

    Parameters
    ----------
    loss : callable
        ``loss(w, X, Y)``, from parameters, inputs and targets to a number.
    w : ndarray, shape (p,)
        Parameters.
    data : Dataset
        Inputs and targets of n rows.
    parts : int
        Number of parts, at least 1.

    Returns
    -------
    float
        |L − Σ (nᵢ/n) Lᵢ| / |L|, where L is the loss of all rows and Lᵢ that of the nᵢ rows of a part: zero up
        to rounding for a mean over rows.

    Examples
    --------
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


def gradient_error(
    objective: Differentiable, w: np.ndarray, trials: int = 3, step: float = 1e-5, seed: int = 0
) -> float:
    """Return the largest relative error of gᵀv against central differences of F along random unit vectors v.

    Parameters
    ----------
    objective : Objective
        What has ``value`` and ``value_and_gradient``.
    w : ndarray, shape (p,)
        Parameters.
    trials : int
        Number of vectors, at least 1.
    step : float
        Length h of the step of the differences, positive.
    seed : int
        At least 0; a seed always gives the same vectors.

    Returns
    -------
    float
        The error, relative to ‖g‖.

    Notes
    -----
    The difference (F(w + hv) − F(w − hv)) / 2h is itself wrong by about h² + ε/h, with ε = 2e-16 in float64:
    1e-10 for the default step.

    Examples
    --------
    >>> from hfnb.problems import rosenbrock
    >>> gradient_error(rosenbrock(), np.array([0.5, 0.2])) < 1e-8
    True
    """
    check_methods("objective", objective, ("value", "value_and_gradient"), "hfnb.Objective(net, data)")
    step = check_positive("step", step, finite=True)
    directions, errors = _directions(w, trials, seed), []
    _, g = objective.value_and_gradient(w)
    for v in directions:
        difference = (objective.value(w + step * v) - objective.value(w - step * v)) / (2 * step)
        errors.append(_relative(abs(g @ v - difference), np.linalg.norm(g)))
    return _largest(errors)


def hessian_error(
    objective: Differentiable, w: np.ndarray, trials: int = 3, step: float = 1e-5, seed: int = 0
) -> float:
    """Return the largest relative error of Hv against central differences of the gradient along v.

    Parameters
    ----------
    objective : Objective
        What has ``value_and_gradient`` and ``curvature``.
    w : ndarray, shape (p,)
        Parameters.
    trials : int
        Number of random unit vectors v, at least 1.
    step : float
        Length h of the step of the differences (∇F(w + hv) − ∇F(w − hv)) / 2h, positive.
    seed : int
        At least 0; a seed always gives the same vectors.

    Returns
    -------
    float
        The error, relative to ‖Hv‖.

    Examples
    --------
    >>> from hfnb.problems import rosenbrock
    >>> hessian_error(rosenbrock(), np.array([0.5, 0.2])) < 1e-8
    True
    """
    check_methods("objective", objective, ("value_and_gradient", "curvature"), "hfnb.Objective(net, data)")
    step = check_positive("step", step, finite=True)
    directions, errors = _directions(w, trials, seed), []
    H = objective.curvature(w, "hessian")
    for v in directions:
        plus, minus = (objective.value_and_gradient(w + sign * step * v)[1] for sign in (1, -1))
        Hv = H @ v
        errors.append(_relative(np.linalg.norm(Hv - (plus - minus) / (2 * step)), np.linalg.norm(Hv)))
    return _largest(errors)


def gauss_newton_error(
    objective: Differentiable,
    w: np.ndarray,
    data: Dataset,
    trials: int = 3,
    step: float = 1e-4,
    seed: int = 0,
) -> float:
    """Return the largest relative error of vᵀGv against finite differences of the outputs and of their loss.

    Parameters
    ----------
    objective : Objective
        What has ``curvature``, and a ``net`` with ``outputs``, ``output_loss`` and ``decay``.
    w : ndarray, shape (p,)
        Parameters, of float64.
    data : Dataset
        The samples of the objective.
    trials : int
        Number of random unit vectors v, at least 1.
    step : float
        Length h of the steps of the differences, positive.
    seed : int
        At least 0; a seed always gives the same vectors.

    Returns
    -------
    float
        The error, relative to vᵀGv.

    Notes
    -----
    With z = outputs(w, X), J v is (outputs(w + hv, X) − outputs(w − hv, X)) / 2h, and vᵀGv is the second
    derivative of the loss ℓ of outputs along J v, (ℓ(z + hJv) − 2ℓ(z) + ℓ(z − hJv)) / h², plus that of the
    weight decay, vᵀ decay(v). Rounding makes the difference wrong by about 4ε/h², with ε = 2e-16 in float64:
    1e-7 for the default step.

    Examples
    --------
    >>> from hfnb import Objective, models
    >>> data = Dataset(np.eye(4), np.array([0, 1, 0, 1]))
    >>> net = models.mlp([4, 3, 2])
    >>> gauss_newton_error(Objective(net, data), net.init(0, dtype=float), data) < 1e-4
    True
    """
    check_methods("objective", objective, ("curvature",), "hfnb.Objective(net, data)")
    net: Any = getattr(objective, "net", None)
    check_methods(
        "objective.net", net, ("outputs", "output_loss", "decay"), "a model with its loss in two parts"
    )
    check_data("data", data)
    step, directions, errors = check_positive("step", step, finite=True), _directions(w, trials, seed), []
    G, z = objective.curvature(w, "gauss-newton"), net.outputs(w, data.X)
    for v in directions:
        Jv = (net.outputs(w + step * v, data.X) - net.outputs(w - step * v, data.X)) / (2 * step)
        plus, middle, minus = (net.output_loss(z + sign * step * Jv, data.Y) for sign in (1, 0, -1))
        vGv = (plus - 2 * middle + minus) / step**2 + v @ net.decay(v)
        errors.append(_relative(abs(v @ (G @ v) - vGv), abs(vGv)))
    return _largest(errors)


def _relative(error: float | np.floating, size: float | np.floating) -> float:
    """Return error / size, where size may be zero; NaN if either of them is NaN."""
    return error / np.maximum(size, np.finfo(float).tiny)


def _largest(errors: list[float]) -> float:
    """Return the largest error, or NaN if one is NaN, which Python's max can miss."""
    return float(np.max(errors))


def _directions(w: np.ndarray, trials: int, seed: int) -> np.ndarray:
    """Return random unit vectors (trials, p) in the precision of w."""
    check_vector("w", w)
    trials, seed = check_positive_int("trials", trials), check_nonnegative_int("seed", seed)
    V = np.random.default_rng(seed).standard_normal((trials, w.size)).astype(w.dtype)
    return V / np.linalg.norm(V, axis=1, keepdims=True)
