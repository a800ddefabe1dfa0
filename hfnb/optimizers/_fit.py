"""Regression in one call: a model, inputs and targets."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult

from hfnb.datasets import Dataset
from hfnb.models import Network
from hfnb.objectives.evaluator import default_memory
from hfnb.objectives.objective import Objective
from hfnb.objectives.residuals import check_least_squares
from hfnb.optimizers._hessian_free import hessian_free
from hfnb.optimizers._levenberg_marquardt import levenberg_marquardt
from hfnb.validation import check_nonnegative, check_nonnegative_int, check_real, check_vector, shown

SMALL = 4000  # the largest matrix to factorize; its size is that of the smaller side of the Jacobian


def fit(
    model: Network | Callable[[np.ndarray, np.ndarray], Any],
    X: ArrayLike,
    Y: ArrayLike,
    w0: ArrayLike | None = None,
    *,
    weight_decay: float = 0.0,
    max_iter: int = 200,
    seed: int = 0,
    **options: Any,
) -> OptimizeResult:
    """Fit a model to data by least squares, as precisely as float64 allows.

    Parameters
    ----------
    model : Network or callable
        A network with the loss "squared_error", as ``hfnb.models.mlp(sizes, loss="squared_error")`` returns,
        or a function (w, X) -> predictions, of shape (n,) or (n, k), in functions of ``autograd.numpy``.
    X : array_like, shape (n,) or (n, d)
        Inputs. A function gets them with shape (n, d).
    Y : array_like, shape (n,) or (n, k)
        Targets.
    w0 : array_like, shape (p,), optional
        The start; a function needs one. By default that of the network for ``seed``.
    weight_decay : float
        c of the term ½ c ‖w‖², for a function; a network has its own.
    max_iter : int
        The most iterations.
    seed : int
        Seed of the start.
    **options
        Further options of the optimizer: `levenberg_marquardt` if there are at most 4,000 residuals or at
        most 4,000 parameters and the Jacobian fits in memory, else `hessian_free` with ``method="martens"``.

    Returns
    -------
    OptimizeResult
        The result of the optimizer, with ``predict``, a function of inputs in the form of X that returns
        predictions in the form of Y. A precise fit of a network usually ends at ``max_iter``, without
        ``success``, because the gradient still falls: judge it by ``fun``, or by predictions on other data.

    Raises
    ------
    ValueError, TypeError
        If an argument has another form.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> x = np.linspace(0, 1, 30)
    >>> found = fit(lambda w, X: w[0] * np.sin(w[1] * X[:, 0]), x, 2 * np.sin(3 * x), w0=[1.0, 2.0])
    >>> found.x.round(8)
    array([2., 3.])
    >>> bool(abs(found.predict(np.array([0.5]))[0] - 2 * np.sin(1.5)) < 1e-8)
    True
    """
    inputs, targets = _table("X", X), _table("Y", Y)
    if len(inputs) != len(targets):
        raise ValueError(f"Y: expected as many rows as X, {len(inputs)}, got {len(targets)}")
    decay = check_nonnegative("weight_decay", weight_decay, finite=True)
    predict: Any = model.predict if isinstance(model, Network) else model
    if isinstance(model, Network):
        if decay:
            raise ValueError("weight_decay: expected 0 for a network, which has a weight decay of its own")
        check_least_squares(model, "model")
        objective = Objective(model, Dataset(inputs, targets))
        start = model.init(check_nonnegative_int("seed", seed), dtype=float) if w0 is None else w0
    else:
        if not callable(model):
            raise TypeError(f"model: expected a network or a function (w, X) -> Y, got {shown(model)}")
        if w0 is None:
            raise ValueError("w0: expected a start for a model that is a function")
        data, residuals, start = Dataset(inputs, targets), partial(_difference, model), w0
        objective = Objective.from_residuals(residuals, data, weight_decay=decay)
    check_vector("w0", np.asarray(start) if isinstance(start, (list, tuple)) else start)
    w = np.array(start, dtype=float)
    entries, smaller = targets.size * w.size, min(targets.size, w.size)
    if smaller <= SMALL and entries * w.itemsize <= default_memory():
        found = levenberg_marquardt(objective, w, max_iter=max_iter, seed=seed, **options)
    else:
        found = hessian_free(
            objective, w, **{"method": "martens", "max_iter": max_iter, "seed": seed, **options}
        )
    found.predict = partial(_predicted, predict, found.x, np.ndim(Y) == 1)
    return found


def _table(name: str, values: ArrayLike) -> np.ndarray:
    """Return values as rows, (n, d), in float64; an error names the argument."""
    table = check_real(name, values).astype(float)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or not table.size:
        raise ValueError(f"{name}: expected shape (n,) or (n, d), got {np.shape(values)}")
    if not np.isfinite(table).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return table


def _difference(model: Callable[..., Any], w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> Any:
    """Return predictions minus targets, a row for each sample."""
    predicted = model(w, X)
    shape = np.shape(predicted)
    if shape not in (Y.shape, (len(Y),)) or (shape != Y.shape and Y.shape[1] != 1):
        raise ValueError(f"model: expected predictions of shape {Y.shape}, as the targets, got {shape}")
    return predicted - Y.reshape(shape)


def _predicted(predict: Callable[..., Any], w: np.ndarray, flat: bool, X: ArrayLike) -> np.ndarray:
    """Return the predictions for some inputs, (n,) if ``flat``, else (n, k)."""
    predictions = np.asarray(predict(w, _table("X", X)))
    return predictions.reshape(len(predictions)) if flat else predictions.reshape(len(predictions), -1)
