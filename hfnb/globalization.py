"""From a direction to a step: expanding line search, negative-curvature step, Levenberg–Marquardt damping."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """A step α·direction, the loss it leads to, the name of its direction; α = 0 where none was accepted."""

    alpha: float
    loss: float
    direction: np.ndarray
    name: str


def line_search(
    f: Callable,
    w: np.ndarray,
    d: np.ndarray,
    f0: float,
    slope: float,
    curvature: float = 0.0,
    *,
    first: float | None = None,
    name: str = "newton",
    c: float = 1e-4,
    trials: int = 20,
) -> Step:
    """Halve α from 1 until f falls enough; where α = 1 already does, double it while f still falls.

    Accepts f(w + αd) ≤ f0 + c (α slope + ½ α² min(curvature, 0)), slope = gᵀd ≤ 0, curvature = dᵀBd: Armijo's
    rule, and its second-order form where the curvature is negative (Moré & Sorensen 1979). ``first`` is
    f(w + d) where it is known. A loss that is not finite counts as no fall.
    """

    def loss(alpha):
        value = f(w + w.dtype.type(alpha) * d)
        return value if np.isfinite(value) else np.inf

    def enough(alpha, value):
        return value <= f0 + c * (alpha * slope + 0.5 * alpha**2 * min(curvature, 0.0)) and value < f0

    alpha, value = 1.0, loss(1.0) if first is None else first
    for _ in range(trials):
        if enough(alpha, value):
            break
        alpha /= 2
        value = loss(alpha)
    else:
        return Step(0.0, f0, d, "none")
    for _ in range(trials if alpha == 1.0 else 0):
        longer = loss(2 * alpha)
        if not longer < value:
            break
        alpha, value = 2 * alpha, longer
    return Step(alpha, value, d, name)


def negative_curvature_step(
    f: Callable, w: np.ndarray, d: np.ndarray, f0: float, g: np.ndarray, curvature: float
) -> Step:
    """Step along a unit direction d of ``curvature`` dᵀBd < 0: length |dᵀBd| first, doubled while f falls.

    The sign is that of descent, −sign(gᵀd) d. Where gᵀd is lost in rounding both signs are tried: at a saddle
    either way leads down, but not equally far.
    """
    slope = float(g @ d)
    rounding = np.finfo(w.dtype).eps * float(np.linalg.norm(g)) * np.sqrt(w.size)
    length = w.dtype.type(abs(curvature))
    signs = [-1.0, 1.0] if abs(slope) <= rounding else [-np.sign(slope)]
    steps = []
    for sign in signs:
        s = (length * w.dtype.type(sign)) * d
        model = -abs(slope) * float(length), curvature * float(length) ** 2
        steps.append(line_search(f, w, s, f0, *model, name="negative curvature"))
    return min(steps, key=lambda step: step.loss)


def choose_step(
    f: Callable, w: np.ndarray, f0: float, g: np.ndarray, solution, damping: float
) -> tuple[Step, float]:
    """Search along a Krylov ``solution`` and the negative curvature it met: return the better step, and λ.

    λ, the next ``damping``, is Levenberg–Marquardt's for the solution, whichever step is taken.
    """
    kept = [*solution.iterates[:-1], (solution.iterations, solution.best)]
    position, s, loss = backtrack_iterates(f, w, kept)
    model = solution.model if s is solution.best else solution.models[kept[position][0]]
    damping = levenberg_marquardt(damping, loss - f0, model - 0.5 * damping * float(s @ s))
    slope, steps = float(g @ s), [Step(0.0, f0, s, "none")]
    if slope < 0:
        steps.append(line_search(f, w, s, f0, slope, first=loss))
    elif slope > 0:  # an indefinite model can lead uphill, and then bends down along −s, too
        steps.append(line_search(f, w, -s, f0, -slope))
    if solution.direction is not None:
        steps.append(negative_curvature_step(f, w, solution.direction, f0, g, solution.curvature))
    return min(steps, key=lambda step: step.loss), damping


def backtrack_iterates(f: Callable, w: np.ndarray, iterates: list) -> tuple[int, np.ndarray, float]:
    """Go back through the kept iterates while f falls (Martens 2010, §4.6): (position, x, f(w + x))."""
    best = None
    for position in reversed(range(len(iterates))):
        x = iterates[position][1]
        loss = f(w + x)
        if best is not None and not loss < best[2]:
            break
        best = (position, x, loss if np.isfinite(loss) else np.inf)
    assert best is not None, "a solver keeps at least its last iterate"
    return best


def levenberg_marquardt(damping: float, change: float, predicted: float) -> float:
    """Return λ × 3/2 where the model promised too much, ρ < ¼, and λ × 2/3 where it was right, ρ > ¾.

    ρ = change / predicted: ``change`` is f(w + s) − f(w), ``predicted`` the undamped model gᵀs + ½ sᵀBs
    (Martens 2010, §4.1). A model that predicts no fall counts as wrong.
    """
    ratio = change / predicted if predicted < 0 and np.isfinite(change) else -np.inf
    if ratio < 0.25:
        return damping * 1.5
    return damping / 1.5 if ratio > 0.75 else damping
