"""Products with the Hessian and the Gauss–Newton matrix of any function, by autograd.

autograd records the computation at w once; every product then only runs back along the record. The product
with the Hessian is the gradient of vᵀ∇f (Pearlmutter 1994). The product with the Gauss–Newton matrix is
JᵀLJv, where J v is the derivative of vᵀJᵀu with respect to u (Schraudolph 2002). A record refers to its
point: w must not change while the record is in use.
"""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from autograd.differential_operators import make_ggnvp, make_hvp, make_vjp
from autograd.tracer import isbox
from numpy.typing import DTypeLike
from scipy.sparse.linalg import LinearOperator

from hfnb.objectives.protocols import CurvatureFunction, Model, Product
from hfnb.validation import check_callable, check_choice, check_vector, shown

NOT_DIFFERENTIABLE = (
    "autograd cannot differentiate it; write it with autograd.numpy, not numpy or math, and without float(), "
    "assignment to elements or net.predict (net.outputs is differentiable)"
)


def hessian(f: Callable[[np.ndarray], Any], w: np.ndarray) -> LinearOperator:
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


def gauss_newton(
    outputs: Callable[[np.ndarray], Any], output_loss: Callable[[Any], Any], w: np.ndarray
) -> LinearOperator:
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


def hessian_product(f: Callable[[np.ndarray], Any], w: np.ndarray) -> Product:
    """Return the product with a Hessian, from a record of the computation at w.

    Parameters
    ----------
    f : callable
        (p,) -> a number, in functions of ``autograd.numpy``.
    w : ndarray, shape (p,)
        The point, which must not change while the product is in use.

    Returns
    -------
    callable
        v ↦ ∇²f(w) v.
    """
    product, _ = make_hvp(f)(w)
    return product


def gauss_newton_product(
    outputs: Callable[[np.ndarray], Any], output_loss: Callable[[Any], Any], w: np.ndarray
) -> Product:
    """Return the product with a Gauss–Newton matrix, from a record of the computation at w.

    Parameters
    ----------
    outputs : callable
        (p,) -> z, in functions of ``autograd.numpy``; J is its Jacobian at w.
    output_loss : callable
        z -> a number; L is its Hessian at z.
    w : ndarray, shape (p,)
        The point, which must not change while the product is in use.

    Returns
    -------
    callable
        v ↦ JᵀLJv.
    """
    return make_ggnvp(outputs, output_loss)(w)


def operator(product: Product, w: np.ndarray) -> LinearOperator:
    """Return a product as a symmetric operator.

    Parameters
    ----------
    product : callable
        v ↦ B v with a symmetric B.
    w : ndarray, shape (p,)
        A vector of the operator's size and precision.

    Returns
    -------
    LinearOperator, shape (p, p)
        The SciPy operator B.
    """
    return LinearOperator((w.size, w.size), matvec=product, rmatvec=product, dtype=w.dtype)


def _hessian_sum(net: Model, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> Product:
    """Return the product with the Hessian of the loss, summed over the rows of X."""
    count = float(len(X))
    return hessian_product(lambda w: net.loss(w, X, Y) * count, w)


def _gauss_newton_sum(net: Any, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> Product:
    """Return the product with the Gauss–Newton matrix, summed over the rows of X."""
    if getattr(net, "outputs", None) is None:
        raise ValueError(
            "curvature: 'gauss-newton' needs the loss in two parts; give Objective.from_loss outputs=, "
            "a function (w, X) -> z, and output_loss=, a function (z, Y) -> mean loss"
        )
    count = float(len(X))
    return gauss_newton_product(lambda w: net.outputs(w, X), lambda z: net.output_loss(z, Y) * count, w)


# name: (net, w, X, Y) -> product with the sum over the rows of X; a user's function has the same form
CURVATURES: dict[str, CurvatureFunction] = {"hessian": _hessian_sum, "gauss-newton": _gauss_newton_sum}


def curvature_sum(kind: str | CurvatureFunction) -> CurvatureFunction:
    """Return the function for a kind of curvature.

    Parameters
    ----------
    kind : str or callable
        A name of `CURVATURES`, or a function of the same form.

    Returns
    -------
    callable
        (net, w, X, Y) -> (v -> B v), with products that are sums over the rows of X.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the names.
    """
    if callable(kind):
        return kind
    return CURVATURES[check_choice("curvature", kind, CURVATURES, " or a function")]


class Autograd:
    """Sums over the rows of a batch by autograd, for any model.

    autograd keeps one record for the whole process, so that batches cannot be evaluated in several threads.
    The methods have the form of those of `hfnb.models.backprop.ManualBackprop`, and ignore the workspace
    ``work``, because autograd makes its own arrays.

    Parameters
    ----------
    net : Model
        The model.
    """

    parallel = False

    def __init__(self, net: Model) -> None:
        self.net, self._checked = net, False
        self._row_bytes: dict[str | CurvatureFunction, float] = {}  # of a record, by the kind of curvature

    def workspace(self, rows: int, dtype: DTypeLike) -> None:
        """Return None: there is no workspace."""

    def loss(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray, work: None) -> float:
        """Return the sum of the losses over the rows of X."""
        self._check_mean(w, X, Y)
        return _number(self.net.loss(w, X, Y)) * len(X)

    def add_gradient(
        self, w: np.ndarray, X: np.ndarray, Y: np.ndarray, total: np.ndarray, work: None, first: bool
    ) -> float:
        """Add the gradient of the summed losses to ``total``, (p,), or store it; return the summed losses."""
        self._check_mean(w, X, Y)
        with self._reported(w, X, Y):
            vjp, loss = make_vjp(self._followed)(w, X, Y)
            mean, gradient = _number(loss), vjp(float(len(X)))
        if first:
            total[...] = gradient
        else:
            total += gradient
        return mean * len(X)

    def _followed(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> Any:
        """Return the mean loss at a w that autograd follows; ValueError if the loss does not depend on it."""
        loss = self.net.loss(w, X, Y)
        if isbox(w) and not isbox(loss):
            _number(loss)
            raise ValueError(
                "loss: expected a function of w, got a number in which autograd finds no w: it is constant, "
                "or was computed by numpy, int() or a comparison"
            )
        return loss

    @contextmanager
    def _reported(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> Iterator[None]:
        """Return a context that turns an error of autograd into one that says what is wrong with the loss."""
        try:
            yield
        except (TypeError, AttributeError, NotImplementedError) as error:
            _number(self.net.loss(w, X, Y))  # if the loss itself is wrong, this raises its own error
            missing = f"; {error}" if isinstance(error, NotImplementedError) else ""
            raise TypeError(f"loss: {NOT_DIFFERENTIABLE}{missing}") from error

    def _check_mean(self, w: np.ndarray, X: np.ndarray, Y: np.ndarray) -> None:
        """Raise ValueError unless the loss is a mean over rows and equals output_loss(outputs(w, X), Y).

        This is tested once, on two rows. Otherwise the value would depend, without an error, on how rows are
        grouped. A sum gives twice the mean, far more than the 5 % that are allowed for rounding.
        """
        if self._checked or len(X) < 2:
            return
        self._checked, w, X, Y = True, w.astype(float), X[:2].astype(float), Y[:2]
        loss = self.net.loss(w, X, Y)
        if np.shape(loss):
            return  # it is no number: the evaluation that follows reports that
        mean = _number(loss)
        each = [_number(self.net.loss(w, X[i : i + 1], Y[i : i + 1])) for i in (0, 1)]
        if _differ(mean, 0.5 * sum(each)):
            raise ValueError(
                f"loss: expected a mean over the rows of X, got {mean:.4g} for two rows, and {each[0]:.4g} "
                f"and {each[1]:.4g} for each alone; put rows that belong together into one row"
            )
        outputs, output_loss = (getattr(self.net, name, None) for name in ("outputs", "output_loss"))
        if outputs is not None and output_loss is not None:
            parts = _number(output_loss(outputs(w, X), Y))
            if _differ(mean, parts):
                raise ValueError(
                    f"outputs, output_loss: expected output_loss(outputs(w, X), Y) = loss(w, X, Y), got "
                    f"{parts:.4g} and {mean:.4g} for two rows"
                )

    def linearize(
        self,
        w: np.ndarray,
        X: np.ndarray,
        Y: np.ndarray,
        kind: str | CurvatureFunction,
        work: None,
        keep: bool,
    ) -> "RecordedProduct":
        """Return the product with the curvature at w, summed over the rows of X.

        How much memory a record takes is measured once for each kind of curvature.
        """
        record = partial(curvature_sum(kind), self.net, w, X, Y)
        if kind in self._row_bytes:
            product = record()
        else:
            with nullcontext() if callable(kind) else self._reported(w, X, Y):
                product, nbytes = _with_memory(record)
            self._row_bytes[kind] = nbytes / len(X)
        if not callable(product):
            raise TypeError(
                f"curvature: expected a function (net, w, X, Y) -> (v -> B v), got {type(product).__name__} "
                "instead of v -> B v"
            )
        return RecordedProduct(product, round(self._row_bytes[kind] * len(X)))


def _with_memory(make: Callable[[], Product]) -> tuple[Product, int]:
    """Return what a function returns, and the bytes that were allocated for it and are still in use."""
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        made = make()
        return made, max(tracemalloc.get_traced_memory()[0] - before, 0)
    finally:
        if not tracing:
            tracemalloc.stop()


def _differ(a: float, b: float) -> bool:
    """Whether two finite losses differ by more than 5 %; False if one of them is not finite."""
    return bool(np.isfinite(a) and np.isfinite(b) and abs(a - b) > 0.05 * max(abs(a), abs(b)) + 1e-6)


def _number(loss: Any) -> float:
    """Return a loss as a float, or raise an error if it is not a real number."""
    if np.shape(loss):
        raise ValueError(f"loss: expected a number, the mean over rows, got shape {np.shape(loss)}")
    if np.asarray(loss).dtype.kind not in "fiub":
        raise TypeError(f"loss: expected a real number, the mean over rows, got {shown(loss)}")
    return float(loss)


class RecordedProduct:
    """A product with the summed curvature, in the form of `hfnb.models.backprop.Linearized`.

    Parameters
    ----------
    product : callable
        v ↦ B v.
    nbytes : int
        The size of the record in bytes.
    """

    def __init__(self, product: Product, nbytes: int) -> None:
        self.product, self.nbytes = product, nbytes

    def add_product(self, v: np.ndarray, total: np.ndarray, work: None, first: bool) -> None:
        """Add the product with v, (p,), to ``total``, (p,), or store it there."""
        Bv = self.product(v)
        if np.shape(Bv) != total.shape:
            raise ValueError(f"curvature: expected products of shape {total.shape}, got {np.shape(Bv)}")
        if (kind := np.asarray(Bv).dtype.kind) not in "fiub":
            raise TypeError(f"curvature: expected products of real numbers, got {shown(Bv)}, kind {kind}")
        if first:
            total[...] = Bv
        else:
            total += Bv
