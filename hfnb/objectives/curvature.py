"""Products with the Hessian and the Gauss–Newton matrix, taped once and applied many times."""

from collections.abc import Callable

import numpy as np
from autograd import grad
from autograd.differential_operators import make_vjp
from scipy.sparse.linalg import LinearOperator

from hfnb.validation import check_callable, check_choice, check_vector, shown

Product = Callable[[np.ndarray], np.ndarray]


def hessian_product(f: Callable, w: np.ndarray) -> Product:
    """Return v ↦ ∇²f(w) v by reverse over reverse: vᵀ∇f is differentiated once more (Pearlmutter 1994).

    The tape of ∇f at w is recorded here; every product then only runs back along it. ``f`` maps (p,) to a
    scalar in ``autograd.numpy``; exact up to rounding, in the precision of w. The tape refers to its point:
    change w only after the last product.
    """
    product, _ = make_vjp(grad(f))(w)
    return product


def gauss_newton_product(outputs: Callable, output_loss: Callable, w: np.ndarray) -> Product:
    """Return v ↦ JᵀLJv, J the Jacobian of ``outputs`` at w, L the Hessian of ``output_loss``.

    J v is the transpose of u ↦ Jᵀu (Schraudolph 2002): two tapes, none recorded anew for a product.
    """
    transposed, z = make_vjp(outputs)(w)
    forward, _ = make_vjp(transposed)(np.zeros_like(z))
    inner, _ = make_vjp(grad(output_loss))(z)
    return lambda v: transposed(inner(forward(v)))


def hessian(f: Callable, w: np.ndarray) -> LinearOperator:
    """Return the Hessian of f at w as a symmetric (p, p) SciPy ``LinearOperator``.

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

    >>> import autograd.numpy as np
    >>> G = gauss_newton(lambda w: w**2, lambda z: np.sum(z**2) / 2, np.array([1.0, 3.0]))
    >>> G @ np.array([1.0, 1.0])
    array([ 4., 36.])
    """
    check_callable("outputs", outputs, "of (p,) to z")
    check_callable("output_loss", output_loss, "of z to a number")
    check_vector("w", w)
    return operator(gauss_newton_product(outputs, output_loss, np.array(w)), w)


def operator(product: Product, w: np.ndarray) -> LinearOperator:
    """Wrap a symmetric product as a SciPy ``LinearOperator`` of the size and precision of w."""
    return LinearOperator((w.size, w.size), matvec=product, rmatvec=product, dtype=w.dtype)


def _hessian_sum(net, w, X, Y):
    count = float(len(X))
    return hessian_product(lambda w: net.loss(w, X, Y) * count, w)


def _gauss_newton_sum(net, w, X, Y):
    if getattr(net, "outputs", None) is None:
        raise ValueError(
            "curvature: 'gauss-newton' needs the loss in two parts; give Objective.from_loss outputs=, "
            "a function (w, X) -> z, and output_loss=, a function (z, Y) -> mean loss"
        )
    count = float(len(X))
    return gauss_newton_product(lambda w: net.outputs(w, X), lambda z: net.output_loss(z, Y) * count, w)


# name: (net, w, X, Y) -> product with the sum over a batch; a function of that form serves as a kind, too
CURVATURES: dict[str, Callable[..., Product]] = {"hessian": _hessian_sum, "gauss-newton": _gauss_newton_sum}


def curvature_sum(kind: str | Callable[..., Product]) -> Callable[..., Product]:
    """Return the function (net, w, X, Y) -> product that ``kind`` names; ValueError lists what exists."""
    if callable(kind):
        return kind
    return CURVATURES[check_choice("curvature", kind, CURVATURES, " or a function")]


class Autograd:
    """Sums over a batch by autograd, for any model; its tracer is one for the process: no threads."""

    parallel = False

    def __init__(self, net):
        self.net = net

    def workspace(self, rows: int, dtype) -> None:
        return None

    def loss(self, w, X, Y, work) -> float:
        return _number(self.net.loss(w, X, Y)) * len(X)

    def add_gradient(self, w, X, Y, total, work, first) -> float:
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

    def linearize(self, w, X, Y, kind, work, keep) -> "TapedProduct":
        product = curvature_sum(kind)(self.net, w, X, Y)
        if not callable(product):
            raise TypeError(
                f"curvature: expected a function (net, w, X, Y) -> (v -> B v), got {type(product).__name__} "
                "instead of v -> B v"
            )
        return TapedProduct(product)


def _number(loss) -> float:
    """Return a loss if it is a real number."""
    if np.shape(loss):
        raise ValueError(f"loss: expected a number, the mean over rows, got shape {np.shape(loss)}")
    if np.asarray(loss).dtype.kind not in "fiub":
        raise TypeError(f"loss: expected a real number, the mean over rows, got {shown(loss)}")
    return float(loss)


class TapedProduct:
    """A product with the sum over one batch, in the form of `hfnb.models.backprop.Linearized`."""

    def __init__(self, product: Product):
        self.product = product

    def add_product(self, v, total, work, first) -> None:
        Bv = self.product(v)
        if np.shape(Bv) != total.shape:
            raise ValueError(f"curvature: expected products of shape {total.shape}, got {np.shape(Bv)}")
        if (kind := np.asarray(Bv).dtype.kind) not in "fiub":
            raise TypeError(f"curvature: expected products of real numbers, got {shown(Bv)}, kind {kind}")
        total += Bv
