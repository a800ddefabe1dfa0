"""From a direction to a step: expanding line search, negative-curvature step, Levenberg–Marquardt damping."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hfnb import threads
from hfnb.krylov import combine, dot, norm


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
    slope = dot(g, d)
    rounding = np.finfo(w.dtype).eps * norm(g) * np.sqrt(w.size)
    length = w.dtype.type(abs(curvature))
    signs = [-1.0, 1.0] if abs(slope) <= rounding else [-np.sign(slope)]
    steps = []
    for sign in signs:
        s = (length * w.dtype.type(sign)) * d
        model = -abs(slope) * float(length), curvature * float(length) ** 2
        steps.append(line_search(f, w, s, f0, *model, name="negative curvature"))
    return min(steps, key=lambda step: step.loss)


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


def better_step(
    f: Callable, w: np.ndarray, f0: float, g: np.ndarray, B, solution, damping: float
) -> tuple[Step, float]:
    """Search along a Krylov ``solution`` and the negative curvature it met: return the better step, and λ.

    λ, the next ``damping``, is Levenberg–Marquardt's for the solution, whichever step is taken.
    """
    s, loss, damping = _solution_step(f, w, f0, solution, damping)
    steps = [_newton(f, w, f0, g, s, loss)]
    if solution.direction is not None:
        steps.append(negative_curvature_step(f, w, solution.direction, f0, g, solution.curvature))
    return min(steps, key=lambda step: step.loss), damping


def curvilinear_step(
    f: Callable, w: np.ndarray, f0: float, g: np.ndarray, B, solution, damping: float
) -> tuple[Step, float]:
    """Search along w + α² s + α d, s the ``solution`` and d the negative curvature it met; return step and λ.

    α is halved from 1 until f ≤ f0 + c α² (gᵀs + ½ dᵀBd), d having the length |dᵀBd|, or ‖s‖ if that is more.
    Source: Moré & Sorensen, "On the use of directions of negative curvature in a modified Newton method"
    (1979). Without a d, or where no α will do, it is `better_step`.
    """
    s, _, new_damping = _solution_step(f, w, f0, solution, damping)
    slope = dot(g, s)
    if solution.direction is None or slope >= 0:
        return better_step(f, w, f0, g, B, solution, damping)
    length = max(abs(solution.curvature), norm(s))
    d = solution.direction * w.dtype.type(-np.copysign(length, dot(g, solution.direction)))
    decrease, alpha = slope + 0.5 * solution.curvature * length**2, 1.0
    while alpha > 1e-6:
        direction = w.dtype.type(alpha) * s + d
        loss = f(w + w.dtype.type(alpha) * direction)
        if loss <= f0 + 1e-4 * alpha**2 * decrease:
            return Step(alpha, loss, direction, "curvilinear"), new_damping
        alpha /= 2
    return better_step(f, w, f0, g, B, solution, damping)


def subspace_step(
    f: Callable, w: np.ndarray, f0: float, g: np.ndarray, B, solution, damping: float
) -> tuple[Step, float]:
    """Search along the minimizer of the model in span{s, d, g}, with eigenvalues of B there made positive.

    y = −|QᵀBQ + λI|⁻¹ Qᵀg for an orthonormal basis Q of the solution s, the negative curvature d and the
    gradient: up to three products. Sources: Dauphin et al. (2014) for the absolute values, Byrd, Schnabel &
    Shultz (1988) for the subspace. Returns the better of this step and `better_step`, and λ.
    """
    other, new_damping = better_step(f, w, f0, g, B, solution, damping)
    spanning = [v for v in (solution.best, solution.direction, g) if v is not None and np.any(v)]
    with threads.limited(1):  # its rounding must not depend on the number of threads
        Q, _ = np.linalg.qr(np.stack(spanning, axis=1))
    BQ = np.stack([B @ q for q in Q.T], axis=1)
    with threads.limited(1):
        T, Qg = Q.T @ BQ, Q.T @ g
    values, vectors = np.linalg.eigh((T + T.T) / 2)
    scale = np.maximum(np.abs(values + damping), np.finfo(w.dtype).eps * np.abs(values).max() + 1e-30)
    s = combine(vectors @ (-(vectors.T @ Qg) / scale), Q.T).astype(w.dtype)
    step = line_search(f, w, s, f0, dot(g, s), name="subspace")
    return min(other, step, key=lambda step: step.loss), new_damping


STEPS = {"better": better_step, "curvilinear": curvilinear_step, "subspace": subspace_step}


def _solution_step(f, w, f0, solution, damping):
    """Go back through the solution's iterates: the one to step along, its loss, and the next λ."""
    kept = [*solution.iterates[:-1], (solution.iterations, solution.best)]
    position, s, loss = backtrack_iterates(f, w, kept)
    model = solution.model if s is solution.best else solution.models[kept[position][0]]
    return s, loss, levenberg_marquardt(damping, loss - f0, model - 0.5 * damping * dot(s, s))


def _newton(f, w, f0, g, s, loss):
    """Search along s, f(w + s) = ``loss``; an indefinite model may lead uphill, and bends down along −s."""
    slope = dot(g, s)
    if slope < 0:
        return line_search(f, w, s, f0, slope, first=loss)
    return line_search(f, w, -s, f0, -slope) if slope > 0 else Step(0.0, f0, s, "none")
