"""Line searches: the length of a step along a direction."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from hfnb.krylov import norm

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
    """

    alpha: float
    loss: float
    direction: np.ndarray
    name: str
    trouble: str = ""


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
        return self.checked(self.f(self.w + self.w.dtype.type(alpha) * self.d))

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
        return Step(alpha, value, self.d, name)

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
    for _ in range(trials if alpha == 1.0 else 0):
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
