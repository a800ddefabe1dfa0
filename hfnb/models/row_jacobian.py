"""The Jacobian of all rows by one way back, where parameters are used in products with weights only.

Back-propagation yields the sum of the gradients of all rows. If row i of the result depends on row i of the
inputs alone, the gradient of each row is in it, too: the weights W of z = a W + b have the gradient Σᵢ aᵢ δᵢᵀ
with δ = ∂(sum of the result)/∂z, so that aᵢ δᵢᵀ is the part of row i (Goodfellow, "Efficient per-example
gradient computations", arXiv 1510.01799, 2015). One pass back therefore gives all rows of a Jacobian.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from autograd.differential_operators import make_vjp
from autograd.extend import defvjp, primitive
from autograd.tracer import getval


class _Followed(threading.local):
    """The products that this thread follows now; None for none."""

    layers: "_Layers | None" = None


followed = _Followed()


@primitive
def _seen(z: np.ndarray, see: Callable[[np.ndarray], None]) -> np.ndarray:
    """Return z; on the way back, ``see`` gets the derivative of the result with respect to it."""
    return z


def _vjp_of_seen(answer: np.ndarray, z: np.ndarray, see: Callable[[np.ndarray], None]) -> Any:
    def back(g: np.ndarray) -> np.ndarray:
        see(g)
        return g

    return back


defvjp(_seen, _vjp_of_seen, argnums=(0,))


class _Layers:
    """The products of one evaluation: for each layer its inputs, and the derivatives δ after the way back."""

    def __init__(self) -> None:
        self.products: list[tuple[Any, np.ndarray, bool, list[np.ndarray]]] = []

    def follow(self, layer: Any, a: Any, biased: bool, z: Any) -> Any:
        """Note a product z = a W + b of a layer, and return z."""
        deltas: list[np.ndarray] = []
        self.products.append((layer, getval(a), biased, deltas))
        return _seen(z, deltas.append)

    def forget(self) -> None:
        """Remove the derivatives of the last way back."""
        for *_, deltas in self.products:
            deltas.clear()

    def rows(self, count: int, size: int, dtype: Any) -> np.ndarray | None:
        """Return the gradients of all rows, (count, size); None if a product has no row for each."""
        J, by_layer = np.zeros((count, size), dtype), dict[Any, list[Any]]()
        for layer, a, biased, deltas in self.products:
            if deltas:  # else the result does not depend on it
                if len(a) != count or np.ndim(a) != 2:
                    return None
                by_layer.setdefault(layer, []).append((a, biased, deltas[0]))
        for layer, products in by_layer.items():
            a = np.stack([each for each, _, _ in products], axis=2)
            delta = np.stack([each for _, _, each in products], axis=1)
            J[:, layer.start : layer.middle] = (a @ delta).reshape(count, -1)
            for _, biased, each in products:
                if biased:
                    J[:, layer.middle : layer.stop] += each
        return J


def row_jacobian(f: Callable[[np.ndarray], Any], w: np.ndarray, rows: int) -> np.ndarray | None:
    """Return the derivatives of every row of a result with respect to the parameters, by one pass back.

    Parameters
    ----------
    f : callable
        (p,) -> (rows,) or (rows, k), in functions of ``autograd.numpy``. Row i may depend on the parameters
        only by the rows i of products that `hfnb.models.network.Layer.product` makes.
    w : ndarray, shape (p,)
        Parameters.
    rows : int
        Number of rows.

    Returns
    -------
    ndarray, shape (rows * k, p), or None
        The Jacobian: the k rows of the first sample, then those of the second. None if f uses w otherwise:
        then the sum of the rows is not the gradient of the sum.

    Examples
    --------
    >>> from hfnb.models import mlp
    >>> net = mlp([2, 1], loss="squared_error")
    >>> row_jacobian(lambda w: 2 * net.outputs(w, np.array([[5.0, 7.0]])), np.ones(3), rows=1)
    array([[10., 14.,  2.]])
    >>> row_jacobian(lambda w: w[0] * net.outputs(w, np.array([[5.0, 7.0]])), np.ones(3), rows=1) is None
    True
    """
    followed.layers = layers = _Layers()
    try:
        back, r = make_vjp(f)(w)
    finally:
        followed.layers = None
    columns = []
    for column in range(1 if r.ndim == 1 else r.shape[1]):
        layers.forget()
        unit = np.zeros(r.shape, w.dtype)
        unit[(slice(None), column)[: r.ndim]] = 1
        total = back(unit)
        J = layers.rows(rows, w.size, w.dtype)
        if J is None or not _agree(J, total):
            return None
        columns.append(J)
    return np.stack(columns, axis=1).reshape(-1, w.size)


def _agree(J: np.ndarray, total: np.ndarray) -> bool:
    """Return whether the rows of J add up to a gradient, but for rounding; False if they are not finite."""
    allowed = np.sqrt(np.finfo(J.dtype).eps) * np.abs(J).sum(axis=0)
    return bool((np.abs(J.sum(axis=0) - total) <= allowed).all())
