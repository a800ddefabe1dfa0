"""Least squares: residuals of any autograd function, in one term or several, and their Jacobian.

The loss of a model of this kind is half the mean of squares, F(w) = (1/2n) Σ ‖rᵢ(w)‖². Its Gauss–Newton
matrix is JᵀJ / n with the Jacobian J of the residuals, so that a small problem can be solved with J itself
(`hfnb.levenberg_marquardt`) and a large one with products (`hfnb.hessian_free`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.differential_operators import make_vjp
from autograd.tracer import getval, isbox

from hfnb.datasets import Dataset
from hfnb.models.backprop import output_jacobian
from hfnb.models.network import Network
from hfnb.models.row_jacobian import row_jacobian
from hfnb.objectives.curvature import NOT_DIFFERENTIABLE
from hfnb.validation import (
    check_callable,
    check_data,
    check_nonnegative,
    check_positive,
    check_sequence,
    shown,
)

TAPED = 16  # rows whose residuals autograd records together: a record costs time, and so does each row in it


@dataclass(frozen=True)
class LeastSquares:
    """Half the mean of squared residuals, as a `hfnb.objectives.Model`; see `Objective.from_residuals`.

    Attributes
    ----------
    residuals : tuple of callable
        For each term r(w, X, Y), of shape (rows,) or (rows, k).
    scales : tuple of float
        The factor of the residuals of each term.
    shapes : tuple of (int, tuple of int)
        For each term the number of columns of X, and the shape of one row of Y.
    weight_decay : float
        c of the term ½ c ‖w‖² that `hfnb.Objective` adds.
    """

    residuals: tuple[Callable[..., Any], ...]
    scales: tuple[float, ...]
    shapes: tuple[tuple[int, tuple[int, ...]], ...]
    weight_decay: float = 0.0

    @classmethod
    def of(
        cls, residuals: Any, data: Any, weights: Any = None, weight_decay: float = 0.0
    ) -> tuple["LeastSquares", Dataset]:
        """Return the model of one or several terms, and their samples in one dataset.

        Parameters
        ----------
        residuals : callable or sequence of callable
            r(w, X, Y) of each term.
        data : Dataset or sequence of Dataset
            The samples of each term.
        weights : sequence of float, optional
            Positive; 1 for each term by default.
        weight_decay : float
            c.

        Returns
        -------
        model : LeastSquares
        data : Dataset
            The rows of all terms, as `packed` arranges them.
        """
        functions = [residuals] if callable(residuals) else list(check_sequence("residuals", residuals))
        parts = [data] if isinstance(data, Dataset) else list(check_sequence("data", data))
        if not len(functions) == len(parts) > 0:
            raise ValueError(
                f"data: expected one dataset for each of {len(functions)} residuals, got {len(parts)}"
            )
        for function, part in zip(functions, parts, strict=True):
            check_callable("residuals", function, "(w, X, Y) -> residuals, one row for each row of X")
            check_data("data", part)
            if part.X.ndim != 2 or part.X.dtype.kind not in "fiub" or part.Y.dtype.kind not in "fiub":
                got = f"{shown(part.X)} and {shown(part.Y)}"
                raise ValueError(f"data: expected rows X of shape (n, d) and numbers Y, got {got}")
        given = [1.0] * len(parts) if weights is None else list(check_sequence("weights", weights))
        if len(given) != len(parts):
            raise ValueError(f"weights: expected one for each of {len(parts)} terms, got {len(given)}")
        n = sum(map(len, parts))
        factors = [
            check_positive("weights", weight) * n / len(part)
            for weight, part in zip(given, parts, strict=True)
        ]
        shapes = tuple((part.X.shape[1], part.Y.shape[1:]) for part in parts)
        decay = check_nonnegative("weight_decay", weight_decay, finite=True)
        model = cls(tuple(functions), tuple(float(np.sqrt(factor)) for factor in factors), shapes, decay)
        return model, model.packed(parts)

    def packed(self, parts: Sequence[Dataset]) -> Dataset:
        """Return the samples of all terms as one dataset.

        Parameters
        ----------
        parts : sequence of Dataset
            The samples of each term.

        Returns
        -------
        Dataset
            A row of X holds the number of its term, its row of the term's X, and its row of Y, in float64.
        """
        blocks = []
        width = 1 + max(columns + int(np.prod(shape)) for columns, shape in self.shapes)
        for number, part in enumerate(parts):
            block = np.zeros((len(part), width))
            row = np.column_stack([np.full(len(part), number), part.X, part.Y.reshape(len(part), -1)])
            block[:, : row.shape[1]] = row
            blocks.append(block)
        X = np.concatenate(blocks)
        return Dataset(X, np.zeros((len(X), 1)), name=", ".join(part.name for part in parts))

    def outputs(self, w: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Return all residuals of some rows times the scales of their terms, (m,), in ``autograd.numpy``."""
        terms = np.unique(X[:, 0]).astype(int)
        found = [anp.reshape(self._term(w, X[X[:, 0] == number], number), (-1,)) for number in terms]
        return found[0] if len(found) == 1 else anp.concatenate(found)

    def row_jacobian(self, w: np.ndarray, X: np.ndarray, number: int) -> np.ndarray | None:
        """Return the Jacobian of one term by one way back, None if that is not possible."""
        rows = X[X[:, 0] == number]
        return row_jacobian(lambda w: self._term(w, rows, number), w, len(rows))

    def _term(self, w: np.ndarray, X: np.ndarray, number: int) -> Any:
        """Return the residuals of rows of one term times its scale, (rows,) or (rows, k)."""
        columns, shape = self.shapes[number]
        inputs = X[:, 1 : 1 + columns]
        targets = X[:, 1 + columns : 1 + columns + int(np.prod(shape))].reshape(len(X), *shape)
        try:
            r = self.residuals[number](w, inputs, targets)
        except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
            if isbox(w):
                self.residuals[number](
                    getval(w), inputs, targets
                )  # raises its own error if it is wrong itself
                raise TypeError(f"{self._name(number)}: {NOT_DIFFERENTIABLE}") from error
            raise
        self._check(number, w, r, len(X))
        if len(X) > 1 and np.shape(r) == (len(X),) * 2:
            self._check_rows(number, self.residuals[number](w, inputs[:1], targets[:1]), len(X))
        return r * self.scales[number]

    def _name(self, number: int) -> str:
        """Return what messages call the residuals of a term."""
        return "residuals" if len(self.residuals) == 1 else f"residuals[{number}]"

    def _check_rows(self, number: int, first: Any, rows: int) -> None:
        """Raise ValueError if all rows are paired with all rows: the result of the first alone is shorter."""
        if np.shape(first) != (1, rows):
            raise ValueError(
                f"{self._name(number)}: expected a row for each row of X, got shape {(rows, rows)}: all rows "
                "are paired with all rows, as X[:, 0] - Y does for a Y of shape (n, 1)"
            )

    def _check(self, number: int, w: np.ndarray, r: Any, rows: int) -> None:
        """Raise an error that names the term unless r has a row for each sample and depends on w."""
        name = self._name(number)
        if isinstance(r, (tuple, list)):
            raise TypeError(f"{name}: expected an array, a row for each row of X, got a {type(r).__name__}")
        if isbox(w) and not isbox(r):
            raise ValueError(
                f"{name}: expected a function of w written with autograd.numpy, got a result that autograd "
                "cannot follow: it does not depend on w, or was computed with numpy, float() or math"
            )
        shape = np.shape(r)
        if not shape or shape[0] != rows or len(shape) > 2:
            raise ValueError(
                f"{name}: expected shape ({rows},) or ({rows}, k), a row for each row of X, got {shape}"
            )
        if not isbox(r) and np.asarray(r).dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected real numbers, got {shown(r)}")

    def output_loss(self, z: np.ndarray, Y: np.ndarray) -> float:
        """Return half the mean over rows of the squared residuals, in ``autograd.numpy``."""
        return 0.5 * anp.sum(z * z) / len(Y)

    def loss(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> float:
        """Return the mean loss of some rows, in ``autograd.numpy``."""
        return self.output_loss(self.outputs(w, X), Y)

    def decay(self, v: np.ndarray) -> np.ndarray:
        """Return the gradient of ½ c ‖w‖² at v, (p,)."""
        return v.dtype.type(self.weight_decay) * v


def check_least_squares(net: Any, name: str = "objective") -> None:
    """Raise ValueError, which names an argument, unless the loss of a model is half the mean of squares."""
    if isinstance(net, LeastSquares) or (isinstance(net, Network) and net.loss_name == "squared_error"):
        return
    found = f"the loss {net.loss_name}" if isinstance(net, Network) else shown(net)
    raise ValueError(
        f"{name}: expected least squares, such as Objective.from_residuals(residuals, data), or a network "
        f"with the loss squared_error, got {found}"
    )


def residuals_of(net: Any, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> np.ndarray:
    """Return the residuals of some rows.

    Parameters
    ----------
    net : LeastSquares or Network
        The model.
    w : ndarray, shape (p,)
        Parameters.
    X, Y : ndarray
        The rows.

    Returns
    -------
    ndarray, shape (m,)
        r with ½ ‖r‖² equal to the sum of the losses.
    """
    if isinstance(net, Network):
        return (net.forward(w, X)[-1] - Y).astype(w.dtype, copy=False).ravel()
    return net.outputs(w, X)


def jacobian_of(net: Any, w: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return the Jacobian of the residuals of some rows.

    Parameters
    ----------
    net : LeastSquares or Network
        The model. The Jacobian of a network is computed by hand-written back-propagation. Any other is
        computed by autograd: by one way back for all rows, where all parameters are in products
        (`hfnb.models.product`), else by one for each residual.
    w : ndarray, shape (p,)
        Parameters.
    X : ndarray
        The rows.

    Returns
    -------
    ndarray, shape (m, p)
        ∂r/∂w.
    """
    if isinstance(net, Network):
        return output_jacobian(net, w, X)
    fast = [net.row_jacobian(w, X, number) for number in np.unique(X[:, 0]).astype(int)]
    found = [each for each in fast if each is not None]
    return np.concatenate(found) if len(found) == len(fast) else _one_by_one(net, w, X)


def _one_by_one(net: LeastSquares, w: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return the Jacobian of the residuals, each by a way back of its own."""
    blocks = []
    for start in range(0, len(X), TAPED):
        back, r = make_vjp(net.outputs)(w, X[start : start + TAPED])
        blocks.append(np.stack([back(unit) for unit in np.eye(len(r), dtype=w.dtype)]))
    return np.concatenate(blocks)
