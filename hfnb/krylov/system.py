"""The damped system that a solver is given: checked parts, counted products, their curvature."""

import numpy as np
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from .result import NonFiniteProduct
from .vectors import axpy, dot, norm

# Curvature within this many units of rounding of the largest product met is taken for zero.
ROUNDING = 10


class System:
    """(A + damping I) x = b with a preconditioner M ≈ (A + damping I)⁻¹.

    It remembers the direction of most negative curvature of the undamped A among the vectors that A was
    applied to, at the price of three dot products and of no product with A.
    """

    def __init__(self, A, b, x0=None, *, damping=0.0, M=None, check=False):
        self.b = np.array(b)
        if self.b.ndim != 1 or self.b.size == 0 or self.b.dtype not in (np.float32, np.float64):
            raise ValueError(
                f"b: expected a vector of float32 or float64, got shape {self.b.shape}, dtype {self.b.dtype}"
            )
        self._A, self._M = (
            _operator("A", A, self.b.size),
            None if M is None else _operator("M", M, self.b.size),
        )
        if x0 is not None and np.shape(x0) != self.b.shape:
            raise ValueError(f"x0: expected shape {self.b.shape} to match b, got {np.shape(x0)}")
        for name, value in (("b", self.b), ("x0", x0), ("damping", damping)):
            if value is not None and not np.all(np.isfinite(value)):
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        self.x0, self.damping, self.b_norm = x0, float(damping), norm(self.b)
        self.products = self.preconditionings = 0
        self.norm = self.rounding = 0.0
        self.direction: np.ndarray | None = None
        self.curvature: float | None = None
        if check or not isinstance(A, LinearOperator):
            self._probe_symmetry(counted=check)

    def _probe_symmetry(self, counted: bool) -> None:
        """Compare uᵀAv with vᵀAu for two random vectors; a matrix at hand costs no counted product."""
        u, v = np.random.default_rng(0).standard_normal((2, self.b.size)).astype(self.b.dtype)
        Au, Av = self._A.matvec(u), self._A.matvec(v)
        self.products += 2 * counted
        self.norm = float(np.nan_to_num(norm(Au) / norm(u)))
        scale = norm(u) * norm(Av) + norm(v) * norm(Au)
        if abs(dot(u, Av) - dot(v, Au)) > np.sqrt(float(np.finfo(self.b.dtype).eps)) * scale:
            raise ValueError("A: expected a symmetric operator, but uᵀAv differs from vᵀAu for random u, v")

    def start(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first iterate, x0 or 0, and its residual; a zero b is solved by x = 0 whatever x0."""
        x, r = np.zeros_like(self.b), self.b.copy()
        if self.b_norm and self.x0 is not None and np.any(self.x0):
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
        np.copyto(out, self._A.matvec(v), casting="same_kind")
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
        z = np.array(self._M.matvec(r), dtype=r.dtype)
        rz = dot(r, z)
        if not np.isfinite(rz):
            raise NonFiniteProduct(f"M: product {self.preconditionings} is not finite")
        if rz <= 0 and np.any(r):
            raise ValueError(
                f"M: expected a positive definite preconditioner, got rᵀMr = {rz:.3g} "
                f"in product {self.preconditionings}"
            )
        return z, rz


def _operator(name: str, A, n: int) -> LinearOperator:
    """Return A as a real (n, n) operator."""
    operator = aslinearoperator(A)
    if operator.shape != (n, n):
        raise ValueError(
            f"{name}: expected a square operator of shape ({n}, {n}) to match b, got {operator.shape}"
        )
    if np.issubdtype(operator.dtype, np.complexfloating):
        raise ValueError(f"{name}: expected real numbers, got dtype {operator.dtype}")
    return operator
