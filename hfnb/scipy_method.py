"""Our optimizers as a ``method`` of ``scipy.optimize.minimize``."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.optimize import OptimizeResult
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from hfnb.curvature import operator
from hfnb.hessian_free import hessian_free
from hfnb.history import Counts, Record


class Functions:
    """An objective made of a function, its gradient, and its Hessian or the products with it."""

    n = 1

    def __init__(self, f: Callable, gradient: Callable, hessian: Callable, product: Callable | None):
        self.f, self.gradient, self.hessian, self.product = f, gradient, hessian, product
        self.counts = Counts()

    def value(self, w: np.ndarray, sample=None) -> float:
        """Return f(w)."""
        self.counts.add("losses", 1, 0)
        return float(self.f(w))

    def value_and_gradient(self, w: np.ndarray, sample=None) -> tuple[float, np.ndarray]:
        """Return f(w) and its gradient."""
        self.counts.add("gradients", 1, 0)
        return float(self.f(w)), np.asarray(self.gradient(w))

    def curvature(self, w: np.ndarray, kind="hessian", sample=None) -> LinearOperator:
        """Return the Hessian at w; SciPy's functions have no other curvature."""
        if kind != "hessian":
            raise ValueError(f"curvature: expected 'hessian', all that SciPy's functions give, got {kind!r}")
        multiply = partial(self.product, w) if self.product else aslinearoperator(self.hessian(w)).matvec

        def product(v):
            self.counts.add("products", 1, 0)
            return np.asarray(multiply(v))

        return operator(product, w)


def scipy_method(optimizer: Callable = hessian_free, **defaults) -> Callable:
    """Return ``optimizer`` as a method for ``scipy.optimize.minimize(f, x0, jac=g, hessp=hv, method=...)``.

    ``defaults``, and over them the ``options`` of minimize (``maxiter``, ``gtol`` or those of the optimizer),
    go to the optimizer; ``callback(intermediate_result)`` gets x and fun. ValueError without derivatives, and
    with bounds or constraints, which it does not take.

    >>> from scipy.optimize import minimize, rosen, rosen_der, rosen_hess_prod
    >>> found = minimize(rosen, [-1.2, 1.0], jac=rosen_der, hessp=rosen_hess_prod, method=scipy_method())
    >>> found.success, np.round(found.x, 4)
    (True, array([1., 1.]))
    """

    def method(
        fun,
        x0,
        args=(),
        jac=None,
        hess=None,
        hessp=None,
        bounds=None,
        constraints=(),
        callback=None,
        **options,
    ) -> OptimizeResult:
        if not callable(jac) or not (callable(hess) or callable(hessp)):
            raise ValueError(
                "jac, hess: expected functions for the gradient, and for the Hessian or its products"
            )
        if bounds is not None or constraints:
            raise ValueError("bounds, constraints: expected none, this method takes none")
        names = {"maxiter": "max_iter", "gtol": "tol"}
        chosen = {**defaults, **{names.get(name, name): value for name, value in options.items()}}

        def show(record: Record) -> bool:
            return callback(OptimizeResult(x=record.w.copy(), fun=record.loss)) is True

        objective = Functions(*(f and (lambda *a, f=f: f(*a, *args)) for f in (fun, jac, hess, hessp)))
        w0 = np.array(x0, dtype=float)
        result = optimizer(objective, w0, callback=show if callback else None, **{"max_iter": 200, **chosen})
        counts = objective.counts
        return OptimizeResult(
            **result, nfev=counts.losses + counts.gradients, njev=counts.gradients, nhev=counts.products
        )

    return method
