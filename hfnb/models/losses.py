"""Losses of a network's outputs, by name: each in autograd, and by hand for back-propagation.

To add one, add an entry to `LOSSES` and its targets to `check_targets`; the tests compare its derivatives
with those of autograd. A loss for a model of your own needs neither: see `hfnb.Objective.from_loss`.
"""

from collections.abc import Callable
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defvjp, primitive
from autograd.tracer import getval
from numpy.typing import DTypeLike

from hfnb.validation import check_plain_array, shown

Product = Callable[[np.ndarray], np.ndarray]


class Loss(NamedTuple):
    """One loss of outputs z (batch, k) against targets Y: for autograd and for back-propagation.

    Attributes
    ----------
    mean : callable
        ``mean(z, Y)``: the mean over the batch in ``autograd.numpy``, which differentiates it.
    total : callable
        ``total(z, Y)``: the sum over the batch in NumPy, accumulated in float64.
    derivatives : callable
        ``derivatives(z, Y)``: the sum, its gradient with respect to z, (batch, k), and the function that
        applies its Hessian with respect to z to an array (batch, k).
    """

    mean: Callable[[np.ndarray, np.ndarray], float]
    total: Callable[[np.ndarray, np.ndarray], float]
    derivatives: Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray, Product]]


@primitive
def _cast(x: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Return x in another precision. Autograd's own ``astype`` has no derivative in forward mode."""
    return x.astype(dtype)


defvjp(_cast, lambda ans, x, dtype: lambda g: _cast(g, x.dtype))
defjvp(_cast, lambda dx, ans, x, dtype: _cast(dx, dtype))


def _log_sum_exp(z: np.ndarray) -> np.ndarray:
    """Return log Σ_j exp(z_j) of each row, without overflow, in ``autograd.numpy``.

    It is not autograd.scipy.special.logsumexp, because importing that one imports all of scipy.stats, which
    would take every engine half a second to start.
    """
    largest = np.max(getval(z), axis=1, keepdims=True)
    shift = np.where(np.isfinite(largest), largest, 0.0).astype(largest.dtype)  # without a derivative
    return anp.log(anp.sum(anp.exp(z - shift), axis=1)) + shift[:, 0]


def cross_entropy(z: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of −log softmax(z)[label] over the batch.

    Parameters
    ----------
    z : ndarray, shape (batch, k)
        Outputs (logits).
    labels : ndarray of int, shape (batch,)
        The correct class of each sample, from 0 to k − 1.

    Returns
    -------
    float
        The mean loss, accumulated in float64. It is written in ``autograd.numpy`` and can be differentiated
        to any order; derivatives have the precision of z.

    Notes
    -----
    −log softmax(z)[y] = log Σ_j exp(z_j) − z_y, and the logarithm of the sum is computed without overflow.

    Examples
    --------
    >>> round(float(cross_entropy(np.zeros((1, 4)), np.array([2]))), 6)  # log 4
    1.386294
    """
    losses = _log_sum_exp(z) - z[np.arange(len(z)), labels]
    return anp.mean(_cast(losses, np.float64))


def squared_error(z: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of ½‖z − target‖² over the batch.

    Parameters
    ----------
    z, targets : ndarray, shape (batch, k)
        Outputs and targets.

    Returns
    -------
    float
        The mean loss, accumulated in float64. It is written in ``autograd.numpy`` and can be differentiated
        to any order; derivatives have the precision of z.

    Examples
    --------
    >>> float(squared_error(np.array([[3.0, 4.0]]), np.zeros((1, 2))))
    12.5
    """
    return 0.5 * anp.sum(_cast(z - targets, np.float64) ** 2) / len(z)


def check_targets(name: str, loss: str, outputs: tuple[int, int], Y: np.ndarray) -> None:
    """Raise an error unless Y is valid as targets for a loss and a shape of the outputs.

    Parameters
    ----------
    name : str
        What the message calls Y.
    loss : str
        A name in `LOSSES`.
    outputs : tuple of int
        Shape (batch, k) of the outputs.
    Y : ndarray
        Targets: integers (batch,) from 0 to k − 1 for "cross_entropy", real numbers (batch, k) for
        "squared_error".

    Raises
    ------
    TypeError
        If Y is not a dense array of real numbers.
    ValueError
        If its shape, its type or one of its labels does not fit. NumPy would read a negative label from the
        end of the row and broadcast targets of another shape.
    """
    check_plain_array(name, Y)
    shape, kind = getattr(Y, "shape", None), getattr(getattr(Y, "dtype", None), "kind", "none")
    batch, k = outputs
    if shape is None:
        raise TypeError(f"{name}: expected an array for the loss {loss}, got {shown(Y)}")
    if loss == "cross_entropy":
        if len(shape) != 1 or kind not in "iu":
            raise ValueError(
                f"{name}: expected integer class labels (n,) for the loss cross_entropy, got {shown(Y)}"
            )
    elif kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers for the loss squared_error, got {shown(Y)}")
    expected = (batch,) if loss == "cross_entropy" else (batch, k)
    if shape != expected:
        raise ValueError(f"{name}: expected shape {expected} for the loss {loss}, got {shape}")
    if loss == "cross_entropy" and batch and not 0 <= Y.min() <= Y.max() < k:
        wrong = Y.min() if Y.min() < 0 else Y.max()
        raise ValueError(f"{name}: expected labels from 0 and below {k}, the number of outputs, got {wrong}")


def _exponentials(z: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return E = exp(z − the largest of its row), the row sums of E (batch, 1), and the losses (batch,)."""
    top = z.max(axis=1, keepdims=True)
    E = np.exp(z - top)
    sums = E.sum(axis=1, keepdims=True)
    return E, sums, (np.log(sums) + top)[:, 0] - z[np.arange(len(z)), labels]


def _cross_entropy_total(z: np.ndarray, labels: np.ndarray) -> float:
    """Return the sum of the losses."""
    _, _, losses = _exponentials(z, labels)
    return float(np.sum(losses, dtype=np.float64))


def _cross_entropy_derivatives(z: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray, Product]:
    """Return the sum, its gradient p − onehot(label), p the softmax, and products with diag(p) − p pᵀ."""
    p, sums, losses = _exponentials(z, labels)
    p /= sums
    residual = p.copy()
    residual[np.arange(len(z)), labels] -= 1

    def product(v: np.ndarray) -> np.ndarray:
        out = v - np.einsum("ij,ij->i", p, v)[:, None]
        out *= p
        return out

    return float(np.sum(losses, dtype=np.float64)), residual, product


def _squared_error_total(z: np.ndarray, targets: np.ndarray) -> float:
    """Return the sum of the losses."""
    residual = z - targets
    return float(0.5 * np.einsum("ij,ij->", residual, residual, dtype=np.float64))


def _squared_error_derivatives(z: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray, Product]:
    """Return the sum, its gradient z − target, and products with its Hessian, the identity."""
    residual = z - targets
    loss = float(0.5 * np.einsum("ij,ij->", residual, residual, dtype=np.float64))
    return loss, residual, lambda v: v


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(cross_entropy, _cross_entropy_total, _cross_entropy_derivatives),
    "squared_error": Loss(squared_error, _squared_error_total, _squared_error_derivatives),
}
