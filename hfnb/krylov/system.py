"""The damped system that a solver is given, with its products counted, and the result that it returns."""

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from hfnb.krylov.vectors import axpy, dot, norm
from hfnb.validation import FLOATS, check_finite, check_plain_array, shown


class NonFiniteProduct(FloatingPointError):
    """The operator or the preconditioner returned NaN or infinity; the message says in which product."""


@dataclass
class KrylovResult:
    """What a Krylov solver of (A + damping I) x = b found.

    ``status`` is a sentence that says why it stopped, ``success`` whether a stopping test was met. ``x``
    is the solution where the residual test was met, otherwise ``best``, the iterate of least q(x) = xᵀ(A
    + damping I)x / 2 − bᵀx. ``models`` holds q and ``residual_norms`` ‖b − (A + damping I)x‖, an entry
    for each iterate beginning with x0; ``model`` is q(best). ``products`` counts applications of A.
    ``direction`` is the unit vector of most negative curvature of A itself that the solver met,
    ``curvature`` its Rayleigh quotient dᵀAd; both are None where no curvature below rounding was met.
    ``iterates`` are (iteration, x) pairs for backtracking: those that the solver keeps, at least the
    last. ``norm`` is the largest ‖Av‖/‖v‖ that the solver met, a lower bound of ‖A‖ (0 if unknown).
    """

    x: np.ndarray
    status: str
    success: bool
    iterations: int
    products: int
    residual_norms: list[float]
    models: list[float]
    best: np.ndarray
    direction: np.ndarray | None = None
    curvature: float | None = None
    iterates: list[tuple[int, np.ndarray]] = field(default_factory=list)
    norm: float = 0.0

    @property
    def model(self) -> float:
        """q(best), the least value of the quadratic model among the iterates."""
        return min(self.models)


# Curvature within this many units of rounding of the largest product met is taken for zero.
ROUNDING = 10


class System:
    """(A + damping I) x = b with a preconditioner M ≈ (A + damping I)⁻¹.

    It remembers the direction of most negative curvature of the undamped A among the vectors that A was
    applied to, at the price of three dot products and of no product with A.
    """

    def __init__(self, A, b, x0=None, *, damping=0.0, M=None, check=False):
        self.b = check_right_hand_side("b", b)
        self._A, self._M = (
            _square("A", A, self.b.size),
            None if M is None else _square("M", M, self.b.size),
        )
        self.x0 = None if x0 is None else _start("x0", x0, self.b)
        self.damping, self.b_norm = _damping(damping, self.b.dtype), norm(self.b)
        self.products = self.preconditionings = 0
        self.norm = self.rounding = 0.0
        self.direction: np.ndarray | None = None
        self.curvature: float | None = None
        if check or not isinstance(A, LinearOperator):
            self._probe_symmetry(counted=check)

    def _probe_symmetry(self, counted: bool) -> None:
        """Compare uᵀAv with vᵀAu for two random vectors; a matrix at hand costs no counted product."""
        u, v = np.random.default_rng(0).standard_normal((2, self.b.size)).astype(self.b.dtype)
        Au, Av = (_apply("A", self._A, vector, np.empty_like(self.b), 1) for vector in (u, v))
        self.products += 2 * counted
        self.norm = float(np.nan_to_num(norm(Au) / norm(u)))
        scale = norm(u) * norm(Av) + norm(v) * norm(Au)
        if abs(dot(u, Av) - dot(v, Au)) > np.sqrt(float(np.finfo(self.b.dtype).eps)) * scale:
            raise ValueError("A: expected a symmetric operator, but uᵀAv differs from vᵀAu for random u, v")

    def start(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first iterate, x0 or 0, and its residual; a zero b is solved by x = 0 whatever x0."""
        x, r = np.zeros_like(self.b), self.b.copy()
        if 0 < self.b_norm < np.inf and self.x0 is not None and np.any(self.x0):
            x[:] = self.x0
            self.residual(x, out=r)
        return x, r

    def residual(self, x: np.ndarray, out: np.ndarray) -> None:
        """Write b − (A + damping I) x into ``out``, by one product."""
        self.product(x, out=out)
        np.subtract(self.b, out, out=out)

    def product(self, v: np.ndarray, out: np.ndarray) -> float:
        """Write (A + damping I) v into ``out``, note the curvature along v, return vᵀ(A + damping I)v."""
        self.products += 1
        _apply("A", self._A, v, out, self.products)
        vv, vAv, AvAv = dot(v, v), dot(v, out), dot(out, out)
        if not np.isfinite(AvAv):
            raise NonFiniteProduct(f"A: product {self.products} is not finite")
        if vv:
            self.norm = max(self.norm, np.sqrt(AvAv / vv))
            self.observe(v, vAv / vv)
        if self.damping:
            axpy(out, self.damping, v)
        self.rounding = ROUNDING * float(np.finfo(v.dtype).eps) * (self.norm + abs(self.damping)) * vv
        return vAv + self.damping * vv

    def observe(self, d: np.ndarray, quotient: float) -> None:
        """Keep d, normalized, if its Rayleigh quotient of the undamped A is the most negative so far."""
        if quotient < min(self.curvature or 0.0, -self.noise):
            self.direction = np.multiply(d, 1 / norm(d), out=self.direction)
            self.curvature = quotient

    def lowest(self) -> tuple[np.ndarray | None, float | None]:
        """Return the direction of most negative curvature and its quotient, unless rounding explains it.

        Rounding is in proportion to ‖A‖, which is known better at the end of a solve than at first.
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
        return ROUNDING * float(np.finfo(self.b.dtype).eps) * self.norm

    def precondition(self, r: np.ndarray) -> tuple[np.ndarray, float]:
        """Return z = M r (r itself where there is no M) and rᵀz, positive where M is positive definite."""
        if self._M is None:
            return r, dot(r, r)
        self.preconditionings += 1
        z = _apply("M", self._M, r, np.empty_like(r), self.preconditionings)
        rz = dot(r, z)
        if not np.isfinite(rz):
            raise NonFiniteProduct(f"M: product {self.preconditionings} is not finite")
        if rz <= 0 and np.any(r):
            raise ValueError(
                f"M: expected a positive definite preconditioner, got rᵀMr = {rz:.3g} "
                f"in product {self.preconditionings}"
            )
        return z, rz


def as_operator(name: str, A) -> LinearOperator:
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


def check_right_hand_side(name: str, b) -> np.ndarray:
    """Return a copy of a vector of finite float32 or float64."""
    check_plain_array(name, b)
    found = np.array(b)
    if found.ndim != 1 or found.size == 0 or found.dtype not in FLOATS:
        raise ValueError(f"{name}: expected a vector of float32 or float64, got {shown(found)}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return found


def _start(name: str, x0, b: np.ndarray) -> np.ndarray:
    """Return the first iterate as a vector like b."""
    check_plain_array(name, x0)
    found = np.asarray(x0)
    if found.shape != b.shape:
        raise ValueError(f"{name}: expected shape {b.shape} to match b, got {found.shape}")
    if found.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected real numbers, got dtype {found.dtype}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    return found


def _damping(damping, dtype) -> float:
    """Return the damping, whose product with a vector must not overflow, nor the square of that."""
    limit = min(float(np.finfo(dtype).max), 1e150)
    if abs(number := check_finite("damping", damping)) >= limit:
        raise ValueError(f"damping: expected less than {limit:.3g} in {dtype}, got {number}")
    return number


def _square(name: str, A, n: int) -> LinearOperator:
    """Return A as a real (n, n) operator."""
    operator = as_operator(name, A)
    if operator.shape != (n, n):
        raise ValueError(
            f"{name}: expected a square operator of shape ({n}, {n}) to match b, got {operator.shape}"
        )
    return operator


def _apply(name: str, operator: LinearOperator, v: np.ndarray, out: np.ndarray, number: int) -> np.ndarray:
    """Write the ``number``-th product, with v, into ``out`` and return it; an error names the operator."""
    try:
        np.copyto(out, operator.matvec(v), casting="same_kind")
    except (TypeError, ValueError) as error:
        if type(error) in (TypeError, ValueError):
            raise type(error)(f"{name}: product {number} failed: {error}") from error
        raise
    return out
