"""From a direction to a step: line search, negative curvature and the probe for it, damping."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hfnb import threads
from hfnb.krylov import cg, dot, norm
from hfnb.krylov.vectors import combine

WIDEST = 100  # lengths of a wide search are 2⁻¹⁰⁰ to 2¹⁰⁰ times the first


class Step(NamedTuple):
    """A step α·direction, the loss it leads to, the name of its direction; α = 0 where none was accepted.

    ``trouble`` says so where that is because something was not finite.
    """

    alpha: float
    loss: float
    direction: np.ndarray
    name: str
    trouble: str = ""


class Line:
    """The loss f along w + αd, which has to fall: f(w + αd) ≤ f0 + c (α slope + ½ α² curvature).

    ``slope`` is gᵀd ≤ 0, ``curvature`` dᵀBd, of which only a negative part counts: Armijo's rule, and its
    second-order form (Moré & Sorensen 1979). A loss that is not finite counts as no fall.
    """

    def __init__(
        self, f: Callable, w: np.ndarray, d: np.ndarray, f0: float, slope: float, curvature=0.0, c=1e-4
    ):
        self.f, self.w, self.d, self.f0, self.c = f, w, d, f0, c
        self.slope, self.curvature, self.finite = slope, min(curvature, 0.0), False

    def loss(self, alpha: float) -> float:
        """Return f(w + αd), infinity where it is not finite."""
        return self.checked(self.f(self.w + self.w.dtype.type(alpha) * self.d))

    def checked(self, value: float) -> float:
        self.finite = self.finite or bool(np.isfinite(value))
        return value if np.isfinite(value) else np.inf

    def falls(self, alpha: float, value: float) -> bool:
        """Whether ``value`` = f(w + αd) is low enough."""
        wanted = self.c * (alpha * self.slope + 0.5 * alpha**2 * self.curvature)
        return value <= self.f0 + wanted and value < self.f0

    def visible(self) -> float:
        """Return the least α at which the model falls by the rounding of f0, and w + αd differs from w."""
        eps, alphas = float(np.finfo(self.w.dtype).eps), []
        if self.slope < 0:
            alphas.append(eps * abs(self.f0) / -self.slope)
        if self.curvature < 0:
            alphas.append(np.sqrt(2 * eps * abs(self.f0) / -self.curvature))
        length = norm(self.d)
        return max(min(alphas, default=0.0), eps * norm(self.w) / length if length else 0.0)

    def step(self, alpha: float, value: float, name: str) -> Step:
        return Step(alpha, value, self.d, name)

    def no_step(self) -> Step:
        trouble = "" if self.finite else "the loss is not finite at any length of the step"
        return Step(0.0, self.f0, self.d, "none", trouble)


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

    What is enough is said by `Line`. ``first`` is f(w + d) where it is known.
    """
    line = Line(f, w, d, f0, slope, curvature, c)
    alpha, value = 1.0, line.loss(1.0) if first is None else line.checked(first)
    for _ in range(trials):
        if line.falls(alpha, value):
            break
        alpha /= 2
        value = line.loss(alpha)
    else:
        return line.no_step()
    for _ in range(trials if alpha == 1.0 else 0):
        longer = line.loss(2 * alpha)
        if not longer < value:
            break
        alpha, value = 2 * alpha, longer
    return line.step(alpha, value, name)


def wide_search(line: Line, name: str, first: float | None = None, trials: int = 20) -> Step:
    """Search along a ``line`` whose d has the right direction, but perhaps a length that is off by 10³⁰.

    α are powers of two, from 1 on. Where α is too long for a fall, it is halved four times, then shrinks ever
    faster; where it is too short for one that rounding lets be seen, it grows ever faster; between a length
    that is too long and one that is too short their geometric mean is next. As `line_search` does, it doubles
    an α that is the longest tried while the loss falls, after ``trials`` doublings ever faster. At last gaps
    between the best and its neighbours are halved, the wider first, until they are factors of two.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a length may be absurd: see `Line`
        exponent, value, above = _first_fall(line, line.loss(1.0) if first is None else line.checked(first))
        if not line.falls(2.0**exponent, value):
            return line.no_step()
        below, leap = exponent - 1, 1
        for trial in range(2 * trials if above is None else 0):
            above = min(exponent + leap, WIDEST + 1)
            if above > WIDEST or not (further := line.loss(2.0**above)) < value:
                break
            below, exponent, value, leap = exponent, above, further, leap if trial < trials else 2 * leap
        above = exponent + 1 if above is None else above
        while above - exponent > 1 or exponent - below > 1:
            up = above - exponent >= exponent - below
            middle = (exponent + above) // 2 if up else (exponent + below) // 2
            if (between := line.loss(2.0**middle)) < value:
                below, above = (exponent, above) if up else (below, exponent)
                exponent, value = middle, between
            else:
                below, above = (below, middle) if up else (middle, above)
        return line.step(2.0**exponent, value, name)


def _first_fall(line: Line, value: float) -> tuple[int, float, int | None]:
    """Return the exponent of the first α found to lower the loss, that loss, and the least one too long.

    ``value`` is that of α = 1, the first to be tried. Where none lowers the loss, the last one is returned,
    or one so short that rounding may have lowered the loss, if there was one.
    """
    shortest = int(np.ceil(np.log2(np.clip(line.visible(), 2.0**-WIDEST, 2.0**WIDEST))))
    exponent, low, high, shorter, longer, flat = 0, -WIDEST - 1, WIDEST + 1, 0, 1, True
    spare = None
    while True:
        if line.falls(2.0**exponent, value):
            if exponent >= shortest:
                return exponent, value, high if high <= WIDEST else None
            spare = exponent, value, exponent + 1
        flat = flat and value == line.f0
        if exponent < shortest or (value == line.f0 and low >= 0):
            low = exponent
        else:
            high = exponent
        if flat and high == -WIDEST:  # no length so far changes the loss at all: all were too short
            low, high, flat = 0, WIDEST + 1, False
        if high - low <= 1:
            return spare or (exponent, value, high)
        if low >= -WIDEST and high <= WIDEST:
            exponent = (low + high) // 2
        elif high <= WIDEST:
            shorter += 1
            exponent = max(exponent - 2 ** max(shorter - 4, 0), low + 1)
        else:
            longer *= 2
            exponent = min(max(shortest, low + longer), high - 1)
        value = line.loss(2.0**exponent)


def negative_curvature_step(
    f: Callable, w: np.ndarray, d: np.ndarray, f0: float, g: np.ndarray, curvature: float
) -> Step:
    """Step along a unit direction d of ``curvature`` dᵀBd < 0: length |dᵀBd| first, then by `wide_search`.

    The sign is that of descent, −sign(gᵀd) d. Where gᵀd is lost in rounding both signs are tried: at a saddle
    either way leads down, but not equally far. That first length is right where loss and parameters are of
    order 1, as those of networks are; no length can be known from the quadratic model, which has no minimum.
    """
    slope = dot(g, d)
    rounding = float(np.finfo(w.dtype).eps) * norm(g) * np.sqrt(w.size)
    length = w.dtype.type(abs(curvature))
    signs = [-1.0, 1.0] if abs(slope) <= rounding else [-np.sign(slope)]
    steps = []
    for sign in signs:
        s = (length * w.dtype.type(sign)) * d
        line = Line(f, w, s, f0, -abs(slope) * float(length), curvature * float(length) ** 2)
        steps.append(wide_search(line, "negative curvature"))
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


def levenberg_marquardt(
    damping: float, change: float, predicted: float, curvature: float = 0.0, rounding: float = 0.0
) -> float:
    """Return λ × 3/2 where the model promised too much, ρ < ¼, and λ × 2/3 where it was right, ρ > ¾.

    ρ = change / predicted: ``change`` is f(w + s) − f(w), ``predicted`` the undamped model gᵀs + ½ sᵀBs
    (Martens 2010, §4.1). A model that predicts no fall counts as wrong. A λ of more than a hundred times the
    largest ``curvature`` met (0: unknown) is of another scale. It falls to a tenth where the model was right,
    and where what it predicts is lost in the ``rounding`` of the loss, so that nothing can be said of it.
    """
    far = 0 < 100 * curvature < damping
    if far and np.isfinite(change) and abs(predicted) <= rounding:
        return damping / 10
    ratio = change / predicted if predicted < 0 and np.isfinite(change) else -np.inf
    if ratio < 0.25:
        return damping * 1.5
    if ratio > 0.75:
        return damping / (10 if far else 1.5)
    return damping


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
    Where that is too long by far, as it may be for losses of another scale, `better_step` searches wider.
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
    for _ in range(20):  # as many lengths as a line search has
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
    scale = np.maximum(np.abs(values + damping), float(np.finfo(w.dtype).eps) * np.abs(values).max())
    y = np.divide(-(vectors.T @ Qg), scale, out=np.zeros_like(scale), where=scale > 0)
    s = combine(vectors @ y, Q.T).astype(w.dtype)
    step = line_search(f, w, s, f0, dot(g, s), name="subspace")
    return min(other, step, key=lambda step: step.loss), new_damping


STEPS = {"better": better_step, "curvilinear": curvilinear_step, "subspace": subspace_step}


def _solution_step(f, w, f0, solution, damping):
    """Go back through the solution's iterates: the one to step along, its loss, and the next λ."""
    kept = [*solution.iterates[:-1], (solution.iterations, solution.best)]
    position, s, loss = backtrack_iterates(f, w, kept)
    model = solution.model if s is solution.best else solution.models[kept[position][0]]
    predicted = model - 0.5 * damping * dot(s, s)
    rounding = float(np.finfo(w.dtype).eps) * abs(f0)
    return s, loss, levenberg_marquardt(damping, loss - f0, predicted, solution.norm, rounding)


def _newton(f, w, f0, g, s, loss):
    """Search along s, f(w + s) = ``loss``; an indefinite model may lead uphill, and bends down along −s.

    Where s is so short that its fall is lost in rounding, as by a λ far above the curvature, search widely.
    """
    slope = dot(g, s)
    if slope < 0:
        line = Line(f, w, s, f0, slope)
        if line.visible() > 1:
            return wide_search(line, "newton", loss)
        return line_search(f, w, s, f0, slope, first=loss)
    return line_search(f, w, -s, f0, -slope) if slope > 0 else Step(0.0, f0, s, "none")


PLATEAU = 0.02  # an iteration that lowers the loss by less than this share of it leaves us on a plateau
PRODUCTS = 4  # spent on one probe
LONGEST_INTERVAL = 64  # iterations between two probes at most


def probe_negative_curvature(f: Callable, w: np.ndarray, f0: float, g: np.ndarray, H, step: Step) -> Step:
    """Return the best of a ``step``, of one along negative curvature of the Hessian H, and of their sum.

    The direction is the first that undamped conjugate gradients on H s = −g meet: they follow the gradient
    into the little that curves, and up to `PRODUCTS` products are enough to meet it. ``f`` is the loss as a
    function of the parameters, ``f0`` = f(w). Where none is met, ``step`` is returned.

    >>> from hfnb.problems import quartic_saddle
    >>> saddle, w = quartic_saddle(), np.array([1.0, 0.1])
    >>> f0, g = saddle.value_and_gradient(w)
    >>> newton = Step(0.5, 0.1, np.array([-1.0, 0.0]), "newton")
    >>> found = probe_negative_curvature(saddle.value, w, f0, g, saddle.curvature(w, "hessian"), newton)
    >>> found.name, bool(found.loss < newton.loss)
    ('newton and negative curvature', True)
    """
    solution = cg(H, -g, max_iter=PRODUCTS, progress=0.0)
    if solution.direction is None or solution.curvature is None:
        return step
    return both(f, w, step, negative_curvature_step(f, w, solution.direction, f0, g, solution.curvature))


def both(f: Callable, w: np.ndarray, first: Step, second: Step, trials: int = 20) -> Step:
    """Return the better of two steps, with the other added to it, doubled while the loss f falls."""
    best, other = sorted((first, second), key=lambda step: step.loss)
    if other.alpha == 0:
        return best
    start, s = best.direction * w.dtype.type(best.alpha), other.direction * w.dtype.type(other.alpha)
    for _ in range(trials):
        loss = f(w + (start + s))
        if not loss < best.loss:
            break
        best, s = Step(1.0, loss, start + s, f"{first.name} and {second.name}"), 2 * s
    return best
