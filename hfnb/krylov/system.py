"""The damped system that a solver solves: its products, and the most negative curvature among them."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike
from scipy.sparse import sparray, spmatrix
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from hfnb.krylov.vectors import dot, norm
from hfnb.validation import FLOATS, check_finite, check_plain_array, shown

# What a solver accepts as a matrix: an operator, a dense or sparse array, or a nested list of numbers.
Operator: TypeAlias = LinearOperator | np.ndarray | spmatrix | sparray | Sequence[Sequence[float]]


class NonFiniteProduct(FloatingPointError):
    """The operator or the preconditioner returned NaN or infinity; the message says in which product."""


# Curvature of at most this many units of rounding, relative to the largest ‖Av‖/‖v‖ so far, counts as zero.
ROUNDING = 10


class System:
    """(A + damping I) x = b with a preconditioner M ≈ (A + damping I)⁻¹.

    It counts the products with A and keeps the direction of most negative curvature of the undamped A among
    the vectors that A was applied to. This costs three dot products for each product, two if the solver knows
    vᵀv.

    Parameters
    ----------
    A : LinearOperator, ndarray, sparse matrix or nested list (n, n)
        A symmetric operator.
    b : ndarray (n,)
        The right-hand side, float32 or float64, which is the precision of the solve.
    x0 : ndarray (n,), optional
        The first iterate; 0 by default.
    damping : float
        Added to the diagonal of A.
    M : as A, optional
        The preconditioner, positive definite.
    check : bool
        Whether to spend two products on a probe of A's symmetry. A matrix is always probed; its two products
        are counted only with ``check``.

    Attributes
    ----------
    products, preconditionings : int
        How often A and M were applied.
    eps : float
        The distance from 1 to the next larger number in the precision of b.
    norm : float
        The largest ‖Av‖/‖v‖ so far, a lower bound of ‖A‖.
    rounding : float
        The size of vᵀ(A + damping I)v that rounding can explain, for the v of the last product.
    product_norm : float
        ‖(A + damping I)v‖ of the last product.
    direction : ndarray (n,) or None
        The unit vector of most negative curvature so far; `lowest` checks it against rounding.
    curvature : float or None
        The Rayleigh quotient of ``direction``.

    Raises
    ------
    TypeError, ValueError
        If arguments do not fit together, or A is not symmetric.
    NonFiniteProduct
        In a method, if A or M returns NaN or infinity.

    Examples
    --------
    >>> system, out = System(np.diag([2.0, -1.0]), np.ones(2), damping=0.5), np.empty(2)
    >>> system.product(np.array([0.0, 2.0]), out=out), out, system.curvature
    (-2.0, array([ 0., -1.]), -1.0)
    """

    def __init__(
        self,
        A: Operator,
        b: np.ndarray,
        x0: np.ndarray | None = None,
        *,
        damping: float = 0.0,
        M: Operator | None = None,
        check: bool = False,
    ) -> None:
        self.b = check_right_hand_side("b", b)
        self.eps = float(np.finfo(self.b.dtype).eps)
        self._A = _square("A", A, self.b.size)
        self._M = None if M is None else _square("M", M, self.b.size)
        self.x0 = None if x0 is None else _start("x0", x0, self.b)
        self.damping, self.b_norm = _damping(damping, self.b.dtype), norm(self.b)
        self.products = self.preconditionings = 0
        self.norm = self.rounding = self.product_norm = 0.0
        self.direction: np.ndarray | None = None
        self.curvature: float | None = None
        if check or not isinstance(A, LinearOperator):
            self._probe_symmetry(counted=check)

    def _probe_symmetry(self, counted: bool) -> None:
        """Raise ValueError if uᵀAv differs from vᵀAu for random u, v; ``counted``: count these products."""
        u, v = np.random.default_rng(0).standard_normal((2, self.b.size)).astype(self.b.dtype)
        Au, Av = (_apply("A", self._A, vector, 1) for vector in (u, v))
        self.products += 2 * counted
        self.norm = float(np.nan_to_num(norm(Au) / norm(u)))
        scale = norm(u) * norm(Av) + norm(v) * norm(Au)
        if abs(dot(u, Av) - dot(v, Au)) > math.sqrt(self.eps) * scale:
            raise ValueError("A: expected a symmetric operator, but uᵀAv differs from vᵀAu for random u, v")

    def start(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first iterate and its residual.

        Returns
        -------
        x : ndarray (n,)
            x0 or 0; the solution 0 if b = 0, whatever x0 is.
        r : ndarray (n,)
            Its residual b − (A + damping I)x.
        """
        x, r = np.zeros_like(self.b), self.b.copy()
        if 0 < self.b_norm < np.inf and self.x0 is not None and np.any(self.x0):
            x[:] = self.x0
            self.residual(x, out=r)
        return x, r

    def residual(self, x: np.ndarray, out: np.ndarray) -> None:
        """Compute a residual by one product.

        Parameters
        ----------
        x : ndarray (n,)
            A vector.
        out : ndarray (n,)
            Receives b − (A + damping I) x.
        """
        self.product(x, out=out)
        np.subtract(self.b, out, out=out)

    def product(self, v: np.ndarray, out: np.ndarray, vv: float | None = None) -> float:
        """Multiply a vector by the damped operator and observe the curvature of A along it.

        Parameters
        ----------
        v : ndarray (n,)
            The vector.
        out : ndarray (n,)
            Receives (A + damping I) v.
        vv : float, optional
            vᵀv, if the solver knows it; this saves a dot product.

        Returns
        -------
        float
            vᵀ(A + damping I)v.

        Raises
        ------
        NonFiniteProduct
            If A v has NaN or infinity.
        """
        self.products += 1
        try:  # as in `_apply`, which is not called here to save a function call in every product
            Av = self._A.matvec(v).astype(v.dtype, casting="same_kind", copy=False)
        except (TypeError, ValueError) as error:
            _name_operator("A", self.products, error)
            raise
        vAv, AvAv = dot(v, Av), dot(Av, Av)
        if vv is None or vAv < 0:  # the quotient of a direction that may be kept has to be its own
            vv = dot(v, v)
        if not math.isfinite(AvAv):
            raise NonFiniteProduct(f"A: product {self.products} is not finite")
        if vv:
            self.norm = max(self.norm, math.sqrt(AvAv / vv))
            self.observe(v, vAv / vv)
        if self.damping:
            np.multiply(v, self.damping, out=out)
            out += Av
        else:
            np.copyto(out, Av)
        squares = AvAv + self.damping * (2 * vAv + self.damping * vv)  # ‖Av + damping v‖²
        self.product_norm = norm(out) if squares < 0.01 * AvAv else math.sqrt(squares)  # digits may cancel
        self.rounding = ROUNDING * self.eps * (self.norm + abs(self.damping)) * vv
        return vAv + self.damping * vv

    def observe(self, d: np.ndarray, quotient: float) -> None:
        """Keep a direction if its curvature is the most negative so far.

        Parameters
        ----------
        d : ndarray (n,)
            The direction, of any length; a normalized copy is kept.
        quotient : float
            Its Rayleigh quotient dᵀAd/dᵀd of the undamped A.
        """
        if quotient < min(self.curvature or 0.0, -self.noise):
            self.direction = np.multiply(d, 1 / norm(d), out=self.direction)
            self.curvature = quotient

    def lowest(self) -> tuple[np.ndarray | None, float | None]:
        """Return the direction of most negative curvature and its quotient, unless rounding explains it.

        Rounding is in proportion to ‖A‖, the estimate of which improves during a solve.

        Returns
        -------
        direction : ndarray (n,) or None
            A unit vector; None if no curvature was negative by more than rounding.
        curvature : float or None
            Its Rayleigh quotient.
        """
        if self.curvature is None or self.curvature >= -self.noise:
            return None, None
        return self.direction, self.curvature

    @property
    def indefinite(self) -> bool:
        """Whether a vector has shown A + damping I not to be positive definite."""
        return self.curvature is not None and self.curvature < min(-self.damping, -self.noise)

    @property
    def noise(self) -> float:
        """The size of a Rayleigh quotient that rounding can explain."""
        return ROUNDING * self.eps * self.norm

    def precondition(self, r: np.ndarray, r_norm: float | None = None) -> tuple[np.ndarray, float]:
        """Apply the preconditioner to a residual.

        Parameters
        ----------
        r : ndarray (n,)
            The residual.
        r_norm : float, optional
            ‖r‖, if the solver knows it; without an M this saves a dot product.

        Returns
        -------
        z : ndarray (n,)
            M r; r itself if there is no M.
        rz : float
            rᵀz, positive.

        Raises
        ------
        NonFiniteProduct
            If M r has NaN or infinity.
        ValueError
            If rᵀMr shows that M is not positive definite.
        """
        if self._M is None:
            return r, dot(r, r) if r_norm is None else r_norm * r_norm
        self.preconditionings += 1
        z = _apply("M", self._M, r, self.preconditionings)
        rz = dot(r, z)
        if not np.isfinite(rz):
            raise NonFiniteProduct(f"M: product {self.preconditionings} is not finite")
        if rz <= 0 and np.any(r):
            raise ValueError(
                f"M: expected a positive definite preconditioner, got rᵀMr = {rz:.3g} "
                f"in product {self.preconditionings}"
            )
        return z, rz


def as_operator(name: str, A: Operator) -> LinearOperator:
    """Return A, an operator, an array, a sparse matrix or a nested list, as an operator on real vectors."""
    if isinstance(A, np.ma.MaskedArray):
        check_plain_array(name, A)
    operator = None
    try:
        matrix = np.asarray(A) if isinstance(A, (list, tuple)) else A
        if not isinstance(matrix, np.ndarray) or matrix.ndim == 2:  # SciPy takes vectors and numbers, too
            operator = aslinearoperator(matrix)
    except (TypeError, ValueError):
        pass
    if operator is None or len(operator.shape) != 2 or 0 in operator.shape:
        raise TypeError(f"{name}: expected an operator or a matrix of real numbers, got {shown(A)}")
    if operator.dtype is not None and operator.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got dtype {operator.dtype}")
    return operator


def check_right_hand_side(name: str, b: Any) -> np.ndarray:
    """Return a copy of a vector of finite float32 or float64."""
    check_plain_array(name, b)
    found = np.array(b)
    if found.ndim != 1 or found.size == 0 or found.dtype not in FLOATS:
        raise ValueError(f"{name}: expected a vector of float32 or float64, got {shown(found)}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return found


def _start(name: str, x0: Any, b: np.ndarray) -> np.ndarray:
    """Return x0 as an array, once its shape is found to be that of b and its entries to be finite."""
    check_plain_array(name, x0)
    found = np.asarray(x0)
    if found.shape != b.shape:
        raise ValueError(f"{name}: expected shape {b.shape} to match b, got {found.shape}")
    if found.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got dtype {found.dtype}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return found


def _damping(damping: Any, dtype: DTypeLike) -> float:
    """Return the damping; ValueError if products with it, or their squares, could overflow."""
    limit = min(float(np.finfo(dtype).max), 1e150)
    if abs(number := check_finite("damping", damping)) >= limit:
        raise ValueError(f"damping: expected less than {limit:.3g} in size in {dtype}, got {number}")
    return number


def _square(name: str, A: Operator, n: int) -> LinearOperator:
    """Return A as a real (n, n) operator."""
    operator = as_operator(name, A)
    if operator.shape != (n, n):
        raise ValueError(
            f"{name}: expected a square operator of shape ({n}, {n}) to match b, got {operator.shape}"
        )
    return operator


def _apply(name: str, operator: LinearOperator, v: np.ndarray, number: int) -> np.ndarray:
    """Return an operator times v, of the shape and dtype of v; an error names the operator and the number."""
    out = np.empty_like(v)
    try:
        np.copyto(out, operator.matvec(v), casting="same_kind")
    except (TypeError, ValueError) as error:
        _name_operator(name, number, error)
        raise
    return out


def _name_operator(name: str, number: int, error: Exception) -> None:
    """Raise a plain TypeError or ValueError again, with the operator and the product in its message."""
    if type(error) in (TypeError, ValueError):
        raise type(error)(f"{name}: product {number} failed: {error}") from error
