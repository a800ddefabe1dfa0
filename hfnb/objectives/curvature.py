"""Products with the Hessian and the Gauss–Newton matrix of any function, by autograd.

autograd records the computation at w once; every product then only runs back along the record. The Hessian's
product differentiates vᵀ∇f once more (Pearlmutter 1994). The Gauss–Newton product is JᵀLJv, where J v is the
derivative of u ↦ Jᵀu (Schraudolph 2002). A record refers to its point: w must not change while it is in use.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from autograd.differential_operators import make_ggnvp, make_hvp, make_vjp
from scipy.sparse.linalg import LinearOperator

from hfnb.validation import check_callable, check_choice, check_vector, shown

Product = Callable[[np.ndarray], np.ndarray]


def hessian(f: Callable, w: np.ndarray) -> LinearOperator:
    """Return the Hessian of f at w.

    Parameters
    ----------
    f : callable
        (p,) -> a number, in functions of ``autograd.numpy``.
    w : ndarray, shape (p,)
        The point, of float32 or float64.

    Returns
    -------
    LinearOperator, shape (p, p)
        A symmetric SciPy operator in the precision of w.

    References
    ----------
    Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994).

    Examples
    --------
    >>> import autograd.numpy as np
    >>> H = hessian(lambda w: np.sum(w**4) / 12, np.array([1.0, 2.0]))
    >>> H @ np.array([1.0, 1.0])
    array([1., 4.])
    """
    check_callable("f", f, "of (p,) to a number")
    check_vector("w", w)
    return operator(hessian_product(f, np.array(w)), w)


def gauss_newton(outputs: Callable, output_loss: Callable, w: np.ndarray) -> LinearOperator:
    """Return the Gauss–Newton matrix JᵀLJ of output_loss(outputs(w)), semi-definite for a convex loss.

    Parameters
    ----------
    outputs : callable
        (p,) -> z, in functions of ``autograd.numpy``; J is its Jacobian at w.
    output_loss : callable
        z -> a number; L is its Hessian at z.
    w : ndarray, shape (p,)
        The point, of float32 or float64.

    Returns
    -------
    LinearOperator, shape (p, p)
        A symmetric SciPy operator in the precision of w.

    References
    ----------
    Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural
    Computation 14 (2002).

    Examples
    --------
    >>> import autograd.numpy as np
    >>> G = gauss_newton(lambda w: w**2, lambda z: np.sum(z**2) / 2, np.array([1.0, 3.0]))
    >>> G @ np.array([1.0, 1.0])
    array([ 4., 36.])
    """
    check_callable("outputs", outputs, "of (p,) to z")
    check_callable("output_loss", output_loss, "of z to a number")
    check_vector("w", w)
    return operator(gauss_newton_product(outputs, output_loss, np.array(w)), w)


def hessian_product(f: Callable, w: np.ndarray) -> Product:
    """Return v ↦ ∇²f(w) v; the computation at w is recorded here."""
    product, _ = make_hvp(f)(w)
    return product


def gauss_newton_product(outputs: Callable, output_loss: Callable, w: np.ndarray) -> Product:
    """Return v ↦ JᵀLJv; the computation at w is recorded here."""
    return make_ggnvp(outputs, output_loss)(w)


def operator(product: Product, w: np.ndarray) -> LinearOperator:
    """Return a symmetric product as a SciPy ``LinearOperator`` of the size and precision of w."""
    return LinearOperator((w.size, w.size), matvec=product, rmatvec=product, dtype=w.dtype)


def _hessian_sum(net: Any, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> Product:
    count = float(len(X))
    return hessian_product(lambda w: net.loss(w, X, Y) * count, w)


def _gauss_newton_sum(net: Any, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> Product:
    if getattr(net, "outputs", None) is None:
        raise ValueError(
            "curvature: 'gauss-newton' needs the loss in two parts; give Objective.from_loss outputs=, "
            "a function (w, X) -> z, and output_loss=, a function (z, Y) -> mean loss"
        )
    count = float(len(X))
    return gauss_newton_product(lambda w: net.outputs(w, X), lambda z: net.output_loss(z, Y) * count, w)


# name: (net, w, X, Y) -> product with the sum over the rows of X; a user's function has the same form
CURVATURES: dict[str, Callable[..., Product]] = {"hessian": _hessian_sum, "gauss-newton": _gauss_newton_sum}


def curvature_sum(kind: str | Callable[..., Product]) -> Callable[..., Product]:
    """Return the function (net, w, X, Y) -> product that ``kind`` names; ValueError lists what exists."""
    if callable(kind):
        return kind
    return CURVATURES[check_choice("curvature", kind, CURVATURES, " or a function")]


class Autograd:
    """Sums over the rows of a batch by autograd, for any model.

    autograd keeps one record for the whole process, so that batches cannot be evaluated in several threads.
    """

    parallel = False

    def __init__(self, net: Any) -> None:
        self.net = net

    def workspace(self, rows: int, dtype: np.dtype) -> None:
        """Return no workspace: autograd makes its own arrays."""

    def loss(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray, work: None) -> float:
        """Return the sum of the losses."""
        return _number(self.net.loss(w, X, Y)) * len(X)

    def add_gradient(self, w, X, Y, total: np.ndarray, work: None, first: bool) -> float:
        """Add the gradient of the sum of the losses to ``total``, (p,), and return that sum."""
        try:
            vjp, loss = make_vjp(self.net.loss)(w, X, Y)
        except TypeError as error:
            self.net.loss(w, X, Y)  # an error of the loss itself is raised here as it is
            raise TypeError(
                "loss: autograd cannot differentiate it; write it with autograd.numpy, not numpy or math, "
                "and without float() or assignment to elements"
            ) from error
        mean = _number(loss)
        total += vjp(float(len(X)))
        return mean * len(X)

    def linearize(self, w, X, Y, kind: str | Callable, work: None, keep: bool) -> "RecordedProduct":
        """Return the product with the summed curvature at w."""
        product = curvature_sum(kind)(self.net, w, X, Y)
        if not callable(product):
            raise TypeError(
                f"curvature: expected a function (net, w, X, Y) -> (v -> B v), got {type(product).__name__} "
                "instead of v -> B v"
            )
        return RecordedProduct(product)


def _number(loss: Any) -> float:
    """Return a loss if it is a real number."""
    if np.shape(loss):
        raise ValueError(f"loss: expected a number, the mean over rows, got shape {np.shape(loss)}")
    if np.asarray(loss).dtype.kind not in "fiub":
        raise TypeError(f"loss: expected a real number, the mean over rows, got {shown(loss)}")
    return float(loss)


class RecordedProduct:
    """A product with the summed curvature, in the form of `hfnb.models.backprop.Linearized`."""

    def __init__(self, product: Product) -> None:
        self.product = product

    def add_product(self, v: np.ndarray, total: np.ndarray, work: None, first: bool) -> None:
        """Add the product with v, (p,), to ``total``."""
        Bv = self.product(v)
        if np.shape(Bv) != total.shape:
            raise ValueError(f"curvature: expected products of shape {total.shape}, got {np.shape(Bv)}")
        if (kind := np.asarray(Bv).dtype.kind) not in "fiub":
            raise TypeError(f"curvature: expected products of real numbers, got {shown(Bv)}, kind {kind}")
        total += Bv
