"""The damping rule: how λ in (B + λI) s = −g follows the agreement of the quadratic model with the loss."""

import numpy as np


def levenberg_marquardt(
    damping: float, change: float, predicted: float, curvature: float = 0.0, rounding: float = 0.0
) -> float:
    """Return λ × 3/2 where the model promised too much, ρ < ¼, and λ × 2/3 where it was right, ρ > ¾.

    Parameters
    ----------
    damping : float
        λ of the iteration that has been made.
    change : float
        f(w + s) − f(w), what the step did.
    predicted : float
        gᵀs + ½ sᵀBs, what the undamped model said that it would do. A model that predicts no fall counts as
        wrong.
    curvature : float
        The largest curvature that the solver met, 0 if it is unknown.
    rounding : float
        The size of a change of the loss that rounding can explain.

    Returns
    -------
    float
        The next λ.

    Notes
    -----
    ρ = ``change`` / ``predicted``. A λ of more than a hundred times the largest curvature has another scale
    than the problem: it falls to a tenth where the model was right, and where the predicted change is lost in
    rounding, so that ρ says nothing.

    References
    ----------
    Martens, "Deep learning via Hessian-free optimization" (2010), §4.1.

    Examples
    --------
    >>> levenberg_marquardt(3.0, change=-0.9, predicted=-1.0), levenberg_marquardt(3.0, 0.1, -1.0)
    (2.0, 4.5)
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


def next_damping(damping: float, proposed: float, rejections: int) -> float:
    """Return λ of the next iteration.

    Parameters
    ----------
    damping : float
        λ of the iteration that has been made.
    proposed : float
        What `levenberg_marquardt` says, which is followed where the step was accepted.
    rejections : int
        How many steps were rejected one after another, the last one included; 0 if it was accepted.

    Returns
    -------
    float
        ``proposed``, or after rejections at least λ × 1.5 to the power of their number: λ may be far below
        the scale of the curvature, and grows faster with each rejection.

    Examples
    --------
    >>> next_damping(1.0, 1.5, rejections=0), next_damping(1.0, 1.5, rejections=3)
    (1.5, 3.375)
    """
    return max(proposed, 1.5**rejections * damping) if rejections else proposed
