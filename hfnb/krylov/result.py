"""What a Krylov solver returns: its result, and the status that says why it stopped."""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np


class Status(StrEnum):
    """Why a Krylov solver stopped; the value of each member is a sentence for the reader.

    A member is a string: it prints as its sentence, equals it and has the methods of `str`.

    Examples
    --------
    >>> Status.CALLBACK
    'stopped by the callback'
    >>> Status("stopped by the callback") is Status.CALLBACK
    True
    """

    # A stopping test was met.
    CONVERGED = "converged: the residual is within the tolerance"
    CONVERGED_TO_ROUNDING = "converged: the residual is as small as rounding allows"
    SUBSPACE_CONVERGED = "converged: what is left out of the Krylov space is within the tolerance"
    SUBSPACE_EXHAUSTED = "converged: the Krylov space is exhausted"
    LEAST_SQUARES = "least squares: A maps the residual to zero within the tolerance"
    LITTLE_PROGRESS = "truncated: the model gained too little over the last iterations"
    LITTLE_GAIN = "truncated: the last iteration gained less than the mean one"
    ZERO_RIGHT_HAND_SIDE = "the right-hand side is zero: x = 0"
    BOUNDARY = "boundary: a longer step leads out of the trust region"
    BOUNDARY_BY_CURVATURE = "boundary: non-positive curvature leads out of the trust region"
    # A direction of negative curvature, of A or of A + damping I, ended the solve.
    NON_POSITIVE_CURVATURE = "non-positive curvature: the model has no minimum along the last direction"
    RESIDUAL_CURVATURE = "non-positive curvature: along the residual the model has no minimum"
    INDEFINITE = "negative curvature: the model has no minimum"
    DIRECTION_CURVATURE = "negative curvature: at most -damping/2 along the last direction"
    STEP_CURVATURE = "negative curvature: at most -damping/2 along the step from x0"
    SLOW_RESIDUAL = "negative curvature: the residual falls too slowly for positive curvature"
    # The solve ended early.
    MAX_ITER = "max_iter iterations done"
    MAX_PRODUCTS = "max_iter products done"
    CALLBACK = "stopped by the callback"
    # The solve cannot go on.
    BREAKDOWN = "breakdown: A maps the residual to zero, so that no step reduces it"
    STAGNATED = "stagnated: the true residual is above the tolerance"
    DIVERGED = "diverged: x grew until rounding leaves no digit of the residual"
    OVERFLOW = "out of range: the squares of the right-hand side overflow; scale the system"
    UNDERFLOW = "out of range: the squares of the right-hand side vanish; scale the system"

    def __repr__(self) -> str:
        """Return the sentence in quotes, as a string is shown."""
        return repr(self.value)


@dataclass
class KrylovResult:
    """The result of a Krylov solver of (A + damping I) x = b.

    Attributes
    ----------
    x : ndarray (n,)
        The solution if the residual test was met, otherwise ``best``.
    status : Status or str
        Why the solver stopped; a solver of your own may give any sentence.
    success : bool
        Whether a stopping test was met.
    iterations : int
        Iterates after x0.
    products : int
        How often A was applied.
    residual_norms, models : list of float
        ‖b − (A + damping I)x‖ and q(x) = ½xᵀ(A + damping I)x − bᵀx of each iterate, x0 first.
    best : ndarray (n,)
        The iterate of least q.
    direction : ndarray (n,) or None
        The unit vector d of most negative curvature of the undamped A among the vectors of the solve; None
        if no curvature was negative by more than rounding.
    curvature : float or None
        dᵀAd, its Rayleigh quotient.
    iterates : list of (int, ndarray (n,))
        Iterates for backtracking, each with its number: several of them including the last one, or only the
        best one.
    norm : float
        The largest ‖Av‖/‖v‖ of the solve, a lower bound of ‖A‖; 0 if unknown.
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
        """The least value of the quadratic model among the iterates, q(best)."""
        return min(self.models)
