"""What every Krylov solver returns."""

from dataclasses import dataclass, field

import numpy as np


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
