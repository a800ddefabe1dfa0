"""The damping rule: how λ in (B + λI) s = −g follows the agreement of the quadratic model with the loss."""

import numpy as np

FRACTION = 1 / 3  # of the curvature along the gradient, which is larger than that along most other directions


def levenberg_marquardt(
    damping: float, change: float, predicted: float, curvature: float = 0.0, rounding: float = 0.0
) -> float:
    """Return λ × 3/2 if the model predicted too much, ρ < ¼, and λ × 2/3 if it was right, ρ > ¾.

    Parameters
    ----------
    damping : float
        λ of the last iteration.
    change : float
        f(w + s) − f(w), the change of the loss by the step.
    predicted : float
        gᵀs + ½ sᵀBs, the change that the undamped model predicted. A model that predicts no decrease counts
        as wrong.
    curvature : float
        The largest curvature that the solver met; 0 if it is unknown.
    rounding : float
        The size of a change of the loss that rounding can explain.

    Returns
    -------
    float
        The next λ.

    Notes
    -----
    ρ = ``change`` / ``predicted``. If λ is more than a hundred times the largest curvature, it does not fit
    the scale of the problem. It is then divided by ten if the model was right, and also if the predicted
    change is lost in rounding, so that ρ has no meaning.

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


def first_damping(curvature: float, squared: float) -> float:
    """Return the first λ from the curvature along the gradient, a `FRACTION` of gᵀBg / gᵀg.

    Parameters
    ----------
    curvature, squared : float
        gᵀBg and gᵀg.

    Returns
    -------
    float
        λ > 0; 1 if the gradient or the curvature along it is zero or not finite.

    Notes
    -----
    This λ has the scale of the problem: if the loss is multiplied by a number, or w is measured in another
    unit, λ and B change in the same proportion.

    Examples
    --------
    >>> first_damping(12.0, 2.0), first_damping(0.0, 0.0)
    (2.0, 1.0)
    """
    along = abs(curvature) / squared if squared > 0 else 0.0
    return FRACTION * along if 0 < along < np.inf else 1.0


def next_damping(damping: float, proposed: float, rejections: int, divisor: float = 1.0) -> float:
    """Return λ of the next iteration.

    Parameters
    ----------
    damping : float
        λ of the last iteration.
    proposed : float
        The λ that `levenberg_marquardt` returns, which is taken if the step was accepted.
    rejections : int
        Number of steps in a row that were rejected, including the last one; 0 if it was accepted.
    divisor : float
        By which λ is divided after an accepted step: the factor by which the mini-batch grew, if the loss
        fell; with local solves, the step length if it exceeds 1.

    Returns
    -------
    float
        ``proposed`` / ``divisor``: λ also keeps a step from fitting the noise of a mini-batch, which is
        smaller with more samples. On a plateau, such as a saddle, that says nothing about the λ needed after
        it. A mean of local solutions that is lengthened was too short, because λ is too large. After k
        rejections in a row at least λ × 1.5ᵏ. λ may be far below the
        scale of the curvature, and so grows faster with each rejection.

    Examples
    --------
    >>> next_damping(1.0, 1.5, rejections=0), next_damping(1.0, 1.5, rejections=3)
    (1.5, 3.375)
    >>> next_damping(1.0, 1.5, rejections=0, divisor=2.0)
    0.75
    """
    return max(proposed, 1.5**rejections * damping) if rejections else proposed / divisor
