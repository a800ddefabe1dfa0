"""Is a stationary point a minimum? A second-order certificate, and what `hessian_free` does by its verdict.

The certificate is asked for if the gradient vanishes, or if many steps in a row are rejected.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hfnb.krylov import NonFiniteProduct, System, lanczos_process, norm, random_start
from hfnb.krylov.system import Operator
from hfnb.krylov.vectors import combine
from hfnb.objectives.protocols import ObjectiveLike
from hfnb.optimizers.history import State, Status
from hfnb.optimizers.steps import LossAround, Step, negative_curvature_step
from hfnb.validation import check_methods, check_nonnegative, check_positive_int, check_probability

REJECTIONS = 10  # rejected steps in a row before a certificate is made; λ has then grown by a factor of 5·10⁹
LEAVES = 3  # number of attempts to leave a saddle after that, each with a new certificate


@dataclass(frozen=True)
class Certificate:
    """The result of a second-order test of a point.

    Attributes
    ----------
    verdict : {"minimum", "saddle", "undecided"}
        "minimum": the smallest eigenvalue is at least −``tolerance``, except with probability ``failure``.
        "saddle": ``direction`` proves that it is below −``tolerance``. "undecided": see ``reason``.
    reason : str
        The reason for the verdict.
    eigenvalue : float
        The smallest Ritz value, dᵀBd for the unit vector d = ``direction``.
    tolerance : float
        Negative curvature of at most this size counts as zero.
    failure : float
        An upper bound on the probability, over random starts, that an eigenvalue below −tolerance was missed.
    largest : float
        The largest absolute Ritz value.
    products : int
        Number of curvature products.
    seed : int
        Seed of the random start.
    direction : ndarray, shape (p,)
        The unit vector of ``eigenvalue``.
    gradient_norm, gradient_tolerance : float, optional
        ‖∇f(w)‖, and the largest gradient norm at which `certify` considers w stationary.
    """

    verdict: str
    reason: str
    eigenvalue: float
    tolerance: float
    failure: float
    largest: float
    products: int
    seed: int
    direction: np.ndarray
    gradient_norm: float | None = None
    gradient_tolerance: float | None = None


def certify_operator(
    A: Operator,
    *,
    tol: float | None = None,
    failure: float = 1e-6,
    seed: int | None = None,
    max_products: int = 200,
) -> Certificate:
    """Say whether a symmetric operator has an eigenvalue below −tol, by the Lanczos process.

    Parameters
    ----------
    A : LinearOperator or ndarray, shape (p, p)
        The operator.
    tol : float, optional
        Negative curvature of at most this size counts as zero; a thousandth of the largest absolute Ritz
        value by default.
    failure : float
        The probability, in (0, 1), with which a "minimum" may be wrong.
    seed : int, optional
        Seed of the random start; a fresh one by default.
    max_products : int
        The maximum number of products; if they do not suffice, the verdict is "undecided".

    Returns
    -------
    Certificate
        The verdict and its reasons.

    Raises
    ------
    ValueError
        If a number is out of range, or A is not symmetric.

    Notes
    -----
    The process starts at a random vector. It ends as soon as a Ritz value is below −tol, or the probability
    that it missed an eigenvalue below −tol is at most ``failure`` (`krylov.Tridiagonal.failure`).
    `products_needed` bounds the products beforehand; a dense spectrum often takes far fewer. In float32 a
    tolerance below rounding, about 1e-6 of the largest absolute Ritz value, decides nothing.

    Examples
    --------
    >>> certify_operator(np.diag([3.0, 2.0, -1.0]), seed=0).verdict
    'saddle'
    >>> certify_operator(np.diag([3.0, 2.0, 0.0]), seed=0).verdict
    'minimum'
    """
    failure = check_probability("failure", failure)
    tol = None if tol is None else check_nonnegative("tol", tol)
    start, seed = random_start(A, seed)
    system = System(A, start)
    for lanczos in lanczos_process(system, start, check_positive_int("max_products", max_products)):
        ritz, S = lanczos.ritz()
        tolerance = 1e-3 * np.abs(ritz).max() if tol is None else tol
        missed = lanczos.failure(-tolerance)
        if ritz[0] < -tolerance or missed <= failure:
            break
    direction = combine(S[:, 0], lanczos.V)
    direction /= norm(direction)
    eigenvalue, rounding = float(ritz[0]), system.noise
    if eigenvalue < -tolerance:
        # One more product for the exact curvature: in float32 the Ritz vector is slightly off.
        eigenvalue, missed = system.product(direction, out=np.empty_like(direction)), 0.0
    if eigenvalue < -max(tolerance, rounding):
        verdict, reason = "saddle", f"a direction of curvature {eigenvalue:.3g}"
    elif tolerance < rounding:
        verdict, reason = "undecided", f"the tolerance is below rounding, {rounding:.1g}"
    elif missed <= failure:
        verdict, reason = (
            "minimum",
            f"no curvature below {-tolerance:.3g}, but for a probability of {missed:.1g}",
        )
    else:
        verdict, reason = (
            "undecided",
            f"curvature below {-tolerance:.3g} may have been missed, with probability {missed:.1g} at most",
        )
    return Certificate(
        verdict=verdict,
        reason=reason,
        eigenvalue=eigenvalue,
        tolerance=float(tolerance),
        failure=missed,
        largest=float(np.abs(ritz).max()),
        products=system.products,
        seed=seed,
        direction=direction,
    )


def certify(
    objective: ObjectiveLike,
    w: np.ndarray,
    *,
    gradient_tol: float = 1e-5,
    curvature: str = "hessian",
    **options: Any,
) -> Certificate:
    """Say whether w is a minimum or a saddle of an objective, from its gradient and curvature products.

    Parameters
    ----------
    objective : Objective or ObjectiveLike
        The objective.
    w : ndarray, shape (p,)
        The point.
    gradient_tol : float
        If ‖∇f(w)‖ is more than ``gradient_tol`` × min(1, `gradient_scale`), w is not stationary, and the
        verdict is "undecided". So the tolerance is relative for problems of small scale and absolute for
        others. It is at least eps ‖H‖‖w‖, a gradient norm that the rounding of w alone can cause.
    curvature : str
        The kind of curvature.
    **options
        The options of `certify_operator`: ``tol``, ``failure``, ``seed``, ``max_products``.

    Returns
    -------
    Certificate
        The verdict and its reasons.

    Raises
    ------
    ValueError
        If a number is out of range, or the gradient at w is not finite.

    Examples
    --------
    >>> from hfnb.problems import quartic_saddle
    >>> certify(quartic_saddle(), np.zeros(2), seed=0).verdict
    'saddle'
    """
    check_methods("objective", objective, ("value_and_gradient", "curvature"), "hfnb.Objective(net, data)")
    check_nonnegative("gradient_tol", gradient_tol)
    loss, g = objective.value_and_gradient(w)
    if not np.isfinite(g).all():
        raise ValueError("w: expected a point with a finite gradient, got NaN or infinity")
    found = certify_operator(objective.curvature(w, curvature), **options)
    gradient_norm, rounding = norm(np.asarray(g)), float(np.finfo(w.dtype).eps) * found.largest * norm(w)
    limit = max(gradient_tol * min(1.0, gradient_scale(found.largest, w, loss)), float(rounding))
    found = replace(found, gradient_norm=gradient_norm, gradient_tolerance=limit)
    if not gradient_norm <= limit:
        exceeded = gradient_tol if gradient_norm > gradient_tol > limit else limit
        reason = f"the gradient norm {gradient_norm:.3g} exceeds {exceeded:.3g}"
        return replace(found, verdict="undecided", reason=reason)
    return found


def gradient_scale(curvature: float, w: np.ndarray, loss: float) -> float:
    """Return an estimate of how large the gradients of a problem are, max(κ‖w‖, √(2κ|f(w)|)).

    Parameters
    ----------
    curvature : float
        κ, the largest curvature at the point.
    w : ndarray, shape (p,)
        The point.
    loss : float
        f(w).

    Returns
    -------
    float
        A gradient norm.

    Notes
    -----
    A quadratic function of curvature κ has a gradient of norm κ‖w‖ at the distance ‖w‖ from its minimum, and
    one of norm √(2κ|f|) at a value of |f| above its minimum. If f is multiplied by a number, or w is measured
    in another unit, both change in the same proportion as the gradient.

    Examples
    --------
    >>> gradient_scale(2.0, np.zeros(3), 4.0)
    4.0
    """
    return float(max(curvature * norm(w), np.sqrt(2 * curvature * abs(loss))))


def products_needed(n: int, gap: float, failure: float) -> int:
    """Return the number of products after which the smallest Ritz value θ has θ − λmin ≤ gap (λmax − λmin).

    Parameters
    ----------
    n : int
        Number of rows of the matrix.
    gap : float
        The relative error that is allowed.
    failure : float
        The probability with which the error may be larger.

    Returns
    -------
    int
        The number of products, for any spectrum: the probability is at most 1.648 √n exp(−√gap (2k − 1))
        after k products from a random start.

    References
    ----------
    Kuczyński & Woźniakowski, "Estimating the largest eigenvalue by the power and Lanczos algorithms with a
    random start", SIAM J. Matrix Anal. Appl. 13 (1992), applied to λmax I − A.

    Examples
    --------
    >>> products_needed(10_000, 0.01, 1e-6)
    96
    """
    return int(min(n, np.ceil((np.log(1.648 * np.sqrt(n) / failure) / np.sqrt(gap) + 1) / 2)))


def needs_certificate(state: State, tol: float) -> bool:
    """Whether the gradient vanishes, or enough steps in a row were rejected that w may be stationary."""
    vanishing = tol * (min(1.0, state.steepest) if state.iteration else 1.0)
    return state.gradient_norm <= vanishing or (tol > 0 and state.rejected >= REJECTIONS)


def certificate_at(objective: ObjectiveLike, state: State) -> Certificate:
    """Return a certificate at w; its random start differs between iterations, but not between engines."""
    H = objective.curvature(state.w, "hessian", state.samples.loss(state.iteration))
    seed = int(np.random.SeedSequence([state.samples.seed, state.iteration]).generate_state(1)[0])
    try:
        return certify_operator(H, seed=seed)
    except NonFiniteProduct as error:
        reason = f"the products with the Hessian are not finite ({error})"
        return Certificate("undecided", reason, np.nan, np.nan, 1.0, 0.0, 0, seed, np.zeros_like(state.w))


def ending_at(state: State, certificate: Certificate, tol: float) -> tuple[Status, str] | None:
    """Return the status and the message with which a certificate ends a run, None if the run goes on.

    The run ends at a point that is not a saddle if its gradient is small on the problem's own scale, or if
    too many steps were rejected. In the second case a minimum is a success if the possible decrease is
    smaller than rounding errors. That decrease, along −g, is at least ‖g‖²/2κ, where κ is the largest
    curvature. The rounding errors are 10 units of rounding of the loss, and the change of the loss when w is
    rounded.
    """
    if certificate.verdict == "saddle":
        return None
    g_norm, w_norm, largest = state.gradient_norm, norm(state.w), certificate.largest
    scale = max(state.steepest, gradient_scale(largest, state.w, state.loss))
    limit, said = tol * min(1.0, scale), f"{certificate.verdict}: {certificate.reason}"
    minimum = certificate.verdict == "minimum"
    if g_norm <= limit:
        how = f"tol = {tol:g}" if limit == tol else f"{limit:.1e} = tol x {scale:.1e}, the scale of gradients"
        message = f"gradient norm {g_norm:.1e} <= {how}; {said}"
        return Status.MINIMUM if minimum else Status.UNDECIDED, message
    if state.rejected < REJECTIONS:
        return None
    eps = float(np.finfo(state.w.dtype).eps)
    fall = g_norm**2 / (2 * largest) if largest else np.inf
    rounding = 10 * eps * (abs(state.loss) + g_norm * w_norm + eps * largest * w_norm**2)
    compared = "at most" if fall <= rounding else "more than"
    message = (
        f"no step lowered the loss in {state.rejected} iterations; with the gradient norm {g_norm:.1e} > "
        f"{limit:.1e} it could fall by {fall:.1e}, {compared} the rounding error {rounding:.1e}; {said}"
    )
    return Status.MINIMUM if minimum and fall <= rounding else Status.NO_PROGRESS, message


def step_off_saddle(
    objective: ObjectiveLike, state: State, certificate: Certificate, at_once: int
) -> tuple[Step, State]:
    """Return a step along the direction that proves a point to be a saddle, and the state.

    ``at_once`` is the number of losses that are evaluated in one reduction.

    A run that starts at a saddle has had no large gradient yet, with which later ones can be compared. The
    gradient after this step s has a norm of about |dᵀHd|‖s‖, which the state returned includes in `steepest`.
    """
    d, sample = certificate.direction, state.samples.loss(state.iteration)
    f = LossAround(objective, state.w, sample, at_once)
    step = negative_curvature_step(f, state.w, d, state.loss, state.g, certificate.eigenvalue)
    met = abs(certificate.eigenvalue) * step.alpha * norm(step.direction)
    return step, replace(state, steepest=max(state.steepest, met))


def gives_up(state: State, tol: float) -> bool:
    """Whether too many steps were rejected; further attempts to leave a saddle need finite values."""
    return state.rejected >= REJECTIONS + (LEAVES if tol > 0 and not state.trouble else 0)


def why_no_progress(state: State) -> str:
    """Return the message of a run that gave up."""
    message = f"no step lowered the loss in {state.rejected} iterations"
    if state.trouble:
        return f"{message}: {state.trouble}"
    if state.rejected > REJECTIONS:
        return f"{message}, not even along the negative curvature of this saddle"
    return message
