"""Optimizers of hfnb as a ``method`` of ``scipy.optimize.minimize``."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse
from scipy.optimize import OptimizeResult, OptimizeWarning
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from hfnb.objectives import run_identity
from hfnb.objectives.costs import Counts
from hfnb.objectives.curvature import operator
from hfnb.objectives.protocols import CurvatureFunction
from hfnb.objectives.sampling import Sample
from hfnb.optimizers._hessian_free import hessian_free
from hfnb.optimizers.history import Record
from hfnb.validation import asks_to_stop, check_callable, check_nonnegative, check_nonnegative_int, shown

SUCCESS, MAXITER, NO_PROGRESS, CALLBACK = 0, 1, 2, 99  # SciPy's numbers for why a run ended
NAMES = {"maxiter": "max_iter", "gtol": "tol"}  # {SciPy's name of an option: its name in hfnb}

Function: TypeAlias = Callable[..., Any]


class Functions:
    """The objective made of SciPy's functions of (x, *args), each of which gets a copy of x.

    Parameters
    ----------
    fun, jac : callable
        f and its gradient. ``fun`` may return an array of one number, ``jac`` a list.
    hess, hessp : callable or None
        The Hessian, as a list, a number, a sparse matrix or an operator, or its product with a vector.
    args : tuple
        Further arguments of all of them.

    Attributes
    ----------
    calls : dict
        How often each function was called, by name.
    """

    n = 1

    def __init__(
        self,
        fun: Function,
        jac: Function,
        hess: Function | None,
        hessp: Function | None,
        args: tuple[Any, ...],
    ) -> None:
        self._functions, self._args = {"fun": fun, "jac": jac, "hess": hess, "hessp": hessp}, args
        self.calls, self.counts = dict.fromkeys(self._functions, 0), Counts()
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def identity(self) -> dict[str, str]:
        """Return the description {name: text} of this objective: its functions and their arguments."""
        found = {name: run_identity.describe(function) for name, function in self._functions.items()}
        return {**found, "args": run_identity.describe(self._args)}

    def value(self, w: np.ndarray, sample: Sample | None = None) -> float:
        """Return f(w)."""
        self.counts.add("losses", 1, 0)
        return self._value(w)

    def value_and_gradient(self, w: np.ndarray, sample: Sample | None = None) -> tuple[float, np.ndarray]:
        """Return f(w) and its gradient."""
        self.counts.add("gradients", 1, 0)
        return self._value(w), self.gradient(w)

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Return the gradient at w; the last gradient is kept, and returned again for an equal w."""
        if self._last is None or not np.array_equal(self._last[0], w):
            self._last = w.copy(), _vector("jac", self._call("jac", w), w)
        return self._last[1].copy()

    def curvature(
        self, w: np.ndarray, kind: str | CurvatureFunction = "hessian", sample: Sample | None = None
    ) -> LinearOperator:
        """Return the Hessian at w; SciPy's functions have no other curvature."""
        if kind != "hessian":
            raise ValueError(
                f"curvature: expected 'hessian', as SciPy's functions have no other, got {kind!r}"
            )
        w = w.copy()
        H = None if self._functions["hessp"] else _matrix(self._call("hess", w), w)

        def product(v: np.ndarray) -> np.ndarray:
            self.counts.add("products", 1, 0)
            if H is not None:
                return np.asarray(H.matvec(v), dtype=float)
            return _vector("hessp", self._call("hessp", w, np.array(v)), w)

        return operator(product, w)

    def _value(self, w: np.ndarray) -> float:
        """Return f(w), or raise ValueError if it is not one real number."""
        value = np.asarray(self._call("fun", w))
        if value.size != 1 or value.dtype.kind not in "biuf":
            raise ValueError(f"fun: expected one real number, got {_found(value)}")
        return float(value.item())

    def _call(self, name: str, w: np.ndarray, *more: np.ndarray) -> Any:
        """Return the result of one of the functions, and count the call."""
        self.calls[name] += 1
        return self._functions[name](w.copy(), *more, *self._args)  # type: ignore[misc]


def _found(value: np.ndarray) -> str:
    """Return shape and dtype for a message."""
    return f"shape {value.shape}, dtype {value.dtype}"


def _vector(name: str, value: Any, w: np.ndarray) -> np.ndarray:
    """Return a copy of the result of a function as a vector like w."""
    value = np.asarray(value)
    if value.size != w.size or value.ndim > 2 or value.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected {w.size} real numbers, as many as x0 has, got {_found(value)}")
    return np.array(value, dtype=w.dtype).ravel()


def _matrix(value: Any, w: np.ndarray) -> LinearOperator:
    """Return the result of ``hess`` at w as an operator."""
    if not (sparse.issparse(value) or isinstance(value, LinearOperator)):
        value = np.atleast_2d(np.asarray(value))
        if value.dtype.kind not in "biuf":
            raise ValueError(f"hess: expected a matrix of real numbers, got {_found(value)}")
    if value.shape != (w.size, w.size):
        raise ValueError(f"hess: expected shape {(w.size, w.size)} for x0 of {w.size}, got {value.shape}")
    return aslinearoperator(value)


def scipy_method(
    optimizer: Callable[..., OptimizeResult] = hessian_free, **defaults: Any
) -> Callable[..., OptimizeResult]:
    """Return an optimizer as a method for ``scipy.optimize.minimize(f, x0, jac=g, hessp=hv, method=...)``.

    Parameters
    ----------
    optimizer : callable
        `hessian_free`, `first_order`, or a function of the same form.
    **defaults
        Options of the optimizer, which the ``options`` of minimize replace.

    Returns
    -------
    callable
        A method for minimize, which computes in float64.

    Raises
    ------
    ValueError
        From minimize, if there is no function for the gradient, or none for the Hessian or its products
        (there are no finite differences); if there are bounds or constraints; and if x0 is not finite.
    TypeError
        If the optimizer does not have one of the ``defaults``.

    Notes
    -----
    The options of SciPy's ``trust-ncg`` have the same meaning here: ``maxiter`` (by default 200 times the
    number of variables), ``gtol`` (which takes precedence over minimize's ``tol``), ``disp`` and
    ``return_all``. An unknown option gives an ``OptimizeWarning``. ``callback(xk)`` gets a vector; a callback
    whose parameter is named ``intermediate_result`` gets x and fun. StopIteration or a true value ends the
    run. The result has SciPy's ``status`` (0 for success, 1 at maxiter, 2 without progress, 99 after a stop
    by the callback), ``jac``, ``nfev``, ``njev`` and ``nhev`` (Hessians and products with them).

    Examples
    --------
    >>> from scipy.optimize import minimize, rosen, rosen_der, rosen_hess_prod
    >>> found = minimize(rosen, [-1.2, 1.0], jac=rosen_der, hessp=rosen_hess_prod, method=scipy_method())
    >>> found.success, np.round(found.x, 4)
    (True, array([1., 1.]))
    """
    check_callable("optimizer", optimizer, "(objective, w0, **options)")
    known = _options_of(optimizer)
    for name in defaults:
        if known is not None and NAMES.get(name, name) not in known:
            raise TypeError(
                f"{name}: expected an option of {optimizer.__name__} ({', '.join(sorted(known))})"
            )

    def method(
        fun: Function,
        x0: Any,
        args: Any = (),
        jac: Any = None,
        hess: Any = None,
        hessp: Any = None,
        bounds: Any = None,
        constraints: Any = (),
        callback: Function | None = None,
        disp: bool = False,
        return_all: bool = False,
        **options: Any,
    ) -> OptimizeResult:
        _check_functions(jac, hess, hessp, callback)
        if bounds is not None or constraints:
            raise ValueError("bounds, constraints: expected none, because this method takes neither")
        w0 = _start(x0)
        unknown = [name for name in options if known is not None and NAMES.get(name, name) not in known]
        if unknown:
            warnings.warn(f"Unknown solver options: {', '.join(unknown)}", OptimizeWarning, stacklevel=3)
        given = {name: value for name, value in options.items() if name not in unknown}
        chosen = {"max_iter": 200 * w0.size, **_renamed(defaults), **_renamed(given)}
        objective = Functions(
            fun,
            jac,
            hess if callable(hess) else None,
            hessp if callable(hessp) else None,
            args if isinstance(args, tuple) else (args,),
        )
        watch = _Watch(callback)
        result = optimizer(objective, w0, callback=watch, **chosen)
        result.update(jac=objective.gradient(result.x), status=_status(result, watch, chosen["max_iter"]))
        calls = objective.calls
        result.update(nfev=calls["fun"], njev=calls["jac"], nhev=calls["hess"] + calls["hessp"])
        if return_all:
            result.allvecs = watch.path
        if disp:
            _display(result)
        return result

    return method


class _Watch:
    """Calls a callback as SciPy does: after each iteration, with a vector or with an intermediate result."""

    def __init__(self, callback: Function | None) -> None:
        self.callback, self.stopped = callback, False
        self.path: list[np.ndarray] = []

    def __call__(self, record: Record) -> bool:
        self.path.append(record.w.copy())
        if self.callback is not None and record.iteration > 0:
            self.stopped = asks_to_stop(self._show, self.callback, record)
        return self.stopped

    def _show(self, callback: Function, record: Record) -> Any:
        """Return the answer of the callback, called in the form that it takes."""
        if _parameters(callback) == {"intermediate_result"}:
            return callback(intermediate_result=OptimizeResult(x=record.w.copy(), fun=record.loss))
        return callback(record.w.copy())


def _parameters(function: Function) -> set[str]:
    """Return the names of the parameters of a function."""
    try:
        return set(inspect.signature(function).parameters)
    except ValueError:  # a builtin function without a signature
        return set()


def _options_of(optimizer: Function) -> set[str] | None:
    """Return the names of an optimizer's options; None if it takes any name."""
    parameters = list(inspect.signature(optimizer).parameters.values())
    if len(parameters) < 2:
        raise TypeError(f"optimizer: expected a function (objective, w0, **options), got {shown(optimizer)}")
    options = parameters[2:]
    if any(option.kind is option.VAR_KEYWORD for option in options):
        return None
    return {option.name for option in options} - {"callback"}


def _renamed(options: dict[str, Any]) -> dict[str, Any]:
    """Return options by the optimizer's names, without a tol, gtol or maxiter that is None."""
    if {"maxiter", "max_iter"} <= options.keys():
        raise ValueError("maxiter, max_iter: expected only one of these names of the same option, got both")
    found = {name: value for name, value in options.items() if name not in NAMES}
    if found.get("tol", 0) is None:
        del found["tol"]
    for name in options.keys() & NAMES.keys():
        if options[name] is not None:
            found[NAMES[name]] = _limit(name, options[name])
    return found


def _limit(name: str, value: Any) -> float:
    """Return the value of gtol, or that of maxiter, which may also be a float such as 100.0, as for SciPy."""
    if name == "gtol":
        return check_nonnegative(name, value)
    return check_nonnegative_int(
        name, int(value) if isinstance(value, float) and value.is_integer() else value
    )


def _check_functions(jac: Any, hess: Any, hessp: Any, callback: Any) -> None:
    """Raise an error unless there are functions for the gradient and for the Hessian or its products."""
    if not callable(jac):
        raise ValueError("jac: expected a function for the gradient, or True if fun returns it as well")
    if not (callable(hess) or callable(hessp)):
        raise ValueError(
            f"hess, hessp: expected a function for the Hessian or its products, got {hess!r} and {hessp!r}"
        )
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected a function, got {callback!r}")


def _start(x0: Any) -> np.ndarray:
    """Return x0 as a new vector of float64."""
    w0 = np.atleast_1d(np.asarray(x0))
    if w0.ndim != 1 or not w0.size or w0.dtype.kind not in "biuf":
        raise ValueError(f"x0: expected a vector of real numbers, got {_found(w0)}")
    w0 = w0.astype(float)
    if not np.isfinite(w0).all():
        raise ValueError(f"x0: expected finite numbers, got {w0[~np.isfinite(w0)][0]}")
    return w0


def _status(result: OptimizeResult, watch: _Watch, max_iter: int) -> int:
    """Return SciPy's number for why a run ended."""
    if result.success:
        return SUCCESS
    if watch.stopped:
        return CALLBACK
    return MAXITER if result.nit >= max_iter else NO_PROGRESS


def _display(result: OptimizeResult) -> None:
    """Print how a run ended, as SciPy's methods do; a failure is a warning."""
    if result.success:
        print(result.message)
    else:
        warnings.warn(result.message, RuntimeWarning, stacklevel=4)
    print(f"         Current function value: {result.fun:f}")
    print(f"         Iterations: {result.nit:d}")
    print(f"         Function evaluations: {result.nfev:d}")
    print(f"         Gradient evaluations: {result.njev:d}")
    print(f"         Hessian evaluations: {result.nhev:d}")
