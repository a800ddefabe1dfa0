"""From the solution of a sub-problem to a step: its direction, and its length by a line search."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hfnb import threads
from hfnb.krylov import KrylovResult, NonFiniteProduct, cg, dot, norm
from hfnb.krylov.vectors import combine
from hfnb.objectives.protocols import ObjectiveLike
from hfnb.objectives.sampling import Sample

WIDEST = 100  # step lengths of a wide search are from 2⁻¹⁰⁰ to 2¹⁰⁰ times the first one

Loss: TypeAlias = Callable[[np.ndarray], float]  # w ↦ f(w)


class Step(NamedTuple):
    """A step α d.

    Attributes
    ----------
    alpha : float
        α; 0 if no step was accepted.
    loss : float
        The loss after the step.
    direction : ndarray, shape (p,)
        d.
    name : str
        The name of the direction: "newton", "negative curvature", … or "none".
    trouble : str
        What was not finite, if that is why no step was accepted.
    gradient : ndarray, shape (p,), optional
        The gradient after the step, if it was evaluated together with losses.
    """

    alpha: float
    loss: float
    direction: np.ndarray
    name: str
    trouble: str = ""
    gradient: np.ndarray | None = None


class LossAround:
    """The loss over a sample at points w + αd, of which several can be evaluated in one reduction.

    Parameters
    ----------
    objective : Objective or ObjectiveLike
        The objective; `hfnb.Objective.values_along` is needed if ``at_once`` exceeds 1.
    w : ndarray, shape (p,)
        Parameters.
    sample : Sample, optional
        The samples; all by default.
    at_once : int
        Number of values in a reduction.

    Notes
    -----
    If a value is asked for that is not known yet, it is evaluated together with those at the ``at_once - 1``
    lengths next to it (`nearby`), which a line search may ask for next. The values are the
    same for any ``at_once``, to rounding.

    Examples
    --------
    >>> from hfnb import Dataset, Objective, models
    >>> net = models.mlp([2, 2])
    >>> objective = Objective(net, Dataset(np.eye(2), np.array([0, 1])))
    >>> w, d = np.zeros(net.size), np.array([1.0, -1, -1, 1, 0, 0])
    >>> f = LossAround(objective, w, at_once=5)
    >>> [round(f.at(d, alpha), 3) for alpha in (1.0, 2.0, 0.5)], objective.counts.reductions
    ([0.127, 0.018, 0.313], 1)
    """

    def __init__(
        self, objective: ObjectiveLike, w: np.ndarray, sample: Sample | None = None, at_once: int = 1
    ) -> None:
        self.objective, self.w, self.sample, self.at_once = objective, w, sample, at_once
        self._gradients: dict[tuple[int, float], np.ndarray] = {}
        self._known: dict[tuple[int, float], float] = {}
        self._directions: list[np.ndarray] = []  # kept, so that their ids stay theirs

    def __call__(self, point: np.ndarray) -> float:
        """Return the loss at any point."""
        return self.objective.value(point, self.sample)

    def at(self, d: np.ndarray, alpha: float, others: Sequence[np.ndarray] = ()) -> float:
        """Return the loss at w + αd, which is evaluated only once.

        What is evaluated with it are the losses at lengths next to α, or those at w + d' for ``others`` d'.
        """
        if _key(d, alpha) not in self._known:
            alphas = nearby(alpha, 1 if others else self.at_once)
            points = [*((d, each) for each in alphas), *((each, 1.0) for each in others)]
            self.evaluate(points[: self.at_once])
        return self._known[_key(d, alpha)]

    def evaluate(self, points: Sequence[tuple[np.ndarray, float]]) -> None:
        """Evaluate the loss at the points (d, α) where it is not known, in one reduction."""
        points = [(d, alpha) for d, alpha in points if _key(d, alpha) not in self._known]
        values: Sequence[float] | np.ndarray = ()
        if self.at_once == 1:
            values = [self(self.w + self.w.dtype.type(alpha) * d) for d, alpha in points]
        elif points:
            objective, first = cast(Any, self.objective), points[0][0]
            d = first if all(each is first for each, _ in points) else np.stack([each for each, _ in points])
            values = objective.values_along(self.w, d, [alpha for _, alpha in points], self.sample)
        for (d, alpha), value in zip(points, values, strict=True):
            self.remember(d, alpha, float(value))

    def remember(self, d: np.ndarray, alpha: float, value: float, gradient: np.ndarray | None = None) -> None:
        """Keep the loss at w + αd, and the gradient there if it is known."""
        self._known[_key(d, alpha)] = value
        self._directions.append(d)
        if gradient is not None:
            self._gradients[_key(d, alpha)] = gradient

    def gradient(self, d: np.ndarray, alpha: float) -> np.ndarray | None:
        """Return the gradient at w + αd if it is known."""
        return self._gradients.get(_key(d, alpha))

    def prepare(self, iterates: Sequence[np.ndarray], origin: bool, lengthen: bool = True) -> None:
        """Evaluate what backtracking over iterates, the last one first, and a line search ask for first.

        Nothing is evaluated in advance if ``at_once`` is 1. ``origin`` says whether the loss at w is needed,
        ``lengthen`` whether the line search may double the step.
        """
        if self.at_once > 1:
            last = iterates[-1]
            points = [(last, alpha) for alpha in ((0.0, 1.0) if origin else (1.0,))]
            points += [(last, 2.0)] if lengthen else []
            points += [(each, 1.0) for each in iterates[-2:-4:-1]]
            points += [(last, 4.0)] if lengthen else []
            points += [(each, 1.0) for each in iterates[-4::-1]]
            self.evaluate(points[: self.at_once + origin])


def _key(d: np.ndarray, alpha: float) -> tuple[int, float]:
    """Return the key of the point w + αd."""
    return (id(d) if alpha else 0), alpha


def nearby(alpha: float, count: int) -> list[float]:
    """Return α and the lengths next to it that differ by powers of two, nearest first.

    Parameters
    ----------
    alpha : float
        A step length.
    count : int
        How many lengths, at least 1.

    Returns
    -------
    list of float
        α, 2α, α/2, 4α, α/4, …; α alone if it is 0.

    Examples
    --------
    >>> nearby(1.0, 5)
    [1.0, 2.0, 0.5, 4.0, 0.25]
    """
    powers = [(k + 1) // 2 * (1 if k % 2 else -1) for k in range(count if alpha else 1)]
    return [alpha * 2.0**power for power in powers]


def _loss(f: Loss, w: np.ndarray, d: np.ndarray, alpha: float) -> float:
    """Return f(w + αd)."""
    return f.at(d, alpha) if isinstance(f, LossAround) else f(w + w.dtype.type(alpha) * d)


class Line:
    """The loss f along w + αd, with the rule by which a step length α is accepted.

    α is accepted if f(w + αd) ≤ f0 + c (α slope + ½ α² min(curvature, 0)): Armijo's rule, and its
    second-order form (Moré & Sorensen 1979). A loss that is not finite is not accepted.

    Parameters
    ----------
    f : callable
        The loss.
    w, d : ndarray, shape (p,)
        Parameters and direction.
    f0 : float
        f(w).
    slope : float
        gᵀd ≤ 0.
    curvature : float
        dᵀBd.
    c : float
        The fraction of the predicted decrease that is required.
    """

    def __init__(
        self,
        f: Loss,
        w: np.ndarray,
        d: np.ndarray,
        f0: float,
        slope: float,
        curvature: float = 0.0,
        c: float = 1e-4,
    ) -> None:
        self.f, self.w, self.d, self.f0, self.c = f, w, d, f0, c
        self.slope, self.curvature, self.finite = slope, min(curvature, 0.0), False

    def loss(self, alpha: float) -> float:
        """Return f(w + αd), or infinity if it is not finite."""
        return self.checked(_loss(self.f, self.w, self.d, alpha))

    def checked(self, value: float) -> float:
        """Return a loss, or infinity if it is not finite, and note whether any loss was finite."""
        self.finite = self.finite or bool(np.isfinite(value))
        return value if np.isfinite(value) else np.inf

    def falls(self, alpha: float, value: float) -> bool:
        """Whether ``value`` = f(w + αd) is low enough to accept α."""
        wanted = self.c * (alpha * self.slope + 0.5 * alpha**2 * self.curvature)
        return value <= self.f0 + wanted and value < self.f0

    def visible(self) -> float:
        """Return the least α whose predicted decrease exceeds the rounding of f0, with w + αd ≠ w."""
        eps, alphas = float(np.finfo(self.w.dtype).eps), []
        if self.slope < 0:
            alphas.append(eps * abs(self.f0) / -self.slope)
        if self.curvature < 0:
            alphas.append(np.sqrt(2 * eps * abs(self.f0) / -self.curvature))
        length = norm(self.d)
        return max(min(alphas, default=0.0), eps * norm(self.w) / length if length else 0.0)

    def step(self, alpha: float, value: float, name: str) -> Step:
        """Return the step of length α, with the loss ``value`` there."""
        gradient = self.f.gradient(self.d, alpha) if isinstance(self.f, LossAround) else None
        return Step(alpha, value, self.d, name, gradient=gradient)

    def no_step(self) -> Step:
        """Return the step of length 0, when no length was accepted."""
        trouble = "" if self.finite else "the loss is not finite at any length of the step"
        return Step(0.0, self.f0, self.d, "none", trouble)


def line_search(
    f: Loss,
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
    lengthen: bool = True,
) -> Step:
    """Halve α from 1 until it is accepted; if α = 1 is accepted, double it while f still falls.

    Parameters
    ----------
    f : callable
        The loss.
    w, d : ndarray, shape (p,)
        Parameters and direction.
    f0 : float
        f(w).
    slope, curvature : float
        gᵀd ≤ 0 and dᵀBd.
    first : float, optional
        f(w + d) if it is known.
    name : str
        The name of the direction.
    c : float
        The fraction of the predicted decrease that is required (`Line`).
    trials : int
        The maximum number of halvings of α, and of doublings.
    lengthen : bool
        Whether to double α.

    Returns
    -------
    Step
        The step; α = 0 if none was accepted.
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
    for _ in range(trials if lengthen and alpha == 1.0 else 0):
        longer = line.loss(2 * alpha)
        if not longer < value:
            break
        alpha, value = 2 * alpha, longer
    return line.step(alpha, value, name)


def wide_search(line: Line, name: str, first: float | None = None, trials: int = 20) -> Step:
    """Search along a direction that has no natural length: the first α may be wrong by a factor of 10³⁰.

    Parameters
    ----------
    line : Line
        The loss along the direction.
    name : str
        The name of the direction.
    first : float, optional
        The loss at α = 1 if it is known.
    trials : int
        The number of doublings after which α grows faster.

    Returns
    -------
    Step
        A step whose α is a power of two, within a factor of two of the best; α = 0 if none was accepted.

    Notes
    -----
    The search starts at α = 1. An α that is too long is halved four times and then shrinks faster and faster.
    An α that is so short that rounding hides the decrease grows faster and faster. Between a length that is
    too long and one that is too short, their geometric mean is tried. If no longer α was rejected, the
    accepted α is doubled while the loss falls, faster after ``trials`` doublings. At the end the wider gap
    between log₂ of the best α and that of its tried neighbours is halved until both gaps are 1.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # `Line` treats a loss that overflows as infinity
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
    """Return the exponent of the first accepted α = 2ᵏ, its loss, and the smallest exponent that is too long.

    ``value`` is the loss at α = 1. An α so short that its decrease may be rounding is returned only if no
    longer one is accepted; if none is accepted at all, the last one tried. The third number is None if no α
    was too long.
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
        if flat and high == -WIDEST:  # no length so far changed the loss: all were too short
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
    f: Loss, w: np.ndarray, d: np.ndarray, f0: float, g: np.ndarray, curvature: float
) -> Step:
    """Return a step along a direction of negative curvature, of the length that `wide_search` finds.

    Parameters
    ----------
    f : callable
        The loss.
    w, d : ndarray, shape (p,)
        Parameters, and a unit vector.
    f0 : float
        f(w).
    g : ndarray, shape (p,)
        The gradient.
    curvature : float
        dᵀBd < 0.

    Returns
    -------
    Step
        The step; α = 0 if none was accepted.

    Notes
    -----
    The step goes along −sign(gᵀd) d, a direction of descent. At a saddle, where gᵀd is zero, both signs are
    tried: the loss falls in both directions, but not equally far. So they are if gᵀd is zero to rounding, or
    so small that, for the length that was found, it adds less than √eps of the decrease by curvature: the
    rounding of d may then decide its sign. The quadratic model has no minimum along d and so gives no length.
    The first length tried is |dᵀBd|, which is right if loss and parameters are of order 1, as those of
    networks are.
    """
    slope, length = dot(g, d), w.dtype.type(abs(curvature))

    def along(sign: float) -> Step:
        s = (length * w.dtype.type(sign)) * d
        line = Line(f, w, s, f0, -abs(slope) * float(length), curvature * float(length) ** 2)
        return wide_search(line, "negative curvature")

    sign = -1.0 if slope >= 0 else 1.0
    step = along(sign)
    if _is_rounding(slope, g, 0.5 * abs(curvature) * float(step.alpha * length)):
        step = min(step, along(-sign), key=lambda each: each.loss)
    return step


def _is_rounding(slope: float, g: np.ndarray, by_curvature: float) -> bool:
    """Whether rounding may have decided the sign of gᵀd, for a unit vector d.

    Such a slope is zero to rounding, or less than √eps of ``by_curvature``, which is what the curvature adds
    to it on average over the step.
    """
    eps = float(np.finfo(g.dtype).eps)
    return abs(slope) <= max(eps * norm(g) * np.sqrt(g.size), np.sqrt(eps) * by_curvature)


@dataclass(frozen=True)
class Subproblem:
    """The sub-problem of one iteration: the model f + gᵀs + ½ sᵀ(B + λI)s at w, and the loss f itself.

    Attributes
    ----------
    f : callable
        The loss as a function of the parameters, on the samples on which line searches evaluate it.
    w : ndarray, shape (p,)
        The parameters.
    known : float or None
        f(w) if it is known.
    g : ndarray, shape (p,)
        The gradient.
    B : LinearOperator, shape (p, p), or CellCurvature
        The curvature; with local solves that of each cell, by which only the cells multiply.
    damping : float
        λ.
    exact : bool
        Whether f is the loss that the optimizer minimizes; otherwise it is the loss over another sample.
    lengthen : bool
        Whether a step may be longer than the solution.
    """

    f: Loss
    w: np.ndarray
    known: float | None
    g: np.ndarray
    B: Any
    damping: float
    exact: bool = True
    lengthen: bool = True

    @cached_property
    def loss(self) -> float:
        """f(w)."""
        return _loss(self.f, self.w, self.g, 0.0) if self.known is None else self.known

    @property
    def rounding(self) -> float:
        """The largest change of the loss that rounding can explain."""
        return float(np.finfo(self.w.dtype).eps) * abs(self.loss)

    def no_step(self, error: NonFiniteProduct) -> Step:
        """Return the step of length 0 after a solve that failed."""
        trouble = f"the curvature products are not finite ({error})"
        return Step(0.0, self.loss, np.zeros_like(self.w), "none", trouble)


class Candidate(NamedTuple):
    """An iterate s of a solve, with f(w + s), its change from f(w), and the change predicted by the model."""

    s: np.ndarray
    loss: float
    change: float
    predicted: float


def backtrack_iterates(
    f: Loss, w: np.ndarray, iterates: list[tuple[int, np.ndarray]]
) -> tuple[int, np.ndarray, float]:
    """Go back from the last kept iterate of a solve while f falls (Martens 2010, §4.6).

    Parameters
    ----------
    f : callable
        The loss.
    w : ndarray, shape (p,)
        Parameters.
    iterates : list of (int, ndarray (p,))
        The iterates x, each with its number.

    Returns
    -------
    position : int
        The position of the best iterate in the list.
    x : ndarray, shape (p,)
        The iterate.
    loss : float
        f(w + x).
    """
    best = None
    for position in reversed(range(len(iterates))):
        x, earlier = iterates[position][1], [each for _, each in iterates[:position]][::-1]
        loss = f.at(x, 1.0, earlier) if isinstance(f, LossAround) else f(w + x)
        if best is not None and not loss < best[2]:
            break
        best = (position, x, loss if np.isfinite(loss) else np.inf)
    assert best is not None, "a solver keeps at least its last iterate"
    return best


def backtrack(problem: Subproblem, solution: KrylovResult) -> Candidate:
    """Return the iterate to step along: go back from that of least q through the kept ones while f falls."""
    kept = [*solution.iterates[:-1], (solution.iterations, solution.best)]
    if isinstance(problem.f, LossAround):
        problem.f.prepare([x for _, x in kept], problem.known is None, problem.lengthen)
    position, s, loss = backtrack_iterates(problem.f, problem.w, kept)
    model = solution.model if s is solution.best else solution.models[kept[position][0]]
    return Candidate(s, loss, loss - problem.loss, model - 0.5 * problem.damping * dot(s, s))


def better_step(problem: Subproblem, solution: KrylovResult, candidate: Candidate) -> Step:
    """Return the better of a step along the candidate and one along the negative curvature of the solve."""
    steps = [_newton(problem, candidate)]
    if solution.direction is not None and solution.curvature is not None:
        f, w, f0, g = problem.f, problem.w, problem.loss, problem.g
        steps.append(negative_curvature_step(f, w, solution.direction, f0, g, solution.curvature))
    return min(steps, key=lambda step: step.loss)


def newton_step(problem: Subproblem, solution: KrylovResult, candidate: Candidate) -> Step:
    """Search along the candidate only: negative curvature that the solve met is ignored."""
    return _newton(problem, candidate)


def curvilinear_step(problem: Subproblem, solution: KrylovResult, candidate: Candidate) -> Step:
    """Search along the curve w + α² s + α d, with s the candidate and d the negative curvature of the solve.

    α is halved from 1 until f ≤ f(w) + c α² (gᵀs + ½ dᵀBd). The length of d is |dᵀBd| for a unit vector d, or
    ‖s‖ if that is larger. Its sign is that of descent; where rounding may have decided it, both are tried.
    Without a d, or if no α is accepted, because that length does not fit the scale of the loss, the result is
    that of `better_step`, which searches more widely.

    References
    ----------
    Moré & Sorensen, "On the use of directions of negative curvature in a modified Newton method" (1979).
    """
    f, w, g, s = problem.f, problem.w, problem.g, candidate.s
    slope = dot(g, s)
    if solution.direction is None or solution.curvature is None or slope >= 0:
        return better_step(problem, solution, candidate)
    length, along_d = max(abs(solution.curvature), norm(s)), dot(g, solution.direction)
    decrease = slope + 0.5 * solution.curvature * length**2

    def search(sign: float) -> Step | None:
        alpha, d = 1.0, w.dtype.type(sign * length) * solution.direction
        for _ in range(20):  # as many lengths as a line search has
            direction = w.dtype.type(alpha) * s + d
            loss = f(w + w.dtype.type(alpha) * direction)
            if loss <= problem.loss + 1e-4 * alpha**2 * decrease:
                return Step(alpha, loss, direction, "curvilinear")
            alpha /= 2
        return None

    signs = [-float(np.copysign(1.0, along_d))]
    if _is_rounding(along_d, g, 0.5 * abs(solution.curvature) * length):
        signs.append(-signs[0])
    found = [step for step in map(search, signs) if step is not None]
    if found:
        return min(found, key=lambda step: step.loss)
    return better_step(problem, solution, candidate)


def subspace_step(problem: Subproblem, solution: KrylovResult, candidate: Candidate) -> Step:
    """Search along the minimizer of the model in span{s, d, g}, with eigenvalues of B there made positive.

    The step is Qy with y = −|QᵀBQ + λI|⁻¹ Qᵀg, where Q is an orthonormal basis of the span of the solution s,
    the negative curvature d and the gradient; this takes up to three products. Returns the better of this
    step and `better_step`.

    References
    ----------
    Dauphin et al. (2014) for the absolute values; Byrd, Schnabel & Shultz (1988) for the subspace.
    """
    other, w, g = better_step(problem, solution, candidate), problem.w, problem.g
    spanning = [v for v in (solution.best, solution.direction, g) if v is not None and np.any(v)]
    with threads.limited(1):  # its rounding must not depend on the number of threads
        Q, _ = np.linalg.qr(np.stack(spanning, axis=1))
    BQ = np.stack([problem.B @ q for q in Q.T], axis=1)
    with threads.limited(1):
        T, Qg = Q.T @ BQ, Q.T @ g
    values, vectors = np.linalg.eigh((T + T.T) / 2)
    scale = np.maximum(np.abs(values + problem.damping), float(np.finfo(w.dtype).eps) * np.abs(values).max())
    y = np.divide(-(vectors.T @ Qg), scale, out=np.zeros_like(scale), where=scale > 0)
    s = combine(vectors @ y, Q.T).astype(w.dtype)
    step = line_search(problem.f, w, s, problem.loss, dot(g, s), name="subspace", lengthen=problem.lengthen)
    return min(other, step, key=lambda step: step.loss)


STEPS = {
    "better": better_step,
    "newton": newton_step,
    "curvilinear": curvilinear_step,
    "subspace": subspace_step,
}


def _newton(problem: Subproblem, candidate: Candidate) -> Step:
    """Search along the candidate s, or along −s if s leads uphill, as it may for an indefinite model.

    If s is so short that the decrease is lost in rounding, because λ is far above the curvature, the search
    is a wide one.
    """
    f, w, f0, s, lengthen = problem.f, problem.w, problem.loss, candidate.s, problem.lengthen
    slope = dot(problem.g, s)
    if slope < 0:
        line = Line(f, w, s, f0, slope)
        if line.visible() > 1:
            return wide_search(line, "newton", candidate.loss)
        return line_search(f, w, s, f0, slope, first=candidate.loss, lengthen=lengthen)
    return line_search(f, w, -s, f0, -slope, lengthen=lengthen) if slope > 0 else Step(0.0, f0, s, "none")


PLATEAU = 0.02  # an iteration that lowers the loss by less than this fraction of it is on a plateau
PRODUCTS = 4  # the maximum number of products of a probe
LONGEST_INTERVAL = 64  # the maximum number of iterations between two probes


def probe_negative_curvature(
    f: Loss, w: np.ndarray, f0: float, g: np.ndarray, H: LinearOperator, step: Step
) -> Step:
    """Return the best of a step, of a step along negative curvature of the Hessian, and of their sum.

    Parameters
    ----------
    f : callable
        The loss.
    w, g : ndarray, shape (p,)
        Parameters and gradient.
    f0 : float
        f(w).
    H : LinearOperator, shape (p, p)
        The Hessian at w.
    step : Step
        The step that was found without the Hessian.

    Returns
    -------
    Step
        The best; ``step`` itself if no negative curvature is found or it does not help.

    Notes
    -----
    The direction is the first one of negative curvature in undamped conjugate gradients on H s = −g. On a
    plateau the gradient lies mostly in the few directions of large curvature, so that `PRODUCTS` products are
    enough.

    Examples
    --------
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


def both(f: Loss, w: np.ndarray, first: Step, second: Step, trials: int = 20) -> Step:
    """Take the better of two steps, add the other one, and double the added step while the loss falls.

    Parameters
    ----------
    f : callable
        The loss.
    w : ndarray, shape (p,)
        Parameters.
    first, second : Step
        Two steps from w.
    trials : int
        The maximum number of sums to try.

    Returns
    -------
    Step
        The sum of least loss, or the better step alone if no sum has a lower loss.
    """
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
