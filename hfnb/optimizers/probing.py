"""Negative curvature where it pays: looked for on a plateau, for a few products, and added to the step."""

from collections.abc import Callable

import numpy as np

from hfnb.krylov import cg
from hfnb.optimizers.steps import Step, negative_curvature_step

PLATEAU = 0.02  # an iteration that lowers the loss by less than this share of it leaves us on a plateau
PRODUCTS = 4  # spent on one look
LONGEST_INTERVAL = 64  # iterations between two looks, after many in vain


def probe(f: Callable, w: np.ndarray, f0: float, g: np.ndarray, H, step: Step) -> Step:
    """Return the best of a ``step``, of one along negative curvature of the Hessian H, and of their sum.

    The direction is the first that undamped conjugate gradients on H s = −g meet: they follow the gradient
    into the little that curves, and up to `PRODUCTS` products are enough to meet it. ``f`` is the loss as a
    function of the parameters, ``f0`` = f(w). Where none is met, ``step`` is returned.

    >>> from hfnb.problems import quartic_saddle
    >>> saddle, w = quartic_saddle(), np.array([1.0, 0.1])
    >>> f0, g = saddle.value_and_gradient(w)
    >>> newton = Step(0.5, 0.1, np.array([-1.0, 0.0]), "newton")
    >>> found = probe(saddle.value, w, f0, g, saddle.curvature(w, "hessian"), newton)
    >>> found.name, bool(found.loss < newton.loss)
    ('newton and negative curvature', True)
    """
    solution = cg(H, -g, maxiter=PRODUCTS, progress=0.0)
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
