"""The Jacobian of all rows by one way back, where parameters are used in products with weights only.

Back-propagation yields the sum of the gradients of all rows. If row i of the result depends on row i of the
inputs alone, the gradient of each row is in it, too: the weights W of z = a W + b have the gradient Σᵢ aᵢ δᵢᵀ
with δ = ∂(sum of the result)/∂z, so that aᵢ δᵢᵀ is the part of row i (Goodfellow, "Efficient per-example
gradient computations", arXiv 1510.01799, 2015). One way back therefore gives all rows of a Jacobian. A few
parameters that are used otherwise, such as an unknown coefficient of a differential equation, cost two more
ways each.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from autograd.differential_operators import make_vjp
from autograd.extend import defvjp, primitive
from autograd.tracer import getval


class _Following(threading.local):
    """The list to which this thread adds the products that it makes now; None for none."""

    products: "list[Product] | None" = None


following = _Following()
FEW = 16  # parameters that may be used outside of products


class Product:
    """One product z = a W + b: its arrays, and δ after the way back, None before it."""

    def __init__(self, a: Any, W: Any, b: Any) -> None:
        self.a, self.W, self.b = getval(a), getval(W), getval(b)
        self.delta: np.ndarray | None = None


@primitive
def seen(z: np.ndarray, made: Product) -> np.ndarray:
    """Return z; on the way back, the product gets the derivative of the result with respect to it."""
    return z


def _vjp_of_seen(answer: np.ndarray, z: np.ndarray, made: Product) -> Any:
    def back(g: np.ndarray) -> np.ndarray:
        made.delta = g
        return g

    return back


defvjp(seen, _vjp_of_seen, argnums=(0,))


def product(a: Any, W: Any, b: Any = None) -> Any:
    """Return a W + b, in ``autograd.numpy``, in a way that makes Jacobians of least squares quick.

    Where all parameters but a few (16) are used in such products, `hfnb.Objective.jacobian` takes one way
    back through them instead of one for each residual.

    Parameters
    ----------
    a : ndarray, shape (rows, m)
        Inputs of a layer, a row for each sample; or several blocks of so many rows, one below the other.
    W : ndarray, shape (m, n)
        Weights: entries of the parameters, cut out and reshaped.
    b : ndarray, shape (n,), optional
        Biases; 0 by default.

    Returns
    -------
    ndarray, shape (rows, n)
        The product.

    Examples
    --------
    >>> product(np.ones((1, 2)), np.array([[3.0], [4.0]]), np.array([5.0]))
    array([[12.]])
    """
    z = a @ W if b is None else a @ W + b
    if following.products is None:
        return z
    following.products.append(made := Product(a, W, b))
    return seen(z, made)


def row_jacobian(f: Callable[[np.ndarray], Any], w: np.ndarray, rows: int) -> np.ndarray | None:
    """Return the derivatives of every row of a result with respect to the parameters, by one way back.

    Parameters
    ----------
    f : callable
        (p,) -> (rows,) or (rows, k), in functions of ``autograd.numpy``. Row i may depend on the parameters
        only by rows i of what `product` returns, except for 16 of them.
    w : ndarray, shape (p,)
        Parameters.
    rows : int
        Number of rows.

    Returns
    -------
    ndarray, shape (rows * k, p), or None
        The Jacobian: the k rows of the first sample, then those of the second. None if f uses more
        parameters otherwise, which is noticed because a random combination of the rows is then not the
        gradient of that combination.

    Notes
    -----
    Which entries of w a product has is read off at w = (0, 1, 2, …), where the weights are their own indices.

    Examples
    --------
    >>> from hfnb.models import mlp
    >>> net = mlp([2, 1], loss="squared_error")
    >>> row_jacobian(lambda w: 2 * net.outputs(w, np.array([[5.0, 7.0]])), np.ones(3), rows=1)
    array([[10., 14.,  2.]])
    >>> row_jacobian(lambda w: w[3] * net.outputs(w[:3], np.array([[5.0, 7.0]])), np.ones(4), rows=1)
    array([[ 5.,  7.,  1., 13.]])
    >>> row_jacobian(lambda w: np.ones((1, 20)) @ w, np.ones(20), rows=1) is None  # without a product
    True
    """
    places = _places(f, w.size)
    (back, r), products = _followed(lambda: make_vjp(f)(w))
    if places is None or len(places) != len(products):
        return None
    columns = []
    for column in range(1 if r.ndim == 1 else r.shape[1]):
        unit = np.zeros(r.shape, w.dtype)
        unit[(slice(None), column)[: r.ndim]] = 1
        for made in products:
            made.delta = None
        back(unit)
        rows_of_column = np.zeros((rows, w.size), w.dtype)
        if not _add(rows_of_column, places, products):
            return None
        columns.append(rows_of_column)
    J = np.stack(columns, axis=1).reshape(-1, w.size)
    combination = np.random.default_rng(0).uniform(0.5, 1.5, r.shape).astype(w.dtype)
    v, Jv = combination.ravel(), back(combination)
    (otherwise,) = np.nonzero(_differ(J, v, Jv))
    if 0 < len(otherwise) <= FEW:
        # The way back is linear in what it starts from; the way back through it is the product with J.
        forward, _ = make_vjp(make_vjp(f)(w)[0])(np.zeros_like(r))
        for j in otherwise:
            J[:, j] = forward(np.where(np.arange(w.size) == j, w.dtype.type(1), w.dtype.type(0))).ravel()
        otherwise = otherwise[_differ(J, v, Jv)[otherwise]]
    return None if len(otherwise) else J


def _followed(call: Callable[[], Any]) -> tuple[Any, list[Product]]:
    """Return what a function returns, and the products that it made."""
    following.products = products = list[Product]()
    try:
        return call(), products
    finally:
        following.products = None


Places = list[tuple[np.ndarray, np.ndarray | None]]


def _places(f: Callable[[np.ndarray], Any], size: int) -> Places | None:
    """Return the indices in w of weights and biases of each product; None if they are not entries of w."""
    try:
        with np.errstate(all="ignore"):
            _, products = _followed(lambda: f(np.arange(float(size))))
    except (ValueError, ArithmeticError):  # f has no value there
        return None
    found = list[tuple[np.ndarray, np.ndarray | None]]()
    for made in products:
        indices = made.W.astype(int), None if made.b is None else made.b.astype(int)
        if any(each is not None and not 0 <= each.min() <= each.max() < size for each in indices):
            return None
        found.append(indices)
    return found


def _add(J: np.ndarray, places: Places, products: list[Product]) -> bool:
    """Add the gradients of all rows to J; return False if a product is not made of blocks of so many rows."""
    by_weights = dict[bytes, list[Any]]()
    for (weights, biases), made in zip(places, products, strict=True):
        if made.delta is None:  # the result does not depend on it
            continue
        if np.ndim(made.a) != 2 or len(made.a) % len(J):
            return False
        a, delta = (each.reshape(-1, len(J), each.shape[1]) for each in (made.a, made.delta))
        by_weights.setdefault(weights.tobytes(), []).append((weights, a, delta))
        if biases is not None:
            J[:, _slice(biases)] += delta.sum(axis=0)
    for same in by_weights.values():
        a, delta = (np.concatenate([each[k] for each in same]) for k in (1, 2))
        outer = np.ascontiguousarray(a.transpose(1, 2, 0)) @ np.ascontiguousarray(delta.swapaxes(0, 1))
        J[:, _slice(same[0][0])] += outer.reshape(len(J), -1)
    return True


def _slice(indices: np.ndarray) -> slice | np.ndarray:
    """Return indices as a slice if they are consecutive, which is quicker, else as a vector."""
    flat = indices.ravel()
    consecutive = np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size))
    return slice(int(flat[0]), int(flat[-1]) + 1) if consecutive else flat


def _differ(J: np.ndarray, v: np.ndarray, Jv: np.ndarray) -> np.ndarray:
    """Return where Jᵀv is not what it should be, but for rounding; also where they are not finite."""
    allowed = np.sqrt(np.finfo(J.dtype).eps) * (np.abs(v) @ np.abs(J))
    return ~(np.abs(v @ J - Jv) <= allowed)
