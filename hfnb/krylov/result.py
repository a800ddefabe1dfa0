"""What every Krylov solver here shares: one result, a guarded operator, and the lowest curvature met."""

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse.linalg import aslinearoperator


class NonFiniteProduct(FloatingPointError):
    """The operator returned NaN or infinity; the message says in which product."""


@dataclass
class KrylovResult:
    """What a Krylov solver of (A + damping I) x = b found.

    ``status`` is a sentence. ``models`` holds q(x) = xᵀ(A + damping I)x / 2 − bᵀx and ``residual_norms``
    ‖b − (A + damping I)x‖, an entry for each iterate beginning with x0; ``x`` is the iterate of least q.
    ``direction`` is the unit vector of most negative curvature of A itself that the solver met, ``curvature``
    its Rayleigh quotient dᵀAd; both are None where none was met. ``products`` counts applications of A.
    ``iterates`` are (iteration, x) pairs kept for backtracking, by the solvers that do.
    """

    x: np.ndarray
    status: str
    success: bool
    iterations: int
    products: int
    residual_norms: list[float]
    models: list[float]
    direction: np.ndarray | None = None
    curvature: float | None = None
    iterates: list[tuple[int, np.ndarray]] = field(default_factory=list)


def dot(x: np.ndarray, y: np.ndarray) -> float:
    """Return xᵀy accumulated in float64, whatever the precision of the vectors."""
    if x.dtype == np.float64:
        return float(x @ y)
    return float(np.einsum("i,i->", x, y, dtype=np.float64))


class System:
    """The damped system (A + damping I) x = b: checks its parts, counts products, stops at the first NaN."""

    def __init__(self, A, b, x0=None, damping=0.0):
        self.b = np.asarray(b)
        if self.b.ndim != 1 or self.b.dtype.kind != "f":
            raise ValueError(f"b: expected a vector of floats, got shape {self.b.shape}, dtype {self.b.dtype}")
        self._A = aslinearoperator(A)
        if self._A.shape != (self.b.size, self.b.size):
            raise ValueError(f"A: expected shape ({self.b.size}, {self.b.size}) to match b, got {self._A.shape}")
        if x0 is not None and np.shape(x0) != self.b.shape:
            raise ValueError(f"x0: expected shape {self.b.shape} to match b, got {np.shape(x0)}")
        for name, value in (("b", self.b), ("x0", x0), ("damping", damping)):
            if value is not None and not np.all(np.isfinite(value)):
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
        self.x0 = None if x0 is None or not np.any(x0) else np.array(x0, dtype=self.b.dtype)
        self.damping, self.products = float(damping), 0

    def product(self, v: np.ndarray) -> np.ndarray:
        """Return (A + damping I) v in a vector of its own."""
        self.products += 1
        Av = self._A.matvec(v)
        if not np.isfinite(dot(Av, Av)):
            raise NonFiniteProduct(f"A: product {self.products} is not finite")
        if self.damping:
            return Av + self.b.dtype.type(self.damping) * v
        return Av.astype(self.b.dtype, copy=True)


class LowestCurvature:
    """Remembers the direction of most negative curvature of the undamped A among those it is shown."""

    def __init__(self, damping=0.0):
        self.damping, self.direction, self.curvature = damping, None, None

    def observe(self, d: np.ndarray, Ad: np.ndarray, dAd: float | None = None) -> float:
        """Take in d and its damped product Ad; return the Rayleigh quotient of the undamped A along d."""
        dd = dot(d, d)
        if not dd > 0:
            return np.inf
        damped = (dot(d, Ad) if dAd is None else dAd) / dd
        quotient = damped - self.damping
        # Below rounding of the product itself a negative sign means nothing (dᵀBd <= −c eps ‖d‖‖Bd‖).
        noise = 10 * np.finfo(d.dtype).eps * (np.sqrt(dot(Ad, Ad) / dd) + self.damping)
        if quotient < -noise and (self.curvature is None or quotient < self.curvature):
            self.direction, self.curvature = d / d.dtype.type(np.sqrt(dd)), quotient
        return quotient
