"""Sub-problems that each cell of the data solves alone: their mean solution, in one reduction.

A global solve needs a reduction for each product. Here every cell solves (Bₖ + λI) sₖ = −g with the curvature
Bₖ of its own samples and the global gradient g, and the mean of the sₖ becomes the direction of the step. An
iteration then has two or three reductions: the mean of the solutions; the losses at several step lengths
together with the gradient for the length 1; and the gradient, if another length was taken.

Wang, Roosta-Khorasani, Xu & Mahoney, "GIANT: Globally improved approximate Newton method for distributed
optimization" (2018), for convex losses. Here B may be indefinite.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from hfnb.krylov import KrylovResult, NonFiniteProduct, cg, dot, norm
from hfnb.objectives.objective import Objective
from hfnb.objectives.protocols import CurvatureFunction
from hfnb.objectives.sampling import Draws, Sample
from hfnb.optimizers.steps import PRODUCTS, LossAround, nearby

AT_ONCE = 7  # step lengths whose losses are evaluated in one reduction, together with a gradient
NUMBERS = 4  # at the end of what a cell returns, see `solution_of_cell`


@dataclass(frozen=True)
class CellSolve:
    """How a cell solves its sub-problem: what travels to the engines beside vectors.

    Attributes
    ----------
    solve : callable
        The solver, solve(A, b, x0, *, damping) -> KrylovResult.
    curvature : str or callable
        The kind of curvature.
    samples : Draws
        How many samples of a cell its curvature takes.
    iteration : int
        The iteration, which decides the samples.
    damping : float
        λ.
    probe : bool
        Whether to look for negative curvature of the Hessian beside a solve with another curvature.
    """

    solve: Callable[..., KrylovResult]
    curvature: str | CurvatureFunction
    samples: Draws
    iteration: int
    damping: float
    probe: bool

    @property
    def explores(self) -> bool:
        """Whether a cell returns a direction of negative curvature; Gauss–Newton matrices have none."""
        return self.probe or self.curvature != "gauss-newton"


class CellCurvature(NamedTuple):
    """The curvatures Bₖ of all cells at w: what `mean_solution` solves with.

    Attributes
    ----------
    objective : Objective
        The objective, with cells.
    w : ndarray, shape (p,)
        Parameters.
    kind : str or callable
        The kind of curvature.
    samples : Draws
        How many samples the curvature takes.
    iteration : int
        The iteration, which decides the samples.
    probe : bool
        Whether to look for negative curvature of the Hessian beside the solves.
    """

    objective: Objective
    w: np.ndarray
    kind: str | CurvatureFunction
    samples: Draws
    iteration: int
    probe: bool


def solution_of_cell(
    cell: Objective, w: np.ndarray, g: np.ndarray, start: np.ndarray | None, problem: CellSolve
) -> np.ndarray:
    """Return the solution of the sub-problem in one cell, as a vector to be averaged.

    Parameters
    ----------
    cell : Objective
        The samples of the cell.
    w, g : ndarray, shape (p,)
        Parameters, and the gradient over all samples.
    start : ndarray, shape (p,), optional
        Where the solve starts.
    problem : CellSolve
        How to solve.

    Returns
    -------
    ndarray, shape (p + 4,) or (2 p + 4,)
        The solution s; if the cell explores, a direction d of negative curvature with gᵀd ≤ 0; then 1, sᵀBs,
        the number of iterations, and 1 if d is not zero. All are 0 if anything is not finite, so that the
        cell does not take part.
    """
    vectors = np.zeros((1 + problem.explores, w.size), w.dtype)
    numbers = np.zeros(NUMBERS, w.dtype)
    nothing = np.concatenate([vectors.ravel(), numbers])
    sample = _sample(problem, cell.n)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            B = cell.curvature(w, problem.curvature, sample)
            found = problem.solve(B, -g, start, damping=problem.damping)
            direction = _probed(cell, w, g, sample) if problem.probe else found.direction
    except NonFiniteProduct:
        return nothing
    s = vectors[0] = found.best
    if problem.explores and direction is not None:
        vectors[1] = -direction if dot(g, direction) > 0 else direction
    curved = 2 * (found.model - dot(g, s)) - problem.damping * dot(s, s)
    numbers[:] = 1, curved, found.iterations, problem.explores and direction is not None
    answer = np.concatenate([vectors.ravel(), numbers])
    return answer if np.isfinite(answer).all() else nothing


def _probed(cell: Objective, w: np.ndarray, g: np.ndarray, sample: Sample | None) -> np.ndarray | None:
    """Return a direction of negative curvature of the Hessian in a cell; None if none is met."""
    try:
        return cg(cell.curvature(w, "hessian", sample), -g, max_iter=PRODUCTS, progress=0.0).direction
    except NonFiniteProduct:  # the solve with the other curvature is finite all the same
        return None


def _sample(problem: CellSolve, n: int) -> Sample | None:
    """Return the samples of the curvature in a cell of n samples; None for all."""
    size, draws = problem.samples.curvature_batch_size, problem.samples
    if size == "part":
        size = max(n // 4, 500)
    elif size != "same":
        size = max(round(int(size) * n / draws.n), 1)
    return None if size == "same" or int(size) >= n else Sample(int(size), draws.seed + 1, problem.iteration)


def mean_solution(
    solve: Callable[..., KrylovResult],
    A: CellCurvature,
    b: np.ndarray,
    x0: np.ndarray | None = None,
    *,
    damping: float = 0.0,
) -> KrylovResult:
    """Return the mean of the solutions of all cells: one reduction, and a product if they met a direction.

    Parameters
    ----------
    solve : callable
        The solver of each cell, solve(A, b, x0, *, damping) -> KrylovResult.
    A : CellCurvature
        The curvatures Bₖ of the cells.
    b : ndarray, shape (p,)
        −g, the negative gradient over all samples.
    x0 : ndarray, shape (p,), optional
        Where the solves start.
    damping : float
        λ.

    Returns
    -------
    KrylovResult
        ``best`` is the mean s of the solutions. Its ``model`` is gᵀs + ½ c + ½ λ‖s‖², where c is the mean of
        the cells' own sₖᵀBₖsₖ: sᵀBs itself would take another reduction. ``iterations`` and ``products`` are
        means over the cells. ``direction`` is the normalized mean of the cells' directions of negative
        curvature, if the curvature over samples of all cells is negative along it.

    Raises
    ------
    NonFiniteProduct
        If no cell has a finite solution.
    """
    p, objective = A.w.size, A.objective
    how = CellSolve(solve, A.kind, A.samples, A.iteration, damping, A.probe)
    size = p * (1 + how.explores) + NUMBERS
    mean = objective.average(solution_of_cell, A.w, -b, x0, how, size=size)
    share, curved, iterations, met = (float(number) for number in mean[-NUMBERS:])
    if not share > 0:
        raise NonFiniteProduct("in every cell")
    s, count = mean[:p] / A.w.dtype.type(share), round(iterations / share)
    model = 0.5 * curved / share + 0.5 * damping * dot(s, s) - dot(b, s)
    direction = curvature = None
    if met and (length := norm(mean[p : 2 * p])) > 0:
        d = mean[p : 2 * p] / A.w.dtype.type(length)
        B = objective.curvature(A.w, "hessian" if A.probe else A.kind, A.samples.curvature(A.iteration))
        along = dot(d, B @ d)
        if along < 0:
            direction, curvature = d, along
    return KrylovResult(
        x=s,
        status=f"the mean of the solutions of {objective.cells} cells",
        success=True,
        iterations=count,
        products=count,
        residual_norms=[],
        models=[model],
        best=s,
        direction=direction,
        curvature=curvature,
        iterates=[(0, s)],
    )


class LossInCells(LossAround):
    """The loss around w over all samples, whose first values come with a gradient in the same reduction.

    The gradient is that at w + d, the step that is taken most often; it saves a reduction then. Losses that
    come with it are in the precision of w, as all numbers of an average.
    """

    def prepare(self, iterates: Sequence[np.ndarray], origin: bool, lengthen: bool = True) -> None:
        """Evaluate the losses at lengths around 1, and the gradient for the length 1, in one reduction."""
        d, alphas, p = iterates[-1], nearby(1.0, self.at_once), self.w.size
        objective = cast(Objective, self.objective)
        mean = objective.average(losses_and_gradient, self.w, d, alphas, size=p + len(alphas))
        for alpha, value in zip(alphas, mean[p:], strict=True):
            self.remember(d, alpha, float(value), mean[:p] if alpha == 1 else None)


def losses_and_gradient(cell: Objective, w: np.ndarray, d: np.ndarray, alphas: Sequence[float]) -> np.ndarray:
    """Return the gradient of a cell at w + αd for the first α, and the losses for all.

    Parameters
    ----------
    cell : Objective
        The samples of the cell.
    w, d : ndarray, shape (p,)
        Parameters and direction.
    alphas : sequence of float
        Step lengths.

    Returns
    -------
    ndarray, shape (p + number of lengths,)
        The gradient and the losses, in the precision of w.
    """
    loss, gradient = cell.value_and_gradient(w + w.dtype.type(alphas[0]) * d)
    losses = [loss, *(cell.values_along(w, d, alphas[1:]) if len(alphas) > 1 else ())]
    return np.concatenate([gradient, losses]).astype(w.dtype, copy=False)
